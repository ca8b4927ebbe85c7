"""LEIA: a first head adapted along the directions of its errors (Gourabathina et al. 2026, as their code has it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from .rows import Rows


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """The first head is fitted on all rows, as theirs; a fifth of every class adapts it."""
    rng = np.random.RandomState(seed)
    each = [np.flatnonzero(train.y == c) for c in (0, 1)]
    adapts = np.concatenate([rng.choice(rows, round(0.2 * len(rows)), replace=False) for rows in each])
    plain = LogisticRegression(C=0.01, tol=1e-8, max_iter=5000).fit(train.Z, train.y)
    ways, found = {(s["gamma"], s["rank"]) for s in settings}, {}
    for gamma, rank in ways:
        stops = {s["steps"] for s in settings}
        way = fit(train.Z, train.y, (plain.coef_, plain.intercept_), adapts, gamma=gamma, rank=rank, stops=stops)
        found |= {(gamma, rank, steps): np.append(W[0], b) for steps, (W, b) in way.items()}
    return [found[s["gamma"], s["rank"], s["steps"]] for s in settings]


def fit(
    X: np.ndarray, y: np.ndarray, first: tuple[np.ndarray, np.ndarray], adapts: np.ndarray, *,
    gamma: float, rank: int, stops: set[int],
) -> dict[int, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """{steps: (W, b)}: `first` (W, b), two classes as one output, adapted on `adapts` along the errors of the rest."""
    k = len(set(y))
    W, b = (np.concatenate([0 * part, part]) if k == 2 else part for part in first)

    def weights(rows: list[int]) -> np.ndarray:
        w = np.array([np.exp(gamma * (1 - softmax(W @ X[i] + b)[y[i]])) for i in rows])
        return w / w.sum()

    second = sorted(adapts)
    rest = sorted({*range(len(y))} - {*second})
    mu = weights(rest)
    m = mu @ X[rest]
    S = (X[rest] - m).T @ np.diag(mu) @ (X[rest] - m)
    V = np.linalg.eigh(S)[1][:, ::-1][:, :rank]
    mu, A, found = weights(second), np.zeros((V.shape[1], k)), {}
    base, along, T = X[second] @ W.T + b, X[second] @ V, np.eye(k)[y[second]]
    for step in range(1, max(stops) + 1):
        G = along.T @ (mu[:, None] * (softmax(base + along @ A, axis=1) - T))
        A = A - 0.01 * G * min(1, 1 / np.linalg.norm(G))
        if step in stops:
            W2 = W + (V @ A).T
            found[step] = (W2[1:] - W2[:1], b[1:] - b[:1]) if k == 2 else (W2, b)
    return found
