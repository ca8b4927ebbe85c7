"""The solver: many weighted, regularised logistic problems over one feature matrix, solved together and certified.

Problems that weight most rows share products with the whole matrix; those that weight few (subsamples) gather their
rows and are stacked. Both descend in the features' precision, and what that leaves short of its tolerance goes on in
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes._descent import MEMORY, minimise
from probes._features import COARSE, Features
from probes._lasso import solve_lasso
from probes._losses import Logistic, Risk
from probes._operators import Shared, Spectrum, Stacked
from probes._problem import Problem, Solution

if TYPE_CHECKING:
    from torch import Tensor

BUDGET = 2 << 30
"""Bytes of logits, steps and gradients that are solved at a time."""
FLOOR = 5e-7
"""A gradient component that float32 reaches surely."""


def solve(features: Features, y: np.ndarray, problems: Sequence[Problem], risk: Risk | None = None) -> list[Solution]:
    """Solve every problem over features (n, d) and class codes y (n,); solutions come in the order of the problems.

    risk  what to minimise of each problem's row losses in the place of their weighted mean; then `weights` only say by
          their sum how C scales, and the risk's problems are in the same order

    Raises `ValueError` for a penalty that is not known and when a class has no row of positive weight.
    """
    if other := {p.penalty for p in problems} - {"l1", "l2"}:
        raise ValueError(f"penalty must be 'l1' or 'l2', found {min(other)!r}")
    for weights in {id(p.weights): p.weights for p in problems}.values():
        if len(lost := np.setdiff1d(y, y[weights > 0])):
            raise ValueError(
                f"class {lost[0]} (counted from 0) has no row of positive weight; "
                "groups that decide the weights must not mix classes"
            )
    solutions: list[Solution | None] = [None] * len(problems)
    lasso = [i for i, p in enumerate(problems) if p.penalty == "l1"]
    if lasso:
        for i, solution in zip(lasso, solve_lasso(features, y, [problems[i] for i in lasso]), strict=True):
            solutions[i] = solution
    import torch

    smooth = [i for i, p in enumerate(problems) if p.penalty == "l2"]
    k = int(y.max()) + 1
    for batch in _batches(features, problems, smooth, 1 if k == 2 else k):
        part = risk and risk.keep(torch.from_numpy(np.isin(smooth, batch.members[0])))
        for i, solution in _solve_batch(features, y, problems, batch, k, part):
            solutions[i] = solution
    return [s for s in solutions if s is not None]


@dataclass(frozen=True)
class _Batch:
    """Smooth problems that are solved together: indices of problems, by stack, and the rows of each stack or all."""

    members: list[list[int]]
    rows: list[np.ndarray] | None


def _batches(features: Features, problems: Sequence[Problem], smooth: list[int], k: int) -> list[_Batch]:
    """Batches that fit into `BUDGET`; weightings of at most half the rows are gathered, stacks are of equal sizes."""
    by_weights: dict[int, list[int]] = {}
    for i in smooth:
        by_weights.setdefault(id(problems[i].weights), []).append(i)
    whole: list[int] = []
    stacks: dict[tuple[int, int], list[list[int]]] = {}
    for members in by_weights.values():
        count = int(np.count_nonzero(problems[members[0]].weights))
        if 2 * count <= features.n:
            stacks.setdefault((count, len(members)), []).append(members)
        else:
            whole += members
    size, state = features.X.dtype.itemsize, 2 * (MEMORY + 2) * features.d
    most = max(1, BUDGET // (size * k * (6 * features.n + state)))
    batches = [_Batch([sorted(whole)[i : i + most]], None) for i in range(0, len(whole), most)]
    for (count, each), found in stacks.items():
        most = max(1, BUDGET // (size * (count * features.d + each * k * (6 * count + state))))
        for start in range(0, len(found), most):
            members = found[start : start + most]
            batches.append(_Batch(members, [np.flatnonzero(problems[m[0]].weights) for m in members]))
    return batches


def _solve_batch(
    features: Features, y: np.ndarray, problems: Sequence[Problem], batch: _Batch, k: int, risk: Risk | None
) -> Iterator[tuple[int, Solution]]:
    """Descend in the features' precision, then in float64 where a certificate is not good enough yet."""
    import torch

    table = [[problems[i] for i in members] for members in batch.members]
    device, double = features.device, torch.float64
    outputs, d = 1 if k == 2 else k, features.d

    def of(get: Callable[[Problem], float]) -> Tensor:
        return torch.tensor([[get(p) for p in row] for row in table], dtype=double, device=device)

    rows = batch.rows or [np.arange(features.n)]
    codes = torch.from_numpy(np.stack([y[r] for r in rows])).to(device)
    total = of(lambda p: float(p.weights.sum()))
    shared = len({id(p.weights) for row in table for p in row}) == len(table)
    chosen = [row[:1] if shared else row for row in table]
    v = torch.from_numpy(
        np.stack([[p.weights[r] / p.weights.sum() for p in row] for r, row in zip(rows, chosen, strict=True)])
    )
    ridge = (1 / (of(lambda p: p.C) * total))[..., None, None].repeat(1, 1, 1, d + 1)
    ridge[..., d] *= of(lambda p: float(p.anchored_intercept))[..., None]
    tol, limit = of(lambda p: p.tol), of(lambda p: p.max_iter).long()
    start = None
    if any(p.anchor is not None for row in table for p in row):
        zero = (np.zeros((outputs, d)), np.zeros(outputs))
        anchors = [[np.column_stack(p.anchor or zero) for p in row] for row in table]
        start = torch.from_numpy(np.array(anchors)).to(device)
    spectrum = Spectrum.of(features)
    # float32 settles a gradient to about 1e-7; what it leaves unsettled, or should settle finer, goes on in float64.
    stages = [double] if features.dtype == double else [features.dtype, double]
    gathered = None if batch.rows is None else torch.stack([features.take(r) for r in batch.rows])
    W = torch.zeros((*tol.shape, outputs, d + 1), dtype=double, device=device)
    iterations = torch.zeros_like(limit)
    found = None
    for dtype in stages:
        operator = Shared(features, dtype) if gathered is None else Stacked(gathered.to(dtype))
        like = torch.zeros((), dtype=dtype, device=device)
        b, p, n = *tol.shape, codes.shape[1]
        F = torch.zeros((b, p, outputs, n), dtype=dtype, device=device)
        if start is not None:
            F += operator.forward(start.to(like).view(b, p * outputs, d + 1)).view(F.shape)
        goal = tol if dtype == double else (0.9 * tol).clamp_min(FLOOR)
        loss = Logistic(codes, v.to(like), risk)
        found = minimise(operator, loss, spectrum.to(like), W.to(like), F, ridge.to(like), goal, limit - iterations)
        W, iterations = found.W.to(double), iterations + found.iterations
        del F, operator
        if dtype != double and bool((found.gradient <= tol).all()) and bool((tol >= COARSE).all()):
            break
    assert found is not None
    W = (W if start is None else W + start).cpu().numpy()
    for s, members in enumerate(batch.members):
        for j, i in enumerate(members):
            gradient = float(found.gradient[s, j])
            yield (
                i,
                Solution(W[s, j, :, :d], W[s, j, :, d], int(iterations[s, j]), gradient, gradient <= problems[i].tol),
            )
