"""How well a score tells some rows from others: the area under the ROC curve, Mann and Whitney's U."""

from __future__ import annotations

import numpy as np
from scipy.stats import mannwhitneyu, rankdata

from embedx.statistics.intervals import Interval, effective_proportion


def auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Chance that a positive row scores above a negative one, ties counted half: Mann and Whitney's U, by ranks.

    positive  (n,) bool, both kinds occurring; scores (n,)
    """
    p = int(np.count_nonzero(positive))
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * (len(positive) - p)))


def auroc_interval(positive: np.ndarray, scores: np.ndarray) -> Interval:
    """The AUROC with Wilson's interval for as many rows as the rarer kind has; n are the positive rows.

    That is safe: the variance of an AUROC A is at most A (1 - A) / that (Birnbaum and Klose 1957), and estimates of it
    fail near 1.
    """
    p = int(np.count_nonzero(positive))
    return effective_proportion(auroc(positive, scores), min(p, len(positive) - p), p)


def mann_whitney(positive: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) AUROC of each column of X (n, m), and the one-sided p of Mann and Whitney's test that it is above 1/2.

    The p-value is scipy's, by the normal approximation; a constant column has 1/2 and 1.
    """
    constant = X.min(axis=0) == X.max(axis=0)
    area, p = np.full(X.shape[1], 0.5), np.ones(X.shape[1])
    if not constant.all():
        n, varied = int(np.count_nonzero(positive)), X[:, ~constant].astype(np.float64)  # in which the sums are kept
        test = mannwhitneyu(varied[positive], varied[~positive], alternative="greater", method="asymptotic")
        area[~constant], p[~constant] = test.statistic / (n * (len(X) - n)), test.pvalue
    return area, p
