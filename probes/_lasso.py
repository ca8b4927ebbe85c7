"""L1-penalised logistic problems: Newton's method on the features that matter, which are few.

Every step looks at the gradient of all features, takes those in use and the worst offenders among the rest, and goes
to the lowest point of the quadratic model on them, which is a lasso in Gram form: scikit-learn's coordinate descent
solves it (Friedman et al. 2010; Yuan et al. 2012). Along a path of C each problem starts from the last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import expit, log_expit, logsumexp, softmax
from sklearn.linear_model import lasso_path
from threadpoolctl import threadpool_limits

from probes._features import COARSE, Features
from probes._problem import Problem, Solution
from probes._quiet import quiet

HESSIAN_ROWS = 20_000
"""Rows, evenly spaced, that a Hessian is made of where there are more; it then is an estimate, the gradient is not."""
GROWTH = 200
"""Features that join at least, if so many have a gradient beyond the penalty; at most as many as are in use."""
PATIENCE = 50
"""Steps without getting better after which a problem is given up."""
JOINT = 5000
"""Coefficients of all outputs up to which their quadratic model is minimised as one."""
SWEEPS, TURNS = 20, 5
"""Of coordinate descent, and of taking out what changes its sign."""
PRECISION = 0.1
"""Duality gap of the quadratic model's solution over the square of the gradient that is left."""


def solve_lasso(features: Features, y: np.ndarray, problems: Sequence[Problem]) -> list[Solution]:
    """Solutions in the order of the problems; arguments are checked already. Weightings are spread over the cores."""
    by_weights: dict[int, list[int]] = {}
    for i, p in enumerate(problems):
        by_weights.setdefault(id(p.weights), []).append(i)

    def path(members: list[int]) -> dict[int, Solution]:
        weights = problems[members[0]].weights
        rows = np.flatnonzero(weights)
        fine = min(problems[i].tol for i in members) < COARSE
        design = _Design(features, rows, y[rows], weights[rows] / weights.sum(), int(y.max()) + 1, fine)
        W, b = np.zeros((design.outputs, features.d)), np.zeros(design.outputs)
        found = {}
        for i in sorted(members, key=lambda i: problems[i].C):
            p = problems[i]
            if p.guess is not None:
                W, b = _least(p.guess[0]), p.guess[1]
            found[i] = _descend(design, 1 / (p.C * weights.sum()), W, b, p.tol, p.max_iter)
            W, b = found[i].coef, found[i].intercept
        return found

    with quiet:  # of models that need not be solved to the end
        if len(by_weights) == 1:
            found = path(next(iter(by_weights.values())))
        else:  # products of subsamples are too small to be worth sharing
            if not features.streamed:
                features.tensor  # noqa: B018  made once, before the threads
            with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
                found = {i: s for part in pool.map(path, by_weights.values()) for i, s in part.items()}
    return [found[i] for i in range(len(problems))]


class _Design:
    """The rows of one weighting: products with them, and the loss of logits."""

    def __init__(self, features: Features, rows: np.ndarray, y: np.ndarray, v: np.ndarray, k: int, fine: bool) -> None:
        self.features, self.y, self.v, self.k = features, y, v, k
        self.outputs = 1 if k == 2 else k
        self.rows = None if len(rows) == features.n else rows
        self.Z = None
        if self.rows is not None or not features.streamed:
            self.Z = (features.tensor if self.rows is None else features.take(rows)).cpu().numpy()
        if fine and self.Z is not None:
            self.Z = self.Z.astype(np.float64)
        # A subsample is small: turned, its columns are gathered in one piece each.
        self.turned = None if self.rows is None or self.Z is None else np.ascontiguousarray(self.Z.T)
        self.onehot = (y[:, None] == np.arange(k)).astype(float)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Z in blocks of rows; one block unless it is streamed."""
        if self.Z is not None:
            yield slice(0, len(self.Z)), self.Z
            return
        for part, Z in self.features.blocks():
            yield part, Z.cpu().numpy()

    def correlate(self, R: np.ndarray) -> np.ndarray:
        """R' Z (outputs, d) for R (n, outputs), all features."""
        total = np.zeros((self.outputs, self.features.d))
        for part, Z in self.blocks():
            total += R[part].astype(Z.dtype).T @ Z
        return total

    def columns(self, used: np.ndarray) -> np.ndarray:
        """Z[:, used] (n, u)."""
        if self.turned is not None:
            return self.turned[used].T
        return np.concatenate([Z[:, used] for _, Z in self.blocks()])

    def loss(self, F: np.ndarray) -> float:
        """Weighted mean loss of logits (n, outputs)."""
        if self.outputs == 1:
            return float(-self.v @ log_expit(np.where(self.y == 1, F[:, 0], -F[:, 0])))
        return float(self.v @ (logsumexp(F, axis=1) - F[np.arange(len(F)), self.y]))

    def derivatives(self, F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, outputs) first derivatives by the logits, and the probabilities."""
        P = expit(F) if self.outputs == 1 else softmax(F, axis=1)
        onehot = self.onehot[:, 1:] if self.outputs == 1 else self.onehot
        return self.v[:, None] * (P - onehot), P


def _descend(design: _Design, penalty: float, W: np.ndarray, b: np.ndarray, tol: float, max_iter: int) -> Solution:
    """min over W, b: loss + penalty * ||W||_1, from W and b."""
    W, b = W.copy(), b - (b.mean() if len(b) > 1 else 0)
    used = np.flatnonzero(W.any(0))
    Z = design.columns(used)
    F = Z @ W[:, used].T.astype(Z.dtype) + b
    value = design.loss(F) + penalty * np.abs(W).sum()
    iteration, best, since = 0, np.inf, 0
    while True:
        R, P = design.derivatives(F)
        g = design.correlate(R)
        slack = np.where(W != 0, np.abs(g + penalty * np.sign(W)), np.maximum(np.abs(g) - penalty, 0))
        certificate = float(max(slack.max(), np.abs(R.sum(0)).max()))
        best, since = (certificate, 0) if certificate < 0.9 * best else (best, since + 1)
        if certificate <= tol or iteration >= max_iter or since == PATIENCE:
            return Solution(W, b, iteration, certificate, certificate <= tol)
        iteration += 1
        active = W.any(0)
        worst = np.argsort(-np.where(active, 0, slack.max(0)))[: max(GROWTH, np.count_nonzero(active))]
        wanted = np.union1d(np.flatnonzero(active), worst[slack.max(0)[worst] > 0])
        if not np.array_equal(wanted, used):
            used, Z = wanted, design.columns(wanted)
        step, shift = _newton(Z, design.v, P, g[:, used], R.sum(0), W[:, used], penalty, certificate)
        t = 1.0
        while True:
            moved = _least(W[:, used] + t * step)
            G = Z @ moved.T.astype(Z.dtype) + (b + t * shift)
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
    """The smallest ||W||_1 of the same classifier: what all classes share of a feature changes nothing but the norm."""
    if len(W) == 1:
        return W
    ordered = np.sort(W, axis=0)
    low, high = ordered[(len(W) - 1) // 2], ordered[len(W) // 2]
    return W - np.clip(0, low, high)


def _newton(
    Z: np.ndarray, v: np.ndarray, P: np.ndarray, g: np.ndarray, gb: np.ndarray, W: np.ndarray, penalty: float,
    certificate: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Steps (outputs, u) and (outputs,) to the minimum of the quadratic model: of all outputs, or, of many, one by one.

    v (n,) weights and P (n, outputs) probabilities, whose softmax has the Hessian v P_c (1[c = c'] - P_c').
    """
    outputs, u = W.shape
    if len(Z) > HESSIAN_ROWS:
        pick = slice(None, None, -(-len(Z) // HESSIAN_ROWS))
        Z, P, v = Z[pick], P[pick], v[pick] * (v.sum() / max(v[pick].sum(), 1e-300))
    step, shift = np.zeros_like(W), np.zeros(outputs)
    together = outputs * u <= JOINT
    for cs in [list(range(outputs))] if together else [[c] for c in range(outputs)]:
        # Twice the diagonal bounds the softmax's Hessian, so that outputs may step at once by themselves.
        h = [[(1 + (not together)) * v * P[:, c] * ((c == e) - P[:, e]) for e in cs] for c in cs]
        M, cross, total = _hessian(Z, h)
        inverse = np.linalg.pinv(total, rcond=1e-10, hermitian=True)
        own, w, slope = cross @ inverse, W[cs].ravel(), g[cs].ravel()
        if u:  # with the intercepts eliminated: 1/2 w'Mw - aim'w + penalty |w|_1, up to a constant
            M -= (own @ cross.T).astype(M.dtype)
            M[np.diag_indices_from(M)] += 1e-9 + 4 * float(np.finfo(M.dtype).eps) * M.diagonal().max()
            aim = M @ w.astype(M.dtype) - (slope - own @ gb[cs]).astype(M.dtype)
            step[cs] = (_lowest(M, aim, penalty, w, PRECISION * certificate**2) - w).reshape(len(cs), u)
        shift[cs] = -inverse @ (gb[cs] + cross.T @ step[cs].ravel())
    return step, shift


def _hessian(Z: np.ndarray, h: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks Z' diag(h_ij) Z (m u, m u), Z' h_ij (m u, m) and sum h_ij (m, m), for h (m, m) of (n,)."""
    m, u = len(h), Z.shape[1]
    M, cross = np.empty((m * u, m * u), Z.dtype), np.empty((m * u, m))
    for i in range(m):
        for j in range(i + 1):
            weight = h[i][j].astype(Z.dtype)
            if i == j:  # a product with itself is half the work
                scaled = Z * np.sqrt(weight)[:, None]
                block = scaled.T @ scaled
            else:
                block = Z.T @ (Z * weight[:, None])
            M[i * u : (i + 1) * u, j * u : (j + 1) * u] = block
            M[j * u : (j + 1) * u, i * u : (i + 1) * u] = block.T
            cross[i * u : (i + 1) * u, j] = cross[j * u : (j + 1) * u, i] = weight @ Z
    return M, cross, np.array([[x.sum() for x in row] for row in h])


def _lowest(M: np.ndarray, aim: np.ndarray, penalty: float, w: np.ndarray, gap: float) -> np.ndarray:
    """argmin of 1/2 w'Mw - aim'w + penalty |w|_1, from w, to a duality gap or a little lower than descent gets.

    Some sweeps of coordinate descent (scikit-learn's; what it is told of targets only scales its tolerance) find most
    signs. With these the equations are linear; what changes its sign by them is taken out, and they are solved again.
    """
    scale = 1 + abs(aim @ w)
    path = cast("Any", lasso_path)(
        np.zeros((1, len(M)), M.dtype, order="F"), np.array([np.sqrt(scale)], M.dtype), alphas=[penalty], precompute=M,
        Xy=aim, coef_init=w.astype(M.dtype), tol=max(gap / scale, 1e-15), max_iter=SWEEPS, check_input=False,
    )  # fmt: skip
    near = path[1][:, 0]
    on = np.flatnonzero(near)
    for _ in range(TURNS):
        if not len(on):
            break
        try:
            exact = cho_solve(
                cho_factor(M[np.ix_(on, on)], check_finite=False),
                aim[on] - M.dtype.type(penalty) * np.sign(near[on]),
                check_finite=False,
            )
        except LinAlgError:  # not of full rank, up to rounding
            break
        keeps = exact * near[on] > 0
        if keeps.all():
            there = np.zeros_like(near)
            there[on] = exact
            return min(near, there, key=lambda v: 0.5 * v @ M @ v - aim @ v + penalty * np.abs(v).sum())
        on = on[keeps]
    return near
