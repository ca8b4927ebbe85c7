"""Bootstrap samples, stratified, without touching rows: what is drawn is how often each value comes.

Where strata are small, m - 1 of m rows are drawn and scaled up (Rao and Wu 1988), as m of m underestimate the variance
by 1 - 1/m.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedx.statistics.intervals import Interval, percentile_limits, shares_of_strata

REPLICATES = 10_000

Stratum = tuple[np.ndarray, float]
"""Rows (m,), and the weight that their mean has."""


def resampled_counts(
    correct: np.ndarray, n: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES
) -> np.ndarray:
    """(replicates, g) correct answers per group in bootstrap samples stratified by group.

    Drawing n_g rows with replacement from a group of which correct_g are right is drawing from Binomial(n_g,
    correct_g / n_g), so no row needs to be touched.
    """
    share = np.divide(correct, n, out=np.zeros(len(n)), where=n > 0)
    return rng.binomial(n, share, size=(replicates, len(n)))


def resampled_sums(
    right: np.ndarray, k: np.ndarray, weights: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES
) -> np.ndarray:
    """(replicates,) sums of weights (c,) x right answers (c,) in bootstrap samples of the k (c,) rows of each class.

    k - 1 of k rows are drawn. Classes that are alike are drawn at once: their sum is binomial.
    """
    kinds, counts = np.unique(np.stack([k, shares_of_strata(right, k), weights]), axis=1, return_counts=True)
    drawn = np.maximum(kinds[0] - 1, 1)
    sums = rng.binomial((drawn * counts).astype(np.int64), kinds[1], size=(replicates, len(counts)))
    return sums @ (kinds[2] * kinds[0] / drawn)


def stratified_sum(
    values: np.ndarray, strata: Sequence[Stratum], rng: np.random.Generator, replicates: int = REPLICATES
) -> Interval:
    """sum over strata of weight x mean of the values (n,) in it, with percentiles of a bootstrap within the strata.

    Weights may be negative. m - 1 of m rows are drawn; a row that is alone in its stratum adds nothing to the variance.
    Rows of equal values are drawn at once, so the cost does not grow with m.
    """
    total, draws = 0.0, np.zeros(replicates)
    for rows, weight in strata:
        levels, counts = np.unique(np.round(values[rows], 9), return_counts=True)
        m, size = len(rows), max(len(rows) - 1, 1)
        total += weight * float(values[rows].mean())
        if m == 1 or len(levels) == 1:
            draws += weight * levels @ counts / m
        else:
            draws += weight / size * (rng.multinomial(size, counts / m, size=replicates) @ levels)
    low, high = percentile_limits(draws)
    return Interval(total, min(low, total), max(high, total), sum(len(rows) for rows, _ in strata))


def resampled_means(hits: np.ndarray, k: np.ndarray, rng: np.random.Generator, replicates: int) -> np.ndarray:
    """(m, replicates) float32: means over classes of the accuracy of m models in bootstrap samples of the same rows.

    hits  (m, n) right or wrong, class by class; k (c,) rows of each class, n in sum, of which k - 1 are drawn
    """
    weights = np.empty((replicates, hits.shape[1]), dtype=np.float32)
    of_row = np.repeat(k, k)
    for size in np.unique(k):
        drawn, classes = max(int(size) - 1, 1), int(np.count_nonzero(k == size))
        times = rng.multinomial(drawn, np.full(size, 1 / size), size=(replicates, classes))
        weights[:, of_row == size] = (times / (drawn * len(k))).reshape(replicates, -1)
    return hits.astype(np.float32) @ weights.T
