"""L-BFGS for many smooth problems at once: a few large matrix products an iteration instead of many small ones.

All problems step together. One iteration multiplies the features by the directions of all problems (from then on every
line search works on logits that are at hand) and the transposed features by all residuals. Problems that are done leave
the batch. The initial Hessian of each problem's recursion is

    h * M + lambda * I,     M = Z'Z / n,     h = the mean curvature of the problem's loss where it stands,

inverted in the leading eigenvectors of M, which all problems share (Liu and Nocedal 1989 for the recursion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

MEMORY = 10
TRIALS = 12
PATIENCE = 50
SHARE = 0.01
"""Mean residual, 1 less the probability of the label, below which a tolerance shrinks in proportion."""
TENFOLD = 10
"""Gradient over its tolerance at which a problem is looked at on its way, to see what still changes after it."""
FLAT = 1e-6
"""Mean residual below which the minimum of a problem without a penalty is taken to lie at infinity."""


class Operator(Protocol):
    """Features of b stacks of n rows, as two products with the intercept's column of ones appended."""

    def forward(self, W: Tensor) -> Tensor:
        """(b, p, d + 1) -> logits (b, p, n)."""
        ...

    def backward(self, R: Tensor) -> Tensor:
        """(b, p, n) -> (b, p, d + 1)."""
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

    def norm(self, Q: Tensor, h: Tensor, ridge: Tensor) -> Tensor:
        """(b, p) Q' (h * M + ridge * I)^-1 Q."""
        ...

    def keep(self, stacks: Tensor) -> Curvature:
        """The stacks that are left."""
        ...


@dataclass(frozen=True, eq=False)
class Found:
    """W (b, p, k, d + 1), and (b, p) each: the largest gradient component, its tolerance, the number of iterations.

    lengths  (b, p, 3) Euclidean lengths of the gradient by the coefficients and by the intercepts, and least h
    before   W where the gradient was `TENFOLD` times its tolerance, as soon as it was no larger; not a number where the
             descent began that near
    """

    W: Tensor
    gradient: Tensor
    wanted: Tensor
    iterations: Tensor
    lengths: Tensor
    before: Tensor


def minimise(  # noqa: PLR0913, PLR0917
    operator: Operator,
    loss: Loss,
    curvature: Curvature,
    W: Tensor,
    F: Tensor,
    ridge: Tensor,
    tol: Tensor,
    limit: Tensor,
    floor: float = 0.0,
) -> Found:
    """Minimise loss(F + Z W) + 1/2 sum(ridge * W^2) over W (b, p, k, d + 1), from the W given.

    F      (b, p, k, n) logits at W = 0
    ridge  (b, p, 1, d + 1), 0 for what is not penalised
    tol    (b, p) largest component of the gradient at which a problem is done; limit (b, p) most iterations of each
    floor  gradient that the precision surely reaches: no problem has to get below it here

    Where the rows are almost fitted, gradients are small at any W. So the tolerance is in proportion to the mean
    residual where that is below `SHARE`. A problem without a penalty is given up when its residual is below `FLAT`:
    its classes are separable, and its minimum lies at infinity; its tolerance is then 0.
    A problem that does not get better for `PATIENCE` iterations is stopped: it is at the end of the precision.
    """
    import torch

    nothing = torch.full_like(W, float("nan"))
    minima = Found(W.clone(), torch.zeros_like(tol), tol.clone(), torch.zeros_like(limit), tol.new_zeros(*tol.shape, 3),
                   nothing)  # fmt: skip
    going = _Going(operator, loss, curvature, W, F, ridge, tol, limit)
    while True:
        size, wanted, over = going.look()
        done = going.live & ((size <= wanted.clamp_min(floor)) | over)
        near = going.far & (size <= TENFOLD * wanted)
        if going.iteration == 0:
            going.far = ~near
        elif near.any():
            i, j = near.nonzero(as_tuple=True)
            minima.before[going.stacks[i], going.problems[j]] = torch.where(
                done[i, j, None, None], going.last[i, j], going.W[i, j]
            )
            going.far = going.far & ~near
        if done.any():
            i, j = done.nonzero(as_tuple=True)
            at = (going.stacks[i], going.problems[j])
            minima.lengths[at] = going.lengths(i, j)
            fine = going.W[i, j].isfinite().all((1, 2), keepdim=True)  # a step too far leaves the one before it
            minima.W[at] = torch.where(fine, going.W[i, j], going.last[i, j])
            minima.gradient[at], minima.wanted[at] = size[i, j], wanted[i, j]
            minima.iterations[at] = going.iteration
            if not going.drop(done):
                return minima
        going.step()


class _Going:
    """The problems that are not done, and their state; `stacks` (b,) and `problems` (p,) are their places among all.

    A problem that is done stays, with steps of 0, while others of its stack and column are not done: `live` (b, p) is
    False for it.
    """

    def __init__(
        self, operator: Operator, loss: Loss, curvature: Curvature, W: Tensor, F: Tensor, ridge: Tensor, tol: Tensor,
        limit: Tensor,
    ) -> None:  # fmt: skip
        import torch

        b, p, k, q = W.shape
        self.operator, self.loss, self.curvature = operator, loss, curvature
        self.W, self.ridge, self.tol, self.limit = W, ridge, tol, limit
        self.free = bool((ridge[..., :-1] == 0).all(-1).any())
        self.stacks, self.problems = torch.arange(b, device=W.device), torch.arange(p, device=W.device)
        self.live = torch.ones_like(tol, dtype=torch.bool)
        self.F = F + operator.forward(W.reshape(b, p * k, q)).view(b, p, k, F.shape[-1]) if bool((W != 0).any()) else F
        self.R, self.h = loss.residual(self.F)
        self.g = self._gradient()
        self.history = _History()
        self.best, self.since = torch.full_like(tol, float("inf")), torch.zeros_like(limit)
        self.iteration, self.last = 0, W
        self.far = self.live

    def look(self) -> tuple[Tensor, Tensor, Tensor]:
        """(b, p) each: the largest gradient component, its tolerance, and whether the problem is given up."""
        import torch

        size = self.g.abs().amax((2, 3)).to(self.tol)
        self.since = torch.where(size < 0.9 * self.best, torch.zeros_like(self.since), self.since + 1)
        self.best = torch.minimum(self.best, size)
        over = (self.iteration >= self.limit) | (self.since >= PATIENCE) | ~size.isfinite()
        wanted = self.tol
        if self.free or bool((self.live & ((size <= TENFOLD * self.tol) | over)).any()):
            residual = torch.linalg.vector_norm(self.R, 1, (2, 3)).to(self.tol) / (2 if self.R.shape[2] > 1 else 1)
            lost = (residual < FLAT) & (self.ridge[..., 0, :-1] == 0).all(-1)
            wanted = torch.where(lost, 0, self.tol * (residual / SHARE).clamp_max(1))
            over |= lost
        return size, wanted, over

    def lengths(self, i: Tensor, j: Tensor) -> Tensor:
        """(m, 3) of some problems, as `Found` has them."""
        import torch

        g = self.g[i, j].to(self.tol)
        own = torch.linalg.vector_norm(g[..., :-1], dim=(1, 2)), torch.linalg.vector_norm(g[..., -1], dim=1)
        return torch.stack([*own, self.h[i, j].to(self.tol).amin(1)], 1)

    def drop(self, done: Tensor) -> bool:
        """Leave out the stacks and columns that are all done; False when nothing is left."""
        self.live &= ~done
        rows, columns = self.live.any(1), self.live.any(0)
        if not rows.any():
            return False
        if not (rows.all() and columns.all()):
            self.stacks, self.problems = self.stacks[rows], self.problems[columns]
            self.operator, self.curvature = self.operator.keep(rows), self.curvature.keep(rows)
            self.loss = self.loss.keep(rows, columns)
            for name in ("W", "last", "F", "R", "g", "h", "ridge", "tol", "limit", "live", "far", "best", "since"):
                setattr(self, name, _part(getattr(self, name), rows, columns))
            self.history.keep(rows, columns)
        return True

    def step(self) -> None:
        """One step of every problem that is live, along its direction and as far as the line search says."""
        b, p, k, q = self.W.shape
        D = self.history.direction(self.g, self.curvature, self.h, self.ridge)
        D *= self.live[..., None, None].to(self.W)
        if k > 1:  # what all outputs share does not change a softmax, and only costs
            D -= D.mean(2, keepdim=True)
        G = self.operator.forward(D.view(b, p * k, q)).view(b, p, k, self.F.shape[-1])
        slopes = (self.g * D).sum((2, 3)), (self.ridge * self.W * D).sum((2, 3)), (self.ridge * D * D).sum((2, 3))
        alpha, self.F, self.R, self.h = _search(self.loss, self.F, G, *slopes)
        step = alpha[..., None, None] * D
        self.last, self.W = self.W, self.W + step
        before, self.g = self.g, self._gradient()
        self.history.add(step, self.g - before)
        self.iteration += 1

    def _gradient(self) -> Tensor:
        b, p, k, q = self.W.shape
        return self.operator.backward(self.R.reshape(b, p * k, -1)).view(b, p, k, q) + self.ridge * self.W


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
        at_t = (R * G).sum((2, 3)) + a + t * c
        over = ~at_t.isfinite()  # beyond what the precision holds
        good = (at_t >= 0.9 * slope) & (at_t <= -0.3 * slope)
        if good.all() or (trial >= TRIALS and not over.any()):
            return t, M, R, h
        if trial >= TRIALS:
            t = torch.where(over, low, t)
            M = torch.addcmul(F, t[..., None, None], G)
            return t, M, *loss.residual(M)
        at_t = at_t.masked_fill(over, float("inf"))
        trial += 1
        low, at_low = torch.where(at_t < 0, t, low), torch.where(at_t < 0, at_t, at_low)
        high, at_high = torch.where(at_t >= 0, t, high), torch.where(at_t >= 0, at_t, at_high)
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
        """Add a step and its change of gradient; it has no effect on problems where its curvature is not positive."""
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
