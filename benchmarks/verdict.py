"""How often the verdict is wrong and how often it decides, by simulation, beside the percentile bootstrap.

`python -m benchmarks.verdict` prints the tables of `benchmarks/README.md`: one rival in all patterns, one rival in
settings drawn at random where the truth is the margin, and several rivals.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import click
import numpy as np
from scipy.special import ndtri

from embedx.evaluation.verdict import ERROR, MARGIN
from embedx.statistics import Pairs, best_of, percentile_limits

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
RIVALS = (1, 4, 8)


def joint(p: np.ndarray, r: np.ndarray, correlation: float) -> np.ndarray:
    """(g, 4) chances of both right, plain only, rival only, neither; as correlated as asked, or as is possible."""
    both = p * r + correlation * np.sqrt(p * (1 - p) * r * (1 - r))
    both = np.clip(both, np.maximum(p + r - 1, 0), np.minimum(p, r))
    return np.stack([both, p - both, r - both, 1 - p - r + both], axis=1)


def draw(
    plain: np.ndarray, rival: np.ndarray, sizes: Sequence[int], correlation: float, repetitions: int
) -> np.ndarray:
    """(repetitions, g, 4) counts of test sets of which that is the truth."""
    rng, chances = np.random.default_rng(0), joint(plain, rival, correlation)
    return np.stack([rng.multinomial(n, c, repetitions) for n, c in zip(sizes, chances, strict=True)], axis=1)


def pairs(cells: np.ndarray) -> Pairs:
    """(..., g, 4) counts as what the verdict is computed from."""
    n = cells.sum(axis=-1).astype(float)
    both, plain, rival, _ = np.moveaxis(cells / n[..., None], -1, 0)
    return Pairs(n, both + plain, both + rival, rival, plain, rival + plain)


def bootstrap(cells: np.ndarray, replicates: int) -> np.ndarray:
    """(repetitions, 2) one-sided 5 % limits of the difference of minima in paired resamples, stratified by group."""
    rng, n = np.random.default_rng(1), cells[0].sum(axis=-1)
    drawn = rng.multinomial(n, cells / n[:, None], size=(replicates, *cells.shape[:2]))
    a, b = (drawn[..., 0] + drawn[..., 1]) / n, (drawn[..., 0] + drawn[..., 2]) / n
    return np.array([percentile_limits(x, 1 - 2 * ERROR) for x in (b.min(axis=-1) - a.min(axis=-1)).T])


def simulate(
    plain: np.ndarray, rival: np.ndarray, sizes: Sequence[int], correlation: float, repetitions: int, replicates: int
) -> np.ndarray:
    """Shares of "suffices", "does not suffice", covered by the interval; then the first two of the bootstrap.

    The bootstrap is of the first tenth of the test sets.
    """
    cells = draw(plain, rival, sizes, correlation, repetitions)
    found, truth = pairs(cells), float(rival.min() - plain.min())
    words, outside = found.refuted(MARGIN, ERROR), found.refuted(truth, ERROR / 2)
    low, high = bootstrap(cells[: max(1, repetitions // 10)], replicates).T
    return np.array([*(x.mean() for x in words), 1 - (outside[0] | outside[1]).mean(),
                     (high < MARGIN).mean(), (low > MARGIN).mean()])  # fmt: skip


def several(count: int, better: int, difference: float, repetitions: int) -> np.ndarray:
    """Shares of "suffices" and of "does not" against so many rivals, of which some are better by a difference.

    Test sets of Waterbirds' sizes; the answers of all heads to a row correlate, through a normal variable that each
    takes three quarters of, and the rivals' among themselves more, through a second one.
    """
    rng, sizes, words = np.random.default_rng(0), np.array(SIZES["Waterbirds"]), np.zeros(2)
    plain = np.array(CASES[0][1])
    gains = np.where(np.arange(count) < better, difference, 0.0)
    limits = ndtri(np.stack([plain, *(np.minimum(plain + gain, 0.99) for gain in gains)]))
    at = np.repeat(limits, sizes, axis=1)
    for _ in range(repetitions):
        shared, among, own = (rng.standard_normal((m, sizes.sum())) for m in (1, 1, count + 1))
        rest = np.vstack([own[:1], np.sqrt(0.6) * among + np.sqrt(0.4) * own[1:]])
        right = (np.sqrt(0.75) * shared + np.sqrt(0.25) * rest < at).astype(float)
        p_values = best_of(*Pairs.of(right[0], right[1:], sizes).p_values(MARGIN))
        words += np.array(p_values) <= ERROR
    return words / repetitions


def at_random(settings: int, repetitions: int) -> np.ndarray:
    """(settings, 2) shares of "suffices" and "does not", both wrong, in settings of all kinds whose D is the margin.

    2 to 12 groups of 20 to 2,255 rows; a worst group that the heads share or not, ties, and other groups at distances
    that are just large enough to be told, where the first step of the test could err.
    """
    rng, shares = np.random.default_rng(0), list[tuple[float, float]]()
    while len(shares) < settings:
        k = int(rng.choice([2, 3, 4, 6, 8, 12]))
        sizes = rng.choice([20, 30, 50, 80, 180, 400, 642, 2255], size=k)
        worst, least = rng.choice([0.3, 0.5, 0.7, 0.85, 0.93]), rng.choice([0.0, 0.02])
        plain, rival = (least + rng.choice([0.0, 0.02, 0.1, 0.3]) * rng.random(k) for _ in range(2))
        plain[0], rival[rng.choice([0, k - 1])] = 0, 0
        plain, rival = np.minimum(worst + plain, 1.0), np.minimum(worst + MARGIN + rival, 1.0)
        found = pairs(draw(plain, rival, sizes.tolist(), rng.choice([0.0, 0.3, 0.6, 0.9, 0.99]), repetitions))
        shares.append(tuple(x.mean() for x in found.refuted(MARGIN, ERROR)))
    return np.array(shares)


@click.command()
@click.option("--groups", multiple=True, type=click.Choice([*SIZES]), help="Sizes of the groups; default: all.")
@click.option("--repetitions", default=4000, show_default=True)
@click.option("--replicates", default=300, show_default=True, help="Of the bootstrap.")
@click.option("--settings", default=300, show_default=True, help="Drawn at random; 0: neither these nor rivals.")
def main(groups: tuple[str, ...], repetitions: int, replicates: int, settings: int) -> None:
    """Simulate and print: one line per dataset and pattern, the worst and the mean over correlations."""
    click.echo("| groups | true accuracies | wrong: suffices | wrong: does not | bootstrap wrong: the same two "
               "| D covered | right at D = 0 | at D = 6 | at D = 12 |")  # fmt: skip
    click.echo("|---|---|---|---|---|---|---|---|---|")
    worst, scenarios = np.zeros(4), 0
    for name, (case, plain, above) in itertools.product(groups or SIZES, CASES):
        sizes, wrong, covered = SIZES[name], np.zeros(4), 1.0
        right: dict[float, list[float]] = {difference: [] for difference in DIFFERENCES}
        for correlation, difference in itertools.product(CORRELATIONS, DIFFERENCES):
            p, repeat = np.tile(plain, len(sizes) // 4), len(sizes) // 4
            r = np.tile(above, repeat) + p.min() + difference
            if r.max() > 1:
                continue
            scenarios += 1
            found = simulate(p, r, sizes, correlation, repetitions, replicates)
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
        click.echo(f"| {' | '.join(cells)} |")
    said = [f"{100 * x:.1f} %" for x in worst]
    click.echo(f"\nOver all {scenarios} scenarios, wrong at most: suffices {said[0]}, does not suffice {said[1]}; "
               f"bootstrap {said[2]} and {said[3]}.")  # fmt: skip
    if settings:
        _further(settings, repetitions)


def _further(settings: int, repetitions: int) -> None:
    """Settings drawn at random, and several rivals."""
    shares = at_random(settings, repetitions)
    said = [f"{100 * x:.1f} % at most, {100 * y:.1f} % on average" for x, y in zip(
        shares.max(axis=0), shares.mean(axis=0), strict=True)]  # fmt: skip
    click.echo(f"\nIn {settings} settings drawn at random whose D is the margin, wrong: suffices {said[0]}; "
               f"does not suffice {said[1]}.")  # fmt: skip
    click.echo(
        "\n| rivals | suffices: none gains | does not: all gain 6 points | one does | wrong: all gain the margin |"
    )
    click.echo("|---|---|---|---|---|")
    few = max(1, repetitions // 10)
    for count in RIVALS:
        none, every, one = (several(count, n, 0.06, few) for n in (0, count, 1))
        edge = several(count, count, MARGIN, few)
        shown = (none[0], every[1], one[1], edge[0], edge[1])
        a, b, c, d, e = (f"{100 * x:.0f} %" for x in shown)
        click.echo(f"| {count} | {a} | {b} | {c} | {d}, {e} |")


if __name__ == "__main__":
    main()
