"""LEACE by the formula of Belrose et al. 2023, theorem 4.2, then logistic regression on what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import fractional_matrix_power, pinvh
from sklearn.linear_model import LogisticRegression

from .rows import Rows


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """As the package has it: rows all alike, the covariance shrunk; of its guard against growing variance nothing."""
    P, m = erasure(train.Z, train.y, train.attribute, balanced=False, shrunk=True)
    found = [fit(train.Z, train.y, P, m, s["C"]) for s in settings]
    return [np.append(W[0], b) for W, b in found]


def fit(X: np.ndarray, y: np.ndarray, P: np.ndarray, m: np.ndarray, C: float) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) on X of logistic regression on m + P (x - m)."""
    model = LogisticRegression(C=C, tol=1e-8, max_iter=20000).fit(m + (X - m) @ P.T, y)
    return model.coef_ @ P, model.intercept_ + model.coef_ @ (m - P @ m)


def erasure(
    X: np.ndarray, y: np.ndarray, attribute: np.ndarray, *, balanced: bool, shrunk: bool
) -> tuple[np.ndarray, np.ndarray]:
    """P, m: `balanced` weighs rows so that label and attribute are independent, `shrunk` shrinks cov(X, X)."""
    n, d = X.shape
    w = np.ones(n)
    if balanced:
        counts = {(c, a): sum((y == c) & (attribute == a)) for c in set(y) for a in set(attribute)}
        w = np.array([1 / counts[c, a] for c, a in zip(y, attribute, strict=True)])
    w = w / w.sum()
    values = sorted(set(attribute))
    m = sum(w[i] * X[i] for i in range(n))
    z = np.array([[float(a == v) for v in values] for a in attribute])
    z = z - w @ z
    S = sum(w[i] * np.outer(X[i] - m, X[i] - m) for i in range(n))
    cross = sum(w[i] * np.outer(X[i] - m, z[i]) for i in range(n))
    if shrunk:
        T = np.trace(S) / d * np.eye(d)
        alpha = 1 - (np.trace(S) ** 2 * (T * T).sum() / n) / ((S * S).sum() * (T * T).sum() - np.trace(S @ T) ** 2)
        S = alpha * S + (1 - alpha) * np.trace(S @ T) / (T * T).sum() * T
    root = fractional_matrix_power(S, 0.5).real
    white = pinvh(root)
    U, s, _ = np.linalg.svd(white @ cross)
    U = U[:, : len(s)][:, s > 0.01]
    return np.eye(d) - root @ U @ U.T @ white, m
