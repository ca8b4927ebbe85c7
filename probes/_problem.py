"""What the solver solves and what it finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ._once import content, once

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Problem:
    """min over W, b:  R(W)  +  C * sum_i w_i * loss(W z_i + b, y_i), b not penalised.

    weights    which of the weightings that `solve` is given: w (n,) >= 0
    penalty    "l2": R = 1/2 ||W - W0||^2, "l1": R = ||W||_1
    C          infinite: no penalty
    tol        largest component of (sub-)gradient / (C sum w) at which the problem counts as solved; it shrinks in
               proportion where the mean residual (1 less the probability of the label) is below 1 %
    anchor     which of the anchors that `solve` is given: (W0, b0) in the standardisation of the features, by default
               0; only with "l2"; `anchored_intercept` adds 1/2 (b - b0)^2
    guess      (W, b) to descend from, by default the anchor or 0; it decides how long it takes, not what is found
    """

    weights: int
    C: float
    penalty: str = "l2"
    tol: float = 1e-5
    max_iter: int = 2000
    anchor: int | None = None
    anchored_intercept: bool = False
    guess: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class Solution:
    """coef (1 or k, d), intercept (1 or k,), and how sure it is: the largest component of gradient / (C sum w).

    before  (coef, intercept) on the way, where the gradient was still ten times as large as it had to get; None where
            nothing tells
    reach   (a, c): at the exact minimum no row z has a logit that is further away than a ||z|| + c; infinite where no
            such bound is known
    """

    coef: np.ndarray
    intercept: np.ndarray
    iterations: int
    gradient: float
    converged: bool
    before: tuple[np.ndarray, np.ndarray] | None = None
    reach: tuple[float, float] = (math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class Asked:
    """What one solve is asked: class codes (n,), distinct weightings and anchors, the problems that refer to them."""

    y: np.ndarray
    weightings: Sequence[np.ndarray]
    anchors: Sequence[tuple[np.ndarray, np.ndarray]]
    problems: Sequence[Problem]

    @classmethod
    def of(
        cls, y: np.ndarray, weightings: Sequence[np.ndarray], anchors: Sequence[tuple[np.ndarray, np.ndarray]],
        problems: Sequence[Problem],
    ) -> Asked:  # fmt: skip
        """The same with only the arrays that the problems use, equal ones once."""
        at, weightings = _used([p.weights for p in problems], weightings, content)
        to, anchors = _used([p.anchor for p in problems if p.anchor is not None], anchors, lambda a: content(*a))
        problems = [
            replace(p, weights=at[p.weights], anchor=None if p.anchor is None else to[p.anchor]) for p in problems
        ]
        return cls(y, weightings, anchors, problems)

    def firsts(self) -> list[int]:
        """For each problem, the place of the first equal one; equal problems are solved once."""
        keys = [(p.weights, p.C, p.penalty, p.tol, p.max_iter, p.anchor, p.anchored_intercept) for p in self.problems]
        first, at = once(keys, lambda i: i)
        return [first[i] for i in at]

    def weights(self, i: int) -> np.ndarray:
        """(n,) weights of problem i."""
        return self.weightings[self.problems[i].weights]


def _used(places: Sequence[int], items: Sequence[T], key: Callable[[T], bytes]) -> tuple[dict[int, int], list[T]]:
    """The items at these places, once each by content, in the order in which they are used, and the place of each."""
    used = list(dict.fromkeys(places))
    kept, at = once([key(items[place]) for place in used], lambda i: items[used[i]])
    return dict(zip(used, at, strict=True)), kept
