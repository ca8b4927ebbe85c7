"""Class-balanced: every class has the same mass, whatever its size (reweighting, RWY in Idrissi et al. 2022)."""

from __future__ import annotations

import numpy as np

from probes._machinery import LinearHead, inverse_frequency


class ClassBalanced(LinearHead):
    """w_i = n / (k * n_y) for a row of class y, k classes; equals scikit-learn's `class_weight="balanced"`."""

    def _weightings(self, y: np.ndarray, groups: np.ndarray | None, rng: np.random.RandomState) -> np.ndarray:
        return inverse_frequency(y)[None]
