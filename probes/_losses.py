"""The logistic loss of weighted rows, for two classes and for more, as the solver wants it: derivatives by logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Risk(Protocol):
    """What to minimise of the rows' losses, instead of their weighted mean."""

    def weights(self, losses: Tensor) -> Tensor:
        """Derivative of the risk of every problem by its rows' losses: (p, n) -> (p, n)."""
        ...

    def keep(self, problems: Tensor) -> Risk:
        """The problems that are left."""
        ...


@dataclass(frozen=True, eq=False)
class Logistic:
    """sum_i v_i loss_i for logits (b, p, k, n): k = 1, the logit of class 1, for two classes, else one for each.

    y  (b or 1, n) class codes
    v  (b or 1, p or 1, n) weights; or the risk gives them (b = 1)
    """

    y: Tensor
    v: Tensor
    risk: Risk | None = None

    def residual(self, F: Tensor) -> tuple[Tensor, Tensor]:
        """(b, p, k, n) derivative by the logits, and (b, p, k) mean curvature sum_i v_i p_i (1 - p_i)."""
        import torch

        if F.shape[2] == 1:
            sign = (2 * self.y - 1).to(F)[:, None]
            M = F[:, :, 0] * sign
            v = self._weights(lambda: torch.nn.functional.softplus(-M))
            wrong = torch.sigmoid(-M)
            R = wrong * v
            h = (R - R * wrong).sum(-1, keepdim=True)
            return (R * -sign)[:, :, None], h
        P = torch.softmax(F, 2)
        index = self.y[:, None, None].expand(*F.shape[:2], 1, F.shape[3])
        v = self._weights(lambda: -torch.log_softmax(F, 2).gather(2, index)[:, :, 0])[:, :, None]
        R = P * v
        h = (R - R * P).sum(-1)
        R.scatter_add_(2, index, -v.expand(index.shape))
        return R, h

    def keep(self, stacks: Tensor, problems: Tensor) -> Logistic:
        """The problems that are left."""
        y = self.y if len(self.y) == 1 or stacks.all() else self.y[stacks]
        v, risk = self.v, self.risk
        if risk is not None:
            return replace(self, y=y, risk=risk.keep(problems))
        v = v if len(v) == 1 or stacks.all() else v[stacks]
        return replace(self, y=y, v=v if v.shape[1] == 1 or problems.all() else v[:, problems])

    def _weights(self, losses: Callable[[], Tensor]) -> Tensor:
        return self.v if self.risk is None else self.risk.weights(losses()[0])[None]
