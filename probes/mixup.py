"""Mixup: a head on rows between any two rows, with labels mixed alike. Needs no group labels.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412), of features, as manifold mixup (Verma
et al. 2019) does at the last layer; steps and rates as in SubpopBench (Yang et al. 2023). For a linear head it is a
regularisation that no rare group gains by: it is here to tell what `lisa` owes to mixing and what to its pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._data import Data
from ._errors import FitError
from ._fit import Fit
from ._head import LinearHead
from ._sgd import Mixed, Sgd, sgd_fits
from ._variants import Published

BATCH, SGD = 108, Sgd(rate=1e-3, momentum=0.9, decay=1e-4)
"""SubpopBench's, for images."""


class Mixup(LinearHead):
    """Gradient steps on E[s loss(F, y_i) + (1 - s) loss(F, y_j)],  F = W (s z_i + (1 - s) z_j) + b

    over pairs of rows i, j, drawn alike and independently, and s of Beta(alpha, alpha), anew for every one of 108 rows
    of a step; see `Sgd`.

    Parameters
    steps  at which the way stops; published: 5,001 for Waterbirds, 30,001 for CelebA
    alpha  above 0; SubpopBench: 0.2
    standardize, random_state as in `Head`
    """

    random: ClassVar[bool] = True
    published: ClassVar[Published | None] = Published("stops where validation is best", grid=({"steps": 5000},))
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"steps": s} for s in (50, 150, 500, 1500))
    grows: ClassVar[Mapping[str, tuple[float, float]]] = {"steps": (5, 5000)}

    def __init__(
        self,
        steps: int = 5000,
        alpha: float = 0.2,
        standardize: bool = True,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(standardize, random_state, variant)
        self.steps = steps
        self.alpha = alpha

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        def draws(head: Self, rng: np.random.RandomState) -> Iterator[Mixed]:
            if not head.alpha > 0:
                raise FitError(f"alpha must be above 0, found {head.alpha}")
            while True:
                first, second = rng.randint(len(data.y), size=(2, BATCH))
                yield Mixed(first, second, rng.beta(head.alpha, head.alpha, BATCH))

        return sgd_fits(data, variants, SGD, ("alpha",), lambda v: v.steps, draws)
