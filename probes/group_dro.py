"""GroupDRO: the group with the largest loss, made as small as can be. Needs group labels on train.

Sagawa et al. 2020, "Distributionally Robust Neural Networks for Group Shifts". On features that separate the classes
all losses go to 0 as regularisation does, and with them the differences between groups: strong regularisation belongs
in the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ._convex import CS, ConvexHead
from ._data import Data
from ._declarations import Need
from ._errors import FitError
from ._fit import Fit
from ._problem import Solution
from ._supervision import Labels, Supervision
from ._worst_case import row_losses, worst_case_fits

if TYPE_CHECKING:
    from torch import Tensor

MOMENTUM = 0.9


class GroupDro(ConvexHead):
    """min over W, b:  max_g (L_g + adjustment / sqrt(n_g))  +  1 / (2 C n) ||W||^2,   L_g the mean loss of group g.

    adjustment  generalisation adjustment, >= 0: rare groups count as worse than they look (published 0 to 5)
    mode        "exact": the minimum, with a duality gap (`embedx.probes._worst_case`), or
                "online": the published algorithm on all rows at once, for `steps` steps:
                q_g <- q_g exp(eta (L_g + adjustment / sqrt(n_g))), normalised, then one step of gradient descent with
                momentum 0.9 on sum_g q_g L_g and the regularisation, from zero. It stops early by design, and q never
                starts again
    eta, learning_rate, steps  of "online" only. Published: eta 0.01 (authors, WILDS, SpuCo) or 0.1 (BalancingGroups)
                for some 11,000 steps of a batch; fewer steps of all rows ask for the larger. learning_rate 1e-3 to 1e-5
    The rest as in `ConvexHead`, with penalty "l2".

    Fitted values beyond those of `ConvexHead`: `group_weights_`, q in the order of the sorted groups, and `gap_`,
    max_g (L_g + adj_g) - sum_g q_g (L_g + adj_g): together with `gradient_` the certificate. `converged_` asks for a
    gap of at most 1e-4, in units of the loss; after "online", which is defined by its steps, whether all is finite.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "adjustment": float(a)} for C in CS[::2] for a in (0, 2, 4)
    )

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        adjustment: float = 0.0,
        mode: str = "exact",
        eta: float = 0.1,
        learning_rate: float = 1e-3,
        steps: int = 300,
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, "l2", standardize, tol, max_iter, random_state, variant)
        self.adjustment = adjustment
        self.mode = mode
        self.eta = eta
        self.learning_rate = learning_rate
        self.steps = steps

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            if v.mode not in ("exact", "online"):
                raise FitError(f"mode must be 'exact' or 'online', found {v.mode!r}")
        groups = data.known_groups()
        exact = [v for v in variants if v.mode == "exact"]
        fits = iter(worst_case_fits(data, exact, [groups] * len(exact), [v.adjustment for v in exact]))
        return [next(fits) if v.mode == "exact" else _online(data, v, groups) for v in variants]


@dataclass(eq=False)
class _Adversary:
    """A risk for the solver that moves whenever it sees losses (1, n): exponentiated gradient ascent on q (1, g)."""

    codes: Tensor
    counts: Tensor
    shift: Tensor
    log_q: Tensor
    eta: float

    def values(self, losses: Tensor) -> Tensor:
        """L + adjustment / sqrt(n_g), (1, g)."""
        total = losses.new_zeros(self.counts.shape).scatter_add_(1, self.codes, losses)
        return total / self.counts + self.shift

    def weights(self, losses: Tensor) -> Tensor:
        """Moves q, then weighs the rows by it."""
        self.log_q = (self.log_q + self.eta * self.values(losses)).log_softmax(1)
        return (self.log_q.exp() / self.counts).gather(1, self.codes)

    def keep(self, problems: Tensor) -> _Adversary:
        """There is one problem."""
        return self


def _online(data: Data, v: GroupDro, groups: np.ndarray) -> Fit:
    import torch

    from ._losses import Logistic
    from ._operators import Shared

    features, k = data.features, 1 if data.k == 2 else data.k
    like = {"dtype": features.dtype, "device": features.device}
    counts = torch.from_numpy(np.bincount(groups)).to(**like)[None]
    codes, y = (torch.from_numpy(x).to(features.device)[None] for x in (groups, data.y))
    adversary = _Adversary(codes, counts, v.adjustment / counts.sqrt(), torch.zeros_like(counts), v.eta)
    loss, operator = Logistic(y, counts, adversary), Shared(features, features.dtype)
    W = torch.zeros(1, k, features.d + 1, **like)
    ridge = torch.full((features.d + 1,), float(v.C) ** -1 / features.n, **like)
    ridge[-1] = 0

    def look() -> Tensor:
        R, _ = loss.residual(operator.forward(W)[:, None])
        return operator.backward(R[:, 0])

    speed = torch.zeros_like(W)
    for _ in range(v.steps):
        speed = MOMENTUM * speed + look()
        # The step for the regularisation is implicit, which is stable for any C; its factor is that of a steady speed.
        W = (W - v.learning_rate * speed) / (1 + v.learning_rate / (1 - MOMENTUM) * ridge)
    adversary.eta = 0.0
    g = float((look() + ridge * W).abs().max())
    theta = W[0].double().cpu().numpy()
    (losses,) = row_losses(data, [Solution(theta[:, :-1], theta[:, -1], v.steps, g, g <= v.tol)])[None].to(counts)
    values, q = adversary.values(losses), adversary.log_q.exp()
    gap = float(values.max() - (q * values).sum())
    more = {"n_iter_": v.steps, "gradient_": g, "gap_": gap, "group_weights_": q[0].double().cpu().numpy()}
    return Fit(bool(np.isfinite(theta).all()), theta[:, :-1], theta[:, -1], more)
