"""DFR, Kirichenko et al. 2023: an L1 head, intercept and all, on group-balanced draws, averaged.

Solved by accelerated proximal gradient steps; the authors call liblinear, whose objective this is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .rows import Rows
from .weighted import subsample


def lasso(rows: Rows, C: float, steps: int = 3000) -> np.ndarray:
    """The least of  ||theta||_1 + C sum_i loss_i  over theta (d + 1,)."""
    A = rows.matrix
    rate = float(4 / (C * torch.linalg.matrix_norm(A, 2) ** 2))
    sign = torch.from_numpy(2.0 * rows.y - 1)
    theta = ahead = torch.zeros(A.shape[1], dtype=torch.float64)
    t = 1.0
    for _ in range(steps):
        gradient = -C * A.T @ (sign * torch.sigmoid(-sign * (A @ ahead)))
        moved = ahead - rate * gradient
        after = moved.sign() * (moved.abs() - rate).clamp_min(0)
        if ((ahead - after) * (after - theta)).sum() > 0:
            t = 1.0  # start again where the momentum points uphill
        t_after = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead = after + (t - 1) / t_after * (after - theta)
        theta, t = after, t_after
    return theta.numpy()


def _heads(rows: Rows, settings: Sequence[Mapping[str, Any]], seed: int, draws: int) -> list[np.ndarray]:
    rng = np.random.RandomState(seed)
    drawn = [rows.take(subsample(rows.groups, rng)) for _ in range(draws)]
    return [np.mean([lasso(draw, s["C"]) for draw in drawn], axis=0) for s in settings]


def on_held_out(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """DFR^Val_Tr, 20 draws, or one while settings are tried."""
    return _heads(held_out, settings, seed, 1 if len(settings) > 1 else 20)


def on_train(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """DFR^Tr_Tr, 10 draws, or one while settings are tried."""
    return _heads(train, settings, seed, 1 if len(settings) > 1 else 10)
