"""What tuning changed, on the same rows before and after: intervals that make use of the pairing.

Where rows come in clusters, clusters (n,) says whose each is, of any kind, and intervals count these; None: each row is
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedx.statistics import (
    Interval,
    Pairs,
    Stratum,
    codes_of,
    effective_proportion,
    minimum,
    paired_rows,
    rows_of_groups,
    stratified_sum,
)


@dataclass(frozen=True)
class Figure:
    """A figure of a head on test, and what it changed against the head before tuning.

    value   of the mean correctness over trials, with its interval
    change  against before, paired by rows, with its interval; None for the head before
    trials  the figure of every trial by itself
    """

    value: Interval
    change: Interval | None
    trials: tuple[float, ...]


def weighted(
    hits: np.ndarray,
    before: np.ndarray | None,
    strata: Sequence[Stratum],
    clusters: np.ndarray | None = None,
    seed: int = 0,
) -> Figure:
    """sum over strata of weight x mean correctness, and its change, by `stratified_sum`.

    hits    (trials, n) correctness; before (n,), of the same rows
    strata  rows of each and the weight of their mean, which may be negative
    """
    mean, rng = hits.mean(axis=0), np.random.default_rng(seed)
    trials = tuple(float(sum(w * h[rows].mean() for rows, w in strata)) for h in hits)
    value = stratified_sum(mean, strata, rng, clusters=clusters)
    if before is None:
        return Figure(value, None, trials)
    return Figure(value, stratified_sum(mean - before, strata, rng, clusters=clusters, changes=True), trials)


def share(
    hits: np.ndarray, before: np.ndarray | None, rows: np.ndarray, clusters: np.ndarray | None = None
) -> Figure | None:
    """Accuracy on some rows (m,), with Wilson's interval, and its change by the bootstrap; None without rows."""
    if not len(rows):
        return None
    figure = weighted(hits, before, [(rows, 1.0)], clusters)
    if codes_of(clusters, rows) is None:
        figure = replace(figure, value=effective_proportion(figure.value.value, len(rows), len(rows)))
    return figure


def worst(
    hits: np.ndarray, before: np.ndarray | None, codes: np.ndarray, clusters: np.ndarray | None = None
) -> tuple[Figure, int]:
    """Smallest accuracy over the codes (n,) that occur, exact limits, and whose it is; its change by `Pairs`."""
    order = np.argsort(codes, kind="stable")
    names, sizes = np.unique(codes, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    right, mean = np.add.reduceat(hits[:, order], starts, axis=1, dtype=np.float64), hits.mean(axis=0)[order]
    mine = None if codes_of(clusters, order) is None or clusters is None else clusters[order]
    value = minimum(right.mean(axis=0), sizes, rows=None if mine is None else rows_of_groups(mean, sizes, mine))
    change = None
    if before is not None:
        worth = (None, None) if mine is None else paired_rows(before[order], mean, sizes, mine)
        change = Pairs.of(before[order], mean, sizes, *worth).difference()
    lowest = tuple(float(r) for r in (right / sizes).min(axis=1))
    return Figure(value, change, lowest), int(names[(right.mean(axis=0) / sizes).argmin()])
