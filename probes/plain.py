"""The plain linear head: every training row counts the same (empirical risk minimisation).

This is the head of the claim under test: Mehta et al. 2022, "You Only Need a Good Embeddings Extractor to Fix
Spurious Correlations" (arXiv 2212.06254).
"""

from __future__ import annotations

import numpy as np

from probes._machinery import LinearHead


class Plain(LinearHead):
    """w_i = 1. Parameters and fitted values as in `LinearHead`."""

    def _weightings(self, y: np.ndarray, groups: np.ndarray | None, rng: np.random.RandomState) -> np.ndarray:
        return np.ones((1, len(y)))
