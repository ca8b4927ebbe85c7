"""How well a score tells some rows from others: the area under the ROC curve, Mann and Whitney's U, two scores."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit
from scipy.stats import mannwhitneyu, rankdata

from embedx.statistics.intervals import LEVEL, Interval, effective_proportion, normal_limit
from embedx.statistics.linearised import Clustered, Error, codes_of, freedom, spread


def auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Chance that a positive row scores above a negative one, ties counted half: Mann and Whitney's U, by ranks.

    positive  (n,) bool, both kinds occurring; scores (n,)
    """
    p = int(np.count_nonzero(positive))
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * (len(positive) - p)))


def auroc_interval(positive: np.ndarray, scores: np.ndarray, clusters: np.ndarray | None = None) -> Interval:
    """The AUROC with Wilson's interval for as many rows as the rarer kind has; n are the positive rows.

    That is safe: the variance of an AUROC A is at most A (1 - A) / that (Birnbaum and Klose 1957), and estimates of it
    fail near 1.

    clusters  (n,) of any kind, whose the rows are. Where several are of one, the interval is for no more rows than
              A (1 - A) / V, with V the variance of the structural components summed by cluster (Obuchowski 1997; of a
              positive row the share of negative ones below it, and the other way round), with Student's t; and no fewer
              than if rows of a cluster were alike: as many as the kind has, (sum n_c)^2 / sum n_c^2, that has fewer
    """
    p, value = int(np.count_nonzero(positive)), auroc(positive, scores)
    most = min(p, len(positive) - p)
    cluster = codes_of(clusters, np.arange(len(positive)))
    if cluster is None:
        return effective_proportion(value, most, p)
    w, components = np.where(positive, 1 / p, 1 / (len(positive) - p)), np.empty(len(positive))
    components[positive], components[~positive] = _components(positive, scores)
    rows = Clustered.of(w, cluster, positive.astype(np.int64))
    sums, least = rows.totals(components[None])[0], min(spread(np.bincount(cluster[k])) for k in (positive, ~positive))
    degrees, variance = freedom(w, components - value, cluster), float(sums @ sums)
    if degrees > 0 and 0 < value < 1:
        shrunk = value * (1 - value) * (normal_limit() / float(stdtrit(degrees, (1 + LEVEL) / 2))) ** 2
        least = min(most, max(least, shrunk / variance)) if variance > 0 else most
    return effective_proportion(value, least, p)


def _components(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each positive row the share of negative ones below it, of each negative row that of positive ones above it."""
    p, n, ranks = int(np.count_nonzero(positive)), int(np.count_nonzero(~positive)), rankdata(scores)
    above = (ranks[positive] - rankdata(scores[positive])) / n
    return above, 1 - (ranks[~positive] - rankdata(scores[~positive])) / p


def auroc_difference(positive: np.ndarray, a: np.ndarray, b: np.ndarray) -> Interval:
    """AUROC by the scores a (n,) minus that by b (n,) of the same rows, two or more of either kind; n are the positive.

    DeLong, DeLong and Clarke-Pearson 1988, with ranks as Sun and Xu 2014: each positive row has the share of negative
    ones below it, each negative row the share of positive ones above it, ties half. The variance of the difference is
    that of the positive rows' differences over their number, plus that of the negative rows' over theirs.
    """
    p, n = int(np.count_nonzero(positive)), int(np.count_nonzero(~positive))
    of_positive, of_negative = np.zeros(p), np.zeros(n)
    for sign, scores in ((1, a), (-1, b)):
        up, down = _components(positive, scores)
        of_positive += sign * up
        of_negative += sign * down
    value = float(of_positive.mean())
    half = normal_limit() * float(np.sqrt(of_positive.var(ddof=1) / p + of_negative.var(ddof=1) / n))
    return Interval(value, max(-1.0, value - half), min(1.0, value + half), p)


def mann_whitney(
    positive: np.ndarray, X: np.ndarray, clusters: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) AUROC of each column of X (n, m), and the one-sided p of Mann and Whitney's test that it is above 1/2.

    The p-value is scipy's, by the normal approximation; a constant column has 1/2 and 1.

    clusters  (n,) of any kind, whose the rows are. Where several are of one, p is that of Student's t with the error
              between clusters (`linearised.Error`) of

                  AUROC - 1/2 = sum_i w_i y_i        w_i = (rank_i - mean rank) / (p q)
                  V_0 = sum w^2 p q / (n (n - 1))

              y_i is 1 for the p positive rows and 0 for the q = n - p others, less their mean (Obuchowski 1997 sums
              the same by cluster)
    """
    constant = X.min(axis=0) == X.max(axis=0)
    area, p = np.full(X.shape[1], 0.5), np.ones(X.shape[1])
    if not constant.all():
        n, varied = int(np.count_nonzero(positive)), X[:, ~constant].astype(np.float64)  # in which the sums are kept
        test = mannwhitneyu(varied[positive], varied[~positive], alternative="greater", method="asymptotic")
        area[~constant], p[~constant] = test.statistic / (n * (len(X) - n)), test.pvalue
        if (cluster := codes_of(clusters, np.arange(len(X)))) is not None:
            p[~constant] = [_p_of_clusters(positive, x, cluster) for x in varied.T]
    return area, p


def _p_of_clusters(positive: np.ndarray, x: np.ndarray, cluster: np.ndarray) -> float:
    """One-sided p that the AUROC is above 1/2, see `mann_whitney`."""
    n, share = len(x), float(positive.mean())
    ranks = rankdata(x)
    w = (ranks - ranks.mean()) / (n * share * n * (1 - share))
    error = Error.of(w, positive - share, cluster, float(w @ w) * n * share * (1 - share) / (n - 1))
    value = float(w @ positive)
    return error.p(value) / 2 if value > 0 else 1 - error.p(value) / 2
