"""The gap of rows that come in clusters, such as frames of patients: intervals and p-values that count these.

ends     each is a mean that is worth a number of independent rows (`statistics.clusters`), put together with the
         correlation of what clusters add to the two where that is negative (`statistics.strata`)
null     a random ranking gives a gap around 0 whose error is that between clusters, each class with one accuracy:
         no smaller than that of a random order of the rows, and no larger than if rows of a cluster were all alike
         (`statistics.linearised.Error`). p by Student's t with the degrees of freedom of that error. Rows are not
         put in random order: within four patients that would call four random patients' difference a cue
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.statistics import (
    Error,
    Interval,
    Stratum,
    correlation,
    difference,
    effective_rows,
    end_of_clusters,
    percentile_limits,
    spearman_weights,
    stratified_draws,
)


@dataclass(frozen=True, eq=False)
class ClusteredGap:
    """sum_c weights_c (H_c - L_c) of the first model, H and L right answers among the k (c,) rows at either end.

    clusters  (n,) of `order`; a class of weight 0 counts for nothing
    """

    order: RankedRows
    clusters: np.ndarray
    k: np.ndarray
    weights: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """(n,) 0 or 1."""
        return self.order.hits[0].astype(float)

    def strata(self, *, most: bool) -> list[Stratum]:
        """One end of every class, with what its accuracy counts."""
        every = zip(self.order.labels, self.k, self.weights, strict=True)
        return [(self.order.end(int(label), int(m), most=most), float(w * m)) for label, m, w in every if w > 0]

    def ends(self) -> tuple[Interval, Interval, Interval]:
        """The accuracy on the most and on the least spurious rows, and the gap."""
        up, down = (self.strata(most=most) for most in (True, False))
        high, low = (end_of_clusters(self.hits, of, self.clusters) for of in (up, down))
        return high, low, difference(high, low, correlation=correlation(self.hits, up, down, self.clusters))

    def drawn(self, rng: np.random.Generator, replicates: int) -> tuple[float, float]:
        """The 95 % range of the gap in draws of clusters."""
        up, down = self.strata(most=True), [(rows, -w) for rows, w in self.strata(most=False)]
        draws = stratified_draws(self.hits[None], [*up, *down], rng, replicates, self.clusters)
        low, high = percentile_limits(draws[0])
        return max(-1.0, low), min(1.0, high)

    def null(self) -> Error:
        """Of the gap of a random ranking."""
        sizes, right = self.order.sizes, self.order.totals[0]
        w = np.zeros(len(self.clusters))
        for sign in (True, False):
            for rows, weight in self.strata(most=sign):
                w[rows] = (1 if sign else -1) * weight / len(rows)
        at = np.flatnonzero(w)
        residual = self.hits - np.repeat(right / sizes, sizes)
        by_rows = float((self.weights**2 * (2 * self.k * right * (sizes - right) / (sizes * (sizes - 1)))).sum())
        return Error.of(w[at], residual[at], self.clusters[at], by_rows)


def gap_error(hits: np.ndarray, high: np.ndarray, low: np.ndarray, clusters: np.ndarray) -> Error:
    """Of the gap between two ends of one class, row numbers (k,) each, under a random ranking.

    hits, clusters  (n,) rows of the class: 0 or 1, and codes from 0
    """
    n, k, right = len(hits), len(high), float(hits.sum())
    at, w = np.concatenate([high, low]), np.repeat([1 / k, -1 / k], k)
    by_rows = 2 * right * (n - right) / (k * n * (n - 1))
    return Error.of(w, hits[at] - right / n, clusters[at], by_rows)


def trend_error(order: RankedRows, clusters: np.ndarray, classes: np.ndarray) -> Error:
    """Of the mean over some classes (c,) bool of rank correlations with correctness, under a random ranking."""
    of, sizes = np.repeat(classes, order.sizes), order.sizes
    w = spearman_weights(order.scores, order.hits[0], sizes)[of] / np.count_nonzero(classes)
    residual = (order.hits[0] - np.repeat(order.totals[0] / sizes, sizes))[of]
    by_rows = float((1 / (sizes[classes] - 1)).sum()) / np.count_nonzero(classes) ** 2
    return Error.of(w, residual, clusters[of], by_rows)


def rows_by_position(order: RankedRows, clusters: np.ndarray, bins: int) -> list[float]:
    """How many independent rows the accuracy is worth in each part of the ranking, means over classes."""
    sizes = np.repeat(order.sizes, order.sizes)
    first = (np.arange(len(sizes)) - np.repeat(order.starts, order.sizes)) / sizes
    worth, stratum = [], np.repeat(np.arange(len(order.sizes)), order.sizes)
    for b in range(bins):
        inside = np.clip(np.minimum(first + 1 / sizes, (b + 1) / bins) - np.maximum(first, b / bins), 0, None)
        w = inside * bins / len(order.sizes)
        worth.append(effective_rows(order.hits[0], w, clusters, stratum))
    return worth
