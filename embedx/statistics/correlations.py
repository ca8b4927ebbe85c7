"""Correlations: Pearson's, and Spearman's of ranks, of two columns, of many, and class by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata, t

from embedx.statistics.intervals import Interval, normal_limit

EXACT = 8
"""All orders of so many values are few enough to be counted."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of n pairs, the two-sided p-value of none, and a 95 % interval (None for n < 4)."""

    rho: float
    p: float
    low: float | None
    high: float | None
    n: int


def spearman(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Rank correlation, ties sharing their mean rank; None for fewer than three pairs or when a side does not vary.

    p: exact over all orders up to 8 pairs, beyond by Student's t. Interval: Fisher's z with the standard error of
    Bonett and Wright 2000, sqrt((1 + rho^2 / 2) / (n - 3)); none where rho is 1 or -1, as it would have no width.
    """
    n = len(x)
    if n < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    a, b = rankdata(x) - (n + 1) / 2, rankdata(y) - (n + 1) / 2
    scale = np.sqrt((a @ a) * (b @ b))
    rho = float(np.clip(a @ b / scale, -1, 1))
    if n <= EXACT:
        orders = np.array(list(permutations(b)))
        p = float(np.mean(np.abs(orders @ a) / scale >= abs(rho) - 1e-12))
    else:
        p = float(2 * t.sf(abs(rho) * np.sqrt((n - 2) / max(1 - rho * rho, np.finfo(float).tiny)), n - 2))
    if n < 4 or abs(rho) == 1:  # Fisher's z is infinite there
        return Correlation(rho, p, None, None, n)
    return Correlation(rho, p, *_fisher(rho, normal_limit() * math.sqrt((1 + rho * rho / 2) / (n - 3))), n)


def pearson(x: np.ndarray, y: np.ndarray) -> Interval | None:
    """Correlation r of n pairs with Fisher's interval, tanh(atanh(r) -+ z / sqrt(n - 3)).

    None for fewer than four pairs, or where a side does not vary.
    """
    if len(x) < 4 or not x.std() or not y.std():
        return None
    r = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
    low, high = _fisher(float(np.clip(r, -1 + 1e-12, 1 - 1e-12)), normal_limit() / math.sqrt(len(x) - 3))
    return Interval(r, min(r, low), max(r, high), len(x))


def _fisher(r: float, half: float) -> tuple[float, float]:
    """Limits at a distance from r that is `half` on Fisher's scale, atanh(r)."""
    centre = math.atanh(r)
    return math.tanh(centre - half), math.tanh(centre + half)


def rank_correlations(X: np.ndarray) -> np.ndarray:
    """(m, m) Spearman correlations between the columns of X (n, m)."""
    return np.corrcoef(rankdata(X, axis=0), rowvar=False)


def spearman_by_class(scores: np.ndarray, hits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(m, c) rank correlation of hits with scores within each class, ties at mean ranks; NaN where either is constant.

    scores  (n,) never falling within a class, the classes of `sizes` (c,) rows one after the other
    hits    (m, n) bool, right or wrong, of m models
    """
    starts, rank = np.cumsum(sizes) - sizes, _centred_ranks(scores, sizes)
    both, scale = np.add.reduceat(hits * rank, starts, axis=1), _scales(rank, hits, sizes)
    return np.divide(both, scale, out=np.full(both.shape, np.nan), where=scale > 1e-9)


def spearman_weights(scores: np.ndarray, hits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) w of which the sum of w_i hits_i over the rows of a class is its rank correlation; 0 where there is none.

    As `spearman_by_class`, of one model: hits (n,) bool. The weights of a class sum to 0.
    """
    rank = _centred_ranks(scores, sizes)
    scale = np.repeat(_scales(rank, hits[None], sizes)[0], sizes)
    return np.divide(rank, scale, out=np.zeros(len(rank)), where=scale > 1e-9)


def _centred_ranks(scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) ranks within each class, ties at their mean, less the mean of the class."""
    starts = np.cumsum(sizes) - sizes
    new = np.r_[True, scores[1:] != scores[:-1]]
    new[starts] = True
    run = np.cumsum(new) - 1
    rank = (np.bincount(run, weights=np.arange(len(run))) / np.bincount(run))[run]
    return rank - np.repeat(np.add.reduceat(rank, starts) / sizes, sizes)


def _scales(rank: np.ndarray, hits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(m, c) roots of the sum of squares of ranks x that of hits (m, n), both about their means."""
    starts = np.cumsum(sizes) - sizes
    spread, totals = np.add.reduceat(rank**2, starts), np.add.reduceat(hits, starts, axis=1, dtype=np.int64)
    return np.sqrt(spread * totals * (1 - totals / sizes))


def spearman_p(rho: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Two-sided p of rank correlations of n rows, as normal variables.

    Over random orders the mean of rho is 0 and its variance exactly 1 / (n - 1), whatever the ties.
    """
    return 2 * ndtr(-np.abs(rho) * np.sqrt(n - 1))


def mean_spearman(rho: np.ndarray, n: np.ndarray) -> tuple[float, float] | None:
    """Mean over classes of rank correlations (c,) of n (c,) rows each, and its two-sided p as in `spearman_p`.

    NaN are left out; None where nothing else is.
    """
    finite = np.isfinite(rho)
    if not finite.any():
        return None
    z = rho[finite].sum() / np.sqrt((1 / (n[finite] - 1)).sum())
    return float(rho[finite].mean()), float(2 * ndtr(-abs(z)))


def row_correlations(A: np.ndarray, B: np.ndarray | None = None) -> np.ndarray:
    """(m, m) Pearson correlations between the rows of A (m, c) and those of B, by default A; NaN for a constant row."""
    Z = _standard(A)
    return Z @ (Z if B is None else _standard(B)).T


def _standard(A: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and length 1; NaN where they are constant."""
    Z = A - A.mean(axis=1, keepdims=True)
    length = np.sqrt((Z**2).sum(axis=1, keepdims=True))
    return np.divide(Z, length, out=np.full(Z.shape, np.nan), where=length > 1e-9)


def mean_off_diagonal(R: np.ndarray) -> float:
    """Mean of what is finite off the diagonal of R (m, m); NaN where nothing is."""
    off = R[~np.eye(len(R), dtype=bool)]
    off = off[np.isfinite(off)]
    return float(off.mean()) if len(off) else float("nan")


def spearman_brown(r: float) -> float:
    """Reliability of a whole from the correlation r of its halves: 2 r / (1 + r) (Spearman 1910, Brown 1910)."""
    return 2 * r / (1 + r)
