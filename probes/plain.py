"""The plain linear head: every training row counts the same (empirical risk minimisation).

This is the head of the claim under test: Mehta et al. 2022, "You Only Need a Good Embeddings Extractor to Fix
Spurious Correlations" (arXiv 2212.06254).
"""

from __future__ import annotations

import numpy as np

from ._convex import ConvexHead
from ._data import Data


class Plain(ConvexHead):
    """w_i = 1. Parameters and fitted values as in `ConvexHead`."""

    def _weightings(self, data: Data) -> np.ndarray:
        return np.ones((1, len(data.y)))
