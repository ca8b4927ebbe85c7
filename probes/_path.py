"""Heads that are stopped early: gradient steps of many heads at once, seen at every stop on one way.

The number of steps is the regularisation, so that the way is a set of settings: a head for each stop costs no more than
the longest way. All rows are looked at in every step, so that there is no noise; where no learning rate is published, a
step is as long as a bound of the curvature allows, and there is none to search.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ._data import Data
from ._features import Features
from ._fit import Fit
from ._operators import Shared, Spectrum

if TYPE_CHECKING:
    from torch import Tensor

Residual: TypeAlias = "Callable[[Tensor], Tensor]"
"""From logits (p, k, n) to the derivative of an objective by them."""
STOPS = (1, 3, 10, 30, 100, 300, 1000)
"""Numbers of steps that published variants try, the strongest regularisation first."""
LONGEST = 300
"""Of those in a default grid, which goes on from there where validation is best at it."""
MOMENTUM = 0.9


@dataclass(frozen=True, eq=False)
class Steps:
    """How p heads step down, all with the same number of outputs.

    length    (p,) of a step, or one for all; of Adam's, the learning rate
    momentum  of the steps; 0 for none
    clip      largest norm of a gradient, longer ones are cut; infinite for none
    pull      (p,) lambda of lambda ||theta - start||^2, coefficients and intercept alike
    adam      Adam's steps, with its usual 0.9, 0.999 and 1e-8, in the place of plain ones
    """

    length: np.ndarray | float
    momentum: float = MOMENTUM
    clip: float = np.inf
    pull: np.ndarray | float = 0.0
    adam: bool = False

    def of_layer(self, k: int) -> Steps:
        """What a layer with an output for each of k classes does in these steps, in terms of our outputs.

        Published rates, pulls and cuts are those of such layers. For two classes our one output is the difference of
        theirs, which step against each other: it goes twice as far as either, the gradient of both together is sqrt 2
        times its own, and the squared distance of both from the start half of its own.
        """
        if k > 2:
            return self
        return replace(self, length=2 * self.length, clip=self.clip / 2**0.5, pull=self.pull / 2)


def follow(
    features: Features, start: Tensor, residual: Residual, stops: Collection[int], steps: Steps
) -> Iterator[tuple[int, Tensor]]:
    """(number of steps, W) at every stop, in order. W and start (p, k, d + 1), the intercept last; k = 1 for two.

    residual  derivative (p, k, n) of the objective by the logits (p, k, n), without the pull; it is called once a step
    """
    import torch

    operator, n, W = Shared(features, start.dtype), features.n, start.clone()
    length, pull = (torch.as_tensor(x).to(W).reshape(-1, 1, 1) for x in (steps.length, steps.pull))
    speed, square = torch.zeros_like(W), torch.zeros_like(W)
    for step in range(1, 1 + max(stops)):
        F = operator.forward(W.flatten(0, 1)[None])[0].view(*W.shape[:2], n)
        gradient = operator.backward(residual(F).flatten(0, 1)[None]).view(W.shape)
        gradient = gradient + 2 * pull * (W - start)
        if steps.clip < np.inf:
            norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(W.dtype).tiny)
            gradient = gradient * (steps.clip / norm).clamp_max(1)[:, None, None]
        if steps.adam:
            speed, square = 0.9 * speed + 0.1 * gradient, 0.999 * square + 0.001 * gradient.square()
            W = W - length * (speed / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        else:
            speed = steps.momentum * speed - length * gradient
            W = W + speed
        if step in stops:
            yield step, W


def zeros(features: Features, heads: int, k: int) -> Tensor:
    """(heads, k or 1, d + 1): where heads start that start from nothing."""
    import torch

    return torch.zeros(heads, 1 if k == 2 else k, features.d + 1, dtype=features.dtype, device=features.device)


def longest(features: Features, k: int, weights: np.ndarray | None = None) -> np.ndarray:
    """(p,) 1 / L, L a bound of the curvature of sum_i v_i loss_i for weights v (p, n); without, of the mean loss.

    L = h * largest eigenvalue of sum_i v_i (z_i, 1)(z_i, 1)', h = 1/4 for two classes and 1/2 for more. The eigenvalue
    is that of at most `ROUNDS` rounds of power iteration, a tenth added; for the mean loss that of the features plus 1.
    """
    import torch

    h = 0.25 if k == 2 else 0.5
    if weights is None:
        return np.array([1 / (h * (float(Spectrum.of(features).s.max()) + 1))])
    operator = Shared(features, features.dtype)
    v = torch.from_numpy(weights).to(features.device, features.dtype)
    W = torch.from_numpy(np.random.RandomState(0).standard_normal((len(v), features.d + 1))).to(v)
    size = v.new_ones(len(v))
    for _ in range(ROUNDS):
        W = operator.backward((operator.forward(W[None] / size[:, None])[0] * v)[None])[0]
        size = W.norm(dim=1).clamp_min(torch.finfo(v.dtype).tiny)
    return 1 / (h * 1.1 * size.double().cpu().numpy())


ROUNDS = 20


def walked(
    features: Features, start: Tensor, residual: Residual, asked: Sequence[tuple[int, int]], steps: Steps
) -> dict[tuple[int, int], Tensor]:
    """{(way, steps): theta (k, d + 1)} for every pair that is asked for, on one walk of all ways; see `follow`."""
    thetas: dict[tuple[int, int], Tensor] = {}
    if not asked:
        return thetas
    for step, W in follow(features, start, residual, {s for _, s in asked}, steps):
        thetas |= {(way, s): W[way] for way, s in asked if s == step}
    return thetas


def fit_of(theta: Tensor, **more: object) -> Fit:
    """The head theta (k, d + 1); it has converged, as it is defined by its steps, if all numbers are finite."""
    W = theta.double().cpu().numpy()
    return Fit(bool(np.isfinite(W).all()), W[:, :-1], W[:, -1], more)


def weighted(y: Tensor, v: Tensor) -> Residual:
    """The residual of sum_i v_i loss_i, for codes y (n,) and weights v (p, n)."""
    from ._losses import Logistic

    return lambda F: Logistic(y[None], v[None]).residual(F[None])[0][0]


def stopped_fits(data: Data, weightings: Sequence[np.ndarray], at: Sequence[int], steps: Sequence[int]) -> list[Fit]:
    """One fit for each pair of at and steps: the mean of the heads that step from zero down sum_i v_i loss_i.

    weightings  (m, n) each, of which v is a row divided by its sum; that of fit i is weightings[at[i]]
    """
    import torch

    ends = np.cumsum([0, *map(len, weightings)])
    v = np.concatenate(weightings)
    v = v / v.sum(axis=1, keepdims=True)
    features = data.features
    start = zeros(features, len(v), data.k)
    residual = weighted(torch.from_numpy(data.y).to(start.device), torch.from_numpy(v).to(start))
    ways = [(range(ends[i], ends[i + 1]), s) for i, s in zip(at, steps, strict=True)]
    asked = list(dict.fromkeys((w, s) for mine, s in ways for w in mine))
    thetas = walked(features, start, residual, asked, Steps(longest(features, data.k, v)))
    return [fit_of(sum(thetas[w, s].double() for w in mine) / len(mine), n_iter_=s) for mine, s in ways]
