"""Right and wrong rows that may come in clusters, such as frames of a patient: intervals that hold then too.

Rows of one cluster go together, so that many of them tell little more than a few. A figure v, a weighted mean of the
rows, is worth as much as a proportion of so many independent ones (Korn and Graubard 1998):

    rows = v (1 - v) / V (z / t_f)^2        1 / sum_c W_c^2 <= rows <= 1 / sum_i w_i^2
    V = sum_c (sum_g r_cg / sqrt(1 - s_cg))^2

V  the variance between clusters, linearised: r_cg is the sum of w_i (x_i - mean of stratum g) over the rows of cluster
   c in stratum g, and s_cg the cluster's share of that stratum (Bell and McCaffrey 2002, CR2). A cluster that is alone
   in its stratum is held against the mean of all (Lumley 2010, "adjust")
f  degrees of freedom: over how many clusters the rarer answer is spread, less one. For a_c the weight of the wrong rows
   of cluster c that is (sum a_c)^2 / sum a_c^2 (Kish 1965), for the right ones likewise; the smaller counts
W  the weight of a cluster. Rows are never worth less than if all rows of a cluster were alike, and never more than if
   they were independent. Where nothing tells how alike they are (no answer is wrong, or those of one cluster alone are)
   they count as alike: all right in 4 clusters is 4 of 4, however many rows; one cluster is one row

Degrees of freedom by the number or the sizes of clusters (Satterthwaite) are too many where accuracies are near 1: few
clusters show how much they vary. No method allows for a rare kind of cluster of which the sample has none.
`benchmarks/README.md` has coverages by simulation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

from embedx.statistics.intervals import (
    LEVEL,
    Interval,
    effective_proportion,
    mean_proportion,
    normal_limit,
    proportion,
)
from embedx.statistics.linearised import Clustered, spread
from embedx.statistics.minima import bootstrap_minimum, minimum


@dataclass(frozen=True, eq=False)
class Sample:
    """Which of n rows are right, and of which clusters they are.

    hits      (n,) bool
    clusters  (n,) codes, of any kind; None: each row is its own cluster, and intervals are those of independent rows
    """

    hits: np.ndarray
    clusters: np.ndarray | None = None

    @cached_property
    def independent(self) -> bool:
        """Whether no cluster has a second row."""
        return self.clusters is None or len(np.unique(self.clusters)) == len(self.clusters)

    def take(self, rows: np.ndarray) -> Sample:
        """Some of the rows, by numbers or by a mask (n,)."""
        return Sample(self.hits[rows], None if self.independent or self.clusters is None else self.clusters[rows])

    def rows(self, weights: np.ndarray | None = None, strata: np.ndarray | None = None) -> float:
        """How many independent rows the weighted mean is worth; see `effective_rows`."""
        w = np.full(len(self.hits), 1 / len(self.hits)) if weights is None else weights
        clusters = np.arange(len(w)) if self.clusters is None else self.clusters
        return effective_rows(self.hits, w, clusters, strata)

    def proportion(self) -> Interval:
        """The share of right rows, with Wilson's interval for the rows that it is worth."""
        right, n = int(np.count_nonzero(self.hits)), len(self.hits)
        return proportion(right, n) if self.independent else effective_proportion(right / n, self.rows(), n)

    def mean_over(self, groups: np.ndarray, weights: np.ndarray) -> Interval:
        """sum_g weights_g p_g over groups (n,), codes of the weights (g,), which sum to 1; no group is empty.

        Independent rows by `mean_proportion`, else Wilson's interval for the rows that the mean is worth.
        """
        correct, n = self._counts(groups, len(weights))
        if self.independent:
            return mean_proportion(correct, n, weights)
        value = float(np.clip(weights @ (correct / n), 0, 1))
        return effective_proportion(value, self.rows((weights / n)[groups], groups), len(groups))

    def minimum_over(self, groups: np.ndarray, count: int) -> Interval:
        """Smallest share of right rows of `count` groups (n,), none empty, with exact limits: `minimum`."""
        return minimum(*self._counts(groups, count), rows=self._rows_of(groups, count))

    def bootstrap_minimum(self, groups: np.ndarray, count: int, rng: np.random.Generator) -> Interval:
        """The same with percentiles of a bootstrap, which is what the field reports: `bootstrap_minimum`."""
        return bootstrap_minimum(*self._counts(groups, count), rng, rows=self._rows_of(groups, count))

    def _counts(self, groups: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Right rows and rows of every group."""
        return np.bincount(groups[self.hits], minlength=count), np.bincount(groups, minlength=count)

    def _rows_of(self, groups: np.ndarray, count: int) -> np.ndarray | None:
        """(count,) what the rows of each group are worth; None where they are independent."""
        if self.independent:
            return None
        return np.array([self.take(groups == g).rows() for g in range(count)])


def effective_rows(
    values: np.ndarray, weights: np.ndarray, clusters: np.ndarray, strata: np.ndarray | None = None
) -> float:
    """How many independent rows the mean sum_i w_i x_i is worth as a proportion: the formula of this module.

    values   (n,) x in 0..1; weights (n,) w of at least 0, which sum to 1
    clusters (n,) of any kind; strata (n,) codes of what has a fixed share of the weight, such as groups; None: one
    """
    used = weights > 0
    x, w = np.asarray(values, dtype=float)[used], weights[used]
    _, cluster = np.unique(clusters[used], return_inverse=True)
    stratum = np.zeros(len(x), dtype=np.int64) if strata is None else strata[used]
    of_cluster = np.bincount(cluster, w)
    least, most = 1 / float(of_cluster @ of_cluster), 1 / float(w @ w)
    freedom = min(spread(np.bincount(cluster, w * part)) for part in (x, 1 - x)) - 1
    value = float(w @ x)
    return _worth(value * (1 - value), _variance(x, w, cluster, stratum), freedom, (least, most))


def rows_of_groups(hits: np.ndarray, sizes: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(g,) how many independent rows those of each group are worth for its accuracy; 0 of none.

    hits (n,) correctness in 0..1, clusters (n,) of any kind, in the order of groups of sizes (g,) rows
    """
    worth, ends = np.zeros(len(sizes)), np.cumsum(sizes)
    for g in np.flatnonzero(sizes):
        rows = slice(ends[g] - sizes[g], ends[g])
        worth[g] = effective_rows(hits[rows], np.full(sizes[g], 1 / sizes[g]), clusters[rows])
    return worth


def paired_rows(
    first: np.ndarray, second: np.ndarray, sizes: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(..., g) each, how many independent rows those of a group are worth for the accuracies and for their difference.

    The first is the lesser of what the means of the two heads are worth; the second that of the mean of d, where the
    variance of a row, mean d^2 - (mean d)^2, takes the place of v (1 - v), and clusters with any difference count.

    first (n,), second (..., n)  correctness in 0..1 of a head and of others, in the order of groups
    sizes (g,), clusters (n,)    rows of each group; whose they are
    """
    cases = second.reshape(-1, second.shape[-1])
    alone, ends = rows_of_groups(first, sizes, clusters), np.cumsum(sizes)
    each = np.array([np.minimum(alone, rows_of_groups(other, sizes, clusters)) for other in cases])
    difference = np.zeros(each.shape)
    for i, g in itertools.product(range(len(cases)), np.flatnonzero(sizes)):
        rows = slice(ends[g] - sizes[g], ends[g])
        w, one = np.full(sizes[g], 1 / sizes[g]), np.zeros(sizes[g], dtype=np.int64)
        difference[i, g] = difference_rows(cases[i, rows] - first[rows], w, clusters[rows], one)
    shape = (*second.shape[:-1], len(sizes))
    return each.reshape(shape), difference.reshape(shape)


def difference_rows(d: np.ndarray, weights: np.ndarray, clusters: np.ndarray, strata: np.ndarray) -> float:
    """How many independent rows the mean of differences d (n,) in -1..1 is worth; see `paired_rows`.

    weights, clusters, strata  as `effective_rows` takes them
    """
    cluster = np.unique(clusters, return_inverse=True)[1]
    of_cluster = np.bincount(cluster, weights)
    bounds = 1 / float(of_cluster @ of_cluster), 1 / float(weights @ weights)
    square = float(weights @ d**2 - (weights @ d) ** 2)
    degrees = spread(np.bincount(cluster, weights * np.abs(d))) - 1 if square > 1e-12 else 0.0  # all differ alike
    return _worth(square, _variance(d, weights, cluster, strata), degrees, bounds)


def _worth(square: float, variance: float, freedom: float, bounds: tuple[float, float]) -> float:
    """Rows of which the mean would have such a variance if one has that of `square`, for Student's t, within bounds."""
    least, most = bounds
    if freedom <= 0:
        return least
    shrunk = square * (normal_limit() / float(stdtrit(freedom, (1 + LEVEL) / 2))) ** 2
    return max(least, shrunk / variance) if variance * most > shrunk else most


def _variance(x: np.ndarray, w: np.ndarray, cluster: np.ndarray, stratum: np.ndarray) -> float:
    """V, the variance of the mean between clusters."""
    sums = Clustered.of(w, cluster, stratum).totals(x[None])[0]
    return float(sums @ sums)
