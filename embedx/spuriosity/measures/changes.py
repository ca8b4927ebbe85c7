"""What tuning changed, on the same rows before and after: intervals that make use of the pairing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from embedx.evaluation.metrics import LEVEL, Interval, minimum, wilson
from embedx.evaluation.verdict import compare_minima

REPLICATES = 10_000

Stratum = tuple[np.ndarray, float]
"""Rows (m,), and the weight that their mean has."""


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
    """sum over strata of weight x mean correctness, and its change: percentiles of a bootstrap within the strata.

    hits    (trials, n) correctness; before (n,), of the same rows
    strata  rows of each and the weight of their mean, which may be negative

    m - 1 of m rows are drawn (Rao and Wu 1988), as m of m underestimate the variance by 1 - 1/m; a row that is alone
    in its stratum adds nothing to it. Rows of equal values are drawn at once, so the cost does not grow with m.
    """
    mean, rng = hits.mean(axis=0), np.random.default_rng(seed)
    trials = tuple(float(sum(w * h[rows].mean() for rows, w in strata)) for h in hits)
    value = _drawn(mean, strata, rng)
    return Figure(value, None if before is None else _drawn(mean - before, strata, rng), trials)


def _drawn(values: np.ndarray, strata: Sequence[Stratum], rng: np.random.Generator) -> Interval:
    total, draws = 0.0, np.zeros(REPLICATES)
    for rows, weight in strata:
        levels, counts = np.unique(np.round(values[rows], 9), return_counts=True)
        m, size = len(rows), max(len(rows) - 1, 1)
        total += weight * float(values[rows].mean())
        if m == 1 or len(levels) == 1:
            draws += weight * levels @ counts / m
        else:
            draws += weight / size * (rng.multinomial(size, counts / m, size=REPLICATES) @ levels)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(total, float(min(low, total)), float(max(high, total)), sum(len(rows) for rows, _ in strata))


def share(hits: np.ndarray, before: np.ndarray | None, rows: np.ndarray) -> Figure | None:
    """Accuracy on some rows (m,), with Wilson's interval, and its change by the bootstrap; None without rows."""
    if not len(rows):
        return None
    found = weighted(hits, before, [(rows, 1.0)])
    value, n = found.value.value, len(rows)
    return Figure(Interval(value, *wilson(value * n, n), n), found.change, found.trials)


def worst(hits: np.ndarray, before: np.ndarray | None, codes: np.ndarray) -> tuple[Figure, int]:
    """Smallest accuracy over the codes (n,) that occur, exact limits, and whose it is; its change as in `verdict`."""
    order = np.argsort(codes, kind="stable")
    known, sizes = np.unique(codes, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    right = np.add.reduceat(hits[:, order], starts, axis=1, dtype=np.float64)
    value = minimum(right.mean(axis=0), sizes)
    change = None
    if before is not None:
        change, _, _ = compare_minima(before[order], hits.mean(axis=0)[order], sizes)
    lowest = tuple(float(r) for r in (right / sizes).min(axis=1))
    return Figure(value, change, lowest), int(known[(right.mean(axis=0) / sizes).argmin()])


def recovery(scores: np.ndarray, minority: np.ndarray) -> Interval:
    """AUROC: chance that a row of the minority has a lower score than another, ties counted half.

    scores    (n,); minority (n,) bool, both kinds occurring
    The interval is Wilson's for as many rows as the rarer kind has, which is safe: the variance of an AUROC A is at
    most A (1 - A) / that (Birnbaum and Klose 1957), and estimates of it fail near 1. `n` are the rows of the minority.
    """
    m, n = int(minority.sum()), int((~minority).sum())
    area = float((rankdata(-scores)[minority].sum() - m * (m + 1) / 2) / (m * n))
    worth = min(m, n)
    return Interval(area, *wilson(area * worth, worth), m)
