"""Whether several means can all be 0 or more: a joint test of correlated estimates that spends little on clear cases.

Of estimates t_1 .. t_k with standard errors s_h, the hypothesis is theta_h >= 0 for every h. The evidence against it is

    T = min_h P(Z > -t_h / s_h) / share_h        Z standard normal,

the smallest p-value, each weighted by its share. Bonferroni would compare T with the level. Here it is compared with
its distribution where the means are as little above 0 as the data allow, which takes two steps (Romano, Shaikh and Wolf
2014): lower limits of all theta_h that hold together with probability 1 - FIRST x level, and the chance of a T as small
where every mean is at its limit, or at 0 if that is larger; that chance has the rest of the level. Estimates that are
clearly above 0 then take hardly any of it.

Estimates that share one of their terms have one factor in common, with a loading each; given the factor they are
independent, so that the chance is an integral over one variable (Dunnett 1955), and no resampling is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

FIRST = 0.02
"""Share of the level that the first step spends."""
LOADING = 0.9
"""Loadings are cut to this: smaller ones make larger chances (Slepian 1962), and the integral an easy one."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
SMALLEST = 1e-9
"""The smallest p-value that is told."""
STEPS = 30
"""Of the bisection for a p-value: to a relative 1e-8."""


@dataclass(frozen=True, eq=False)
class Inequalities:
    """Means theta_h >= 0 along the last axis of arrays (..., k); every other axis holds cases of their own.

    z        estimates by their standard errors, with what a correction for continuity adds
    slack    the same without it
    loading  correlation of each estimate with what they have in common
    share    weight of each, in sum 1; it goes by h alone or by the case as well
    """

    z: np.ndarray
    slack: np.ndarray
    loading: np.ndarray
    share: np.ndarray

    def refuted(self, level: float | np.ndarray) -> np.ndarray:
        """(...,) whether they cannot all be true, at a level of error; a level for every case, or one for all."""
        level = np.asarray(level, dtype=float)
        k = self.z.shape[-1]
        first = FIRST * level if k > 1 else np.zeros_like(level)  # one alone has nothing to be told clear of
        lower = self.slack + ndtri(first / k)[..., None]  # -inf where nothing is spent
        may_bind = (lower <= 0).any(axis=-1)  # else all are clearly true
        return may_bind & self._rare(np.maximum(lower, 0.0), level - first)

    def _rare(self, least: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Whether the chance of a T as small is at most a level, where the means are `least` (..., k) errors above 0.

        The largest and the sum of the chances of the single estimates bound it; what lies between is integrated.
        """
        smallest = (ndtr(self.z) / self.share).min(axis=-1, keepdims=True)
        above = least - ndtri(np.minimum(smallest * self.share, 1 - 1e-12))
        single, level = ndtr(-above), np.broadcast_to(level, above.shape[:-1])
        rare = np.asarray(single.sum(axis=-1) <= level)
        open_ = ~rare & (single.max(axis=-1) <= level)
        loading = np.broadcast_to(self.loading, above.shape)[open_]
        rare[open_] = _chance(above[open_], loading) <= level[open_]
        return rare

    def p_values(self) -> np.ndarray:
        """(...,) the smallest level at which they are refuted; they are at every larger one."""
        low = np.full(self.z.shape[:-1], np.log(SMALLEST))
        high = np.zeros_like(low)
        for _ in range(STEPS):
            half = (low + high) / 2
            refuted = self.refuted(np.exp(half))
            low, high = np.where(refuted, low, half), np.where(refuted, half, high)
        return np.exp(high)


def _chance(above: np.ndarray, loading: np.ndarray) -> np.ndarray:
    """(...,) that any of k standard normal variables that have one factor in common, by loadings (..., k), is above."""
    loading = np.clip(loading, -LOADING, LOADING)
    within = (above[..., None] - loading[..., None] * NODES) / np.sqrt(1 - loading**2)[..., None]
    return 1 - ndtr(within).prod(axis=-2) @ WEIGHTS
