"""CVaR-DRO: the mean loss of the worst share of the rows, made as small as can be. Needs no group labels.

Levy et al. 2020, "Large-Scale Methods for Distributionally Robust Optimization". Where labels are noisy, the worst rows
are the mislabelled ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ._convex import CS, ConvexHead
from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._fit import Fit
from ._parameters import LADDERS
from ._path import LONGEST, STOPS, Steps, fit_of, longest, walked, zeros
from ._variants import PUBLISHED, Published
from ._worst_case import mixture_fits

if TYPE_CHECKING:
    from torch import Tensor

STOPPED = tuple({"steps": s, "alpha": a} for s in STOPS for a in (0.5, 0.2, 0.1))


class Cvar(ConvexHead):
    """min over W, b, e:  e + 1 / (alpha n) sum_i max(0, loss_i - e)  +  1 / (2 C n) ||W||^2.

    alpha  share of the rows that counts, in (0, 1]; 1 is the plain head. Published 0.1, and 10^U(-2, 0) in SubpopBench;
           what alpha n leaves as a fraction of a row counts as that fraction
    steps  of variant "published": gradient steps on all rows, those above e weighing 1 / (alpha n)
    The rest as in `ConvexHead`, with penalty "l2". Solved exactly (`embedx.probes._worst_case`).

    Fitted values beyond those of `ConvexHead`: `effective_size_`, 1 / sum w^2 of the weights of the rows (sum 1): how
    many of them decide; and `gap_`, the duality gap: the worst share's mean loss less the mean by those weights.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = (
        *({"C": C, "alpha": a} for C in CS[2::4] for a in (0.5, 0.2, 0.1)),
        *({"variant": PUBLISHED} | setting for setting in STOPPED if setting["steps"] <= LONGEST),
    )
    grows: ClassVar[Mapping[str, tuple[float, float]]] = LADDERS | {"steps": (1, STOPS[-1])}
    published: ClassVar[Published | None] = Published(
        "stopped early, as by the authors, or solved", STOPPED, without=frozenset({"C"})
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
        steps: int = 100,
    ) -> None:
        super().__init__(C, "l2", standardize, tol, max_iter, random_state, variant, steps)
        self.alpha = alpha

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        _check(variants)
        n, m = len(data.y), len(variants)
        caps = np.array([min(1.0, 1 / (v.alpha * n)) for v in variants])
        fits = mixture_fits(data, variants, np.arange(n)[None], np.ones((m, n)), np.zeros((m, n)), caps)
        return [fit.having(effective_size_=float(1 / np.square(q).sum())) for fit, q in fits]

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        import torch

        from ._losses import Logistic

        _check(variants)
        alphas = list(dict.fromkeys(v.alpha for v in variants))
        start = zeros(data.features, len(alphas), data.k)
        y, tail = torch.from_numpy(data.y).to(start.device)[None], _Tail(torch.tensor(alphas).to(start)[:, None])
        logistic = Logistic(y, start.new_ones(1, 1), tail)
        # The weights of the rows are at most 1 / (alpha n), and so the curvature at most 1 / alpha times the mean's.
        steps = Steps(longest(data.features, data.k) * np.array(alphas))
        asked = [(alphas.index(v.alpha), v.steps) for v in variants]
        thetas = walked(data.features, start, lambda F: logistic.residual(F[None])[0][0], asked, steps)
        return [fit_of(thetas[way, stop], n_iter_=stop) for way, stop in asked]


@dataclass(frozen=True, eq=False)
class _Tail:
    """The mean of the worst share alpha (p, 1) of the losses as the solver's risk."""

    alpha: Tensor

    def weights(self, losses: Tensor) -> Tensor:
        """(p, n) 1 / (alpha n) for the worst rows, what is left of 1 for the next one, 0 for the others."""
        import torch

        cap = 1 / (self.alpha * losses.shape[1])
        order = losses.argsort(1, descending=True)
        left = 1 - cap * torch.arange(losses.shape[1], device=losses.device)
        return torch.zeros_like(losses).scatter(1, order, left.clamp_min(0).minimum(cap))

    def keep(self, problems: Tensor) -> _Tail:
        """All stay to the end."""
        return self


def _check(variants: Sequence[Cvar]) -> None:
    for v in variants:
        if not 0 < v.alpha <= 1:
            raise FitError(f"alpha must be above 0 and at most 1, found {v.alpha}")
