"""Class-balanced: every class has the same mass, whatever its size (reweighting, RWY in Idrissi et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._convex import STOPPED, ConvexHead, inverse_frequency
from ._data import Data
from ._variants import Published


class ClassBalanced(ConvexHead):
    """w_i = n / (k * n_y) for a row of class y, k classes; equals scikit-learn's `class_weight="balanced"`."""

    published: ClassVar[Published | None] = STOPPED

    def _weightings(self, data: Data) -> np.ndarray:
        return inverse_frequency(data.y)[None]
