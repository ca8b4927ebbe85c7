"""How often the verdict is wrong and how often it decides, by simulation, beside the percentile bootstrap.

`python -m benchmarks.verdict` prints the table of `benchmarks/README.md`.
"""

from __future__ import annotations

import itertools

import click
import numpy as np

from embedx.evaluation.verdict import ERROR, MARGIN
from embedx.statistics import Pairs, percentile_limits

SIZES = {
    "Waterbirds": (2255, 2255, 642, 642),
    "CelebA": (9767, 7535, 2480, 180),
    "small": (200, 200, 50, 50),
    "tiny": (40, 40, 40, 40, 20, 20, 20, 20),
}
CASES = (  # accuracies of the plain head, and by how much the rival's lie above its own worst group
    ("one hard group, the same for both", (0.97, 0.93, 0.72, 0.94), (0.22, 0.18, 0.0, 0.2)),
    ("one hard group, another for the rival", (0.97, 0.93, 0.72, 0.94), (0.01, 0.15, 0.05, 0.0)),
    ("all groups tied for both", (0.9,) * 4, (0.0,) * 4),
    ("all groups tied for the rival", (0.99, 0.95, 0.7, 0.9), (0.0,) * 4),
    ("two groups tied for the plain head", (0.98, 0.85, 0.85, 0.97), (0.1, 0.0, 0.03, 0.1)),
    ("near the ceiling", (0.98, 0.97, 0.93, 0.98), (0.005, 0.005, 0.0, 0.005)),
)
CORRELATIONS = (0.3, 0.6, 0.9)
DIFFERENCES = (0.0, MARGIN, 0.06, 0.12)


def joint(p: np.ndarray, r: np.ndarray, correlation: float) -> np.ndarray:
    """(g, 4) chances of both right, plain only, rival only, neither; as correlated as asked, or as is possible."""
    both = p * r + correlation * np.sqrt(p * (1 - p) * r * (1 - r))
    both = np.clip(both, np.maximum(p + r - 1, 0), np.minimum(p, r))
    return np.stack([both, p - both, r - both, 1 - p - r + both], axis=1)


def pairs(cells: np.ndarray) -> Pairs:
    """(g, 4) counts as what the verdict is computed from."""
    n = cells.sum(axis=1).astype(float)
    both, plain, rival, _ = cells.T / n
    return Pairs(n, both + plain, both + rival, rival, plain, rival + plain)


def bootstrap(cells: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, replicates: int) -> tuple[float, float]:
    """One-sided 5 % limits of the difference of minima in paired resamples, stratified by group."""
    drawn = np.stack([rng.multinomial(n, c / n, size=replicates) for c, n in zip(cells, sizes, strict=True)], axis=1)
    a, b = (drawn[..., 0] + drawn[..., 1]) / sizes, (drawn[..., 0] + drawn[..., 2]) / sizes
    return percentile_limits(b.min(axis=1) - a.min(axis=1), 1 - 2 * ERROR)


def simulate(
    plain: np.ndarray, rival: np.ndarray, sizes: np.ndarray, correlation: float, repetitions: int, replicates: int
) -> np.ndarray:
    """Shares of "suffices", "does not suffice", covered by the interval; then the first two of the bootstrap."""
    rng, counts = np.random.default_rng(0), np.zeros(5)
    chances, truth = joint(plain, rival, correlation), rival.min() - plain.min()
    for _ in range(repetitions):
        cells = np.stack([rng.multinomial(n, c) for n, c in zip(sizes, chances, strict=True)])
        found = pairs(cells)
        suffices, short = found.p_values(MARGIN)
        covered = min(found.p_values(truth)) > ERROR / 2  # the interval holds what is not refuted
        low, high = bootstrap(cells, sizes, rng, replicates)
        counts += (suffices <= ERROR, short <= ERROR, covered, high < MARGIN, low > MARGIN)
    return counts / repetitions


@click.command()
@click.option("--groups", multiple=True, type=click.Choice([*SIZES]), help="Sizes of the groups; default: all.")
@click.option("--repetitions", default=1000, show_default=True)
@click.option("--replicates", default=300, show_default=True, help="Of the bootstrap.")
def main(groups: tuple[str, ...], repetitions: int, replicates: int) -> None:
    """Simulate and print: one line per dataset and pattern, the worst and the mean over correlations."""
    print("| groups | true accuracies | wrong: suffices | wrong: does not | bootstrap wrong: the same two "
          "| D covered | right at D = 0 | at D = 6 | at D = 12 |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    worst, scenarios = np.zeros(4), 0
    for name in groups or SIZES:
        sizes = SIZES[name]
        for case, plain, above in CASES:
            wrong, covered = np.zeros(4), 1.0
            right: dict[float, list[float]] = {difference: [] for difference in DIFFERENCES}
            for correlation, difference in itertools.product(CORRELATIONS, DIFFERENCES):
                p, repeat = np.tile(plain, len(sizes) // 4), len(sizes) // 4
                r = np.tile(above, repeat) + p.min() + difference
                if r.max() > 1:
                    continue
                scenarios += 1
                found = simulate(p, r, np.array(sizes), correlation, repetitions, replicates)
                errors = found[[0, 1, 3, 4]]
                # At the margin itself neither answer may be given often; beyond it only the one that is right.
                errors[[0, 2]] *= difference >= MARGIN
                errors[[1, 3]] *= difference <= MARGIN
                wrong, covered = np.maximum(wrong, errors), min(covered, found[2])
                right[difference].append(found[0] if difference < MARGIN else found[1])
            worst = np.maximum(worst, wrong)
            shown = [f"{100 * np.mean(right[d]):.0f} %" if right[d] else "–" for d in DIFFERENCES if d != MARGIN]
            e = [f"{100 * x:.1f} %" for x in wrong]
            cells = [name, case, e[0], e[1], f"{e[2]}, {e[3]}", f"{100 * covered:.1f} %", *shown]
            print(f"| {' | '.join(cells)} |", flush=True)
    said = [f"{100 * x:.1f} %" for x in worst]
    print(f"\nOver all {scenarios} scenarios, wrong at most: suffices {said[0]}, does not suffice {said[1]}; "
          f"bootstrap {said[2]} and {said[3]}.")  # fmt: skip


if __name__ == "__main__":
    main()
