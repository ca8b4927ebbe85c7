"""How well one backbone tells a label apart, measured on rows where nothing else goes with the label."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedx.statistics import Interval, effective_proportion

FOLDS = 5
STRENGTHS = tuple(float(C) for C in np.logspace(-4, 1, 6))


def separability(X: np.ndarray, y: np.ndarray, units: np.ndarray) -> Interval:
    """Accuracy of a linear head on rows that it has not seen, by cross-validation.

    X      (n, d) features of rows whose groups are all of one size, so that no shortcut helps
    y      (n,) labels
    units  (n,) what rows have in common, such as the object that they show; a unit lies in one fold

    Of five folds, three fit logistic regressions on standardised features, the next chooses C, the last is predicted.
    The fits take place in the span of their rows, in which the minimiser lies.
    The interval is Wilson's with the effective number of rows, n_eff = p (1 - p) / var(p), var(p) from the spread of
    the units' means.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    parts = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(X, y, units)
    folds = [test for _, test in parts]
    right = np.zeros(len(y))
    for k, test in enumerate(folds):
        chooses = folds[(k + 1) % FOLDS]
        fits = np.setdiff1d(np.arange(len(y)), np.r_[test, chooses])
        Z: Any = StandardScaler().fit(X[fits]).transform(X)
        Z = Z @ np.linalg.svd(Z[fits], full_matrices=False)[2].T
        heads = [LogisticRegression(C=C, solver="newton-cholesky").fit(Z[fits], y[fits]) for C in STRENGTHS]
        best = max(heads, key=lambda head: head.score(Z[chooses], y[chooses]))
        right[test] = best.predict(Z[test]) == y[test]
    value = float(right.mean())
    codes = np.unique(units, return_inverse=True)[1]
    residuals = np.bincount(codes, weights=right - value)
    m = len(residuals)
    variance = (residuals**2).sum() / len(y) ** 2 * m / (m - 1)
    rows = value * (1 - value) / variance if variance > 0 else float(m)
    return effective_proportion(value, rows, len(y))
