"""Classes that overlap, with one feature that misleads about a group of each."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import StandardScaler


def data(seed: int, k: int = 2, n: int = 240, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (n, 4), y, groups: overlapping classes, the last the largest; feature 0 misleads about a group of each."""
    rng = np.random.default_rng(seed)
    y = np.minimum(np.arange(n) % (k + 1), k - 1)
    minority = np.arange(n) // (k + 1) % 8 == 0
    X = rng.normal(size=(n, 4)) + shift * rng.normal(size=(k, 4))[y]
    X[:, 0] += 3 * np.where(minority, (y + 1) % k, y)
    mixed = rng.permutation(n)
    return X[mixed], y[mixed], (2 * y + minority)[mixed]


def standardised(X: np.ndarray) -> np.ndarray:
    return np.asarray(StandardScaler().fit_transform(X))
