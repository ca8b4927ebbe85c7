"""IRMv1 (Arjovsky et al. 2019) and V-REx (Krueger et al. 2021), the attribute's values as environments.

As in DomainBed: Adam on a layer with two outputs, the penalty with weight 1 for 500 steps, then a new Adam with the
full weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rows import Rows

ANNEALED = 500


def _adam(
    objective: Callable[[Tensor, float], Tensor], d: int, weight: float, stops: set[int]
) -> dict[int, np.ndarray]:
    W = torch.zeros(2, d, dtype=torch.float64, requires_grad=True)
    found, optimiser = {}, torch.optim.Adam([W], lr=1e-3)
    for step in range(1, max(stops) + 1):
        if step == ANNEALED + 1:
            optimiser = torch.optim.Adam([W], lr=1e-3)
        optimiser.zero_grad()
        objective(W[1] - W[0], min(1.0, weight) if step <= ANNEALED else weight).backward()
        optimiser.step()
        if step in stops:
            found[step] = (W[1] - W[0]).detach().numpy().copy()
    return found


def _heads(
    train: Rows,
    settings: Sequence[Mapping[str, Any]],
    name: str,
    penalty: Callable[[list[Tensor], list[Tensor]], Tensor],
) -> list[np.ndarray]:
    A = train.matrix
    members = [torch.from_numpy(np.flatnonzero(train.attribute == e)) for e in np.unique(train.attribute)]
    sign = torch.from_numpy(2.0 * train.y - 1)

    def objective(theta: Tensor, weight: float) -> Tensor:
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        losses = torch.nn.functional.softplus(-sign * (A @ theta) * scale)
        R = [losses[m].mean() for m in members]
        slopes = [torch.autograd.grad(r, scale, create_graph=True)[0] for r in R]
        return torch.stack(R).mean() + weight * penalty(R, slopes)

    stops = {s["steps"] for s in settings}
    found = {w: _adam(objective, A.shape[1], w, stops) for w in {s[name] for s in settings}}
    return [found[s[name]][s["steps"]] for s in settings]


def irm(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """The penalty is the mean square of the environments' slopes by the scale of the logits."""
    return _heads(train, settings, "strength", lambda R, slopes: torch.stack(slopes).square().mean())


def v_rex(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """The penalty is the variance of the environments' losses."""
    return _heads(train, settings, "beta", lambda R, slopes: torch.stack(R).var(correction=0))
