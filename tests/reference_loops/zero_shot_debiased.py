"""Zero-shot with debiased text: the closed forms of Chuang et al. 2023, equations of sections 3 and 4."""

from __future__ import annotations

import numpy as np


def text(classes: np.ndarray, spurious: np.ndarray, pairs: np.ndarray | None, strength: float = 1000.0) -> np.ndarray:
    """(k, p) unit text vectors; orthogonal where there are no pairs (q, 2, p), else calibrated."""
    p = classes.shape[1]
    A = spurious.T
    P0 = np.eye(p) - A @ np.linalg.inv(A.T @ A) @ A.T
    M = np.zeros((p, p))
    for a, b in [] if pairs is None else pairs:
        M += (np.outer(a, a) + np.outer(b, b) - np.outer(a, b) - np.outer(b, a)) / len(pairs)
    T = P0 @ np.linalg.inv(np.eye(p) + strength * M)
    return np.array([T @ t / np.linalg.norm(T @ t) for t in classes])
