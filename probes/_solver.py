"""The solver: many weighted, regularised logistic problems over one feature matrix, solved together and certified.

Problems that weight most rows share products with the whole matrix; those that weight few (subsamples) gather their
rows and are stacked, and descend first in the span of these. All descend in the features' precision, and what that
leaves short of its tolerance goes on in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ._descent import MEMORY, Found, minimise
from ._errors import FitError
from ._features import COARSE, Features
from ._lasso import solve_lasso
from ._losses import Logistic, Risk
from ._operators import Shared, Spectrum, Stacked
from ._problem import Asked, Problem, Solution

if TYPE_CHECKING:
    from torch import Tensor

BUDGET = 2 << 30
"""Bytes of logits, steps and gradients that are solved at a time."""
FLOOR = 5e-7
"""Size of a gradient component that float32 surely reaches."""
FEW = 0.25
"""Share of the rows up to which a weighting's rows are gathered; products with all rows are shared, and so cheaper."""
SPAN = 0.25
"""Rows of a stack, as a share of the features, up to which it is solved in the span of its rows."""
STRIDE = 4
"""Every fourth problem of a path of C is solved first."""


def solve(
    features: Features,
    y: np.ndarray,
    weightings: np.ndarray | Sequence[np.ndarray],
    problems: Sequence[Problem],
    *,
    anchors: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    risk: Risk | None = None,
) -> list[Solution]:
    """Solve every problem over features (n, d) and class codes y (n,); solutions come in the order of the problems.

    weightings  (m, n), or (n,) each; problems refer to them by their place, and so to anchors: W0 (1 or k, d) and
                b0 (1 or k,)
    risk        what to minimise of each problem's row losses instead of their weighted mean, in the order of the
                problems; the sum of `weights` then only scales C

    Weightings and anchors of equal content are one, and equal problems are solved once: whoever built the arrays, the
    solutions have the same bits.
    Raises `FitError` for a penalty that is not known and when a class has no row of positive weight.
    """
    if other := {p.penalty for p in problems} - {"l1", "l2"}:
        raise FitError(f"penalty must be 'l1' or 'l2', found {min(other)!r}")
    if any(p.penalty == "l1" and (risk is not None or p.anchor is not None) for p in problems):
        raise FitError("an anchor or a risk goes with the penalty 'l2' only, found 'l1'")
    asked = Asked.of(y, list(weightings), anchors, problems)
    for weights in asked.weightings:
        if len(lost := np.setdiff1d(y, y[weights > 0])):
            raise FitError(
                f"class {lost[0]} (counted from 0) has no row of positive weight; "
                "groups that decide the weights must not mix classes"
            )
    problems = asked.problems
    solutions: list[Solution | None] = [None] * len(problems)
    first = asked.firsts() if risk is None else list(range(len(problems)))
    sparse = [p.penalty == "l1" and math.inf > p.C for p in problems]  # without a penalty there is but one problem
    lasso = [i for i, s in enumerate(sparse) if s and first[i] == i]
    if lasso:
        lasso_solutions = solve_lasso(features, y, asked.weightings, [problems[i] for i in lasso])
        for i, solution in zip(lasso, lasso_solutions, strict=True):
            solutions[i] = solution
    import torch

    smooth = [i for i, s in enumerate(sparse) if not s and first[i] == i]
    k = int(y.max()) + 1
    for batch in _batches(features, asked, smooth, 1 if k == 2 else k, gather=risk is None):
        part = risk and risk.keep(torch.from_numpy(np.isin(smooth, batch.members[0])))
        for i, solution in _solve_batch(features, asked, batch, k, part):
            solutions[i] = solution
    return [s for i in first if (s := solutions[i]) is not None]


@dataclass(frozen=True)
class _Batch:
    """Smooth problems that are solved together: indices of problems, by stack, and the rows of each stack or all."""

    members: list[list[int]]
    rows: list[np.ndarray] | None

    def table(self, asked: Asked) -> list[list[Problem]]:
        """The problems of every stack."""
        return [[asked.problems[i] for i in members] for members in self.members]


def _batches(features: Features, asked: Asked, smooth: list[int], k: int, gather: bool) -> list[_Batch]:
    """Batches that fit into `BUDGET`; weightings of at most `FEW` of the rows are gathered, stacks are of equal sizes.

    gather  False where a risk looks at the losses of all rows, whatever they weigh
    """
    by_weights: dict[int, list[int]] = {}
    for i in smooth:
        by_weights.setdefault(asked.problems[i].weights, []).append(i)
    whole: list[int] = []
    stacks: dict[tuple[int, int], list[list[int]]] = {}
    for members in by_weights.values():
        count = int(np.count_nonzero(asked.weights(members[0])))
        if gather and count <= FEW * features.n:
            stacks.setdefault((count, len(members)), []).append(members)
        else:
            whole += members
    size, state = features.X.dtype.itemsize, 2 * (MEMORY + 2) * features.d
    most = max(1, BUDGET // (size * k * (6 * features.n + state)))
    batches = [_Batch([sorted(whole)[i : i + most]], None) for i in range(0, len(whole), most)]
    for (count, each), equal_stacks in stacks.items():
        most = max(1, BUDGET // (size * (count * features.d + each * k * (6 * count + state))))
        for start in range(0, len(equal_stacks), most):
            members = equal_stacks[start : start + most]
            batches.append(_Batch(members, [np.flatnonzero(asked.weights(m[0])) for m in members]))
    return batches


def _solve_batch(
    features: Features, asked: Asked, batch: _Batch, k: int, risk: Risk | None
) -> Iterator[tuple[int, Solution]]:
    """Descend in the features' precision, then in float64 where a certificate is not good enough yet."""
    import torch

    posed = _Posed.of(features, asked, batch, k, risk)
    shape, d, double = posed.tol.shape, features.d, torch.float64
    W = posed.guesses(asked, batch)
    gradient, wanted = torch.full_like(posed.tol, float("inf")), posed.tol.clone()
    iterations, lengths = torch.zeros_like(posed.limit), posed.tol.new_zeros(*shape, 3)
    before = torch.full_like(W, float("nan"))
    exact = torch.zeros_like(posed.tol, dtype=torch.bool)

    def descend(dtype: Any, columns: Tensor) -> None:
        start = W[:, columns]
        if posed.outputs > 1:  # no step changes what all outputs share, be it a guess's or rounding's
            start = start - start.mean(2, keepdim=True)
        minima = posed.descend(dtype, columns, start, iterations[:, columns])
        W[:, columns], gradient[:, columns], wanted[:, columns] = (
            minima.W.to(double).nan_to_num(0, 0, 0),
            minima.gradient.nan_to_num(math.inf),
            minima.wanted.nan_to_num(0),
        )
        iterations[:, columns] += minima.iterations
        lengths[:, columns], exact[:, columns] = minima.lengths, dtype == double
        seen = minima.before.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        before[:, columns] = torch.where(seen, minima.before.to(double), before[:, columns])

    everything = torch.arange(shape[1], device=features.device)
    if posed.gathered is not None and posed.gathered.shape[1] <= SPAN * d and not W.any():
        minima = posed.descend_in_span()
        W, iterations = minima.W.to(double).nan_to_num(0, 0, 0), minima.iterations
        before = minima.before.to(double)
    paths = [] if W.any() else posed.paths(asked, batch)
    between = torch.cat([everything[:0], *(rest for _, rest in paths)])
    for columns in (everything[~torch.isin(everything, between)], between):
        if len(columns):
            descend(features.dtype, columns)
        if columns is not between:
            for nodes, rest in paths:
                # What lies between is found so near that nothing is seen on its way: what was seen of the others is.
                W[:, rest], before[:, rest] = (
                    _interpolated(found[:, nodes], posed.C[0, nodes], posed.C[0, rest]) for found in (W, before)
                )
    # float32 settles a gradient to about 1e-7; what it leaves unsettled, or should settle finer, goes on in float64.
    if features.dtype != double and bool((gradient > wanted).any() | (posed.tol < COARSE).any()):
        descend(double, everything)
    reaches = posed.reaches(lengths, exact)
    if posed.start is not None:
        W, before = W + posed.start, before + posed.start
    yield from _solutions(batch, *(x.cpu().numpy() for x in (W, before, gradient, wanted, iterations, reaches)))


def _solutions(
    batch: _Batch, W: np.ndarray, before: np.ndarray, gradient: np.ndarray, wanted: np.ndarray, iterations: np.ndarray,
    reaches: np.ndarray,
) -> Iterator[tuple[int, Solution]]:  # fmt: skip
    """Each problem's place and solution, from arrays (b, p, ...)."""
    d = W.shape[-1] - 1
    for s, members in enumerate(batch.members):
        for j, i in enumerate(members):
            size, theta = float(gradient[s, j]), W[s, j]
            fine = float(wanted[s, j]) > 0 and size <= float(wanted[s, j])
            way = before[s, j] if np.isfinite(before[s, j]).all() else None
            yield i, Solution(
                theta[:, :d], theta[:, d], int(iterations[s, j]), size, fine,
                None if way is None else (way[:, :d], way[:, d]), tuple(map(float, reaches[s, j])),
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Posed:
    """A batch as tensors: b stacks of p problems of `outputs` outputs over n rows each.

    gathered  (b, n, d) rows of every stack, or None for all rows of `features`
    codes     (b, n); v (b, p or 1, n) weights of sum 1; ridge (b, p, 1, d + 1); C, tol and limit (b, p)
    start     (b, p, outputs, d + 1) anchors
    """

    features: Features
    gathered: Tensor | None
    outputs: int
    codes: Tensor
    v: Tensor
    C: Tensor
    ridge: Tensor
    tol: Tensor
    limit: Tensor
    start: Tensor | None
    risk: Risk | None

    @classmethod
    def of(cls, features: Features, asked: Asked, batch: _Batch, k: int, risk: Risk | None) -> _Posed:
        """Pose the problems of every stack over its rows."""
        import torch

        device, outputs, d, rows, y = features.device, 1 if k == 2 else k, features.d, batch.rows, asked.y

        def each(get: Callable[[Problem], float]) -> Tensor:
            return torch.tensor([[get(p) for p in row] for row in table], dtype=torch.float64, device=device)

        table = batch.table(asked)
        taken = rows or [np.arange(features.n)]
        shared = all(len({p.weights for p in row}) == 1 for row in table)
        used = [[asked.weightings[p.weights] for p in row[: 1 if shared else None]] for row in table]
        weights = [[w[r] for w in mine] for r, mine in zip(taken, used, strict=True)]
        v = torch.from_numpy(np.array(weights, np.float64)).to(device)
        totals = [float(w.sum()) for w in asked.weightings]
        C, total = each(lambda p: p.C), each(lambda p: totals[p.weights])
        ridge = (1 / (C * total))[..., None, None].repeat(1, 1, 1, d + 1)
        ridge[..., d] *= each(lambda p: float(p.anchored_intercept))[..., None]
        start = None
        if any(p.anchor is not None for row in table for p in row):
            zero = np.zeros((outputs, d + 1))
            stacked = [np.column_stack(anchor) for anchor in asked.anchors]
            anchors = [[zero if p.anchor is None else stacked[p.anchor] for p in row] for row in table]
            start = torch.from_numpy(np.array(anchors)).to(device)
        gathered = None if rows is None else features.take(np.concatenate(rows)).unflatten(0, (len(rows), -1))
        return cls(
            features, gathered, outputs,
            torch.from_numpy(np.stack([y[r] for r in taken])).to(device), v / v.sum(-1, keepdim=True), C, ridge,
            each(lambda p: p.tol), each(lambda p: p.max_iter).long(), start, risk,
        )  # fmt: skip

    def guesses(self, asked: Asked, batch: _Batch) -> Tensor:
        """(b, p, outputs, d + 1) where to descend from, less the anchors."""
        import torch

        W = torch.zeros((*self.C.shape, self.outputs, self.features.d + 1), dtype=torch.float64)
        for s, row in enumerate(batch.table(asked)):
            for j, p in enumerate(row):
                if p.guess is not None:
                    W[s, j] = torch.from_numpy(np.column_stack(p.guess))
                    if p.anchor is not None:
                        W[s, j] -= torch.from_numpy(np.column_stack(asked.anchors[p.anchor]))
        return W.to(self.features.device)

    def paths(self, asked: Asked, batch: _Batch) -> list[tuple[Tensor, Tensor]]:
        """For each long path of C: the problems to solve first, and the rest, which start between them."""
        import torch

        if self.start is not None or self.risk is not None or bool((self.C[:1] != self.C).any()):
            return []
        finite = self.C[0].isfinite()
        by_weights: dict[int, list[int]] = {}
        for column, i in enumerate(batch.members[0]):
            if finite[column]:
                by_weights.setdefault(asked.problems[i].weights, []).append(column)
        splits = []
        for columns in by_weights.values():
            C = self.C[0, columns]
            if len(columns) > 2 * STRIDE and len(C.unique()) == len(columns):
                order = torch.tensor(columns, device=C.device)[C.argsort()]
                node = torch.zeros(len(order), dtype=torch.bool, device=C.device)
                node[::STRIDE] = node[-1] = True
                splits.append((order[node], order[~node]))
        return splits

    def descend_in_span(self) -> Found:
        """Descend from zero with coordinates in the span of each stack's rows, where the solutions lie.

        With Z Z' = U diag(s) U' they are Z U diag(s)^-1/2, in which the rows are U diag(s)^1/2 and their second moment
        is diagonal. Gradients, and so the tolerance, are of these coordinates.
        """
        import torch

        Z = self.gathered
        assert Z is not None
        n = Z.shape[1]
        s, U = torch.linalg.eigh(Z @ Z.mT)
        s = torch.where(s > torch.finfo(s.dtype).eps * n * s[:, -1:], s, 0)
        everything = torch.arange(self.C.shape[1], device=Z.device)
        W = torch.zeros((*self.C.shape, self.outputs, n + 1), dtype=Z.dtype, device=Z.device)
        rotated = Stacked(U * s.sqrt()[:, None])
        minima = self._minimised(
            rotated, Spectrum(None, s / n, 0.0), everything, W, self._logits(Stacked(Z), everything, W), self.limit
        )

        def outside(W: Tensor) -> Tensor:
            rows = W[..., :-1].flatten(1, 2) * torch.where(s > 0, s.rsqrt(), 0)[:, None] @ U.mT @ Z
            return torch.cat([rows.unflatten(1, W.shape[1:3]), W[..., -1:]], -1)

        return replace(minima, W=outside(minima.W), before=outside(minima.before))

    def descend(self, dtype: Any, columns: Tensor, W: Tensor, spent: Tensor) -> Found:
        """Descend from W, some of the problems, in a precision."""
        import torch

        like = torch.zeros((), dtype=dtype, device=self.features.device)
        operator = Shared(self.features, dtype) if self.gathered is None else Stacked(self.gathered.to(dtype))
        W = W.to(like)
        F = self._logits(operator, columns, W)
        return self._minimised(
            operator, Spectrum.of(self.features).to(like), columns, W, F, self.limit[:, columns] - spent
        )

    def reaches(self, lengths: Tensor, exact: Tensor) -> Tensor:
        """(b, p, 2) a and c: a ||z|| + c bounds how far any logit is from that of the minimum; for two classes.

        The objective f(W, b) / (C sum w) is mu-strongly convex in W, mu the ridge, and so is its least value over b.
        The gradient of that is as long as ||g_W|| + R |g_b| at most, R the longest row: moving b to where its
        derivative vanishes changes every residual in the same direction, by |g_b| in sum. So ||W - W*|| <= rho, that
        over mu. The best b follows the logits of the rows, by R rho at most; and ours is -log(1 - |g_b| / h) at most
        from the best one for our W, h the mean curvature, as no third derivative of the loss is larger than the second
        (Bach 2010). An intercept that is penalised as the coefficients are is one of them, of a further feature 1.

        exact  (b, p) gradients in float64; those in float32 may be `FLOOR` off in every component
        """
        import torch

        mu, held = self.ridge[..., 0, 0], self.ridge[..., 0, -1] > 0
        if self.outputs > 1 or self.risk is not None:
            return torch.full_like(lengths[..., :2], math.inf)
        slack = torch.where(exact, 0.0, FLOOR)
        coefficients, intercept = lengths[..., 0] + slack * self.features.d**0.5, lengths[..., 1] + slack
        joint = torch.hypot(coefficients, intercept) / mu
        R = self.features.radius
        rho = (coefficients + R * intercept) / mu
        shift = -torch.log1p(-(intercept / lengths[..., 2]).clamp_max(1.0))
        reach = torch.where(held[..., None], torch.stack([joint, joint], -1), torch.stack([rho, R * rho + shift], -1))
        return torch.where((mu > 0)[..., None], reach, math.inf).nan_to_num(math.inf, math.inf, math.inf)

    def _logits(self, operator: Shared | Stacked, columns: Tensor, like: Tensor) -> Tensor:
        """(b, p, outputs, n) of the anchors."""
        if self.start is None:
            return like.new_zeros(()).expand(len(self.C), len(columns), self.outputs, self.codes.shape[1])
        start = self.start[:, columns].to(like)
        return operator.forward(start.flatten(1, 2)).unflatten(1, start.shape[1:3])

    def _minimised(
        self, operator: Shared | Stacked, spectrum: Spectrum, columns: Tensor, W: Tensor, F: Tensor, limit: Tensor
    ) -> Found:
        """Descend from W and the logits of the anchors, F."""
        import torch

        v, tol = self.v if self.v.shape[1] == 1 else self.v[:, columns], self.tol[:, columns]
        floor = 0.0
        if W.dtype != torch.float64:
            tol, floor = 0.9 * tol, FLOOR
        loss, ridge = Logistic(self.codes, v.to(W), self.risk), self.ridge[:, columns, :, -W.shape[3] :].to(W)
        return minimise(operator, loss, spectrum, W, F, ridge, tol, limit, floor)


def _interpolated(W: Tensor, C: Tensor, wanted: Tensor) -> Tensor:
    """(b, q, k, d + 1) on the cubic in log C through the four nearest of the solutions W (b, p, k, d + 1) at C."""
    import torch

    x, at = C.log(), wanted.log()
    near = (at[:, None] - x).abs().argsort(1)[:, :4]
    weights = torch.zeros(len(at), len(x), dtype=W.dtype, device=W.device)
    for row, mine in enumerate(near):
        for i in mine:
            others = x[mine[mine != i]]
            weights[row, i] = ((at[row] - others) / (x[i] - others)).prod()
    return torch.einsum("qp,bpkd->bqkd", weights, W)
