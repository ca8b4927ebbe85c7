"""Held-out rows that steer a fit: how well every group of them is classified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._machinery import Fit, HeldOut


def logits(fits: Sequence[Fit], held_out: Sequence[HeldOut]) -> list[tuple[HeldOut, np.ndarray]]:
    """Each fit's held-out rows beside their logits (m, k) in float64; for two classes those of (0, the second's)."""
    found: dict[int, np.ndarray] = {}
    for mine in {id(h): h for h in held_out}.values():  # fits that are steered by the same rows share a product
        here, Z = [i for i, h in enumerate(held_out) if h is mine], mine.X
        W, b = (np.concatenate([fits[i][name] for i in here]) for name in ("coef_", "intercept_"))
        flat = (Z @ W.T.astype(Z.dtype)).astype(np.float64) + b
        parts = np.moveaxis(flat.reshape(len(Z), len(here), -1), 1, 0)
        found |= zip(
            here, np.concatenate([np.zeros_like(parts), parts], 2) if parts.shape[2] == 1 else parts, strict=True
        )
    return [(h, found[i]) for i, h in enumerate(held_out)]


def accuracies(correct: np.ndarray, groups: np.ndarray, count: int | None = None) -> np.ndarray:
    """(..., g) accuracy of every group, for correct (..., m) and codes (m,); NaN for groups that do not occur."""
    onehot = (groups[:, None] == np.arange(groups.max() + 1 if count is None else count)).astype(float)
    with np.errstate(invalid="ignore"):
        return (correct @ onehot) / onehot.sum(0)
