"""Intervals of a proportion, of means of proportions, and of whatever was drawn many times; at 95 % unless told.

`benchmarks/README.md` has coverages by simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval, from n rows: a proportion in 0..1, or a difference or correlation in -1..1.

    value      the figure
    low, high  its interval
    n          rows that it is of
    """

    value: float
    low: float
    high: float
    n: int


def normal_limit(level: float = LEVEL) -> float:
    """z such that a standard normal variable lies in -z..z with probability `level`; 1.96 for 95 %."""
    return float(ndtri((1 + level) / 2))


@lru_cache(maxsize=1 << 14)
def wilson(correct: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for the proportion p = correct / n (Wilson 1927).

        ((p + z^2 / 2n) -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Neither number need be whole. The ends are exactly 0 for none and exactly 1 for all correct, which rounding would
    miss.
    """
    z = normal_limit(level)
    p, shrink = correct / n, 1 + z * z / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = float((centre - half) / shrink), float((centre + half) / shrink)
    return low if correct else 0.0, high if correct < n else 1.0


def proportion(correct: int, n: int) -> Interval:
    """correct / n with Wilson's interval."""
    return Interval(correct / n, *wilson(correct, n), n)


def effective_proportion(value: float, rows: float, n: int) -> Interval:
    """A figure in 0..1 that is worth as much as a proportion of so many `rows`, with Wilson's interval for these.

    Korn and Graubard 1998: the effective sample size takes the place of n. `n` is what the interval says it is from.
    """
    return Interval(value, *wilson(value * rows, rows), n)


def clopper_pearson(correct: np.ndarray, n: np.ndarray, below: float, above: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact limits for proportions correct / n, arrays alike, each limit by itself (Clopper and Pearson 1934).

    A lower limit is above the truth with probability `below` at most, an upper limit below it with `above` at most.
    Neither number need be whole.
    """
    right, wrong = (np.where(k > 0, k, 1) for k in (correct, n - correct))  # where that is 1, the limit is known
    low = np.where(correct > 0, betaincinv(right, n - correct + 1, below), 0.0)
    high = np.where(correct < n, betaincinv(correct + 1, wrong, 1 - above), 1.0)
    return low, high


def mean_proportion(correct: np.ndarray, n: np.ndarray, weights: np.ndarray) -> Interval:
    """v = sum_g w_g p_g of proportions p_g = correct_g / n_g, arrays (g,); the weights sum to 1.

    Limits v -+ sqrt(sum_g w_g^2 (p_g - Wilson limit_g)^2): MOVER, Zou and Donner 2008.
    """
    p = correct / n
    low, high = np.array([wilson(int(c), int(k)) for c, k in zip(correct, n, strict=True)]).T
    value = float(np.clip(weights @ p, 0, 1))  # the weights sum to 1 up to rounding
    below, above = (float(np.sqrt((weights**2) @ (p - limit) ** 2)) for limit in (low, high))
    return Interval(value, max(0.0, value - below), min(1.0, value + above), int(n.sum()))


def sum_of_strata(right: np.ndarray, k: np.ndarray, weights: np.ndarray) -> Interval:
    """v = sum_c weights_c right_c, right answers (c,) of k (c,) rows, with Wilson limits for the rows that it is worth.

    These are v (1 - v) / variance of v (Korn and Graubard 1998), and no more than the rows would be if all classes
    were alike; n is all rows.
    """
    value, share = float(np.clip(weights @ right, 0, 1)), shares_of_strata(right, k)
    variance = float(weights**2 @ (k * share * (1 - share) * k / np.maximum(k - 1, 1)))
    rows = float(1 / (weights**2 @ k))
    if variance > 0 < value < 1:
        rows = min(rows, value * (1 - value) / variance)
    return effective_proportion(value, rows, int(k.sum()))


def shares_of_strata(right: np.ndarray, k: np.ndarray) -> np.ndarray:
    """right / k, and where k is 1, so that a stratum has no variance of its own, the mean of all such strata."""
    share, lone = right / k, k == 1
    if lone.any():
        share[lone] = share[lone].mean()
    return share


def half_width(values: np.ndarray, level: float = LEVEL) -> float:
    """Half of Student's interval of the mean of values (k,): t s / sqrt(k), k - 1 degrees of freedom; 0 for one."""
    k = len(values)
    return float(stdtrit(k - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(k)) if k > 1 else 0.0


def mean_share(values: np.ndarray, level: float = LEVEL, *, clusters: np.ndarray | None = None) -> Interval:
    """Mean m of values (n,) that are shares, each in 0..1, such as of one image each.

    Wilson's limits for the rows that it is worth, m (1 - m) / variance of m (Korn and Graubard 1998), fewer by
    (z / t)^2 with Student's t; the variance of a value as if one more value varied as a proportion does, m (1 - m).
    Student's interval of so few values, skewed as shares near 0 or 1 are, misses on that side.

    clusters  (n,) of any kind, whose the values are. Where several are of one, the sums of the clusters take the place
              of the values, and k = n^2 / sum n_c^2 (Kish 1965) that of n; rows are worth no more than if independent
    """
    n, mean = len(values), float(np.clip(values.mean(), 0, 1))
    most, rows = mean * (1 - mean), float(n)
    if n > 1 and most > 0:
        rows = n * most * n / float(((values - mean) ** 2).sum() + most)
        rows = max(1.0, rows * float(normal_limit(level) / stdtrit(n - 1, (1 + level) / 2)) ** 2)
    if clusters is not None and len(set(clusters.tolist())) < n:
        rows = min(rows, _rows_of_clusters(values - mean, most, clusters, level))
    return effective_proportion(mean, rows, n)


def _rows_of_clusters(residual: np.ndarray, most: float, clusters: np.ndarray, level: float) -> float:
    """The rows that a mean of shares is worth by its clusters, see `mean_share`; 1 for one cluster."""
    codes = np.unique(clusters, return_inverse=True)[1]
    sizes, sums, n = np.bincount(codes), np.bincount(codes, residual), len(residual)
    k = n * n / float(sizes @ sizes)
    if len(sizes) < 2 or most <= 0:
        return k
    variance = float(sums @ sums) / n**2 + most / k**2
    return max(1.0, most / variance * float(normal_limit(level) / stdtrit(k - 1, (1 + level) / 2)) ** 2)


def percentile(values: np.ndarray, share: float, *, nearest: bool = False) -> float:
    """The value below which a share of the values (n,) lie, between two of them; or the nearest of them."""
    return float(np.quantile(values, share, method="nearest" if nearest else "linear"))


def percentile_limits(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentiles between which the middle `level` of the draws (n,) lie."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
