"""Held-out rows that steer a fit: how well every group of them is classified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._data import Data, HeldOut
from ._fit import Fit


def logits(data: Data, fits: Sequence[Fit], variants: Sequence[int]) -> list[tuple[HeldOut, np.ndarray]]:
    """Each fit's held-out rows beside their logits (m, k) in float64; for two classes those of (0, the second's).

    variants  for each fit, the place of its variant in `data.steered_by`
    """
    at = [data.steered_by[v] for v in variants]
    logits_by_fit: dict[int, np.ndarray] = {}
    for place in dict.fromkeys(at):  # fits that are steered by the same rows share a product
        mine, Z = [i for i, p in enumerate(at) if p == place], data.held_out[place].X
        W, b = (np.concatenate(parts) for parts in zip(*(fits[i].theta for i in mine), strict=True))
        flat = (Z @ W.T.astype(Z.dtype)).astype(np.float64) + b
        parts = np.moveaxis(flat.reshape(len(Z), len(mine), -1), 1, 0)
        logits_by_fit |= zip(
            mine, np.concatenate([np.zeros_like(parts), parts], 2) if parts.shape[2] == 1 else parts, strict=True
        )
    return [(data.held_out[place], logits_by_fit[i]) for i, place in enumerate(at)]


def accuracies(correct: np.ndarray, groups: np.ndarray, count: int | None = None) -> np.ndarray:
    """(..., g) accuracy of every group, for correct (..., m) and codes (m,); NaN for groups that do not occur."""
    onehot = (groups[:, None] == np.arange(groups.max() + 1 if count is None else count)).astype(float)
    with np.errstate(invalid="ignore"):
        return (correct @ onehot) / onehot.sum(0)
