"""Rows a long way from all others: a broken image, a unit forgotten, memory that was never written."""

from __future__ import annotations

import warnings

import numpy as np

FAR = 1e6
"""Spreads from the middle of a feature beyond which a row is reported."""
SAMPLE = 512
NAMED = 5


def outlying(X: np.ndarray, moments: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Rows of X (n, d), in order, that lie more than `FAR` spreads from the median of some feature.

    Median and spread are those of `SAMPLE` rows; the spread is the median distance of the rows that are not at the
    median. Where hardly any row is off the median, the spread is the median of the other features' spreads.

    moments  (d,) mean and standard deviation, where they are known: no row is further from the mean than sqrt(n)
             deviations, so most features can be skipped
    """
    n, _d = X.shape
    sample = np.asarray(X[np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(int))], np.float64)
    with np.errstate(over="ignore"):
        middle = np.median(sample, axis=0)
        away = np.abs(sample - middle)
        moved = away > 0
        own = moved.sum(axis=0) >= max(2, len(sample) / 20)
        if not own.any():
            return np.empty(0, dtype=np.int64)
        spread = np.array([np.median(away[m, j]) if own[j] else np.nan for j, m in enumerate(moved.T)])
        spread[~own] = np.median(spread[own])
        if moments is None:
            reach = np.maximum(X.max(axis=0) - middle, middle - X.min(axis=0))
        else:
            reach = np.abs(moments[0] - middle) + moments[1] * n**0.5
        far = np.zeros(n, dtype=bool)
        for j in np.flatnonzero(reach > FAR * spread):
            far |= np.abs(X[:, j].astype(np.float64) - middle[j]) > FAR * spread[j]
    return np.flatnonzero(far)


def warn_of_outlying(X: np.ndarray, moments: tuple[np.ndarray, np.ndarray] | None) -> None:
    """`UserWarning` that names such rows, if there are any."""
    rows = outlying(X, moments)
    if len(rows):
        named = ", ".join(map(str, rows[:NAMED])) + (", ..." if len(rows) > NAMED else "")
        warnings.warn(
            f"{len(rows):,} of the {len(X):,} training rows lie more than {FAR:,.0f} spreads from the others in some "
            f"feature (rows {named}, counted from 0); they decide what a head sees of it: look at them, or leave them "
            "out",
            UserWarning,
            stacklevel=4,
        )
