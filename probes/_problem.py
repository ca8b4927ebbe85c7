"""What the solver solves and what it finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Problem:
    """min over W, b:  R(W)  +  C * sum_i w_i * loss(W z_i + b, y_i), b not penalised.

    weights    which of the weightings that `solve` is given: w (n,) >= 0
    penalty    "l2": R = 1/2 ||W - W0||^2, "l1": R = ||W||_1
    C          infinite: no penalty
    tol        largest component of (sub-)gradient / (C sum w) at which the problem counts as solved; where the mean
               residual, 1 less the probability of the label, is below 1 %, as small a share of it
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
    """coef (1 or k, d), intercept (1 or k,), and how sure it is: the largest component of gradient / (C sum w)."""

    coef: np.ndarray
    intercept: np.ndarray
    iterations: int
    gradient: float
    converged: bool
