"""L1-penalised logistic problems: Newton's method on the coefficients that matter, which are few.

Every step looks at the gradient of all coefficients, takes those in use and the worst offenders among the rest, and
goes to the lowest point of the quadratic model on them, which is a lasso: features scaled by the root of the Hessian's
weights, on which scikit-learn's coordinate descent makes some sweeps (Friedman et al. 2010; Yuan et al. 2012). Once
the signs settle, linear equations give the lowest point exactly. Along a path of C each problem starts from the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular
from scipy.special import expit, log_expit, logsumexp, softmax
from sklearn import config_context
from sklearn.linear_model import lasso_path

from ._descent import SHARE, TENFOLD
from ._features import COARSE, Features
from ._problem import Problem, Solution
from ._process_settings import one_core, quiet

GROWTH = 100
"""Most coefficients that join in a step, or as many as are in use, if these are more."""
PATIENCE = 50
"""Steps without getting better after which a problem is given up."""
JOINT = 3e7
"""Numbers in the lasso's matrix, and in the Hessian's root, up to which all outputs' model is minimised as one."""
SHARED_ROWS = 20_000
"""Rows from which on the products of a single weighting are worth sharing among threads."""
SWEEPS, TURNS = 20, 8
"""Sweeps of coordinate descent, and rounds of taking out coefficients that change sign."""
ALIKE = 0.8
"""Mean share of the used rows that one weighting has, from which on all start from the solution for their mean."""
TALL = 8
"""Columns per row of the lasso's matrix, from which on it is made square."""
SETTLED = 0.15
"""Largest share of new signs for which equations are solved; any share after a step without progress."""
FLAT = 1e-7
"""Least probability in the Hessian; its root is a divisor."""
PRECISION = 0.1
"""Duality gap of the quadratic model's solution over the square of the gradient that is left."""


def solve_lasso(
    features: Features, y: np.ndarray, weightings: Sequence[np.ndarray], problems: Sequence[Problem]
) -> list[Solution]:
    """Solutions in the order of the problems, which are checked and distinct; the cores share the weightings."""
    import torch

    by_weights: dict[int, list[int]] = {}
    for i, p in enumerate(problems):
        by_weights.setdefault(p.weights, []).append(i)
    turned, taken = None, np.zeros(0, int)
    if not features.streamed:
        taken = np.flatnonzero(np.any([weightings[w] > 0 for w in by_weights], axis=0))
        if most := 2 * len(taken) > features.n:
            taken = np.arange(features.n)
        turned = (features.tensor if most else features.take(taken)).cpu().T.contiguous().numpy()

    def path(weights: np.ndarray, some: Sequence[Problem]) -> list[Solution]:
        """Of one weighting, by ascending C."""
        rows = np.flatnonzero(weights)
        if turned is not None:
            Z = turned if len(rows) == len(taken) else turned.take(np.searchsorted(taken, rows), axis=1)
        else:
            Z = features.take(rows).cpu().T.contiguous().numpy() if len(rows) < features.n else None
        if Z is not None and min(p.tol for p in some) < COARSE:
            Z = Z.astype(np.float64, copy=False)
        design = _Design(features, Z, y[rows], weights[rows] / weights.sum(), int(y.max()) + 1)
        W, b = np.zeros((design.outputs, features.d)), np.zeros(design.outputs)
        path_solutions = []
        for p in some:
            if p.guess is not None:
                W, b = _least(p.guess[0]), p.guess[1]
            path_solutions.append(_descend(design, 1 / (p.C * weights.sum()), W, b, p.tol, p.max_iter))
            W, b = path_solutions[-1].coef, path_solutions[-1].intercept
        return path_solutions

    used = [weightings[w] for w in by_weights]
    paths = [sorted(members, key=lambda i: problems[i].C) for members in by_weights.values()]
    asked = [[problems[i] for i in members] for members in paths]
    # Coordinate descent makes so many small products that threads which share them would mostly wait.
    alone = len(paths) == 1 and features.n >= SHARED_ROWS
    with quiet, nullcontext() if alone else one_core, ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if len(asked) > 2 and _alike(used, asked):
            guesses = [(s.coef, s.intercept) for s in path(np.mean(used, axis=0), asked[0])]
            asked = [[replace(p, guess=g) for p, g in zip(some, guesses, strict=True)] for some in asked]
        solutions_by_path = list(pool.map(path, used, asked))
    solutions = {
        i: s for members, part in zip(paths, solutions_by_path, strict=True) for i, s in zip(members, part, strict=True)
    }
    return [solutions[i] for i in range(len(problems))]


def _alike(used: Sequence[np.ndarray], asked: Sequence[Sequence[Problem]]) -> bool:
    """Whether the weightings have most rows in common, the same values of C, and no guesses yet."""
    if any(p.guess is not None for some in asked for p in some):
        return False
    union = np.any([w > 0 for w in used], axis=0).sum()
    share = np.mean([np.count_nonzero(w) for w in used]) / union
    return bool(share >= ALIKE) and len({tuple(p.C for p in some) for some in asked}) == 1


class _Design:
    """The rows of one weighting, features first: products with them, and the loss of logits (outputs, n)."""

    def __init__(self, features: Features, Z: np.ndarray | None, y: np.ndarray, v: np.ndarray, k: int) -> None:
        self.features, self.Z, self.y, self.v = features, Z, y, v
        self.outputs = 1 if k == 2 else k
        self.onehot = (y == np.arange(k)[:, None]).astype(float)[-self.outputs :]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Z (d, n) in blocks of rows; one block unless it is streamed."""
        if self.Z is not None:
            yield slice(0, len(self.y)), self.Z
            return
        for part, Z in self.features.blocks():
            yield part, Z.cpu().numpy().T

    def correlate(self, R: np.ndarray) -> np.ndarray:
        """R Z' (outputs, d) for R (outputs, n), all features."""
        total = np.zeros((self.outputs, self.features.d))
        for part, Z in self.blocks():
            total += (Z @ R[:, part].astype(Z.dtype).T).T
        return total

    def columns(self, used: np.ndarray) -> np.ndarray:
        """Z[used] (u, n)."""
        return self.Z[used] if self.Z is not None else np.concatenate([Z[used] for _, Z in self.blocks()], axis=1)

    def loss(self, F: np.ndarray) -> float:
        """Weighted mean loss of logits (outputs, n)."""
        if self.outputs == 1:
            return float(-self.v @ log_expit(np.where(self.y == 1, F[0], -F[0])))
        return float(self.v @ (logsumexp(F, axis=0) - F[self.y, np.arange(len(self.y))]))

    def derivatives(self, F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, n) first derivatives by the logits, and the probabilities."""
        P = expit(F) if self.outputs == 1 else softmax(F, axis=0)
        return self.v * (P - self.onehot), P


def _descend(design: _Design, penalty: float, W: np.ndarray, b: np.ndarray, tol: float, max_iter: int) -> Solution:
    """min over W, b: loss + penalty * ||W||_1, from W and b."""
    W, b = W.copy(), b - (b.mean() if len(b) > 1 else 0)
    used = np.flatnonzero(W.any(0))
    Z = design.columns(used)
    F = W[:, used].astype(Z.dtype) @ Z + b[:, None]
    value = design.loss(F) + penalty * np.abs(W).sum()
    iteration, best, since, way = 0, np.inf, 0, None
    while True:
        R, P = design.derivatives(F)
        slack = np.abs(design.correlate(R) + penalty * np.sign(W))
        slack = np.where(W != 0, slack, np.maximum(slack - penalty, 0))
        certificate = float(max(slack.max(), np.abs(R.sum(1)).max()))
        residual = float(np.abs(R).sum()) / (2 if len(b) > 1 else 1)
        wanted_size = tol * min(1.0, residual / SHARE)
        best, since = (certificate, 0) if certificate < 0.9 * best else (best, since + 1)
        if certificate <= wanted_size or iteration >= max_iter or since == PATIENCE or not np.isfinite(certificate):
            return Solution(W, b, iteration, certificate, certificate <= wanted_size, way)
        if certificate >= TENFOLD * wanted_size:
            way = W.copy(), b
        iteration += 1
        wanted = W != 0
        offence = np.where(wanted, 0, slack).ravel()
        most = max(GROWTH, np.count_nonzero(wanted))
        worst = np.argpartition(-offence, most)[:most] if most < len(offence) else np.arange(len(offence))
        wanted.ravel()[worst[offence[worst] > 0]] = True
        if not np.array_equal(columns := np.flatnonzero(wanted.any(0)), used):
            used, Z = columns, design.columns(columns)
        lasso = partial(_lowest, penalty=penalty, gap=PRECISION * certificate**2, settled=1 if since else SETTLED)
        step, shift = _newton(Z, design.v, P, R, W[:, used], wanted[:, used], lasso)
        t = 1.0
        while True:
            moved = _least(W[:, used] + t * step)
            G = moved.astype(Z.dtype) @ Z + (b + t * shift)[:, None]
            new = design.loss(G) + penalty * np.abs(moved).sum()
            if new <= value + 4 * np.finfo(Z.dtype).eps * value or t < 1e-6:
                break
            t /= 2
        if t < 1e-6:  # as low as the precision lets it get
            return Solution(W, b, iteration, certificate, False)
        W[:, used], b, F, value = moved, b + t * shift, G, new
        if len(b) > 1:  # what all intercepts share changes no softmax
            F, b = F - b.mean(), b - b.mean()


def _least(W: np.ndarray) -> np.ndarray:
    """The same classifier with the smallest ||W||_1: a shift that all classes share changes only the norm."""
    if len(W) == 1:
        return W
    ordered = np.sort(W, axis=0)
    low, high = ordered[(len(W) - 1) // 2], ordered[len(W) // 2]
    return W - np.clip(0, low, high)


def _newton(
    Z: np.ndarray, v: np.ndarray, P: np.ndarray, R: np.ndarray, W: np.ndarray, wanted: np.ndarray,
    lasso: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Steps (outputs, u) and (outputs,) to the minimum of the quadratic model: of all outputs, or, of many, one by one.

    A row's Hessian by its logits is S'S: S = sqrt(v P (1 - P)), or of a softmax S_ec = sqrt(v P_e) (1[e = c] - P_c).
    The model is 1/2 |X'w - target|^2 + penalty |w|_1 for rows S_c z_j of X, one for each wanted coefficient (c, j).
    """
    outputs, n = P.shape
    P = np.clip(P, FLAT, 1 - FLAT)
    step, shift = np.zeros_like(W), np.zeros(outputs)
    together = outputs * n * max(np.count_nonzero(wanted), outputs) <= JOINT
    for cs in [list(range(outputs))] if together else [[c] for c in range(outputs)]:
        if len(cs) > 1:
            root = np.sqrt(v * P)
            S = root * (np.eye(outputs)[:, :, None] - P[:, None])  # (c, e, n)
        else:  # Twice the diagonal bounds the softmax's Hessian, so that outputs may step at once by themselves.
            root = np.sqrt((1 + (outputs > 1)) * v * P[cs] * (1 - P[cs]))
            S = root[None]
        curvature = np.einsum("cen,fen->cf", S, S)
        # Singular for all classes, along a shift that they share, on which nothing depends.
        inverse = np.linalg.inv(curvature + (len(cs) > 1) * curvature.trace())
        c, j = np.nonzero(wanted[cs])
        total = R[cs].sum(1)
        if len(c):  # with the intercepts eliminated
            w = W[cs][c, j].astype(Z.dtype)
            make = _triangle if root.size > TALL * len(c) else _rows
            try:
                X, cross, back = make(Z, S, R[cs] / root, inverse, c, j)
            except LinAlgError:  # not of full rank, up to rounding
                X, cross, back = _rows(Z, S, R[cs] / root, inverse, c, j)
            moved = lasso(X, w @ X - back, w) - W[cs][c, j]
            step[np.array(cs)[c], j] = moved
            total = total + moved @ cross
        shift[cs] = -inverse @ total
    return step, shift


def _rows(
    Z: np.ndarray, S: np.ndarray, q: np.ndarray, inverse: np.ndarray, c: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (len(c), e n) without the intercepts' part, its products with them before, and `back`: X back is the gradient.

    S (c, e, n); S q are the derivatives by the logits; `inverse` of the intercepts' Hessian.
    """
    X = (Z[j, None] * S.astype(Z.dtype)[c] if len(S) > 1 else Z[j] * S[0].astype(Z.dtype)).reshape(len(c), -1)
    flat, q = S.reshape(len(S), -1), q.ravel()
    back = (q - flat @ q @ inverse @ flat).astype(Z.dtype)
    flat = flat.astype(Z.dtype)
    cross = X @ flat.T
    own = (cross @ inverse).astype(Z.dtype)
    X -= own @ flat if len(S) > 1 else own * flat
    return X, cross, back


def _triangle(
    Z: np.ndarray, S: np.ndarray, q: np.ndarray, inverse: np.ndarray, c: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with as few columns as rows: X is the Cholesky factor of XX', which is made class by class."""
    M, cross, slope = np.empty((len(c), len(c)), Z.dtype), np.empty((len(c), len(S))), np.empty(len(c))
    R, H = np.einsum("cen,en->cn", S, q), np.einsum("cen,fen->cfn", S, S).astype(Z.dtype)
    for e in range(len(S)):
        mine = Z[j[c == e]]
        slope[c == e], cross[c == e] = mine @ R[e].astype(Z.dtype), mine @ H[e].T
        for f in range(e + 1):
            block = (mine * H[e, f]) @ Z[j[c == f]].T
            M[np.ix_(c == e, c == f)], M[np.ix_(c == f, c == e)] = block, block.T
    own = cross @ inverse
    M -= own @ cross.T
    M[np.diag_indices_from(M)] += 1e-9 + np.finfo(M.dtype).eps * M.trace()
    X = cholesky(M, lower=True, check_finite=False)
    back = solve_triangular(X, slope - own @ R.sum(1), lower=True, check_finite=False)
    return np.ascontiguousarray(X), cross, back.astype(Z.dtype)


def _lowest(X: np.ndarray, target: np.ndarray, w: np.ndarray, penalty: float, gap: float, settled: float) -> np.ndarray:
    """argmin of 1/2 |X'w - target|^2 + penalty |w|_1, from w, to a duality gap or as low as it gets.

    Some sweeps of coordinate descent (scikit-learn's) find most signs. Where a share of at most `settled` is new,
    equations for the others are worth their cost.
    """
    with config_context(skip_parameter_validation=True):  # a fifth of the sweeps' time, with the lock held
        path = cast("Any", lasso_path)(
            X.T, target, alphas=[penalty / X.shape[1]], coef_init=w.copy(), precompute=False, check_input=False,
            tol=max(gap / max(target @ target, 1e-30), 1e-15), max_iter=SWEEPS,
        )  # fmt: skip
    near = path[1][:, 0]
    on = np.flatnonzero(near)
    if not len(on) or np.count_nonzero(np.sign(near) != np.sign(w)) > settled * len(on):
        return near
    there = np.zeros_like(near)
    try:
        there[on] = _face(X[on], target, penalty, np.sign(near[on]))
    except LinAlgError:
        return near

    def violation(w: np.ndarray) -> float:  # values of the model would tie up to rounding
        g = X @ (w @ X - target)
        return float(np.where(w != 0, np.abs(g + penalty * np.sign(w)), np.abs(g) - penalty).max())

    return min(there, near, key=violation)


def _face(X: np.ndarray, target: np.ndarray, penalty: float, signs: np.ndarray) -> np.ndarray:
    """The solution of X (X'w - target) + penalty signs = 0 where w has these signs; others are held at 0.

    Raises `LinAlgError` where X is not of full rank, up to rounding, or where signs go on changing.
    """
    A = X @ X.T
    A[np.diag_indices_from(A)] += 1e-9 + 4 * np.finfo(A.dtype).eps * A.diagonal().max()
    factor = cho_factor(A.T, overwrite_a=True, check_finite=False)
    w = free = cho_solve(factor, X @ target - A.dtype.type(penalty) * signs, check_finite=False)
    held, columns = np.zeros(0, int), np.zeros((len(w), 0), A.dtype)  # of the inverse
    for _ in range(TURNS):
        changed = np.flatnonzero(w * signs < 0)
        if not len(changed):
            return w
        units = np.zeros((len(w), len(changed)), A.dtype, order="F")
        units[changed, np.arange(len(changed))] = 1
        held = np.append(held, changed)
        columns = np.hstack([columns, cho_solve(factor, units, overwrite_b=True, check_finite=False)])
        w = free - columns @ np.linalg.solve(columns[held], free[held])
        w[held] = 0
    raise LinAlgError("signs go on changing")
