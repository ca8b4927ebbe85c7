"""Held-out rows that steer a fit: how well every group of them is classified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probes._machinery import Fit, HeldOut


def logits(fits: Sequence[Fit], held_out: HeldOut) -> np.ndarray:
    """(p, m, k) logits of the held-out rows in float64; for two classes those of (0, logit of the second)."""
    Z = held_out.X
    W = np.concatenate([f["coef_"] for f in fits])
    flat = (Z @ W.T.astype(Z.dtype)).astype(np.float64) + np.concatenate([f["intercept_"] for f in fits])
    parts = np.moveaxis(flat.reshape(len(Z), len(fits), -1), 1, 0)
    return np.concatenate([np.zeros_like(parts), parts], axis=2) if parts.shape[2] == 1 else parts


def accuracies(correct: np.ndarray, groups: np.ndarray, count: int | None = None) -> np.ndarray:
    """(..., g) accuracy of every group, for correct (..., m) and codes (m,); NaN for groups that do not occur."""
    onehot = (groups[:, None] == np.arange(groups.max() + 1 if count is None else count)).astype(float)
    with np.errstate(invalid="ignore"):
        return (correct @ onehot) / onehot.sum(0)
