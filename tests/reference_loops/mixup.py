"""Mixup: SGD on rows between any two rows (Zhang et al. 2018; steps and rates of SubpopBench)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .rows import Rows


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Each number of steps on a way of its own."""
    found = [fit(train.Z, train.y, s["steps"], np.random.RandomState(seed)) for s in settings]
    return [np.append(W[0], b) for W, b in found]


def fit(
    X: np.ndarray, y: np.ndarray, steps: int, rng: np.random.RandomState, *, alpha: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) after some steps of 108 mixtures, at rate 1e-3 with momentum 0.9 and weight decay 1e-4."""
    k, d = len(set(y)), X.shape[1]
    W, b = np.split(rng.uniform(-1, 1, (k, d + 1)) / np.sqrt(d), [d], axis=1)
    b, vW, vb = b[:, 0], np.zeros_like(W), np.zeros(k)
    for _ in range(steps):
        first, second = rng.randint(len(y), size=(2, 108))
        gW, gb = 1e-4 * W, 1e-4 * b
        for i, j, s in zip(first, second, rng.beta(alpha, alpha, 108), strict=True):
            x = s * X[i] + (1 - s) * X[j]
            e = np.exp(W @ x + b - (W @ x + b).max())
            r = e / e.sum() - s * np.eye(k)[y[i]] - (1 - s) * np.eye(k)[y[j]]
            gW, gb = gW + np.outer(r, x) / 108, gb + r / 108
        vW, vb = 0.9 * vW + gW, 0.9 * vb + gb
        W, b = W - 1e-3 * vW, b - 1e-3 * vb
    return (W[1:] - W[:1], b[1:] - b[:1]) if k == 2 else (W, b)
