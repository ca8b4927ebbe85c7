"""DFR on validation: sparse heads on group-balanced draws, averaged. Needs group labels on the rows it is fitted on.

Deep Feature Reweighting, Kirichenko et al. 2023, "Last Layer Re-Training is Sufficient for Robustness to Spurious
Correlations" (DFR^Val_Tr): fitted on validation rows, which the training of the backbone has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ._convex import ConvexHead
from ._data import Data
from ._declarations import Need
from ._draws import balanced_draws
from ._supervision import Labels, On, Supervision

PUBLISHED = tuple({"C": C} for C in (0.01, 0.03, 0.07, 0.1, 0.3, 0.7, 1.0))


class Dfr(ConvexHead):
    """w_i is 1 for the rows of a draw and 0 for the others; the head is the mean over `draws` fits.

    A draw takes min_g n_g rows of every group, without replacement: 4 x 133 of Waterbirds' validation rows.

    draws    the paper says 10, its code 20, SubpopBench does not average (1). W and b are averaged, not probabilities.
             While C is chosen it is 1, as in the code
    penalty  "l1" as published; "l2" is the variant that the authors' code holds in a comment
    The rest as in `ConvexHead`. Two things differ from the authors' code. The intercept is not penalised (liblinear
    does), and more than two classes are one softmax, not one against the rest each, so that the mean of W and b is that
    of one parameterisation. And features are standardised by all rows that are fitted, as Izmailov et al. 2022 do; the
    authors take the balanced rows to tune and the training rows to fit: hand `Features` with their mean and scale to
    `path` for that.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS, On.VALIDATION),)
    fits_on: ClassVar[On] = On.VALIDATION
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = PUBLISHED
    tried_with: ClassVar[Mapping[str, Any]] = {"tol": 1e-4, "draws": 1}  # as the authors do

    def __init__(
        self,
        C: float = 1.0,
        draws: int = 20,
        penalty: str = "l1",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant)
        self.draws = draws

    def _weightings(self, data: Data) -> np.ndarray:
        return balanced_draws(data.known_groups(), self.draws, self._generator(), data.clusters)
