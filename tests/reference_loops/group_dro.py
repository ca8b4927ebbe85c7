"""GroupDRO, Sagawa et al. 2020: exponentiated ascent on the groups' weights beside descent on the head; and EIIL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rows import Rows, at, length
from .weighted import walk


def online(
    rows: Rows, groups: np.ndarray, eta: float, adjustment: float, decay: float, stops: set[int]
) -> dict[int, np.ndarray]:
    """{steps: head}, of a layer with two outputs, twice as curved as their difference, whose weights decay."""
    A = rows.matrix
    members = [torch.from_numpy(np.flatnonzero(groups == g)) for g in np.unique(groups)]
    rate = 1 / (2 / min(length(A, (groups == g) / (groups == g).sum()) for g in np.unique(groups)) + decay)

    def steps() -> Iterator[Tensor]:
        W = torch.zeros(2, A.shape[1], dtype=torch.float64)
        speed, q = torch.zeros_like(W), torch.full((len(members),), 1 / len(members), dtype=torch.float64)
        while True:
            W = W.detach().requires_grad_()
            losses = rows.losses(W[1] - W[0], A)
            L = torch.stack([losses[m].mean() for m in members])
            q = q * torch.exp(eta * (L.detach() + torch.tensor([adjustment / len(m) ** 0.5 for m in members])))
            q = q / q.sum()
            (gradient,) = torch.autograd.grad((q * L).sum() + decay / 2 * W.square().sum(), W)
            speed = 0.9 * speed - rate * gradient
            W = W.detach() + speed
            yield W

    return at(steps(), stops)


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """On the true groups."""
    stops = {s["steps"] for s in settings}
    ways = {(s["eta"], s["decay"]): None for s in settings}
    found = {way: online(train, train.groups, way[0], 0.0, way[1], stops) for way in ways}
    return [found[s["eta"], s["decay"]][s["steps"]] for s in settings]


def eiil(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Creager et al. 2021 for two classes: the environments are what the early head gets wrong, and the rest."""
    stops = {s["steps"] for s in settings}
    early = walk(train, np.ones(len(train.y)), {s["first_steps"] for s in settings})
    found: dict[Any, dict[int, np.ndarray]] = {}
    for s in settings:
        way = s["first_steps"], s["eta"]
        if way not in found:
            wrong = (train.matrix.numpy() @ early[way[0]] > 0) != train.y
            found[way] = online(train, wrong.astype(int), way[1], 0.0, 0.0, stops)
    return [found[s["first_steps"], s["eta"]][s["steps"]] for s in settings]
