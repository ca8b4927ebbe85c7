"""DFR on validation: sparse heads on group-balanced draws, averaged. Needs group labels on the rows it is fitted on.

Deep Feature Reweighting, Kirichenko et al. 2023, "Last Layer Re-Training is Sufficient for Robustness to Spurious
Correlations" (DFR^Val_Tr): fitted on validation rows, which the training of the backbone has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import ConvexHead
from ._data import Data
from ._declarations import Need
from ._draws import balanced_draws
from ._fit import Fit
from ._once import once
from ._process_settings import quiet
from ._supervision import Labels, On, Supervision
from ._variants import Published

PUBLISHED = tuple({"C": C} for C in (0.01, 0.03, 0.07, 0.1, 0.3, 0.7, 1.0))


class Dfr(ConvexHead):
    """w_i is 1 for the rows of a draw and 0 for the others; the head is the mean over `draws` fits.

    A draw takes min_g n_g rows of every group, without replacement: 4 x 133 of Waterbirds' validation rows.

    draws    the paper says 10, its code 20, SubpopBench does not average (1). W and b are averaged, not probabilities.
             While C is chosen it is 1, as in the code
    penalty  "l1" as published; "l2" is the variant that the authors' code holds in a comment
    The rest as in `ConvexHead`.

    Variant "published" is the authors' solver, scikit-learn's liblinear: it penalises the intercept too, takes more
    than two classes as one against the rest each, and stops at its own tolerance (`tol`, `max_iter` are not used).
    Features are standardised by all rows that are fitted, or, where commands fit, by the training rows, as the authors
    do to fit; to tune they take the balanced rows.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS, On.VALIDATION),)
    fits_on: ClassVar[On] = On.VALIDATION
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = PUBLISHED
    tried_with: ClassVar[Mapping[str, Any]] = {"tol": 1e-4, "draws": 1}  # as the authors do

    published: ClassVar[Published | None] = Published(
        "the intercept is not penalised, and classes are one softmax", tried_with={"draws": 1}
    )

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

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        weightings, at = self._weighted(data, variants)
        asked, of = once([(w, float(v.C)) for v, w in zip(variants, at, strict=True)], lambda i: (at[i], variants[i].C))
        fits = [_liblinear(data, [np.flatnonzero(row) for row in weightings[w]], C) for w, C in asked]
        return [fits[i] for i in of]


def _liblinear(data: Data, draws: Sequence[np.ndarray], C: float) -> Fit:
    """The mean over draws of rows of the authors' solver, for two classes, or for each of more against the others."""
    from sklearn.linear_model import LogisticRegression

    parts, converged = [], True
    for rows in draws:
        Z, y = data.features.take(rows).double().cpu().numpy(), data.y[rows]
        heads = []
        for c in range(1, 2) if data.k == 2 else range(data.k):
            model = LogisticRegression(C=C, l1_ratio=1.0, solver="liblinear", random_state=0)
            with quiet:  # it warns where it stops at its number of iterations, which `converged_` says
                model.fit(Z, y == c)
            heads.append(np.append(model.coef_[0], model.intercept_))
            converged &= bool(model.n_iter_.max() < model.max_iter)
        parts.append(heads)
    theta = np.mean(parts, axis=0)
    return Fit(converged, theta[:, :-1], theta[:, -1])
