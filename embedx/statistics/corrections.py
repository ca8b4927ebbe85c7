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


def simes(p: np.ndarray) -> np.ndarray:
    """(...,) of p-values (..., m): of the hypothesis that all of theirs are true, min over i of m p_(i) / i.

    Simes 1986. It holds for tests that are independent or go together, as those of several heads against the same one
    on the same rows do (Sarkar 1998), and is never above Bonferroni's m x the smallest.
    """
    m = p.shape[-1]
    return np.minimum(1.0, (np.sort(p, axis=-1) * m / np.arange(1, m + 1)).min(axis=-1))
