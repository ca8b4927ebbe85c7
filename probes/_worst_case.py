"""The worst mixture of groups or of rows: the largest weighted mean loss, minimised exactly, with its duality gap.

    min over W, b:   max over q:  sum_a q_a (L_a + c_a)  +  1 / (2 C n) ||W||^2,     0 <= q_a <= cap, sum_a q_a = 1

L_a is the mean loss of atom a: a group (GroupDRO, cap = 1) or a single row (CVaR, cap = 1 / (alpha n)); c_a is a
constant. Solved by the exponential method of multipliers (Tseng and Bertsekas 1993): each round minimises the smooth

    max over q:  sum_a q_a (L_a + c_a) - tau KL(q || prior),      q_a = min(cap, prior_a exp((L_a + c_a) / tau) / norm),

and its q is the prior of the next round. The head of a round is also the best answer to its own q, so the excess of
the largest mixture of its losses over their q-mixture is a duality gap: no head has an objective that is lower by more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ._convex import ConvexHead, averaged
from ._data import Data
from ._errors import FitError
from ._fit import Fit
from ._once import distinct, once
from ._problem import Solution
from ._solver import solve

if TYPE_CHECKING:
    from torch import Tensor

GAP = 1e-4
"""Duality gap, in units of the loss, at which a worst case counts as found."""
ROUNDS = 40
LOST = 4
"""Rounds in succession that the solver leaves unsettled, after which a problem is given up."""
TAU, SHRINK, SHARPEST = 0.03, 0.3, 0.02
"""tau of the first round, its factor from round to round, and the least of it as a share of the loss."""


def worst_case_fits(
    data: Data,
    variants: Sequence[ConvexHead],
    groups: Sequence[np.ndarray],
    adjustments: Sequence[float] | None = None,
) -> list[Fit]:
    """One fit per variant, for the worst mixture of the groups with the given codes (n,); codes may skip numbers.

    adjustments  c of each variant, by default 0: a group of n_g rows counts as L_g + c / sqrt(n_g) (Sagawa et al. 2020)

    The fits hold `group_weights_`, q by code (0 for codes that do not occur), and `gap_` beside what `averaged` gives;
    `converged_` asks for a gap of at most `GAP` too.
    Raises `FitError` for a penalty other than "l2".
    """
    if not variants:
        return []
    offsets = [0.0] * len(variants) if adjustments is None else adjustments
    parted, which = distinct(groups)
    asked = [(g, a, v.C, v.penalty, v.tol, v.max_iter) for v, g, a in zip(variants, which, offsets, strict=True)]
    first, at = once(asked, lambda i: i)  # equal ones are solved once
    codes = [parted[which[i]] for i in first]
    sizes = [np.bincount(g) for g in codes]
    width = max(map(len, sizes))
    counts = np.array([np.pad(c, (0, width - len(c))) for c in sizes])
    shifts = np.array([offsets[i] for i in first], float)[:, None] / np.sqrt(np.maximum(counts, 1))
    atoms = np.stack(parted if len(parted) == 1 else codes)
    mixtures = mixture_fits(data, [variants[i] for i in first], atoms, counts, shifts, np.ones(len(first)))
    fits = [fit.having(group_weights_=q[: g.max() + 1]) for (fit, q), g in zip(mixtures, codes, strict=True)]
    return [fits[i] for i in at]


def mixture_fits(
    data: Data,
    variants: Sequence[ConvexHead],
    atoms: np.ndarray,
    counts: np.ndarray,
    shifts: np.ndarray,
    caps: np.ndarray,
) -> list[tuple[Fit, np.ndarray]]:
    """One fit per variant, with `gap_`, and its q (atoms,).

    atoms  (variants or 1, n) codes; counts and shifts (variants, atoms), caps (variants,)

    `max_iter` bounds the iterations of all rounds together.
    """
    import torch

    if other := {v.penalty for v in variants} - {"l2"}:
        raise FitError(f"a worst case is minimised with penalty 'l2' only, found {min(other)!r}")
    ones = np.ones((1, len(data.y)))
    problems = [v._problem(0) for v in variants]
    occur = counts > 0

    with np.errstate(divide="ignore"):
        prior = np.log(occur / occur.sum(1, keepdims=True))
    device = data.features.device
    codes, codes_counts, log_prior, offsets, most = (
        torch.from_numpy(np.ascontiguousarray(x)).to(device)
        for x in (atoms, np.maximum(counts, 1.0), prior, shifts, caps[:, None])
    )
    risk = Mixture(codes, codes_counts, log_prior, offsets, most, torch.full_like(most, TAU))
    fits: dict[int, tuple[Fit, np.ndarray]] = {}
    left = list(range(len(variants)))
    iterations, last = np.zeros(len(variants), int), np.full(len(variants), np.inf)
    lost, limit = np.zeros(len(variants), int), np.array([v.max_iter for v in variants])
    for turn in range(ROUNDS):
        solutions = solve(data.features, data.y, ones, [problems[i] for i in left], risk=risk)
        losses = row_losses(data, solutions)
        q, gap = risk.mixture(losses), risk.gap(losses)
        settled = np.array([s.converged for s in solutions])
        iterations[left] += [s.iterations for s in solutions]
        lost[left] = np.where(settled, 0, lost[left] + 1)
        over = (iterations >= limit)[left] | (lost[left] >= LOST) | (turn == ROUNDS - 1)
        done = settled & (gap <= GAP).cpu().numpy() | over
        for j, i in enumerate(left):
            guess = solutions[j].coef, solutions[j].intercept
            problems[i] = replace(problems[i], guess=guess, max_iter=int(limit[i] - iterations[i]))
            if done[j]:
                fit = averaged([solutions[j]]).having(
                    converged=solutions[j].converged and float(gap[j]) <= GAP, gap_=float(gap[j]),
                    n_iter_=int(iterations[i]), rounds_=turn + 1,
                )  # fmt: skip
                fits[i] = fit, q[j].cpu().numpy()
        left = [i for i, d in zip(left, done, strict=True) if not d]
        if not left:
            break
        slow = gap.cpu().numpy() > 0.5 * last
        settled, slow = (torch.from_numpy(x).to(losses.device) for x in (settled, slow))
        risk, last = risk.next(losses, settled, slow).keep(torch.from_numpy(~done)), gap.cpu().numpy()[~done]
    return [fits[i] for i in range(len(variants))]


@dataclass(frozen=True, eq=False)
class Mixture:
    """The smoothed worst mixture as the solver's risk; p problems, a atoms.

    codes (p or 1, n); counts, log_prior, shifts (p, a); cap (p, 1); tau (p, 1) weight of KL(q || prior)
    """

    codes: Tensor
    counts: Tensor
    log_prior: Tensor
    shifts: Tensor
    cap: Tensor
    tau: Tensor

    def mixture(self, losses: Tensor) -> Tensor:
        """q (p, a) for losses (p, n)."""
        return capped(self.log_prior.to(losses) + self.values(losses) / self.tau.to(losses), self.cap.to(losses))

    def weights(self, losses: Tensor) -> Tensor:
        """Derivative of the risk by the losses: (p, n)."""
        return (self.mixture(losses) / self.counts.to(losses)).gather(1, self.codes.expand(losses.shape))

    def values(self, losses: Tensor) -> Tensor:
        """L + c (p, a)."""
        total = losses.new_zeros(self.counts.shape).scatter_add_(1, self.codes.expand(losses.shape), losses)
        return total / self.counts.to(losses) + self.shifts.to(losses)

    def gap(self, losses: Tensor) -> Tensor:
        """(p,) by how much the largest mixture exceeds that of q."""
        import torch

        values = self.values(losses).where(self.log_prior > -torch.inf, -torch.inf)
        top = values.sort(1, descending=True).values
        room = (1 - self.cap * torch.arange(top.shape[1], device=top.device)).clamp_min(0)
        worst = torch.minimum(room, self.cap) * top.where(top > -torch.inf, 0)
        return worst.sum(1) - (self.mixture(losses) * values.where(values > -torch.inf, 0)).sum(1)

    def next(self, losses: Tensor, settled: Tensor, slow: Tensor) -> Mixture:
        """With the q of these losses as the prior; nothing that occurs is ruled out for good.

        settled  (p,) whether the solver settled the problem; one that it did not was too sharp
        slow     (p,) whether the last round hardly closed the gap; then the next is sharper than usual
        """
        import torch

        q = self.mixture(losses)
        scale = (q * (self.values(losses) - self.shifts)).sum(1, keepdim=True)
        tau = torch.where(slow[:, None], SHRINK * self.tau, torch.maximum(SHRINK * self.tau, SHARPEST * scale))
        tau = tau.minimum(self.tau)
        tau = torch.where(settled[:, None], tau, self.tau / SHRINK)
        log_prior = q.clamp_min(1e-30).log().where(self.log_prior > -torch.inf, -torch.inf)
        return Mixture(self.codes, self.counts, log_prior, self.shifts, self.cap, tau)

    def keep(self, problems: Tensor) -> Mixture:
        """The problems that are left."""
        codes = self.codes if len(self.codes) == 1 else self.codes[problems]
        parts = (x[problems] for x in (self.counts, self.log_prior, self.shifts, self.cap, self.tau))
        return Mixture(codes, *parts)


def capped(logits: Tensor, cap: Tensor) -> Tensor:
    """(p, a) q = min(cap, exp(logits) / norm), of sum 1, for logits (p, a) and cap (p, 1).

    What is above its cap gives the excess to the others, until nothing is: finitely many steps, as in Newton's method.
    """
    import torch

    full = (cap * (logits > -torch.inf).sum(1, keepdim=True) <= 1 + 1e-9) & (logits > -torch.inf)
    while True:
        left = (1 - cap * full.sum(1, keepdim=True)).clamp_min(0)
        free = logits.masked_fill(full, -torch.inf)
        peak = free.amax(1, keepdim=True)
        q = torch.exp(free - peak.where(peak > -torch.inf, 0))
        q = q * (left / q.sum(1, keepdim=True).clamp_min(torch.finfo(q.dtype).tiny))
        more = q > cap * (1 + 1e-6)
        if not more.any():
            return torch.where(full, cap, q)
        full |= more


def row_losses(data: Data, solutions: Sequence[Solution]) -> Tensor:
    """(p, n) losses of the rows under every solution, in float64."""
    import torch

    k, p = data.k, len(solutions)
    W = torch.from_numpy(np.array([np.column_stack([s.coef, s.intercept]) for s in solutions]))
    W = W.flatten(0, 1).to(data.features.device, data.features.dtype)
    y = torch.from_numpy(data.y).to(W.device)
    losses = torch.empty(p, len(data.y), dtype=torch.float64, device=W.device)
    for part, Z in data.features.blocks():
        F = torch.addmm(W[:, -1:], W[:, :-1], Z.T).double().view(p, -1, len(Z))
        if k == 2:
            losses[:, part] = torch.nn.functional.softplus(torch.where(y[part] == 1, -F[:, 0], F[:, 0]))
        else:
            index = y[part].expand(p, 1, -1)
            losses[:, part] = F.logsumexp(1) - F.gather(1, index)[:, 0]
    return losses
