"""What the loops share: rows, losses, and descent by automatic derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Rows:
    """Standardised features Z (n, d), classes y of 0 and 1, groups and the attribute (n,)."""

    Z: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    attribute: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        """Some of them."""
        return Rows(self.Z[rows], self.y[rows], self.groups[rows], self.attribute[rows])

    @property
    def matrix(self) -> Tensor:
        """(n, d + 1) features with a column of ones."""
        return torch.from_numpy(np.column_stack([self.Z, np.ones(len(self.y))]))

    def losses(self, theta: Tensor, A: Tensor) -> Tensor:
        """(n,) logistic losses of a head (d + 1,)."""
        sign = torch.from_numpy(2.0 * self.y - 1)
        return torch.nn.functional.softplus(-sign * (A @ theta))


def length(A: Tensor, v: np.ndarray | None = None) -> float:
    """1 / L for sum_i v_i loss_i, v of sum 1: L = 1.1 / 4 times the largest eigenvalue of sum_i v_i a_i a_i'.

    Without v, of the mean loss: L = (1 + largest eigenvalue of the mean of z_i z_i') / 4.
    """
    n = len(A)
    if v is None:
        return float(4 / (1 + torch.linalg.eigvalsh(A[:, :-1].T @ A[:, :-1] / n)[-1]))
    return float(4 / (1.1 * torch.linalg.eigvalsh(A.T @ (torch.from_numpy(v)[:, None] * A))[-1]))


def descend(
    objective: Objective, theta: Tensor, rate: float, momentum: float = 0.9, clip: float = np.inf
) -> Iterator[Tensor]:
    """The head after one step, after two, and so on."""
    speed = torch.zeros_like(theta)
    while True:
        theta = theta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(theta), theta)
        if gradient.norm() > clip:
            gradient = gradient * clip / gradient.norm()
        speed = momentum * speed - rate * gradient
        theta = theta.detach() + speed
        yield theta


def layer(theta: Tensor) -> Tensor:
    """(2, d + 1) outputs for two classes whose difference is the head theta (d + 1,)."""
    return torch.stack([-theta / 2, theta / 2])


def at(walk: Iterator[Tensor], stops: set[int]) -> dict[int, np.ndarray]:
    """{number of steps: the head (d + 1,) then}, of a walk of heads or of layers (2, d + 1)."""
    found = {}
    for step, theta in enumerate(walk, 1):
        if step in stops:
            found[step] = (theta if theta.ndim == 1 else theta[1] - theta[0]).numpy().copy()
        if step >= max(stops):
            return found
    raise AssertionError
