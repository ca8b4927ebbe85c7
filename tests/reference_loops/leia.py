"""LEIA: a first head adapted along the directions of its errors (Gourabathina et al. 2026, as their code has it)."""

from __future__ import annotations

import numpy as np


def fit(
    X: np.ndarray, y: np.ndarray, first: tuple[np.ndarray, np.ndarray], adapts: np.ndarray, *,
    gamma: float, rank: int, steps: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(W, b): `first` (W, b), two classes as one output, adapted on `adapts` along the errors of the other rows."""
    k = len(set(y))
    W, b = (np.concatenate([0 * part, part]) if k == 2 else part for part in first)

    def softmax(f: np.ndarray) -> np.ndarray:
        e = np.exp(f - f.max())
        return e / e.sum()

    def weights(rows: list[int]) -> dict[int, float]:
        w = {i: np.exp(gamma * (1 - softmax(W @ X[i] + b)[y[i]])) for i in rows}
        return {i: value / sum(w.values()) for i, value in w.items()}

    second = sorted(adapts)
    mu = weights([i for i in range(len(y)) if i not in set(second)])
    m = sum(w * X[i] for i, w in mu.items())
    _, V = np.linalg.eigh(sum(w * np.outer(X[i] - m, X[i] - m) for i, w in mu.items()))
    V = V[:, ::-1][:, :rank]
    mu, A = weights(second), np.zeros((V.shape[1], k))
    for _ in range(steps):
        G = sum(
            w * np.outer(V.T @ X[j], softmax(W @ X[j] + b + A.T @ V.T @ X[j]) - np.eye(k)[y[j]]) for j, w in mu.items()
        )
        A = A - 0.01 * G * min(1, 1 / np.linalg.norm(G))
    W = W + (V @ A).T
    return (W[1:] - W[:1], b[1:] - b[:1]) if k == 2 else (W, b)
