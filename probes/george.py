"""GEORGE: clusters within each class are the groups, then GroupDRO. Needs no group labels.

Sohoni et al. 2020, "No Subclass Left Behind: Fine-Grained Robustness in Coarse-Grained Classification Problems"
(arXiv 2011.12945).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import ConvexHead
from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._fit import Fit
from ._group_objectives import Use, fits_over
from ._inference import (
    Clustering,
    Clusters,
    First,
    first_logits,
    margins,
    once_each,
    principal,
    row_losses,
)  # fmt: skip
from ._online import Online, online_fits
from ._parameters import LADDERS
from ._path import LONGEST, STOPS
from ._variants import PUBLISHED, Published

SPACES = ("margin", "logits", "features")
STOPPED = tuple({"steps": s, "eta": eta} for s in STOPS for eta in (0.01, 0.1))


class George(ConvexHead):
    """Groups: k-means clusters within each class.

    Parameters beyond those of `ConvexHead`
    use           "worst-case": GroupDRO, as published; "reweight"; "subsample"
    adjustment    of "worst-case": a group of n_g rows counts as its mean loss + adjustment / sqrt(n_g); published: 2
                  for Waterbirds, 3 for CelebA
    space         what is clustered: "margin", the logit of the label above the largest other (published for
                  Waterbirds); "logits"; "features", along their 50 leading principal directions (CelebA: all of them)
    first_C       of the head whose logits they are, which is plain
    clusters      number in each class, or None to take the one with the best silhouette, of 2 to `max_clusters`
    overcluster   0, or the number of pieces in a trial split of each cluster: a piece is kept if it lies further
                  apart than before, its mean loss is not below its cluster's, and it holds 25 rows and 0.5 %
                  of its class (published: 5)
    draws         of "subsample"
    eta, steps    of variant "published": of its GroupDRO, which stops early (`group-dro`)

    Silhouettes are computed on at most 2,000 rows of a class, and losses on the rows that the first head was fitted
    on. k-means stands for the Gaussian mixture that the authors use in one dimension.

    Fitted values beyond: `inferred_groups_` (n,); `silhouettes_`, of the clusters of each class, nan for one cluster;
    with "worst-case" also `group_weights_`, the worst mixture by group, and `gap_`, its duality gap; else
    `effective_sample_size_`.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = (
        *({"C": C} for C in (1e-4, 1e-3, 1e-2, 0.1)),
        *({"variant": PUBLISHED} | setting for setting in STOPPED if setting["steps"] <= LONGEST),
    )
    grows: ClassVar[Mapping[str, tuple[float, float]]] = LADDERS | {"steps": (1, STOPS[-1])}
    published: ClassVar[Published | None] = Published(
        "stopped early, as by the authors, or solved", STOPPED, without=frozenset({"C", "use", "draws"})
    )

    inferred_groups_: np.ndarray
    silhouettes_: np.ndarray

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        use: str = "worst-case",
        adjustment: float = 2.0,
        space: str = "margin",
        first_C: float = 1e-3,
        clusters: int | None = None,
        max_clusters: int = 10,
        overcluster: int = 0,
        draws: int = 10,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
        eta: float = 0.1,
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant, steps)
        self.use = use
        self.adjustment = adjustment
        self.space = space
        self.first_C = first_C
        self.clusters = clusters
        self.max_clusters = max_clusters
        self.overcluster = overcluster
        self.draws = draws
        self.eta = eta

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        clusterings = self._clustered(data, variants)
        uses = [Use(v.use, v.draws, v.adjustment, v.random_state) for v in variants]
        fits = fits_over(data, variants, [f.codes for f in clusterings], uses)
        return [fit.having(silhouettes_=f.silhouettes) for fit, f in zip(fits, clusterings, strict=True)]

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        clusterings = self._clustered(data, variants)
        ways = [Online(v.eta, v.adjustment) for v in variants]
        fits = online_fits(data, [f.codes for f in clusterings], ways, [v.steps for v in variants])
        return [
            fit.having(silhouettes_=f.silhouettes, inferred_groups_=f.codes)
            for fit, f in zip(fits, clusterings, strict=True)
        ]

    @staticmethod
    def _clustered(data: Data, variants: Sequence[George]) -> list[Clusters]:
        if other := {v.space for v in variants} - set(SPACES):
            raise FitError(f"space must be one of {', '.join(map(repr, SPACES))}, found {min(other)!r}")
        firsts = [First.asked(v, v.first_C) for v in variants if v.space != "features" or v.overcluster]
        logits = dict(zip(firsts, first_logits(data, firsts), strict=True))

        def cluster(v: George) -> Clusters:
            outputs = logits.get(First.asked(v, v.first_C))
            losses = row_losses(outputs, data.y) if v.overcluster and outputs is not None else None
            if v.space == "features" or outputs is None:
                points = principal(data.features)
            else:
                points = margins(outputs, data.y) if v.space == "margin" else outputs
            clustering = Clustering(v.clusters, v.max_clusters, True, v.overcluster)
            return clustering.of(points, data.y, v.random_state, losses)

        names = ("space", "first_C", "tol", "max_iter", "clusters", "max_clusters", "overcluster", "random_state")
        return once_each(data, "clusters", variants, names, cluster)
