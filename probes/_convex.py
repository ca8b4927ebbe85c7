"""Heads that solve one convex problem for each weighting of their rows: a grid of settings is one solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from ._data import Data
from ._errors import ContractError
from ._fit import Fit, checked_weightings
from ._head import LinearHead
from ._logits import standardised
from ._once import content, once
from ._path import STOPS, stopped_fits
from ._problem import Problem, Solution
from ._solver import solve
from ._variants import Published

OF_THE_PROBLEM = ("C", "penalty", "tol", "max_iter")
"""Parameters of the convex problem; all others decide the weighting."""
ROWS = 4096
"""Rows that are looked at together."""
CS = tuple(float(c) for c in np.logspace(-5, 1, 13))
STOPPED = Published("solved, where the authors stop early", tuple({"steps": s} for s in STOPS))
"""Of heads whose authors weight rows and stop the descent early."""


class ConvexHead(LinearHead):
    """A linear classifier, regularised, that solves one convex problem per weighting of the rows and averages them.

    For each weighting w that the head asks for, with z the standardised features:

        min over W, b:   R(W)  +  C * sum_i w_i * loss(W z_i + b, y_i)

    with the logistic loss for two classes and the softmax cross-entropy for more, R(W) = 1/2 ||W||^2 (`penalty` "l2")
    or ||W||_1 ("l1"); b is not penalised. The head is the mean of the solutions. `C` means what it means in
    `sklearn.linear_model.LogisticRegression`.

    Parameters
    C             inverse strength of regularisation, > 0; infinite: no penalty, as scikit-learn has it
    penalty       "l2" or "l1"
    tol, max_iter largest component of the mean (sub-)gradient at which a solution counts as found (see `Problem`); most
                  iterations
    steps         of variant "published": gradient steps from zero, with momentum, down the weighted mean loss; their
                  number is the regularisation, in the place of C and what goes with it (`_path`)
    standardize, random_state as in `Head`

    Fitted values beyond those of `LinearHead`: `n_iter_`, `converged_`, `gradient_` (largest component of the
    (sub-)gradient at the solution, its certificate); `before_` and `reach_`, the means of those of `Solution`.
    """

    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"C": C} for C in CS)
    tried_with: ClassVar[Mapping[str, Any]] = {"tol": 1e-4}  # scikit-learn's default
    _attributes: ClassVar[tuple[str, ...]] = ("standardize", "random_state", *OF_THE_PROBLEM)
    n_iter_: int
    gradient_: float
    before_: tuple[np.ndarray, np.ndarray] | None
    reach_: np.ndarray

    def __init__(
        self,
        C: float = 1.0,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
    ) -> None:
        super().__init__(standardize=standardize, random_state=random_state, variant=variant)
        self.C = C
        self.penalty = penalty
        self.tol = tol
        self.max_iter = max_iter
        self.steps = steps

    def _weightings(self, data: Data) -> np.ndarray:
        """(m, n) weights of the training rows, one row per problem. Heads that weight otherwise override `_fits`."""
        raise ContractError(f"{type(self).__name__} defines neither _weightings nor _fits, expected one of them")

    def _problem(self, weights: int) -> Problem:
        """The convex problem of one weighting, by its place, under this head's parameters."""
        return Problem(weights, float(self.C), penalty=self.penalty, tol=self.tol, max_iter=self.max_iter)

    def _fits(self, data: Data, variants: Sequence[Any]) -> list[Fit]:
        weightings, at = self._weighted(data, variants)
        return weighted_fits(data, variants, weightings, at, data.starts)

    def _published_fits(self, data: Data, variants: Sequence[Any]) -> list[Fit]:
        if type(self)._fits is not ConvexHead._fits:  # a head with a way of its own, which its authors share
            return self._fits(data, variants)
        weightings, at = self._weighted(data, variants)
        return stopped_fits(data, weightings, at, [v.steps for v in variants])

    def _weighted(self, data: Data, variants: Sequence[Any]) -> tuple[list[np.ndarray], list[int]]:
        """The weightings of the variants, equal ones once, and the place of each variant's."""
        name, n = type(self).__name__, len(data.y)
        return once(
            [v._draws_like() for v in variants],
            lambda i: checked_weightings(name, variants[i]._weightings(data), n),
        )

    def _draws_like(self) -> tuple[Any, ...]:
        """The parameters that decide the weighting: all but those of the problem."""
        rest = {k: v for k, v in self.get_params().items() if k not in (*OF_THE_PROBLEM, "steps")}
        return tuple((k, content(v) if isinstance(v, np.ndarray) else repr(v)) for k, v in sorted(rest.items()))

    def _generator(self) -> np.random.RandomState:
        return check_random_state(self.random_state)


def one_stage(head: Any) -> bool:
    """Whether a head is the minimum of problems whose weights hang on no other fit: what `reach_` says then holds."""
    return isinstance(head, ConvexHead) and type(head)._fits is ConvexHead._fits


def certain(heads: Sequence[Any], X: np.ndarray) -> np.ndarray:
    """(m, n) whether the exact minimum surely gives a row of X (n, d) the same label, by `reach_`: see `Solution`.

    For two classes and heads of one stage; never elsewhere.
    """
    found = np.zeros((len(heads), len(X)), dtype=bool)
    alike: dict[bytes, list[int]] = {}
    for i, head in enumerate(heads):
        if one_stage(head) and np.isfinite(getattr(head, "reach_", np.inf)).all():
            alike.setdefault(content(head.mean_, head.scale_), []).append(i)
    for places in alike.values():
        mine = [heads[i] for i in places]
        W, b = np.concatenate([h.coef_ for h in mine]).T, np.concatenate([h.intercept_ for h in mine])
        a, c = np.array([h.reach_ for h in mine]).T
        rounding = (len(W) + 8) * 2.0**-50 * np.linalg.norm(W, axis=0)
        for start in range(0, len(X), ROWS):
            Z = standardised(X[start : start + ROWS], mine[0].mean_, mine[0].scale_)
            far = np.linalg.norm(Z, axis=1)[:, None] * (a + rounding) + c + rounding
            found[places, start : start + ROWS] = (np.abs(Z @ W + b) > far).T
    return found


def weighted_fits(
    data: Data,
    variants: Sequence[ConvexHead],
    weightings: Sequence[np.ndarray],
    at: Sequence[int],
    starts: Sequence[tuple[np.ndarray, np.ndarray] | None] = (),
) -> list[Fit]:
    """One fit per variant: the mean of the solutions for its weightings; one solve for all.

    weightings  (m, n) each; that of variant i is weightings[at[i]]
    starts      where to descend from, by variant, or none; left out where several draws have only their mean
    """
    ends = np.cumsum([0, *map(len, weightings)])
    problems = [v._problem(w) for v, i in zip(variants, at, strict=True) for w in range(ends[i], ends[i + 1])]
    if any(start is not None for start in starts):
        guesses = [start for start, i in zip(starts, at, strict=True) for _ in weightings[i]]
        alone = [len(weightings[i]) == 1 for i in at for _ in weightings[i]]
        problems = [replace(p, guess=g if one else None) for p, g, one in zip(problems, guesses, alone, strict=True)]
    solutions = iter(solve(data.features, data.y, [row for ws in weightings for row in ws], problems))
    return [averaged([next(solutions) for _ in weightings[i]]) for i in at]


def averaged(solutions: Sequence[Solution]) -> Fit:
    """The mean head. It has converged if all parts have; its gradient and iterations are the largest of theirs."""
    ways = [s.before for s in solutions if s.before is not None]
    before = tuple(np.mean(part, axis=0) for part in zip(*ways, strict=True)) if len(ways) == len(solutions) else None
    return Fit(
        converged=all(s.converged for s in solutions),
        coef=np.mean([s.coef for s in solutions], axis=0),
        intercept=np.mean([s.intercept for s in solutions], axis=0),
        more={
            "n_iter_": max(s.iterations for s in solutions),
            "gradient_": max(s.gradient for s in solutions),
            "before_": before,
            "reach_": np.mean([s.reach for s in solutions], axis=0),
        },
    )


def inverse_frequency(codes: np.ndarray) -> np.ndarray:
    """(n,) weights n / (k * n_c) for rows of code c, k codes occurring: equal mass for every code, mean 1."""
    counts = np.bincount(codes)
    return len(codes) / (np.count_nonzero(counts) * counts[codes])
