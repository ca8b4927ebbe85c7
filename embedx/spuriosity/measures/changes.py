"""What tuning changed, on the same rows before and after: intervals that make use of the pairing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedx.statistics import Interval, Pairs, Stratum, effective_proportion, minimum, stratified_sum


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


def weighted(hits: np.ndarray, before: np.ndarray | None, strata: Sequence[Stratum], seed: int = 0) -> Figure:
    """sum over strata of weight x mean correctness, and its change, by `stratified_sum`.

    hits    (trials, n) correctness; before (n,), of the same rows
    strata  rows of each and the weight of their mean, which may be negative
    """
    mean, rng = hits.mean(axis=0), np.random.default_rng(seed)
    trials = tuple(float(sum(w * h[rows].mean() for rows, w in strata)) for h in hits)
    value = stratified_sum(mean, strata, rng)
    return Figure(value, None if before is None else stratified_sum(mean - before, strata, rng), trials)


def share(hits: np.ndarray, before: np.ndarray | None, rows: np.ndarray) -> Figure | None:
    """Accuracy on some rows (m,), with Wilson's interval, and its change by the bootstrap; None without rows."""
    if not len(rows):
        return None
    figure = weighted(hits, before, [(rows, 1.0)])
    value = effective_proportion(figure.value.value, len(rows), len(rows))
    return Figure(value, figure.change, figure.trials)


def worst(hits: np.ndarray, before: np.ndarray | None, codes: np.ndarray) -> tuple[Figure, int]:
    """Smallest accuracy over the codes (n,) that occur, exact limits, and whose it is; its change by `Pairs`."""
    order = np.argsort(codes, kind="stable")
    names, sizes = np.unique(codes, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    right = np.add.reduceat(hits[:, order], starts, axis=1, dtype=np.float64)
    value = minimum(right.mean(axis=0), sizes)
    change = None
    if before is not None:
        change = Pairs.of(before[order], hits.mean(axis=0)[order], sizes).difference()
    lowest = tuple(float(r) for r in (right / sizes).min(axis=1))
    return Figure(value, change, lowest), int(names[(right.mean(axis=0) / sizes).argmin()])
