"""A first head on one part of the rows, and a second, anchored to it, on rows of the other part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ._draws import second_part
from ._features import Features
from ._inference import First
from ._machinery import ConvexHead, Data
from ._operators import Spectrum
from ._problem import Problem, Solution
from ._solver import solve


@dataclass(frozen=True)
class Halves:
    """How rows are split at random, by class: `share` of each class is the first part, at least one row in either.

    Where the subjects of rows are known, each is in one part.
    """

    share: float
    seed: Any

    def second(self, y: np.ndarray, clusters: np.ndarray | None = None) -> np.ndarray:
        """Rows of the second part, in order. Raises `ValueError` for a share or class that leaves a part nothing."""
        if not 0 < self.share < 1:
            raise ValueError(f"share must lie between 0 and 1, found {self.share}")
        counts = np.bincount(y)
        if counts.min() < 2:
            raise ValueError(
                f"class {counts.argmin()} (counted from 0) has one row only; the first head and the second need one "
                "each: add rows"
            )
        rng = check_random_state(self.seed)
        if clusters is not None:
            return second_part(y, clusters, 1 - self.share, rng)
        taken = [
            rng.choice(np.flatnonzero(y == c), min(max(1, round((1 - self.share) * m)), m - 1), replace=False)
            for c, m in enumerate(counts)
        ]
        return np.sort(np.concatenate(taken))


def first_solutions(data: Data, asked: Sequence[tuple[First, np.ndarray | None]]) -> list[Solution]:
    """The first heads, each fitted on all rows but those given; all are solved together, equal ones once."""
    weights: dict[int, np.ndarray] = {}
    problems: dict[tuple[First, int], Problem] = {}
    for first, left_out in asked:
        if id(left_out) not in weights:
            weights[id(left_out)] = np.ones(len(data.y))
            if left_out is not None:
                weights[id(left_out)][left_out] = 0
        problem = Problem(weights[id(left_out)], float(first.C), tol=first.tol, max_iter=first.max_iter)
        problems.setdefault((first, id(left_out)), problem)
    solved = dict(zip(problems, solve(data.features, data.y, list(problems.values())), strict=True))
    return [solved[first, id(left_out)] for first, left_out in asked]


def part_of(features: Features, rows: np.ndarray) -> Features:
    """These rows in the standardisation of all; the spectrum of all preconditions for them too."""
    part = Features.identity(features.take(rows).cpu().numpy(), features.device)
    part.spectrum = Spectrum.of(features)
    return part


def anchored(head: ConvexHead, weights: np.ndarray, start: Solution) -> Problem:
    """1/2 ||theta - theta_first||^2 + C sum_i w_i loss_i over coefficients and intercept alike."""
    if head.penalty != "l2":
        raise ValueError(f"{type(head).__name__} ties its head to the first one by 'l2' only, found {head.penalty!r}")
    return Problem(
        weights, float(head.C), tol=head.tol, max_iter=head.max_iter,
        anchor=(start.coef, start.intercept), anchored_intercept=True,
    )  # fmt: skip
