"""GroupDRO as published: an adversary that moves a little at every step, beside descent that is stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._data import Data
from ._fit import Fit
from ._once import content, once
from ._path import MOMENTUM, Steps, fit_of, follow, longest, zeros

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Online:
    """How the adversary and the head step.

    eta         q_g <- q_g exp(eta (L_g + adjustment / sqrt(n_g))), normalised, before every step of the head
    adjustment  a group of n_g rows counts as its mean loss + adjustment / sqrt(n_g)
    decay       weight decay of a layer with an output for each class: decay / 2 ||theta||^2 beside sum_g q_g L_g, and
                decay / 4 ||theta||^2 for two classes, whose one output is the difference of theirs
    """

    eta: float
    adjustment: float
    decay: float = 0.0


def online_fits(data: Data, groups: Sequence[np.ndarray], ways: Sequence[Online], stops: Sequence[int]) -> list[Fit]:
    """One fit for each of the groups (n,), stepping from zero in its way to its stop, with `group_weights_`, q by code.

    Fits that differ by their stop alone share a walk. Codes may skip numbers: such groups have no weight.
    """
    import torch

    codes, at = once([(content(g), way) for g, way in zip(groups, ways, strict=True)], lambda i: i)
    features, k = data.features, data.k
    start = zeros(features, len(codes), k)
    rows = np.stack([groups[i] for i in codes])
    size = 1 + int(rows.max())
    counts = np.stack([np.bincount(g, minlength=size) for g in rows])
    distinct = {content(g): g for g in rows}
    means = {key: np.eye(size)[g].T[np.bincount(g, minlength=size) > 0] for key, g in distinct.items()}
    bounds = {key: longest(features, k, m / m.sum(axis=1, keepdims=True)).min() for key, m in means.items()}
    length = np.array([bounds[content(g)] for g in rows])
    shift = np.array([ways[i].adjustment for i in codes])[:, None] / np.sqrt(np.maximum(counts, 1))
    adversary = _Adversary(
        torch.from_numpy(data.y).to(start.device), torch.from_numpy(rows).to(start.device),
        torch.from_numpy(np.maximum(counts, 1)).to(start),
        torch.from_numpy(np.where(counts > 0, 0.0, -np.inf)).to(start), torch.from_numpy(shift).to(start),
        torch.tensor([[ways[i].eta] for i in codes]).to(start),
    )  # fmt: skip
    decay = np.array([ways[i].decay for i in codes]) / (2 if k == 2 else 1)
    steps = Steps(1 / (1 / length + decay), MOMENTUM, pull=decay / 2)
    fits: dict[tuple[int, int], Fit] = {}
    for step, W in follow(features, start, adversary.residual, set(stops), steps):
        q = adversary.log_q.softmax(1).double().cpu().numpy()
        fits |= {
            (w, step): fit_of(W[w], n_iter_=step, group_weights_=q[w, : int(groups[codes[w]].max()) + 1])
            for w in range(len(codes))
        }
    return [fits[w, stop] for w, stop in zip(at, stops, strict=True)]


@dataclass(eq=False)
class _Adversary:
    """Moves whenever it is asked: y (n,), codes (p, n), counts, log_q and shift (p, g), eta (p, 1)."""

    y: Tensor
    codes: Tensor
    counts: Tensor
    log_q: Tensor
    shift: Tensor
    eta: Tensor

    def residual(self, F: Tensor) -> Tensor:
        """Moves q by the losses of logits (p, k, n), then weighs the rows by it."""
        from ._losses import Logistic

        return Logistic(self.y[None], self.shift, self).residual(F[None])[0][0]

    def weights(self, losses: Tensor) -> Tensor:
        """(p, n)."""
        L = losses.new_zeros(self.counts.shape).scatter_add_(1, self.codes, losses) / self.counts
        self.log_q = (self.log_q + self.eta * (L + self.shift)).log_softmax(1)
        return (self.log_q.exp() / self.counts).gather(1, self.codes)

    def keep(self, problems: Tensor) -> Any:
        """All stay to the end."""
        return self
