"""PPA: groups from a head that cannot see what the text says of the classes, then a head for balanced groups. Text.

Zhu et al. 2025, "Project-Probe-Aggregate: Efficient Fine-Tuning for Group Robustness" (CVPR; arXiv 2503.09487). Without
the directions of the class prompts a head has to tell the classes by what runs along with them, and errs where that is
absent: its errors are the rare groups, no label of which is needed. The authors published no code and the paper was at
hand in summaries; intercepts, the strength of regularisation and the grid are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import averaged
from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._features import Features
from ._fit import Fit
from ._inference import logits_of, misclassified
from ._once import once
from ._problem import Problem, Solution
from ._prompts import embedded
from ._solver import solve
from ._text_head import TextHead

ROWS = 8192


class Ppa(TextHead):
    """W_y = mean_g W_g, b_y = mean_g b_g over the groups g of class y, of the group head

        min over W, b:  1/2 ||W||^2 + C sum_i loss(W u_i + b + tau ln beta, g_i),     u as in `TextHead`

    beta the shares of the groups. Group g_i is the class of the row and whether a biased head errs on it, which is the
    same head of the classes (tau = 1, beta their shares) on u less its projection on the span of the text vectors. As
    intercepts are free, the offset moves them and nothing else: b is that of the softmax regression less tau ln beta.
    The authors add up the groups of a class; where every class has as many, the mean predicts the same.

    Parameters
    C           inverse strength of regularisation of the group head, > 0
    biased_C    the same of the biased head
    tau         >= 0; 1 asks for groups of equal mass
    tol, max_iter as in `ConvexHead`

    Fitted values beyond those of `TextHead`: `inferred_groups_` (n,), 1 for an error of the biased head; `n_iter_`,
    `gradient_` and `converged_` of the group head.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "biased_C": b, "tau": tau}
        for C in (1e-4, 1e-3, 1e-2, 0.1)
        for b in (1e-4, 1e-2)
        for tau in (0.5, 1.0, 1.5)
    )

    tried_with: ClassVar[Mapping[str, Any]] = {"tol": 1e-4}

    inferred_groups_: np.ndarray
    n_iter_: int
    gradient_: float

    def __init__(
        self,
        C: float = 0.01,
        biased_C: float = 0.01,
        tau: float = 1.0,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(random_state=random_state, variant=variant)
        self.C = C
        self.biased_C = biased_C
        self.tau = tau
        self.tol = tol
        self.max_iter = max_iter

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            if not v.tau >= 0:
                raise FitError(f"tau must be at least 0, found {v.tau}")
        prompts, U = data.known_prompts(), in_text(data)
        biased, at = once(
            [(v.biased_C, v.tol, v.max_iter) for v in variants], lambda i: variants[i]._problem(variants[i].biased_C)
        )
        hidden = U - (U @ (Q := np.linalg.qr(prompts.text.T)[0].astype(U.dtype))) @ Q.T
        features, ones = Features.identity(hidden, data.features.device), [np.ones(len(U))]
        firsts = solve(features, data.y, ones, biased)
        adjusted = logits_of(features, firsts) - np.log(np.bincount(data.y))
        fits: dict[int, Fit] = {}
        for b, logits in enumerate(adjusted):
            wrong, mine = misclassified(logits, data.y), [i for i, place in enumerate(at) if place == b]
            occurring, codes = np.unique(2 * data.y + wrong, return_inverse=True)
            problems = [variants[i]._problem(variants[i].C) for i in mine]
            solutions = solve(Features.identity(U, data.features.device), codes, ones, problems)
            for i, solution in zip(mine, solutions, strict=True):
                W, intercept = aggregated(solution, occurring // 2, np.bincount(codes), variants[i].tau)
                fits[i] = averaged([solution]).having(
                    converged=solution.converged and firsts[b].converged, coef=W, intercept=intercept,
                    prompts_=prompts, inferred_groups_=wrong,
                )  # fmt: skip
        return [fits[i] for i in range(len(variants))]

    def _problem(self, C: float) -> Problem:
        return Problem(0, float(C), tol=self.tol, max_iter=self.max_iter)


def in_text(data: Data) -> np.ndarray:
    """(n, p) the training rows in the space of the text, in the precision of the features."""
    X = data.features.X
    parts = (embedded(np.asarray(X[i : i + ROWS]), data.known_prompts()) for i in range(0, len(X), ROWS))
    return np.concatenate([part.astype(X.dtype) for part in parts])


def aggregated(groups: Solution, classes: np.ndarray, counts: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) of the classes from the head of groups of classes (g,) with counts (g,) of rows; of two, one output."""
    W, b = (
        np.concatenate([-part, part]) / 2 if len(classes) == 2 else part for part in (groups.coef, groups.intercept)
    )
    b = b - tau * np.log(counts / counts.sum())
    W, b = (np.stack([part[classes == c].mean(axis=0) for c in np.unique(classes)]) for part in (W, b))
    return (W[1:] - W[:1], b[1:] - b[:1]) if len(W) == 2 else (W, b)
