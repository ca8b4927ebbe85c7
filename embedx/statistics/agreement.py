"""How far raters agree, beyond chance."""

from __future__ import annotations

import numpy as np


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Agreement beyond chance of counts (N, k): n_ij votes for answer j on pair i, two at the least on every pair.

        P_i = (sum_j n_ij^2 - n_i) / (n_i (n_i - 1))    p_j = sum_i n_ij / sum_i n_i
        kappa = (mean_i P_i - sum_j p_j^2) / (1 - sum_j p_j^2)

    For equally many votes on each pair, Fleiss 1971, "Measuring nominal scale agreement among many raters"; the same
    formula is used where they differ. 1: always the same answer, 0: as if drawn. None where all votes are one answer
    or there are no pairs: then nothing tells agreement from chance. Raises `ValueError` for a pair with one vote.
    """
    n = counts.sum(axis=1)
    if not len(counts):
        return None
    if (n < 2).any():
        raise ValueError(f"pair {int(n.argmin())} (counted from 0) has {int(n.min())} votes; agreement takes two")
    p = counts.sum(axis=0) / n.sum()
    chance = float(p @ p)
    if (p == 1).any():
        return None
    observed = float((((counts**2).sum(axis=1) - n) / (n * (n - 1))).mean())
    return (observed - chance) / (1 - chance)
