"""LEACE by the formula of Belrose et al. 2023, theorem 4.2, then logistic regression on what is left."""

from __future__ import annotations

import numpy as np
from scipy.linalg import fractional_matrix_power, pinvh
from sklearn.linear_model import LogisticRegression


def fit(
    X: np.ndarray, y: np.ndarray, attribute: np.ndarray, C: float, *, balanced: bool, shrunk: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) on X; `balanced` weighs rows so that label and attribute are independent, `shrunk` shrinks cov(X, X)."""
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
    P = np.eye(d) - root @ U @ U.T @ white
    erased = np.array([m + P @ (x - m) for x in X])
    model = LogisticRegression(C=C, tol=1e-10, max_iter=20000).fit(erased, y)
    return model.coef_ @ P, model.intercept_ + model.coef_ @ (m - P @ m)
