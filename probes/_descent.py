"""L-BFGS for many smooth problems at once: a few large matrix products an iteration instead of many small ones.

All problems step together. One iteration multiplies the features by the directions of all problems (from then on every
line search works on logits that are at hand) and the transposed features by all residuals. Problems that are done leave
the batch. The initial Hessian of each problem's recursion is

    h * M + lambda * I,     M = Z'Z / n,     h = the mean curvature of the problem's loss where it stands,

inverted in the leading eigenvectors of M, which all problems share (Liu and Nocedal 1989 for the recursion).

Where the operator has a rough twin, in half precision, problems step with it until their gradient is as small as its
rounding. Then their logits are computed anew, and they go on, with the curvature they have seen, in full precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol

from probes._mixed import Mixed

if TYPE_CHECKING:
    from torch import Tensor

MEMORY = 10
TRIALS = 12
PATIENCE = 50
ROUGH_PATIENCE = 3
"""Iterations without getting better after which a problem is given up, or goes on in full precision."""
ROUGHNESS = 0.1
"""Largest component of a gradient, over the norm of the residuals, down to which half precision leads."""
HEADWAY = 4
"""How many times that a gradient must be for half precision to begin with."""


class Operator(Protocol):
    """Features of b stacks of n rows, as two products with the intercept's column of ones appended."""

    def forward(self, W: Tensor) -> Tensor:
        """(b, p, d + 1) -> logits (b, p, n)."""
        ...

    def backward(self, R: Tensor) -> Tensor:
        """(b, p, n) -> (b, p, d + 1)."""
        ...

    @property
    def rough(self) -> Operator | None:
        """The same in half precision, where that is faster."""
        ...

    def keep(self, stacks: Tensor) -> Operator:
        """The stacks that are left."""
        ...


class Loss(Protocol):
    """The mean loss of every problem, as a function of logits (b, p, k, n)."""

    def residual(self, F: Tensor) -> tuple[Tensor, Tensor]:
        """(b, p, k, n) derivative by the logits, and (b, p, k) mean curvature."""
        ...

    def keep(self, stacks: Tensor, problems: Tensor) -> Loss:
        """The problems that are left."""
        ...


class Curvature(Protocol):
    """The shared second moment, inverted for every problem."""

    def solve(self, Q: Tensor, h: Tensor, ridge: Tensor) -> Tensor:
        """(h * M + ridge * I)^-1 Q for Q (b, p, k, d), h (b, p, k, 1), ridge (b, p, 1, 1)."""
        ...

    @property
    def scale(self) -> float:
        """Root mean square of the features."""
        ...

    def norm(self, Q: Tensor, h: Tensor, ridge: Tensor) -> Tensor:
        """(b, p) Q' (h * M + ridge * I)^-1 Q."""
        ...

    def keep(self, stacks: Tensor) -> Curvature:
        """The stacks that are left."""
        ...


@dataclass(frozen=True, eq=False)
class Found:
    """W (b, p, k, d + 1) and, each (b, p), the largest component of the gradient and the iterations."""

    W: Tensor
    gradient: Tensor
    iterations: Tensor


def minimise(
    operator: Operator,
    loss: Loss,
    curvature: Curvature,
    W: Tensor,
    F: Tensor,
    ridge: Tensor,
    tol: Tensor,
    limit: Tensor,
) -> Found:
    """Minimise loss(F + Z W) + 1/2 sum(ridge * W^2) over W (b, p, k, d + 1), from the W given.

    F      (b, p, k, n) logits at W = 0
    ridge  (b, p, 1, d + 1), 0 for what is not penalised
    tol    (b, p) largest component of the gradient at which a problem is done; limit (b, p) most iterations of each

    Stops a problem that does not get better for `PATIENCE` iterations, as at the end of the precision.
    """
    import torch

    b, p, k = W.shape[:3]
    found = Found(W.clone(), torch.zeros_like(tol), torch.zeros_like(limit))
    stacks, problems = torch.arange(b, device=W.device), torch.arange(p, device=W.device)
    products = Mixed(operator, operator.rough, torch.zeros(p, dtype=torch.bool, device=W.device))
    at = _State(W, F, F, W, W[..., 0], ridge, tol, limit, torch.full_like(tol, math.inf), torch.zeros_like(limit))
    R, at = at.computed(products, loss)
    if products.half is not None:
        products.rough = (at.size() > HEADWAY * _rounding(R, curvature)).all(0)
    live, history, iteration = torch.ones_like(tol, dtype=torch.bool), _History(), 0
    while True:
        if products.rough.any():
            settled = (at.size() <= torch.maximum(_rounding(R, curvature), at.tol)) | (at.since >= ROUGH_PATIENCE)
            ready = products.rough & (live & (settled | (iteration >= at.limit) | ~at.size().isfinite())).any(0)
            if ready.any():
                products.rough &= ~ready
                at.take(ready, products.full(), loss)
        at.progress()
        size = at.size()
        ended = (size <= at.tol) | (iteration >= at.limit) | (at.since >= PATIENCE) | ~size.isfinite()
        done = live & ~products.rough & ended
        if done.any():
            i, j = done.nonzero(as_tuple=True)
            place = (stacks[i], problems[j])
            found.W[place], found.gradient[place], found.iterations[place] = at.W[i, j], size[i, j], iteration
            live &= ~done
            rows, columns = live.any(1), live.any(0)
            if not rows.any():
                return found
            if not (rows.all() and columns.all()):
                stacks, problems, live = stacks[rows], problems[columns], _part(live, rows, columns)
                products, loss, curvature = products.keep(rows, columns), loss.keep(rows, columns), curvature.keep(rows)
                at = at.keep(rows, columns)
                history.keep(rows, columns)
        D = history.direction(at.g, curvature, at.h, at.ridge)
        D *= live[..., None, None].to(W)
        if k > 1:  # what all outputs share does not change a softmax, and only costs
            D -= D.mean(2, keepdim=True)
        slopes = [(x * D).sum((2, 3)) for x in (at.g, at.ridge * at.W, at.ridge * D)]
        alpha, at.F, R, at.h = _search(loss, at.F, products.forward(D), *slopes)
        step = alpha[..., None, None] * D
        at.W = at.W + step
        new = products.backward(R) + at.ridge * at.W
        history.add(step, new - at.g)
        at.g = new
        iteration += 1


def _rounding(R: Tensor, curvature: Curvature) -> Tensor:
    """(b, p) gradient down to which half precision leads: a share of its error, by rounding Z and the residuals R."""
    return ROUGHNESS * curvature.scale * R.square().sum((2, 3)).sqrt()


@dataclass
class _State:
    """Where problems stand: logits F, gradient g and curvature h at W, from the logits `origin` at W = 0.

    best, since  (b, p) smallest gradient so far, and the iterations since it got markedly smaller
    """

    W: Tensor
    origin: Tensor
    F: Tensor
    g: Tensor
    h: Tensor
    ridge: Tensor
    tol: Tensor
    limit: Tensor
    best: Tensor
    since: Tensor

    def size(self) -> Tensor:
        """(b, p) the largest component of the gradient."""
        return self.g.abs().amax((2, 3)).to(self.tol)

    def computed(self, products: Mixed, loss: Loss) -> tuple[Tensor, _State]:
        """Residuals, and the state with everything computed from W."""
        F = self.origin + products.forward(self.W) if bool((self.W != 0).any()) else self.origin
        R, h = loss.residual(F)
        return R, replace(self, F=F, g=products.backward(R) + self.ridge * self.W, h=h)

    def take(self, which: Tensor, full: Mixed, loss: Loss) -> None:
        """Compute some problems (p,) anew, in full precision."""
        every, where = which.new_ones(len(self.W)), which.nonzero()[:, 0]
        _, new = self.keep(every, which).computed(full, loss.keep(every, which))
        self.F, self.g, self.h = (
            old.index_copy(1, where, x) for old, x in ((self.F, new.F), (self.g, new.g), (self.h, new.h))
        )
        self.best = self.best.masked_fill(which, math.inf)

    def progress(self) -> None:
        """Count the iterations without getting better."""
        size = self.size()
        self.since = (self.since + 1).masked_fill(size < 0.9 * self.best, 0)
        self.best = self.best.minimum(size)

    def keep(self, rows: Tensor, columns: Tensor) -> _State:
        """The problems that are left."""
        return _State(*(_part(getattr(self, f.name), rows, columns) for f in fields(self)))


def _search(
    loss: Loss, F: Tensor, G: Tensor, slope: Tensor, a: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Steps (b, p) along G with logits, residual and curvature there.

    The slope at a step t is sum(R(F + t G) * G) + a + t c. It grows with t where the loss is convex, so its sign tells
    on which side of the lowest point t is, and its size how near; values of the loss, which cancel, are not needed.
    """
    import torch

    t = torch.ones_like(slope)
    low, high = torch.zeros_like(t), torch.full_like(t, float("inf"))
    at_low, at_high = slope.clone(), torch.zeros_like(t)
    trial = 1
    while True:
        M = torch.addcmul(F, t[..., None, None], G)
        R, h = loss.residual(M)
        here = (R * G).sum((2, 3)) + a + t * c
        over = ~here.isfinite()  # beyond what the precision holds
        good = (here >= 0.9 * slope) & (here <= -0.3 * slope)
        if good.all() or (trial >= TRIALS and not over.any()):
            return t, M, R, h
        if trial >= TRIALS:
            t = torch.where(over, low, t)
            M = torch.addcmul(F, t[..., None, None], G)
            return t, M, *loss.residual(M)
        here = here.masked_fill(over, float("inf"))
        trial += 1
        low, at_low = torch.where(here < 0, t, low), torch.where(here < 0, here, at_low)
        high, at_high = torch.where(here >= 0, t, high), torch.where(here >= 0, here, at_high)
        secant = low + (high - low) * at_low / (at_low - at_high)
        inside = secant.clamp(low + 0.1 * (high - low), high - 0.1 * (high - low))
        t = torch.where(good, t, torch.where(high.isinf(), 4 * t, inside))


class _History:
    """The last steps and changes of the gradient, (b, p, k, q) each."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def direction(self, g: Tensor, curvature: Curvature, h: Tensor, ridge: Tensor) -> Tensor:
        """-H g by the two-loop recursion, from the inverse of the curvature."""
        import torch

        Q, factors = g.clone(), []
        for s, y, rho in reversed(self.pairs):
            factor = rho * (s * Q).sum((2, 3), keepdim=True)
            Q -= factor * y
            factors.append(factor)
        Q = curvature.solve(Q, h, ridge)
        if self.pairs:  # the length that the last step asks for
            _, y, rho = self.pairs[-1]
            length = 1 / (rho * curvature.norm(y, h, ridge)[..., None, None])
            Q *= torch.where(rho > 0, length, torch.ones_like(length))
        for (s, y, rho), factor in zip(self.pairs, reversed(factors), strict=True):
            Q += (factor - rho * (y * Q).sum((2, 3), keepdim=True)) * s
        return -Q

    def add(self, s: Tensor, y: Tensor) -> None:
        """A pair without positive curvature counts as nothing, for its problem."""
        import torch

        curved = (s * y).sum((2, 3), keepdim=True)
        floor = (
            torch.finfo(s.dtype).eps
            * (s.square().sum((2, 3), keepdim=True) * y.square().sum((2, 3), keepdim=True)).sqrt()
        )
        self.pairs.append((s, y, torch.where(curved > floor, 1 / curved, torch.zeros_like(curved))))
        del self.pairs[:-MEMORY]

    def keep(self, rows: Tensor, columns: Tensor) -> None:
        """The problems that are left."""
        self.pairs = [
            (_part(s, rows, columns), _part(y, rows, columns), _part(rho, rows, columns)) for s, y, rho in self.pairs
        ]


def _part(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x (b or 1, p or 1, ...) without the stacks and problems that are done."""
    if len(x) > 1 and not rows.all():
        x = x[rows]
    return x[:, columns] if x.shape[1] > 1 and not columns.all() else x
