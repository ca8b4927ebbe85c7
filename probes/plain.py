"""The plain linear head: every training row counts the same (empirical risk minimisation).

This is the head of the claim under test: Mehta et al. 2022, "You Only Need a Good Embeddings Extractor to Fix
Spurious Correlations" (arXiv 2212.06254).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._convex import STOPPED, ConvexHead
from ._data import Data
from ._variants import Published


class Plain(ConvexHead):
    """w_i = 1. Parameters and fitted values as in `ConvexHead`."""

    published: ClassVar[Published | None] = STOPPED

    def _weightings(self, data: Data) -> np.ndarray:
        return np.ones((1, len(data.y)))
