"""The solver: many weighted, L2-regularised logistic problems over one feature matrix, each with a certificate.

scikit-learn's L-BFGS solves them one after the other, warm-started from the next smaller C of the same weighting, and
its Newton method brings to tolerance what L-BFGS leaves short of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True, eq=False)
class Problem:
    """min 1/2 ||W||^2 + C * sum_i w_i * loss_i: weights w (n,) >= 0 and C > 0."""

    weights: np.ndarray
    C: float


@dataclass(frozen=True, eq=False)
class Solution:
    """coef (1 or k, d), intercept (1 or k,), and how sure it is: the largest component of gradient / (C sum w)."""

    coef: np.ndarray
    intercept: np.ndarray
    iterations: int
    gradient: float
    converged: bool


def solve(X: np.ndarray, y: np.ndarray, problems: Sequence[Problem], *, tol: float, max_iter: int) -> list[Solution]:
    """Solve every problem over X (n, d) and class codes y (n,); solutions come in the order of the problems.

    `converged` says whether the gradient certificate is at most `tol`. Raises `ValueError` when a class has no
    row of positive weight.
    """
    solutions: list[Solution | None] = [None] * len(problems)
    by_weighting: dict[int, list[int]] = {}
    for p, problem in enumerate(problems):
        by_weighting.setdefault(id(problem.weights), []).append(p)
    for members in by_weighting.values():
        weights = problems[members[0]].weights
        rows = np.flatnonzero(weights)
        whole = len(rows) == len(weights)
        Xs, ys, ws = (X, y, weights) if whole else (X[rows], y[rows], weights[rows])
        if len(lost := np.setdiff1d(y, ys)):
            raise ValueError(
                f"class {lost[0]} (counted from 0) has no row of positive weight; "
                "groups that decide the weights must not mix classes"
            )
        # sklearn stops on the same measure, the gradient of the mean loss; half of tol leaves room for rounding.
        model = LogisticRegression(warm_start=True, tol=tol / 2)
        for p in sorted(members, key=lambda p: problems[p].C):
            solutions[p] = _solve_one(model.set_params(C=problems[p].C), Xs, ys, ws, tol, max_iter)
    return [s for s in solutions if s is not None]


def _solve_one(
    model: LogisticRegression, X: np.ndarray, y: np.ndarray, weights: np.ndarray, tol: float, max_iter: int
) -> Solution:
    first = _go_on(model.set_params(solver="lbfgs", max_iter=max_iter), X, y, weights, tol)
    left = max_iter - first.iterations
    if first.converged or not left:
        return first
    # Strong regularisation makes coef steep beside the intercept, and L-BFGS stops where the loss hardly falls any
    # more, short of tol. From there Newton's method needs a step or two.
    second = _go_on(model.set_params(solver="newton-cg", max_iter=left), X, y, weights, tol)
    return replace(second, iterations=first.iterations + second.iterations)


def _go_on(model: LogisticRegression, X: np.ndarray, y: np.ndarray, weights: np.ndarray, tol: float) -> Solution:
    """Run the model's solver from where the model is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate below is the judge
        warnings.filterwarnings("ignore", "(?i).*line search")
        model.fit(X, y, sample_weight=weights)
    coef, intercept = np.array(model.coef_), np.array(model.intercept_)
    gradient = certificate(coef, intercept, X, y, weights, float(model.C))
    return Solution(coef, intercept, int(np.max(model.n_iter_)), gradient, gradient <= tol)


def certificate(
    coef: np.ndarray, intercept: np.ndarray, X: np.ndarray, y: np.ndarray, weights: np.ndarray, C: float
) -> float:
    """Largest component, in absolute value, of the objective's gradient divided by C * sum w; 0 at the optimum."""
    logits = X @ coef.T + intercept
    if len(coef) == 1:
        residual = expit(logits) - (y == y.max())[:, None]
    else:
        residual = softmax(logits, axis=1) - (y[:, None] == np.unique(y))
    residual *= weights[:, None]
    total = weights.sum()
    return float(
        max(np.abs(residual.T @ X / total + coef / (C * total)).max(), np.abs(residual.sum(axis=0) / total).max())
    )
