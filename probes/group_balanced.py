"""Group-balanced: every group subsampled to the rarest, averaged over draws. Needs group labels on train.

Subsampling is SUBG of Idrissi et al. 2022; the mean over several draws steadies a fit on a few hundred rows, as in
DFR on train of Kirichenko et al. 2023.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._convex import ConvexHead
from ._data import Data
from ._declarations import Need
from ._draws import balanced_draws
from ._path import STOPS
from ._supervision import Labels, Supervision
from ._variants import Published


class GroupBalanced(ConvexHead):
    """w_i is 1 for the rows of a draw and 0 for the others; the head is the mean over `draws` fits.

    draws  number of subsamples, each of min_g n_g rows per group without replacement; the rest as in `ConvexHead`
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    random: ClassVar[bool] = True

    published: ClassVar[Published | None] = Published(
        "solved, the mean of several draws; the authors take one draw and stop early",
        tuple({"draws": 1, "steps": s} for s in STOPS),
    )

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        draws: int = 10,
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
        return balanced_draws(data.known_groups(), self.draws, self._generator(), data.clusters)
