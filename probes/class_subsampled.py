"""Class-subsampled: every class subsampled to the rarest, averaged over draws (SUBY in Idrissi et al. 2022).

A draw leaves the mix of groups inside each class as it was, so that it helps against rare classes and not against rare
groups.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._convex import ConvexHead
from ._data import Data
from ._draws import balanced_draws
from ._path import STOPS
from ._variants import Published


class ClassSubsampled(ConvexHead):
    """w_i is 1 for the rows of a draw and 0 for the others; the head is the mean over `draws` fits.

    draws  number of subsamples, each of min_c n_c rows per class without replacement; published: 1. The rest as in
           `ConvexHead`
    """

    random: ClassVar[bool] = True

    published: ClassVar[Published | None] = Published(
        "solved, the mean of several draws; the authors take one draw and stop early",
        tuple({"draws": 1, "steps": s} for s in STOPS),
    )

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        draws: int = 3,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant, steps)
        self.draws = draws

    def _weightings(self, data: Data) -> np.ndarray:
        return balanced_draws(data.y, self.draws, self._generator(), data.clusters)
