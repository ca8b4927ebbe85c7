"""SPARE: clusters of what an early head says, within each class, weigh by a power of their size. No group labels.

Yang et al. 2024, "Identifying Spurious Biases Early in Training through the Lens of Simplicity Bias" (arXiv
2305.18761): what a network learns first is the spurious feature, so its early outputs separate the groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import softmax

from ._convex import ConvexHead, weighted_fits
from ._data import Data
from ._declarations import ChosenBy
from ._fit import Fit
from ._inference import Clustering, Clusters, First, effective_size, first_logits, once_each
from ._once import content, once


class Spare(ConvexHead):
    """w_i is proportional to s_i ** -p_y within class y, s_i the size of the row's cluster; classes have equal mass.

    p_y = 1 (clusters of equal mass) where the clusters of the class lie clearly apart, else `power`: the smaller the
    cluster, the larger its mass.

    Parameters beyond those of `ConvexHead`
    first_C       of the early head, plain. So small that it is in effect one gradient step from zero: its weights are
                  first_C * sum_i (y_i - mean y) z_i
    clusters      of its probabilities (n, k), in each class; None takes the number with the best silhouette, of 2 to
                  `max_clusters` (published: 4 for Waterbirds, 2 for CelebA, up to 5 for coloured digits)
    power         p_y of a class whose silhouette is below `apart` (published: 2, with `apart` 0.9)

    Silhouettes are computed on at most 2,000 rows of a class.
    Fitted values beyond: `inferred_groups_` (n,); `silhouettes_` and `powers_` (k,) by class, nan silhouette for one
    cluster; `effective_sample_size_`, how many equally weighted rows the weights are worth.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "power": power} for C in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0) for power in (1.0, 2.0)
    )

    inferred_groups_: np.ndarray
    silhouettes_: np.ndarray
    powers_: np.ndarray
    effective_sample_size_: float

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        first_C: float = 1e-6,
        clusters: int | None = None,
        max_clusters: int = 5,
        power: float = 2.0,
        apart: float = 0.9,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant)
        self.first_C = first_C
        self.clusters = clusters
        self.max_clusters = max_clusters
        self.power = power
        self.apart = apart

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        firsts = [First.asked(v, v.first_C) for v in variants]
        logits = dict(zip(firsts, first_logits(data, firsts), strict=True))

        def cluster(v: Self) -> Clusters:
            early = softmax(logits[First.asked(v, v.first_C)], axis=1)
            return Clustering(v.clusters, v.max_clusters, by_cluster=False).of(early, data.y, v.random_state)

        names = ("first_C", "tol", "max_iter", "clusters", "max_clusters", "random_state")
        clusterings = once_each(variants, names, cluster)
        powers = [np.where(f.silhouettes >= v.apart, 1.0, v.power) for v, f in zip(variants, clusterings, strict=True)]
        weightings, at = once(
            [content(f.codes, p) for f, p in zip(clusterings, powers, strict=True)],
            lambda i: within_classes(clusterings[i].codes, data.y, powers[i])[None],
        )
        fits = weighted_fits(data, variants, weightings, at)
        return [
            fit.having(
                inferred_groups_=f.codes, silhouettes_=f.silhouettes, powers_=p,
                effective_sample_size_=effective_size(weightings[i]),
            )
            for fit, f, p, i in zip(fits, clusterings, powers, at, strict=True)
        ]  # fmt: skip


def within_classes(codes: np.ndarray, y: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """(n,) weights of mean 1: proportional to size ** -powers[y] within each class, and every class n / k in all."""
    weights = np.bincount(codes)[codes] ** -powers[y]
    mass = np.bincount(y, weights=weights)
    return weights / mass[y] * len(y) / len(mass)
