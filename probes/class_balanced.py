"""Class-balanced: every class has the same mass, whatever its size (reweighting, RWY in Idrissi et al. 2022)."""

from __future__ import annotations

import numpy as np

from ._convex import ConvexHead, inverse_frequency
from ._data import Data


class ClassBalanced(ConvexHead):
    """w_i = n / (k * n_y) for a row of class y, k classes; equals scikit-learn's `class_weight="balanced"`."""

    def _weightings(self, data: Data) -> np.ndarray:
        return inverse_frequency(data.y)[None]
