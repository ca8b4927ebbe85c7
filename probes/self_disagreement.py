"""SELF: a head fine-tuned where it and an earlier stage of it disagree most. Needs no group labels.

LaBonte et al. 2023, "Towards Last-Layer Retraining for Group Robustness with Fewer Annotations" (arXiv 2309.08534).
The earlier stage is there a network stopped early and here a head regularised strongly; fine-tuning is there some steps
with a small learning rate and here the solution of a problem tied to the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import log_softmax

from ._convex import ConvexHead, averaged, inverse_frequency
from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._fit import Fit
from ._inference import First, logits_of
from ._solver import solve
from ._two_stage import Halves, anchored, first_solutions, part_of


class SelfDisagreement(ConvexHead):
    """theta minimises 1/2 ||theta - theta_1||^2 + C sum_i w_i loss_i over n held-out rows, classes of equal mass.

    theta_1 is a plain head fitted on the first part of the rows; the n rows are those of the second part with the
    largest KL(p || p_early), p its probabilities and p_early those of a head fitted with strong regularisation on the
    same rows as theta_1. theta holds the intercept.

    Parameters beyond those of `ConvexHead`
    C         the smaller, the stronger the tie to theta_1, as with a smaller learning rate
    n         rows to fine-tune on, or all there are (published: 20, 100, 500)
    by_class  take n / k rows of each of the k classes; without, as published, the n rows whatever their class, which
              often lack a class altogether
    first_C   of theta_1
    early_C   of the early head
    share     of each class in the first part
    penalty   "l2" only

    Fitted values beyond: `rows_`, the rows that were fine-tuned on, the largest disagreement first;
    `disagreements_`, theirs, in nats.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "n": n, "early_C": early}
        for C in (1e-3, 1e-2, 0.1, 1.0)
        for n in (20, 100, 500)
        for early in (1e-5, 1e-4, 1e-3)
    )

    rows_: np.ndarray
    disagreements_: np.ndarray

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 0.01,
        n: int = 100,
        by_class: bool = True,
        first_C: float = 0.01,
        early_C: float = 1e-4,
        share: float = 0.8,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant)
        self.n = n
        self.by_class = by_class
        self.first_C = first_C
        self.early_C = early_C
        self.share = share

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        halves = [Halves(v.share, v.random_state) for v in variants]
        seconds = {half: half.second(data.y, data.clusters) for half in dict.fromkeys(halves)}
        asked = [(First.asked(v, v.first_C), h) for v, h in zip(variants, halves, strict=True)]
        early = [(First.asked(v, v.early_C), h) for v, h in zip(variants, halves, strict=True)]
        firsts, at = first_solutions(data, asked + early, seconds)
        start, before = at[: len(variants)], at[len(variants) :]
        fits: dict[int, Fit] = {}
        for half, second in seconds.items():
            part, y = part_of(data.features, second), data.y[second]
            mine = [i for i, h in enumerate(halves) if h == half]
            used = list(dict.fromkeys(s for i in mine for s in (start[i], before[i])))  # of the first heads
            logs = dict(zip(used, log_softmax(logits_of(part, [firsts[s] for s in used]), axis=2), strict=True))
            apart = [divergence(logs[start[i]], logs[before[i]]) for i in mine]
            rows = [most(a, y, variants[i].n, variants[i].by_class) for i, a in zip(mine, apart, strict=True)]
            problems = [anchored(variants[i], w, start[i]) for w, i in enumerate(mine)]
            anchors = [(s.coef, s.intercept) for s in firsts]
            solutions = solve(part, y, [balanced(r, y) for r in rows], problems, anchors=anchors)
            for i, r, a, solution in zip(mine, rows, apart, solutions, strict=True):
                fine = solution.converged and firsts[start[i]].converged and firsts[before[i]].converged
                fits[i] = averaged([solution]).having(converged=fine, rows_=second[r], disagreements_=a[r])
        return [fits[i] for i in range(len(variants))]


def balanced(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(m,) weights of classes y (m,): those rows alone, every class of equal mass, mean 1 over them."""
    weights = np.zeros(len(y))
    weights[rows] = inverse_frequency(y[rows])
    return weights


def divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """(m,) KL(p || q) = sum_c p_c (log p_c - log q_c) of log probabilities (m, k)."""
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def most(apart: np.ndarray, y: np.ndarray, n: int, by_class: bool) -> np.ndarray:
    """Rows of the n largest values, or of the n / k largest of each class, the largest first.

    Raises `FitError` where a class would have no row.
    """
    k = y.max() + 1
    if n < (k if by_class else 1):
        raise FitError(f"n must be at least {k if by_class else 1}, found {n}")
    rows = np.argsort(-apart, kind="stable")
    if by_class:
        rows = rows[np.isin(rows, np.concatenate([rows[y[rows] == c][: n // k] for c in range(k)]))]
    else:
        rows = rows[:n]
    if len(lost := np.setdiff1d(y, y[rows])):
        raise FitError(
            f"the {n} rows of largest disagreement hold none of class {lost[0]} (counted from 0), so that classes "
            "cannot have equal mass; take a larger n, or by_class=True"
        )
    return rows
