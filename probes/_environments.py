"""Non-convex objectives over environments: descent to a local minimum, for all variants at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ._convex import ConvexHead, averaged
from ._data import Data
from ._fit import Fit
from ._path import Residual, Steps, fit_of, walked, zeros
from ._problem import Solution

if TYPE_CHECKING:
    from torch import Tensor

    from ._descent import Loss

RESTARTS = 8
"""Most descents in float64. Each has a new memory of curvature, so that one may go on where the last stalled."""


def descend(data: Data, variants: Sequence[ConvexHead], stages: Sequence[Callable[[Tensor], Loss]]) -> list[Fit]:
    """One fit per variant of  loss + 1 / (2 C n) ||W||^2, b not penalised, from zero through the stages in turn.

    Each stage makes a loss in the precision and on the device of a tensor; the last is the objective. `max_iter` bounds
    the iterations of all stages together.
    """
    import torch

    from ._descent import minimise
    from ._operators import Shared, Spectrum

    features, k, p = data.features, 1 if data.k == 2 else data.k, len(variants)
    double, device = torch.float64, features.device

    def of(values: Sequence[float]) -> Tensor:
        return torch.tensor([values], dtype=double, device=device)

    ridge = (1 / (of([float(v.C) for v in variants]) * features.n))[..., None, None]
    ridge = ridge.repeat(1, 1, 1, features.d + 1)
    ridge[..., -1] = 0
    tol, limit = of([v.tol for v in variants]), of([v.max_iter for v in variants]).long()
    W = torch.zeros(1, p, k, features.d + 1, dtype=double, device=device)
    iterations, gradient, wanted = torch.zeros_like(limit), torch.zeros_like(tol), tol
    turns = [(make, features.dtype) for make in stages] + [(stages[-1], double)] * RESTARTS
    for make, dtype in turns:
        like = torch.zeros((), dtype=dtype, device=device)
        F = like.expand(1, p, k, features.n)
        spectrum = Spectrum.of(features).to(like)
        minima = minimise(
            Shared(features, dtype), make(like), spectrum, W.to(like), F, ridge.to(like), tol, limit - iterations
        )
        W, iterations = minima.W.to(double), iterations + minima.iterations
        gradient, wanted = minima.gradient, minima.wanted
        over = (iterations >= limit) | (wanted == 0)
        if make is stages[-1] and dtype == double and bool(((gradient <= wanted) | over).all()):
            break
    if k > 1:
        W[..., -1] -= W[..., -1].mean(-1, keepdim=True)  # what is common to all classes changes no probability
    theta = W[0].cpu().numpy()
    sizes, counts = gradient[0].tolist(), iterations[0].tolist()
    fine = ((gradient <= wanted) & (wanted > 0))[0].tolist()
    return [averaged([Solution(theta[i, :, :-1], theta[i, :, -1], counts[i], sizes[i], fine[i])]) for i in range(p)]


ANNEALED = 500
"""Steps that the published code takes with a penalty of weight 1, before it goes on from there with the full one."""
LEARNING_RATE = 1e-3
STOPS = (30, 100, 300, 600, 1000, 2000)


def annealed_fits(
    data: Data, ways: Sequence[float], at: Sequence[int], stops: Sequence[int], residual: Callable[[Tensor], Residual]
) -> list[Fit]:
    """One fit for each pair of at and stops: Adam's steps from zero, way w with a penalty of weight ways[w].

    residual  of the objective, for weights (w,) of the penalty; those of the first `ANNEALED` steps are at most 1
    """
    import torch

    start = zeros(data.features, len(ways), data.k)
    weight = torch.tensor(list(ways)).to(start)
    steps, asked = Steps(LEARNING_RATE, adam=True).of_layer(data.k), list(zip(at, stops, strict=True))
    early = [*((w, s) for w, s in asked if s <= ANNEALED), *((w, ANNEALED) for w in range(len(ways)))]
    thetas = walked(data.features, start, residual(weight.clamp_max(1)), early, steps)
    start = torch.stack([thetas[w, ANNEALED] for w in range(len(ways))])
    later = [(w, s - ANNEALED) for w, s in asked if s > ANNEALED]
    late = walked(data.features, start, residual(weight), later, steps)
    thetas |= {(w, s + ANNEALED): theta for (w, s), theta in late.items()}
    return [fit_of(thetas[w, s], n_iter_=s) for w, s in asked]
