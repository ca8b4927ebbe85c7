"""IRM: a head that is at its best scale in every environment. Needs the environment of every training row.

IRMv1 of Arjovsky et al. 2019, "Invariant Risk Minimization". The environments are what is given as groups: commands
give the attribute alone, as in SubpopBench, so that every environment may hold all classes. It rarely gains over
reweighting, and there are two ways in which it is no method at all: with one environment the plain optimum has no
penalty left but for the regularisation, so that IRM is the plain head; and where the losses can go to 0 the penalties
go there with them, whatever the head leans on, so that separable features leave it to the regularisation. `penalties_`
shows the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ._convex import CS, ConvexHead
from ._data import Data
from ._declarations import Need, Partition
from ._environments import STOPS, annealed_fits, descend
from ._errors import FitError
from ._fit import Fit
from ._path import Residual
from ._supervision import Labels, Supervision
from ._variants import Published

if TYPE_CHECKING:
    from torch import Tensor


class Irm(ConvexHead):
    """min over W, b:  mean_e [R_e + strength * (d R_e(s f) / ds at s = 1)^2]  +  1 / (2 C n) ||W||^2.

    R_e(s f) is the mean loss of environment e with the logits f = W z + b times s.

    strength  weight of the penalty, >= 0. Published 10,000 (colored MNIST, EIIL), 100 (WILDS, DomainBed, SubpopBench)
    anneal    descend with strength 1 first and go on from there, as the published code does; without it the descent
              starts from zero. The objective is not convex, so the two may end in different local minima
    steps     of variant "published": Adam's, from zero, of an output for each class, for two as well; the first 500
              with a penalty of weight 1 (with `anneal` or not)
    The rest as in `ConvexHead`, with penalty "l2".

    Fitted values beyond those of `ConvexHead`: `penalties_`, the square of every environment, in their sorted order.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    partition: ClassVar[Partition] = Partition.ATTRIBUTE
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "strength": s} for C in CS[2::4] for s in (1000.0, 100.0, 10.0)
    )

    published: ClassVar[Published | None] = Published(
        "solved; the authors take Adam's steps, with a small penalty first, and stop early",
        tuple({"steps": s, "strength": x} for s in STOPS for x in (1000.0, 100.0, 10.0)),
    )

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        strength: float = 100.0,
        anneal: bool = True,
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
    ) -> None:
        super().__init__(C, "l2", standardize, tol, max_iter, random_state, variant, steps)
        self.strength = strength
        self.anneal = anneal

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        import torch

        make = self._objective(data, variants)
        strength = torch.tensor([v.strength for v in variants], dtype=torch.float64, device=data.features.device)
        slow = torch.tensor([v.anneal for v in variants], device=data.features.device)
        first = torch.where(slow, strength.clamp_max(1), strength)
        fits = descend(data, variants, [lambda like: make(like, first), lambda like: make(like, strength)])
        return self._having(data, fits, make)

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        make, ways = self._objective(data, variants), list(dict.fromkeys(v.strength for v in variants))
        at = [ways.index(v.strength) for v in variants]

        def residual(weight: Tensor) -> Residual:
            return lambda F: make(F, weight).residual(F[None])[0][0]

        return self._having(data, annealed_fits(data, ways, at, [v.steps for v in variants], residual), make)

    @staticmethod
    def _objective(data: Data, variants: Sequence[Irm]) -> Callable[[Tensor, Tensor], _Invariance]:
        """Of the precision of a tensor, with weights (p,) of the penalty."""
        import torch

        for v in variants:
            if not v.strength >= 0:
                raise FitError(f"strength must not be negative, found {v.strength}")
        device, groups = data.features.device, data.known_groups()
        y, codes = (torch.from_numpy(x).to(device) for x in (data.y, groups))
        counts = torch.from_numpy(np.bincount(groups)).to(device, torch.float64)
        return lambda like, weight: _Invariance(y, codes, counts.to(like), weight.to(like))

    @staticmethod
    def _having(data: Data, fits: Sequence[Fit], make: Callable[[Tensor, Tensor], _Invariance]) -> list[Fit]:
        import torch

        from ._operators import Shared

        W = torch.from_numpy(np.array([np.column_stack(f.theta) for f in fits])).to(data.features.device)
        F = Shared(data.features, torch.float64).forward(W.flatten(0, 1)[None]).unflatten(1, W.shape[:2])
        penalties = make(F, F.new_ones(len(fits))).slopes(F)[0].square().cpu().numpy()
        return [fit.having(penalties_=p) for fit, p in zip(fits, penalties, strict=True)]


@dataclass(frozen=True, eq=False)
class _Invariance:
    """The objective but for the regularisation, for `minimise`: y and codes (n,), counts (e,), strength (p,)."""

    y: Tensor
    codes: Tensor
    counts: Tensor
    strength: Tensor

    def residual(self, F: Tensor) -> tuple[Tensor, Tensor]:
        """(1, p, k, n) derivative by the logits, and (1, p, k) mean curvature of the losses."""
        v = (1 / (self.counts * len(self.counts)))[self.codes]
        P, wrong, mean = self._parts(F)
        # d slope_i / d f_ij = (p_ij - [j = y_i]) + p_ij (f_ij - mean f_i)
        u = 2 * self.strength[:, None] * self._slopes(wrong, F)[0][:, self.codes] * v
        R = wrong * v + u[None, :, None] * (wrong + P * (F - mean))
        return R, (v * P * (1 - P)).sum(-1)

    def slopes(self, F: Tensor) -> Tensor:
        """(1, p, e) derivatives of the environments' losses by the scale."""
        return self._slopes(self._parts(F)[1], F)

    def keep(self, stacks: Tensor, problems: Tensor) -> _Invariance:
        """The problems that are left."""
        return replace(self, strength=self.strength[problems])

    def _slopes(self, wrong: Tensor, F: Tensor) -> Tensor:
        rows = (wrong * F).sum(2)
        total = rows.new_zeros(*rows.shape[:2], len(self.counts))
        return total.index_add_(2, self.codes, rows) / self.counts

    def _parts(self, F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, probabilities less truth, (1, p, k, n), and the mean logit under them (1, p, 1, n)."""
        import torch

        if F.shape[2] == 1:
            P = torch.sigmoid(F)
            return P, P - self.y, P * F
        P = torch.softmax(F, 2)
        truth = torch.nn.functional.one_hot(self.y, F.shape[2]).T.to(F)
        return P, P - truth, (P * F).sum(2, keepdim=True)
