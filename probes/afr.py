"""AFR: a head refitted on rows it has not seen, those it finds unlikely counting more. Needs no group labels.

Qiu et al. 2023, "Simple and Fast Group Robustness by Automatic Feature Reweighting" (arXiv 2306.11074). There the
second stage is a number of gradient steps with a pull to the first head (`variant="published"`); here it is solved,
which is what those steps tend to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import softmax

from ._convex import ConvexHead, averaged, inverse_frequency
from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._features import Features
from ._fit import Fit
from ._inference import First, effective_size, logits_of
from ._once import once
from ._path import Steps, fit_of, walked, weighted
from ._problem import Solution
from ._solver import solve
from ._two_stage import Halves, anchored, first_solutions, part_of
from ._variants import Published


class Afr(ConvexHead):
    """theta minimises 1/2 ||theta - theta_1||^2 + C sum_i w_i loss_i over the m rows of the second part, where

        w_i = m mu_i,   mu_i proportional to beta_y exp(-gamma p_i),   beta_y = 1 / rows of class y,   sum mu_i = 1

    theta_1 is a plain head fitted on the first part, p_i its probability of the row's label; theta holds the intercept.

    Parameters beyond those of `ConvexHead`
    C           the smaller, the stronger the tie to theta_1; the authors' lambda is 1 / (2 C m), for two classes
                1 / (C m). Their lambda = 0 relies on stopping early: take a large C instead
    gamma       >= 0; published: 4 to 20 for Waterbirds (best 10), 1 to 3 for CelebA (best 1.44)
    first_C     of the first head
    share       of each class in the first part (published: 0.8)
    balanced    whether beta_y is there (published: yes)
    estimates   "held-out": p_i of rows that the first head was not fitted on; "in-sample": it is fitted on all rows,
                those of the second part too. On features that it separates p_i is then 1 and all rows count the same:
                this is there to show it
    penalty     "l2" only
    pull, learning_rate, steps   of variant "published": steps of the length `learning_rate`, longer gradients than 1
                cut to 1, from theta_1 down  sum_i mu_i loss_i + pull ||theta - theta_1||^2  (0.01, up to 500), theta
                with an output for each class, for two as well

    Fitted values beyond: `effective_sample_size_` (k,), how many equally weighted rows of each class the second part is
    worth, of its rows (no row counts more than another) down to 1 (one row decides); `collapsed_`, whether that is
    below 2 for a class of two rows or more.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "gamma": gamma} for C in (1e-3, 1e-2, 0.1, 1.0) for gamma in (1.0, 1.5, 4.0, 10.0, 20.0)
    )

    published: ClassVar[Published | None] = Published(
        "solved, where the authors stop early",
        tuple(
            {"steps": s, "pull": pull, "gamma": float(gamma)}
            for s in (1, 3, 10, 30, 100, 200, 500) for pull in (0.3, 0.2, 0.1, 0.0) for gamma in np.linspace(4, 20, 33)
        ),
    )  # fmt: skip

    effective_sample_size_: np.ndarray
    collapsed_: bool

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 0.01,
        gamma: float = 4.0,
        first_C: float = 0.01,
        share: float = 0.8,
        balanced: bool = True,
        estimates: str = "held-out",
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
        pull: float = 0.0,
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant, steps)
        self.gamma = gamma
        self.first_C = first_C
        self.share = share
        self.balanced = balanced
        self.estimates = estimates
        self.pull = pull
        self.learning_rate = learning_rate

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        guesses = dict(zip(variants, data.starts, strict=True)) if data.starts else {}

        def solved(second: Second, variants: Sequence[Self]) -> list[Fit]:
            problems = [
                replace(anchored(v, w, s), guess=guesses.get(v))
                for v, w, s in zip(variants, second.of, second.start, strict=True)
            ]
            anchors = [(s.coef, s.intercept) for s in second.starts]
            return [averaged([s]) for s in solve(second.part, second.y, second.weightings, problems, anchors=anchors)]

        return self._in_two(data, variants, solved)

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        return self._in_two(data, variants, _stopped)

    @staticmethod
    def _in_two(data: Data, variants: Sequence[Afr], fit: Callable[[Second, Sequence[Any]], list[Fit]]) -> list[Fit]:
        """Fits whose second stage, of all variants that part the rows alike, is done by `fit`."""
        for v in variants:
            v._check()
        halves = [Halves(v.share, v.random_state) for v in variants]
        seconds = {half: half.second(data.y, data.clusters) for half in dict.fromkeys(halves)}
        asked = [
            (First.asked(v, v.first_C), half if v.estimates == "held-out" else None)
            for v, half in zip(variants, halves, strict=True)
        ]
        starts, at = first_solutions(data, asked, seconds)
        fits: dict[int, Fit] = {}
        for half, rows in seconds.items():
            mine = [i for i, h in enumerate(halves) if h == half]
            second = _second(data, rows, [variants[i] for i in mine], starts, [at[i] for i in mine])
            for i, w, one in zip(mine, second.of, fit(second, [variants[i] for i in mine]), strict=True):
                y, weights = second.y, second.weightings[w]
                effective = np.array([effective_size(weights[y == c]) for c in range(data.k)])
                fits[i] = one.having(
                    converged=one.converged and starts[at[i]].converged, effective_sample_size_=effective,
                    collapsed_=bool((effective < np.minimum(np.bincount(y), 2) * (1 - 1e-9)).any()),
                )  # fmt: skip
        return [fits[i] for i in range(len(variants))]

    def _check(self) -> None:
        if not self.gamma >= 0:
            raise FitError(f"gamma must be at least 0, found {self.gamma}")
        if self.estimates not in ("held-out", "in-sample"):
            raise FitError(f"estimates must be 'held-out' or 'in-sample', found {self.estimates!r}")


@dataclass(frozen=True, eq=False)
class Second:
    """What the second stage is fitted on: the rows of the second part with their weights, and the first heads.

    of, start  for each variant, the place of its weights (m,) among `weightings` and of its first head among `starts`
    """

    part: Features
    y: np.ndarray
    weightings: Sequence[np.ndarray]
    of: Sequence[int]
    starts: Sequence[Solution]
    start: Sequence[int]


def _second(
    data: Data, rows: np.ndarray, variants: Sequence[Afr], starts: Sequence[Solution], start: Sequence[int]
) -> Second:
    """The second stage on these rows, equal weightings once."""
    part, y = part_of(data.features, rows), data.y[rows]
    used = list(dict.fromkeys(start))
    logits = dict(zip(used, logits_of(part, [starts[s] for s in used]), strict=True))
    keys = [(s, v.gamma, v.balanced) for s, v in zip(start, variants, strict=True)]

    def weighting(j: int) -> np.ndarray:
        first, gamma, balanced = keys[j]
        return attention(softmax(logits[first], axis=1)[np.arange(len(y)), y], y, gamma, balanced)

    return Second(part, y, *once(keys, weighting), starts, start)


def _stopped(second: Second, variants: Sequence[Afr]) -> list[Fit]:
    """The heads that step from the first ones."""
    import torch

    keys = [(w, s, v.pull, v.learning_rate) for w, s, v in zip(second.of, second.start, variants, strict=True)]
    ways, at = once(keys, lambda i: keys[i])
    first = np.array([np.column_stack([second.starts[s].coef, second.starts[s].intercept]) for _, s, _, _ in ways])
    start = torch.from_numpy(first).to(second.part.device, second.part.dtype)
    mu = torch.from_numpy(np.array([second.weightings[w] for w, _, _, _ in ways]) / len(second.y)).to(start)
    steps = Steps(
        np.array([rate for _, _, _, rate in ways]), momentum=0.0, clip=1.0, pull=np.array([p for _, _, p, _ in ways])
    ).of_layer(max(2, start.shape[1]))
    asked = [(w, v.steps) for w, v in zip(at, variants, strict=True)]
    residual = weighted(torch.from_numpy(second.y).to(start.device), mu)
    thetas = walked(second.part, start, residual, asked, steps)
    return [fit_of(thetas[w, s], n_iter_=s) for w, s in asked]


def attention(p: np.ndarray, y: np.ndarray, gamma: float, balanced: bool) -> np.ndarray:
    """(m,) weights of mean 1 proportional to exp(-gamma p), divided by the rows of the class if balanced.

    Raises `FitError` for a gamma so large that a class is left with nothing.
    """
    weights = np.exp(-gamma * (p - p.min())) * (inverse_frequency(y) if balanced else 1.0)
    if len(lost := np.setdiff1d(y, y[weights > 0])):
        raise FitError(f"gamma = {gamma:g} leaves class {lost[0]} (counted from 0) no weight; take a smaller gamma")
    return weights / weights.mean()
