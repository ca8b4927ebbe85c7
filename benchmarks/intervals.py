"""Coverage of 95 % intervals by simulation: of the worst group, and of rows that come in clusters.

`python -m benchmarks.intervals` prints the tables of `benchmarks/README.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import click
import numpy as np
from scipy.special import stdtrit

from embedx.statistics import Interval, Sample, minimum, wilson
from embedx.statistics.minima import bootstrap_minimum

CASES = (
    ((0.75,) * 4, 320), ((0.9,) * 4, 100), ((0.75,) * 8, 50), ((0.9,) * 20, 30), ((0.99,) * 4, 20),
    ((0.85, 0.9, 0.9, 0.9), 320), ((0.6, 0.9, 0.9, 0.9), 320),
)  # fmt: skip
KINDS = ("exact", "bootstrap")
COUNTS = (4, 8, 20, 60, 400)
ROWS = 30
"""Rows of a cluster, on average."""
ACCURACIES = (0.5, 0.8, 0.95, 0.99)
ALIKE = (0.0, 0.05, 0.3, 0.8, 1.0)
"""Correlation of two rows of one cluster."""
Z = 1.959964


def worst_groups(repetitions: int) -> Iterator[str]:
    """Lines of the table for the smallest of several accuracies, rows independent."""
    yield "| true accuracies | n per group | exact: coverage, width | bootstrap: coverage, width |"
    yield "|---|---|---|---|"
    for accuracy, n in CASES:
        rng, each, truth = np.random.default_rng(0), np.full(len(accuracy), n), min(accuracy)
        covered: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        widths: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for repetition in range(repetitions):
            correct = rng.binomial(each, accuracy)
            bootstrap = bootstrap_minimum(correct, each, np.random.default_rng(repetition), replicates=1000)
            for kind, interval in (("exact", minimum(correct, each)), ("bootstrap", bootstrap)):
                covered[kind].append(interval.low <= truth <= interval.high)
                widths[kind].append(interval.high - interval.low)
        cells = [f"{100 * np.mean(covered[kind]):.1f} %, {np.mean(widths[kind]):.3f}" for kind in KINDS]
        name = f"{len(accuracy)} x {accuracy[0]}" if len(set(accuracy)) == 1 else ", ".join(map(str, accuracy))
        yield f"| {name} | {n} | {cells[0]} | {cells[1]} |"


def sizes(m: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """(m,) rows of clusters: all the same; log-normal, of which some are 10 times others; or half of all in one."""
    if kind == "unequal":
        drawn = np.exp(rng.normal(size=m))
        return np.maximum(1, np.rint(drawn / drawn.mean() * ROWS)).astype(np.int64)
    each = np.full(m, ROWS if kind == "equal" else ROWS // 2)
    each[0] *= 1 if kind == "equal" else m - 1
    return each


def accuracies(kind: str, p: float, alike: float, m: int, rng: np.random.Generator) -> np.ndarray:
    """(m,) accuracies of clusters with mean p and variance alike x p (1 - p).

    They follow a beta law, or are of two kinds: in some clusters every row is wrong, in the others all have the same.
    """
    if alike == 0:
        return np.full(m, p)
    if alike == 1:
        return (rng.random(m) < p).astype(float)
    if kind == "beta":
        return rng.beta(p * (1 / alike - 1), (1 - p) * (1 / alike - 1), m)
    lost = alike * (1 - p) / (p + alike * (1 - p))
    return np.where(rng.random(m) < lost, 0.0, p / (1 - lost))


def by_rows(sample: Sample) -> Interval:
    """As if rows were independent."""
    return Sample(sample.hits).proportion()


def by_clusters(sample: Sample) -> Interval:
    """Ours."""
    return sample.proportion()


def by_degrees(sample: Sample) -> Interval:
    """Korn and Graubard's with one degree of freedom less than there are clusters; rows where variance is 0."""
    v, variance, m = _linearised(sample)
    n = len(sample.hits)
    worth = min(n, v * (1 - v) / variance * (Z / stdtrit(m - 1, 0.975)) ** 2) if variance > 0 else n
    return Interval(v, *wilson(v * worth, worth), n)


def by_student(sample: Sample) -> Interval:
    """The mean -+ Student's t x the standard error between clusters."""
    v, variance, m = _linearised(sample)
    half = float(stdtrit(m - 1, 0.975) * np.sqrt(variance))
    return Interval(v, v - half, v + half, len(sample.hits))


def _linearised(sample: Sample) -> tuple[float, float, int]:
    assert sample.clusters is not None
    n = np.bincount(sample.clusters)
    v, share = float(sample.hits.mean()), n / n.sum()
    residual = share * (np.bincount(sample.clusters, sample.hits) / n - v)
    return v, float((residual**2 / (1 - share)).sum()), len(n)


METHODS: dict[str, Callable[[Sample], Interval]] = {
    "rows": by_rows, "Student": by_student, "clusters less one": by_degrees, "ours": by_clusters,
}  # fmt: skip


def clustered(repetitions: int, kind: str, counts: Sequence[int]) -> Iterator[str]:
    """Lines of the table for one accuracy whose rows come in clusters, with means over groups and the worst group.

    Four groups of equal accuracy to which rows belong at random, so that a cluster has rows in all; the mean weights
    them 4 : 3 : 2 : 1.
    """
    yield f"| clusters | {' | '.join(METHODS)} | mean over groups | worst group |"
    yield "|---|" + "---|" * (len(METHODS) + 2)
    weights = np.arange(4, 0, -1) / 10
    for m in counts:
        found = []  # (scenarios, figures, (coverage, width))
        for shape, p, alike in itertools.product(("equal", "unequal", "one giant"), ACCURACIES, ALIKE):
            rng, each = np.random.default_rng(0), []
            for _ in range(repetitions):
                clusters = np.repeat(np.arange(m), sizes(m, shape, rng))
                hits = rng.random(len(clusters)) < accuracies(kind, p, alike, m, rng)[clusters]
                sample, groups = Sample(hits, clusters), rng.permutation(np.arange(len(clusters)) % 4)
                intervals = [of(sample) for of in METHODS.values()]
                intervals += [sample.mean_over(groups, weights), sample.minimum_over(groups, 4)]
                each.append([(i.low <= p <= i.high, i.high - i.low) for i in intervals])
            found.append(np.mean(each, axis=0))
        table = np.array(found)
        cells = [
            f"{100 * c.min():.1f}, {100 * c.mean():.1f} %; {w.mean():.3f}"
            for c, w in zip(table[..., 0].T, table[..., 1].T, strict=True)
        ]
        yield f"| {m} | {' | '.join(cells)} |"


@click.command()
@click.option("--repetitions", default=2000, show_default=True)
@click.option("--clusters", type=click.Choice(["beta", "two kinds"]), help="Rows in clusters, whose accuracies are so.")
@click.option("--count", multiple=True, type=int, default=COUNTS, show_default=True, help="How many clusters.")
def main(repetitions: int, clusters: str | None, count: Sequence[int]) -> None:
    """Simulate and print."""
    for line in clustered(repetitions, clusters, count) if clusters else worst_groups(repetitions):
        print(line, flush=True)


if __name__ == "__main__":
    main()
