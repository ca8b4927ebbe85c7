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
from ._inference import Clustering, Clusters, early_logits, effective_size, once_each
from ._once import content, once
from ._path import STOPS, stopped_fits
from ._variants import Published

EARLY = (1, 3, 10, 30)
"""Steps after which the early head is stopped."""
RESTARTS = 10
"""Of k-means, as in the authors' code: small clusters, which weigh the most, depend on it."""


class Spare(ConvexHead):
    """w_i is proportional to s_i ** -p_y within class y, s_i the size of the row's cluster; classes have equal mass.

    p_y = 1 (clusters of equal mass) where the clusters of the class lie clearly apart, else `power`: the smaller the
    cluster, the larger its mass.

    Parameters beyond those of `ConvexHead`
    first_steps   after which the early head is stopped, a plain one that steps from zero; chosen among, as the epoch
                  is in the authors' code, for it decides what the clusters are of
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
        {"C": C, "first_steps": first, "power": power}
        for C in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0) for first in EARLY for power in (1.0, 2.0)
    )  # fmt: skip
    published: ClassVar[Published | None] = Published(
        "solved, where the authors stop early",
        tuple({"first_steps": first, "steps": s, "power": 2.0} for s in STOPS for first in EARLY),
    )

    inferred_groups_: np.ndarray
    silhouettes_: np.ndarray
    powers_: np.ndarray
    effective_sample_size_: float

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
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
        steps: int = 100,
        first_steps: int = 10,
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant, steps)
        self.first_steps = first_steps
        self.clusters = clusters
        self.max_clusters = max_clusters
        self.power = power
        self.apart = apart

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        weightings, at, clusterings, powers = self._clustered(data, variants)
        return self._having(weighted_fits(data, variants, weightings, at), weightings, at, clusterings, powers)

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        weightings, at, clusterings, powers = self._clustered(data, variants)
        fits = stopped_fits(data, weightings, at, [v.steps for v in variants])
        return self._having(fits, weightings, at, clusterings, powers)

    @staticmethod
    def _clustered(
        data: Data, variants: Sequence[Spare]
    ) -> tuple[list[np.ndarray], list[int], list[Clusters], list[np.ndarray]]:
        """Weightings, equal ones once, and of each variant the place of its own, its clusters and its powers."""
        logits = early_logits(data, [v.first_steps for v in variants])

        def cluster(v: Spare) -> Clusters:
            early = softmax(logits[v.first_steps], axis=1)
            clustering = Clustering(v.clusters, v.max_clusters, by_cluster=False, restarts=RESTARTS)
            return clustering.of(early, data.y, v.random_state)

        names = ("first_steps", "clusters", "max_clusters", "random_state")
        clusterings = once_each(data, "clusters", variants, names, cluster)
        powers = [np.where(f.silhouettes >= v.apart, 1.0, v.power) for v, f in zip(variants, clusterings, strict=True)]
        weightings, at = once(
            [content(f.codes, p) for f, p in zip(clusterings, powers, strict=True)],
            lambda i: within_classes(clusterings[i].codes, data.y, powers[i])[None],
        )
        return weightings, at, clusterings, powers

    @staticmethod
    def _having(
        fits: Sequence[Fit], weightings: Sequence[np.ndarray], at: Sequence[int], clusterings: Sequence[Clusters],
        powers: Sequence[np.ndarray],
    ) -> list[Fit]:  # fmt: skip
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
