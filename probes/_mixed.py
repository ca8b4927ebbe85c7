"""Products of many problems with one feature matrix, of each in half or in full precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from probes._descent import Operator


@dataclass
class Mixed:
    """Two operators, for logits (b, p, k, n) and coefficients (b, p, k, d + 1) of p problems with k outputs each.

    rough  (p,) the problems whose products are taken in half precision
    """

    exact: Operator
    half: Operator | None
    rough: Tensor

    def forward(self, W: Tensor) -> Tensor:
        """Logits of W."""
        return self._each(W, lambda by: by.forward)

    def backward(self, R: Tensor) -> Tensor:
        """Coefficients Z' R."""
        return self._each(R, lambda by: by.backward)

    def full(self) -> Mixed:
        """All in full precision, for any number of problems."""
        return Mixed(self.exact, None, self.rough[:0])

    def keep(self, stacks: Tensor, problems: Tensor) -> Mixed:
        """The problems that are left."""
        return Mixed(self.exact.keep(stacks), self.half and self.half.keep(stacks), self.rough[problems])

    def _each(self, X: Tensor, product: Callable[[Operator], Callable[[Tensor], Tensor]]) -> Tensor:
        if self.half is None or not self.rough.any():
            return _of(product(self.exact), X)
        if self.rough.all():
            return _of(product(self.half), X)
        half, exact = _of(product(self.half), X[:, self.rough]), _of(product(self.exact), X[:, ~self.rough])
        out = exact.new_empty(*X.shape[:3], exact.shape[3])
        out[:, self.rough], out[:, ~self.rough] = half, exact
        return out


def _of(product: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
    return product(X.flatten(1, 2)).unflatten(1, X.shape[1:3])
