"""P-values of several tests, adjusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control


def holm(p: Sequence[float]) -> list[float]:
    """Against any false discovery: the smallest times m, the next times m - 1, ..., never falling, at most 1.

    Holm 1979; it holds however the tests depend on each other.
    """
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(x) for x in adjusted]


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Against a share of false discoveries among all: Benjamini and Hochberg 1995, as scipy computes it."""
    return false_discovery_control(p)
