"""LfF, Nam et al. 2020: a biased head on the generalised cross-entropy, and one on what that finds hard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rows import Rows, at, length

Q, SMOOTHING = 0.7, 0.7


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Losses are averaged over the steps and divided by the largest of their class before they are compared."""
    A, n = train.matrix, len(train.y)
    rate, classes = length(A), [torch.from_numpy(np.flatnonzero(train.y == c)) for c in (0, 1)]

    def relative(mean: Tensor) -> Tensor:
        out = mean.clone()
        for rows in classes:
            out[rows] = mean[rows] / mean[rows].max()
        return out

    def steps() -> Iterator[Tensor]:
        biased = own = torch.zeros(A.shape[1], dtype=torch.float64)
        biased_speed, own_speed = torch.zeros_like(own), torch.zeros_like(own)
        biased_mean = own_mean = None
        while True:
            biased, own = (t.detach().requires_grad_() for t in (biased, own))
            a, b = train.losses(biased, A), train.losses(own, A)
            biased_mean = a.detach() if biased_mean is None else SMOOTHING * biased_mean + (1 - SMOOTHING) * a.detach()
            own_mean = b.detach() if own_mean is None else SMOOTHING * own_mean + (1 - SMOOTHING) * b.detach()
            hard, mine = relative(biased_mean), relative(own_mean)
            weights = hard / (hard + mine)
            generalised = ((1 - torch.exp(-a) ** Q) / Q).sum() / n
            (biased_step,) = torch.autograd.grad(generalised, biased)
            (own_step,) = torch.autograd.grad((weights * b).sum() / n, own)
            biased_speed = 0.9 * biased_speed - rate * biased_step
            own_speed = 0.9 * own_speed - rate * own_step
            biased, own = biased.detach() + biased_speed, own.detach() + own_speed
            yield own

    found = at(steps(), {s["steps"] for s in settings})
    return [found[s["steps"]] for s in settings]
