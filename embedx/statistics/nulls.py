"""What a random order of the rows of each class would show: exact distributions, draws of them, p-values.

The rows of a class are ranked; H answers are right among the k highest, L among the k lowest. "Random" means: the rows
in random order, with the answers as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, ndtr

from embedx.statistics.intervals import LEVEL, normal_limit, percentile_limits

REACH = 9.0
"""Standard deviations around the mean beyond which a count has no weight that a double could hold."""
ROUNDING = 1e-12
"""Figures that differ by less are equal."""


@dataclass(frozen=True, eq=False)
class NullDistribution:
    """How a difference of counts, H - L, is distributed: rising values (v,) from - to +, and their chances (v,)."""

    values: np.ndarray
    chances: np.ndarray

    def p_value(self, difference: int) -> float:
        """Chance of a difference at least as far from 0."""
        return min(1.0, float(self.chances[np.abs(self.values) >= abs(difference)].sum()))

    def limits(self, level: float = LEVEL) -> tuple[int, int]:
        """The narrowest symmetric range that holds the difference with probability `level` at least."""
        far = np.abs(self.values)
        order = np.argsort(far, kind="stable")
        reached = np.cumsum(self.chances[order])
        edge = int(far[order][min(int(np.searchsorted(reached, level - ROUNDING)), len(far) - 1)])
        return -edge, edge


@lru_cache(maxsize=1 << 16)
def random_ranking(n: int, right: int, k: int) -> NullDistribution:
    """The exact distribution of H - L for a random order of n rows of which `right` are right; each end has k rows.

        P(H = a, L = b) = C(k, a) C(k, b) C(n - 2k, right - a - b) / C(n, right)

    a bivariate hypergeometric law. Only counts within `REACH` standard deviations of their mean are summed, so large k
    cost little.
    """
    mean, p = k * right / n, right / n
    far = REACH * np.sqrt(k * p * (1 - p)) + REACH
    count = np.arange(max(0, int(mean - far)), min(k, int(mean + far) + 1) + 1)
    a, b = count[:, None], count[None, :]
    rest = right - a - b
    fits = (rest >= 0) & (rest <= n - 2 * k)
    log = _log_choose(k, a) + _log_choose(k, b) + _log_choose(n - 2 * k, np.clip(rest, 0, n - 2 * k))
    joint = np.where(fits, np.exp(log - _log_choose(n, right)), 0.0)
    width = len(count) - 1
    chances = np.bincount((a - b + width).ravel(), weights=joint.ravel(), minlength=2 * width + 1)
    values, kept = np.arange(-width, width + 1), chances > 0
    return NullDistribution(values[kept], chances[kept] / chances.sum())


def _log_choose(n: int, k: np.ndarray | int) -> np.ndarray:
    return gammaln(n + 1) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n + 1, k))


def random_gaps(
    n: np.ndarray, right: np.ndarray, k: np.ndarray, rng: np.random.Generator, replicates: int
) -> tuple[np.ndarray, np.ndarray]:
    """(replicates,) gaps of random rankings: the mean over classes of (H - L) / k, and pooled, sum H - L over sum k.

    n, right, k  (c,) rows of each class, those that are right, those at each end
    Classes that are alike are drawn at once.
    """
    kinds, counts = np.unique(np.stack([n, right, k]), axis=1, return_counts=True)
    mean, pooled = np.zeros(replicates), np.zeros(replicates)
    for size, hits, places, count in zip(*kinds, counts, strict=True):
        null = random_ranking(int(size), int(hits), int(places))
        sums = rng.multinomial(count, null.chances, size=replicates) @ null.values
        mean += sums / (len(k) * places)
        pooled += sums / k.sum()
    return mean, pooled


def random_gap_limits(n: np.ndarray, right: np.ndarray, k: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """95 % range of sum_c weights_c (H_c - L_c) for random rankings, as a normal variable of the exact variance.

    A random order of n rows, h of them right, has variance 2 k h (n - h) / (n (n - 1)).
    """
    edge = float(normal_limit() * np.sqrt(weights**2 @ (2 * k * right * (n - right) / (n * (n - 1)))))
    return -edge, edge


def shuffled_within(sizes: np.ndarray, rng: np.random.Generator, clusters: np.ndarray | None = None) -> np.ndarray:
    """(n,) row numbers, class by class, those of each of the classes of `sizes` (c,) rows in random order.

    clusters  (n,) codes from 0: those of a class are in random order, the rows of one together
    """
    by = rng.random(int(sizes.sum()))
    if clusters is not None:
        by = rng.random(clusters.max() + 1)[clusters]
    return np.argsort(np.repeat(np.arange(len(sizes)), sizes) + by, kind="stable")


def exchanged_within(sizes: np.ndarray, clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) which row's answers take each row's place in a random ranking, where rows come in clusters.

    In each of the classes of `sizes` (c,) rows clusters change places, and of a cluster the rows: those of one that has
    fewer are taken again, and of one with more some are left. So scores stay as alike within clusters as they are,
    and so do answers; what they have to do with each other goes.

    clusters  (n,) codes from 0
    """
    label, n = np.repeat(np.arange(len(sizes)), sizes), len(clusters)
    cells, cell, size = np.unique(label * (clusters.max() + 1) + clusters, return_inverse=True, return_counts=True)
    rows, starts = np.argsort(cell + rng.random(n)), np.cumsum(size) - size
    place = np.empty(n, dtype=np.int64)
    place[rows] = np.arange(n) - starts[cell[rows]]
    other = np.argsort(cells // (clusters.max() + 1) + rng.random(len(cells)))[cell]
    return rows[starts[other] + place % size[other]]


def p_from_draws(value: float, draws: np.ndarray) -> float:
    """Share of the draws (n,) of a null around 0 that lie as far from 0 as the value, which is counted as one of them.

    (1 + m) / (1 + n): never 0 (Phipson and Smyth 2010).
    """
    return float((1 + np.count_nonzero(np.abs(draws) >= abs(value) - ROUNDING)) / (1 + len(draws)))


def normal_p(value: float, spread: float) -> float:
    """Chance that a normal variable around 0 with this standard deviation lies as far out; 1 where it does not vary."""
    return float(2 * ndtr(-abs(value) / spread)) if spread > 0 else 1.0


@dataclass(frozen=True)
class Against:
    """A figure beside its null: median and 95 % range over random rankings, p two-sided."""

    value: float
    null: float
    low: float
    high: float
    p: float


def against(value: float, draws: np.ndarray) -> Against:
    """A figure beside draws (n,) of its null, wherever that lies; those that are not finite are left out.

    p is twice the smaller tail, the figure counted as one of the draws; all is NaN where no draw is finite.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Against(float(value), *[float("nan")] * 4)
    tails = [1 + np.count_nonzero(draws >= value - ROUNDING), 1 + np.count_nonzero(draws <= value + ROUNDING)]
    p = min(1.0, 2 * min(tails) / (1 + len(draws)))
    return Against(float(value), float(np.median(draws)), *percentile_limits(draws), float(p))
