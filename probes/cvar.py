"""CVaR-DRO: the mean loss of the worst share of the rows, made as small as can be. Needs no group labels.

Levy et al. 2020, "Large-Scale Methods for Distributionally Robust Optimization". Where labels are noisy, the worst rows
are the mislabelled ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import CS, ConvexHead
from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._fit import Fit
from ._worst_case import mixture_fits


class Cvar(ConvexHead):
    """min over W, b, e:  e + 1 / (alpha n) sum_i max(0, loss_i - e)  +  1 / (2 C n) ||W||^2.

    alpha  share of the rows that counts, in (0, 1]; 1 is the plain head. Published 0.1, and 10^U(-2, 0) in SubpopBench;
           what alpha n leaves as a fraction of a row counts as that fraction
    The rest as in `ConvexHead`, with penalty "l2". Solved exactly (`embedx.probes._worst_case`).

    Fitted values beyond those of `ConvexHead`: `effective_size_`, 1 / sum w^2 of the weights of the rows (sum 1): how
    many of them decide; and `gap_`, the duality gap: the worst share's mean loss less the mean by those weights.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "alpha": a} for C in CS[2::4] for a in (0.5, 0.2, 0.1)
    )

    def __init__(
        self,
        C: float = 1.0,
        alpha: float = 0.1,
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, "l2", standardize, tol, max_iter, random_state, variant)
        self.alpha = alpha

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            if not 0 < v.alpha <= 1:
                raise FitError(f"alpha must be above 0 and at most 1, found {v.alpha}")
        n, m = len(data.y), len(variants)
        caps = np.array([min(1.0, 1 / (v.alpha * n)) for v in variants])
        fits = mixture_fits(data, variants, np.arange(n)[None], np.ones((m, n)), np.zeros((m, n)), caps)
        return [fit.having(effective_size_=float(1 / np.square(q).sum())) for fit, q in fits]
