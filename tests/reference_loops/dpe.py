"""DPE: prototypes for every class, one member after another (To et al. 2025, with the numbers of their package)."""

from __future__ import annotations

import numpy as np


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.sqrt(v @ v)


def fit(
    X: np.ndarray, y: np.ndarray, rng: np.random.RandomState, *,
    members: int = 15, epochs: int = 20, sharpness: float = 30.0, diversity: float = 5e4,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(members, k, d) prototypes and (members,) scales, on rows X of validation."""
    k, d = len(set(y)), X.shape[1]
    U = np.array([unit(x - x.mean()) for x in X])
    size = min(sum(y == c) for c in range(k))
    found: list[tuple[np.ndarray, float]] = []
    for m in range(1, members + 1):
        rows = sorted(i for c in range(k) for i in rng.choice(np.flatnonzero(y == c), size, replace=False))
        p, s, vp, vs, best = rng.normal(scale=0.01, size=(k, d)), 1.0, np.zeros((k, d)), 0.0, -1.0
        for _ in range(epochs):
            order, b = rng.permutation(rows), min(256, len(rows))
            for batch in (order[i : i + b] for i in range(0, len(rows) - b + 1, b)):
                gp, gs = np.zeros((k, d)), 0.0
                for i in batch:
                    q = np.array([unit(v) for v in p])
                    distance = np.array([np.sqrt((U[i] - v) @ (U[i] - v)) for v in q])
                    e = np.exp(-sharpness * abs(s) * (distance - distance.min()))
                    by_distance = -sharpness * abs(s) * (e / e.sum() - np.eye(k)[y[i]]) / b
                    gs += (by_distance * distance).sum() / s
                    for c in range(k):  # d ||u - v/|v||| / dv
                        by_q = by_distance[c] * (q[c] - U[i]) / distance[c]
                        gp[c] += (by_q - (by_q @ q[c]) * q[c]) / np.sqrt(p[c] @ p[c])
                gp += 2 * 10 / k * p
                if found:
                    before = sum(other for other, _ in found)
                    weight = diversity / (1 + 0.05 * (m - 2)) / k / ((d - 1) * m)
                    gp += weight * np.sign((p * before).sum()) * before
                vp, vs = 0.9 * vp + gp, 0.9 * vs + gs
                p, s = p - 1e-3 * vp, s - 1e-3 * vs
            right = np.array([np.argmax([u @ unit(v) for v in p]) == c for u, c in zip(U, y, strict=True)])
            worst = min(right[y == c].mean() for c in range(k))
            if worst >= best:
                best, kept = worst, (p, s)
        found.append(kept)
    return np.array([[unit(v) for v in p] for p, _ in found]), np.array([abs(s) for _, s in found])


def predict_proba(prototypes: np.ndarray, scales: np.ndarray, X: np.ndarray) -> np.ndarray:
    """(n, k) probabilities: the mean over members of the softmax of their distances."""
    proba = []
    for x in X:
        each = []
        for q, s in zip(prototypes, scales, strict=True):
            e = np.exp([-s * np.linalg.norm(unit(x - x.mean()) - v) for v in q])
            each.append(e / e.sum())
        proba.append(np.mean(each, axis=0))
    return np.array(proba)
