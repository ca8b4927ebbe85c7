"""Group-balanced: every group subsampled to the rarest, averaged over draws. Needs group labels on train.

Subsampling is SUBG of Idrissi et al. 2022; the mean over several draws steadies a fit on a few hundred rows, as in
DFR on train of Kirichenko et al. 2023.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from probes._machinery import LinearHead, balanced_draws


class GroupBalanced(LinearHead):
    """w_i is 1 for the rows of a draw and 0 for the others; the head is the mean over `draws` fits.

    draws  number of subsamples, each of min_g n_g rows per group without replacement; the rest as in `LinearHead`
    """

    needs: ClassVar[frozenset[str]] = frozenset({"groups"})
    supervision: ClassVar[str] = "group labels on train, to fit"
    random: ClassVar[bool] = True

    def __init__(
        self,
        C: float = 1.0,
        draws: int = 10,
        standardize: bool = True,
        tol: float = 1e-6,
        max_iter: int = 2000,
        random_state: int | None = None,
    ) -> None:
        super().__init__(C=C, standardize=standardize, tol=tol, max_iter=max_iter, random_state=random_state)
        self.draws = draws

    def _weightings(self, y: np.ndarray, groups: np.ndarray | None, rng: np.random.RandomState) -> np.ndarray:
        assert groups is not None  # `fit` has refused already
        return balanced_draws(groups, self.draws, rng)
