"""V-REx: the mean of the environments' losses plus their variance. Needs the environment of every training row.

Krueger et al. 2021, "Out-of-Distribution Generalization via Risk Extrapolation". The environments are what is given as
groups: commands give the attribute alone, so that every environment may hold all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ._convex import CS, ConvexHead
from ._data import Data
from ._declarations import Need, Partition
from ._environments import STOPS, annealed_fits, descend
from ._errors import FitError
from ._fit import Fit
from ._losses import Logistic
from ._path import Residual
from ._problem import Solution
from ._supervision import Labels, Supervision
from ._variants import Published
from ._worst_case import row_losses

if TYPE_CHECKING:
    from torch import Tensor


class VRex(ConvexHead):
    """min over W, b:  mean_e R_e + beta * mean_e (R_e - mean R)^2  +  1 / (2 C n) ||W||^2.

    R_e is the mean loss of environment e.

    beta  weight of the variance, >= 0. Published 1 to 10,000, DomainBed 10^U(-1, 5). Large values make the objective
          non-convex (an environment better than the mean by more than 1 / (2 beta) is pushed away from its labels);
          then this is a local minimum, the one that descent from zero finds
    steps  of variant "published": Adam's, from zero, the first 500 with a beta of at most 1, of an output for each
           class, for two as well
    The rest as in `ConvexHead`, with penalty "l2". With one environment this is the plain head.

    Fitted values beyond those of `ConvexHead`: `environment_losses_`, R in the order of the sorted groups.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    partition: ClassVar[Partition] = Partition.ATTRIBUTE
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "beta": b} for C in CS[::2] for b in (1000.0, 100.0, 10.0, 1.0)
    )

    published: ClassVar[Published | None] = Published(
        "solved; the authors take Adam's steps, with a small penalty first, and stop early",
        tuple({"steps": s, "beta": x} for s in STOPS for x in (1000.0, 100.0, 10.0, 1.0)),
    )

    def __init__(
        self,
        C: float = 1.0,
        beta: float = 10.0,
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
    ) -> None:
        super().__init__(C, "l2", standardize, tol, max_iter, random_state, variant, steps)
        self.beta = beta

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        y, counts, make = self._objective(data, variants)
        risk = make([v.beta for v in variants])
        fits = descend(data, variants, [lambda like: Logistic(y, counts.to(like), risk)])
        return self._having(data, fits, risk)

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        y, counts, make = self._objective(data, variants)
        ways = list(dict.fromkeys(v.beta for v in variants))

        def residual(weight: Tensor) -> Residual:
            risk = make(weight.tolist())
            return lambda F: Logistic(y, counts.to(F), risk).residual(F[None])[0][0]

        at = [ways.index(v.beta) for v in variants]
        fits = annealed_fits(data, ways, at, [v.steps for v in variants], residual)
        return self._having(data, fits, make([v.beta for v in variants]))

    @staticmethod
    def _objective(data: Data, variants: Sequence[VRex]) -> tuple[Tensor, Tensor, Callable[[Sequence[float]], _Spread]]:
        """Labels (1, n), sizes of the environments (1, e), and the risk by its weights of the variance."""
        import torch

        for v in variants:
            if not v.beta >= 0:
                raise FitError(f"beta must not be negative, found {v.beta}")
        device, groups = data.features.device, data.known_groups()
        counts = torch.from_numpy(np.bincount(groups))[None].to(device, torch.float64)
        y, codes = (torch.from_numpy(x)[None].to(device) for x in (data.y, groups))
        return y, counts, lambda beta: _Spread(codes, counts, torch.tensor(beta).to(counts)[:, None])

    @staticmethod
    def _having(data: Data, fits: Sequence[Fit], risk: _Spread) -> list[Fit]:
        solutions = [Solution(*f.theta, 0, 0.0, f.converged) for f in fits]
        R = risk.means(row_losses(data, solutions)).cpu().numpy()
        return [fit.having(environment_losses_=r) for fit, r in zip(fits, R, strict=True)]


@dataclass(frozen=True, eq=False)
class _Spread:
    """Mean and variance of the environments' losses as the solver's risk: codes (1, n), counts (1, e), beta (p, 1)."""

    codes: Tensor
    counts: Tensor
    beta: Tensor

    def means(self, losses: Tensor) -> Tensor:
        """R (p, e) for losses (p, n)."""
        total = losses.new_zeros(len(losses), self.counts.shape[1])
        return total.scatter_add_(1, self.codes.expand(losses.shape), losses) / self.counts.to(losses)

    def weights(self, losses: Tensor) -> Tensor:
        """Derivative of the risk by the losses: (p, n)."""
        R = self.means(losses)
        q = (1 + 2 * self.beta.to(losses) * (R - R.mean(1, keepdim=True))) / R.shape[1]
        return (q / self.counts.to(losses)).gather(1, self.codes.expand(losses.shape))

    def keep(self, problems: Tensor) -> _Spread:
        """The problems that are left."""
        return _Spread(self.codes, self.counts, self.beta[problems])
