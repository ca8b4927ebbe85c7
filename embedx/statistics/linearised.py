"""Sums over rows that come in clusters: what each cluster adds to one, and how far the sum varies between clusters.

    v = sum_i w_i x_i        r_c = sum over strata g of sum_{i in c and g} w_i (x_i - mean of g) / sqrt(1 - s_cg)
    V = sum_c r_c^2

s_cg is the cluster's share of the stratum's weight (Bell and McCaffrey 2002, CR2). A cluster may lie in several strata:
classes, or the two ends of a ranking, whose weights have opposite signs. One that is alone in its stratum is held
against the mean of all rows (Lumley 2010, "adjust"), as it has no variance of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from embedx.statistics.intervals import LEVEL, normal_limit


def spread(a: np.ndarray) -> float:
    """Over how many clusters a weight a (m,) is spread: (sum a)^2 / sum a^2 (Kish 1965); 0 for none."""
    square = float(a @ a)
    return float(a.sum()) ** 2 / square if square > 0 else 0.0


def codes_of(clusters: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """(m,) clusters of some rows as codes from 0; None where no cluster has two of the rows, which are independent."""
    if clusters is None:
        return None
    names, codes = np.unique(clusters[rows], return_inverse=True)
    return codes if len(names) < len(codes) else None


@dataclass(frozen=True, eq=False)
class Clustered:
    """Rows with the weights of a sum, by stratum and cluster.

    w        (n,) weights, of one sign in each stratum
    cluster  (n,) codes below `count`; stratum (n,) codes from 0
    """

    w: np.ndarray
    cluster: np.ndarray
    stratum: np.ndarray
    count: int

    @classmethod
    def of(cls, w: np.ndarray, cluster: np.ndarray, stratum: np.ndarray) -> Clustered:
        """As many clusters as the codes say."""
        return cls(w, cluster, stratum, int(cluster.max()) + 1)

    def totals(self, values: np.ndarray) -> np.ndarray:
        """(m, count) r of the module, of values (m, n)."""
        cells, cell = np.unique(self.stratum * self.count + self.cluster, return_inverse=True)
        stratum_of = cells // self.count
        share = np.where(self._lone[stratum_of], 0.0, np.bincount(cell, self.w) / self._total[stratum_of])
        w = self.w / np.sqrt(1 - share)[cell]
        return np.stack([np.bincount(self.cluster, w * self.residuals(x), self.count) for x in values])

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """(n,) what each row is above the mean of its stratum, or of all rows where its cluster is alone there."""
        total, size = self._total, np.abs(self.w)
        mean = np.divide(np.bincount(self.stratum, self.w * x), total, out=np.zeros(len(total)), where=total != 0)
        return x - np.where(self._lone, float(size @ x) / float(size.sum()), mean)[self.stratum]

    @property
    def _total(self) -> np.ndarray:
        return np.bincount(self.stratum, self.w)

    @property
    def _lone(self) -> np.ndarray:
        """(strata,) whether a stratum has one cluster."""
        cells = np.unique(self.stratum * self.count + self.cluster)
        return np.bincount(cells // self.count, minlength=int(self.stratum.max()) + 1) == 1


def freedom(size: np.ndarray, residual: np.ndarray, cluster: np.ndarray) -> float:
    """Degrees of freedom: over how many clusters that is spread which lies above 0 or that which lies below, less one.

    Whichever is less. Of right and wrong rows these are the right and the wrong ones: where accuracies are near 1, few
    clusters show how much they vary.

    size (n,) weights of 0 or more; residual (n,), cluster (n,) codes
    """
    return min(spread(np.bincount(cluster, size * np.maximum(sign * residual, 0))) for sign in (1, -1)) - 1


@dataclass(frozen=True)
class Error:
    """Standard error of a figure that is 0 under a null, and its degrees of freedom, infinite for a normal variable.

    Rows are never worth more than if they were independent, variance V_0, and never less than if those of a cluster
    were all alike. Of k such clusters, k = (sum |w|)^2 / sum_c (sum |w| of c)^2, with one more that rises and one that
    falls (Bonett and Price 2012), so that few clusters of which none varies are no certainty:

        V_1 = (sum |w|)^2 (variance of a row + 2 / (k + 2)) / (k + 2)
    """

    error: float
    freedom: float

    @classmethod
    def of(cls, w: np.ndarray, residual: np.ndarray, cluster: np.ndarray, independent: float) -> Error:
        """Of sum_i w_i x_i; residual (n,): x without what the null expects; independent: V_0."""
        size, sums = np.abs(w), np.bincount(cluster, w * residual)
        whole, k = float(size.sum()), spread(np.bincount(cluster, size))
        alike = max(independent, whole**2 * (float(size @ residual**2) / whole + 2 / (k + 2)) / (k + 2))
        variance, degrees = float(sums @ sums), freedom(size, residual, cluster)
        if degrees <= 0:
            return cls(float(np.sqrt(alike)), np.inf)
        squared = variance * (float(stdtrit(degrees, (1 + LEVEL) / 2)) / normal_limit()) ** 2
        if independent <= squared <= alike:
            return cls(float(np.sqrt(variance)), degrees)
        return cls(float(np.sqrt(min(max(squared, independent), alike))), np.inf)

    @property
    def half(self) -> float:
        """Half of the range that holds 95 % around 0."""
        limit = normal_limit() if np.isinf(self.freedom) else float(stdtrit(self.freedom, (1 + LEVEL) / 2))
        return self.error * limit

    def p(self, value: float) -> float:
        """Two-sided p of a figure; 1 where nothing varies."""
        return float(2 * stdtr(min(self.freedom, 1e9), -abs(value) / self.error)) if self.error > 0 else 1.0
