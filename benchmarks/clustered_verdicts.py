"""How often the verdict is wrong where test rows come in clusters, by simulation: counting rows, and counting clusters.

`python -m benchmarks.clustered_verdicts` prints the table of `benchmarks/README.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import click
import numpy as np
from scipy.special import ndtri

from benchmarks.intervals import sizes
from embedx.evaluation.verdict import ERROR, MARGIN
from embedx.statistics import Pairs, paired_rows

COUNTS = (8, 20, 60, 200)
CASES = {
    "one hard group": ((0.97, 0.93, 0.72, 0.94), (0.22, 0.18, 0.0, 0.2)),
    "all groups tied": ((0.7,) * 4, (0.0,) * 4),
    "another hard group": ((0.97, 0.93, 0.72, 0.94), (0.01, 0.15, 0.05, 0.0)),
}
ALIKE = (0.1, 0.4, 0.8)
"""Share of what decides an answer that rows of a cluster have in common."""
BOTH = (0.5, 0.9)
"""Share of either part, the cluster's and the row's, that the two heads have in common."""


def answers(
    limits: np.ndarray, clusters: np.ndarray, groups: np.ndarray, alike: float, both: float, rng: np.random.Generator
) -> np.ndarray:
    """(2, n) whether two heads are right, limits (2, g): a normal variable of the subject and one of the row decide."""

    def variable(m: int) -> np.ndarray:
        return np.sqrt(both) * rng.standard_normal(m) + np.sqrt(1 - both) * rng.standard_normal((2, m))

    decides = np.sqrt(alike) * variable(clusters.max() + 1)[:, clusters] + np.sqrt(1 - alike) * variable(len(clusters))
    return (decides < limits[:, groups]).astype(float)


def simulate(m: int, case: str, difference: float, repetitions: int) -> np.ndarray:
    """(scenarios, 2, 2) shares of "suffices" and "does not", counting rows and counting clusters."""
    p, above = (np.array(x) for x in CASES[case])
    r, found = np.minimum(p.min() + difference + above, 0.999), []
    for nested, alike, both in itertools.product((False, True), ALIKE, BOTH):
        rng, words = np.random.default_rng(0), np.zeros((2, 2))
        for _ in range(repetitions):
            clusters = np.repeat(np.arange(m), sizes(m, "unequal", rng))
            groups = clusters % 4 if nested else rng.permutation(np.arange(len(clusters)) % 4)
            order = np.argsort(groups, kind="stable")
            clusters, groups = clusters[order], groups[order]
            first, second = answers(ndtri(np.stack([p, r])), clusters, groups, alike, both, rng)
            each = np.bincount(groups, minlength=4)
            for i, worth in enumerate(((), paired_rows(first, second, each, clusters))):
                words[i] += [bool(x) for x in Pairs.of(first, second, each, *worth).refuted(MARGIN, ERROR)]
        found.append(words / repetitions)
    return np.array(found)


@click.command()
@click.option("--repetitions", default=400, show_default=True)
@click.option("--count", multiple=True, type=int, default=COUNTS, show_default=True, help="How many subjects.")
def main(repetitions: int, count: Sequence[int]) -> None:
    """Simulate and print: the largest share of wrong answers over 12 settings, the mean share of right ones."""
    click.echo("| subjects | true accuracies | rows: wrong, suffices | does not | subjects: wrong, suffices | does not "
               "| right at D = 0 | at D = 12 | at D = 25 |")  # fmt: skip
    click.echo("|---|---|---|---|---|---|---|---|---|")
    for m, case in itertools.product(count, CASES):
        edge = simulate(m, case, MARGIN, repetitions).max(axis=0).ravel()
        right = [simulate(m, case, d, repetitions // 4)[:, 1, i].mean() for d, i in ((0.0, 0), (0.12, 1), (0.25, 1))]
        cells = [f"{100 * x:.1f} %" for x in edge] + [f"{100 * x:.0f} %" for x in right]
        click.echo(f"| {m} | {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
