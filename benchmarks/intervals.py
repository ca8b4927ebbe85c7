"""Coverage of 95 % intervals by simulation: of the worst group, of rows that come in clusters, of gaps of these.

`python -m benchmarks.intervals` prints the tables of `benchmarks/README.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import click
import numpy as np
from scipy.special import ndtri, stdtrit

from embedx.statistics import Error, Interval, Sample, Stratum, minimum, stratified_sum, wilson
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


def scene(m: int, nested: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Stratum]]:
    """(n,) clusters of unequal sizes, (n,) 1 and -1 at the ends of two classes' rankings, else 0; and the ends.

    nested  share of what ranks a row that is its cluster's
    """
    clusters = np.repeat(np.arange(m), sizes(m, "unequal", rng))
    n, strata = len(clusters), []
    label = rng.permutation(np.arange(n) % 2)
    score = np.sqrt(nested) * rng.standard_normal(m)[clusters] + np.sqrt(1 - nested) * rng.standard_normal(n)
    end = np.zeros(n)
    for c in (0, 1):
        rows = np.flatnonzero(label == c)
        rows, k = rows[np.argsort(score[rows])], max(1, len(rows) // 5)
        for at, sign in ((rows[-k:], 1), (rows[:k], -1)):
            end[at] = sign
            strata.append((at, sign / 2))
    return clusters, end, strata


def gaps(repetitions: int, counts: Sequence[int]) -> Iterator[str]:
    """Lines of the table for gaps between the ends of rankings, what tuning changes of them, and the null of no gap.

    A normal variable of the cluster and one of the row decide whether a row is right; the cluster's is the same at both
    ends, of opposite sign, or half of each. Tuning keeps nine tenths of both.
    """
    yield "| clusters | gap, rows | gap | change | null rejected |"
    yield "|---|---|---|---|---|"
    for m in counts:
        found = []
        for nested, p, (alike, turned) in itertools.product(
            (0.0, 0.5, 1.0), (0.6, 0.9), ((0.0, 0.0), (0.4, 0.0), (0.4, 1.0), (0.9, 0.0), (0.9, 0.5), (0.9, 1.0))
        ):
            rng, each, gap = np.random.default_rng(0), [], 0.2 if p < 0.8 else 0.1
            for _ in range(repetitions):
                clusters, end, strata = scene(m, nested, rng)
                before, tuned = _decides(clusters, end, (alike, turned), rng)
                limits = (ndtri(p + gap / 2 * end), ndtri(p + (gap / 2 - 0.04) * end), np.full(len(end), ndtri(p)))
                hits, after, null = (
                    (x < of).astype(float) for x, of in zip((before, tuned, before), limits, strict=True)
                )
                figures = [
                    (stratified_sum(hits, strata, rng, 200), gap),
                    (stratified_sum(hits, strata, rng, clusters=clusters), gap),
                    (stratified_sum(after - hits, strata, rng, clusters=clusters, changes=True), -0.08),
                ]
                row = [(i.low <= truth <= i.high, i.high - i.low) for i, truth in figures]
                each.append([*row, (_p(null, strata, clusters) <= 0.05, 0.0)])
            found.append(np.mean(each, axis=0))
        table = np.array(found)
        cells = [
            f"{100 * c.min():.1f}, {100 * c.mean():.1f} %; {w.mean():.3f}"
            for c, w in zip(table[:, :3, 0].T, table[:, :3, 1].T, strict=True)
        ]
        rejected = table[:, 3, 0]
        yield f"| {m} | {' | '.join(cells)} | {100 * rejected.max():.1f}, {100 * rejected.mean():.1f} % |"


def _decides(
    clusters: np.ndarray, end: np.ndarray, of: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) each: what decides whether a row is right, before and after tuning."""
    (alike, turned), m, n = of, clusters.max() + 1, len(clusters)

    def one() -> np.ndarray:
        same, opposite = rng.standard_normal((2, m))[:, clusters]
        cluster = np.sqrt(1 - turned) * same + np.sqrt(turned) * end * opposite
        return np.sqrt(alike) * cluster + np.sqrt(1 - alike) * rng.standard_normal(n)

    before = one()
    return before, np.sqrt(0.9) * before + np.sqrt(0.1) * one()


def _p(hits: np.ndarray, strata: Sequence[Stratum], clusters: np.ndarray) -> float:
    """That of no gap, as `measures/clustered.py` has it, of two classes of equal accuracy."""
    w, by_rows = np.zeros(len(hits)), 0.0
    for rows, weight in strata:
        w[rows] = weight / len(rows)
        by_rows += weight**2 * float(hits.var()) / len(rows)
    at = np.flatnonzero(w)
    return Error.of(w[at], (hits - hits.mean())[at], clusters[at], by_rows).p(float(w @ hits))


@click.command()
@click.option("--repetitions", default=2000, show_default=True)
@click.option("--clusters", type=click.Choice(["beta", "two kinds"]), help="Rows in clusters, whose accuracies are so.")
@click.option("--gaps", "of_gaps", is_flag=True, help="Gaps between the ends of rankings, rows in clusters.")
@click.option("--count", multiple=True, type=int, default=COUNTS, show_default=True, help="How many clusters.")
def main(repetitions: int, clusters: str | None, of_gaps: bool, count: Sequence[int]) -> None:
    """Simulate and print."""
    lines = clustered(repetitions, clusters, count) if clusters else worst_groups(repetitions)
    for line in gaps(repetitions, count) if of_gaps else lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
