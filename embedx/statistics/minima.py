"""The smallest of several proportions; the difference of two such minima is in `paired_minima`.

A bootstrap of a minimum is biased, the more the closer the groups are: what is here assumes no order of the groups.
`benchmarks/README.md` has coverages by simulation, beside those of the bootstrap.
"""

from __future__ import annotations

import numpy as np

from embedx.statistics.intervals import LEVEL, Interval, clopper_pearson, percentile_limits
from embedx.statistics.resampling import REPLICATES, resampled_counts


def minimum(correct: np.ndarray, n: np.ndarray, level: float = LEVEL, *, rows: np.ndarray | None = None) -> Interval:
    """Smallest of k proportions correct / n, with an interval for the smallest of the true ones; n is of the smallest.

    With Clopper-Pearson limits L(a), U(a) at one-sided error a and t = (1 - level) / 2:

        low = min_g L_g(t)        high = min_g U_g(1 - (1 - t)^(1 / k))

    The truly worst group's own L is above the true minimum with probability t at most; all k upper limits hold at once
    with probability 1 - t (Sidak 1967). So it covers with probability `level` at least, however close the groups are.

    rows  (k,) how many independent rows those of each group are worth, by default n
    """
    t, worth = (1 - level) / 2, n if rows is None else rows
    low, high = clopper_pearson(_worth(correct, n, rows), worth, t, 1 - (1 - t) ** (1 / len(n)))
    return _smallest(correct, n, float(low.min()), float(high.min()))


def bootstrap_minimum(
    correct: np.ndarray,
    n: np.ndarray,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
    *,
    rows: np.ndarray | None = None,
) -> Interval:
    """Smallest of the proportions with the percentiles of the smallest in bootstrap samples stratified by group.

    It misses the truth where groups are about equally hard; it is what the field reports.

    rows  (k,) how many independent rows those of each group are worth, by default n; to the next whole number
    """
    drawn = n if rows is None else np.rint(rows).astype(np.int64)
    right = _worth(correct, n, None if rows is None else drawn)
    draws = resampled_counts(right, drawn, rng, replicates) / drawn
    return _smallest(correct, n, *percentile_limits(draws.min(axis=1)))


def _worth(correct: np.ndarray, n: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Right answers of so many `rows` at the same accuracy: all where all are right, which rounding could miss."""
    return correct if rows is None else np.where(correct == n, rows, correct / n * rows)


def _smallest(correct: np.ndarray, n: np.ndarray, low: float, high: float) -> Interval:
    worst = (correct / n).argmin()
    return Interval(float(correct[worst] / n[worst]), low, high, int(n[worst]))
