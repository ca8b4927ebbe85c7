"""A first head on one part of the rows, and a second, anchored to it, on rows of the other part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ._convex import ConvexHead
from ._data import Data
from ._draws import second_part
from ._errors import FitError
from ._features import Features
from ._inference import First
from ._once import once, recalled
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
        """Rows of the second part, in order. Raises `FitError` for a share or class that leaves a part nothing."""
        if not 0 < self.share < 1:
            raise FitError(f"share must lie between 0 and 1, found {self.share}")
        counts = np.bincount(y)
        if counts.min() < 2:
            raise FitError(
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


def first_solutions(
    data: Data, asked: Sequence[tuple[First, Halves | None]], seconds: Mapping[Halves, np.ndarray]
) -> tuple[list[Solution], list[int]]:
    """(solutions, at): the first heads, each on its first part or on all rows; equal ones once, all solved together.

    seconds  the rows of the second part, of all halves that are asked for
    """
    wanted, at = once(asked, lambda i: asked[i])

    def weights(half: Halves | None) -> np.ndarray:
        taken = np.ones(len(data.y))
        taken[[] if half is None else seconds[half]] = 0
        return taken

    def solved(places: list[int]) -> list[Solution]:
        mine = [wanted[i] for i in places]
        weightings, of = once([half for _, half in mine], lambda i: weights(mine[i][1]))
        problems = [first.problem(w) for (first, _), w in zip(mine, of, strict=True)]
        return solve(data.features, data.y, weightings, problems)

    return recalled(data.memory, [("first head", *one) for one in wanted], solved), at


def part_of(features: Features, rows: np.ndarray) -> Features:
    """These rows in the standardisation of all; the spectrum of all preconditions for them too."""
    part = Features.identity(features.take(rows).cpu().numpy(), features.device)
    part.spectrum = Spectrum.of(features)
    return part


def anchored(head: ConvexHead, weights: int, start: int) -> Problem:
    """1/2 ||theta - theta_first||^2 + C sum_i w_i loss_i over coefficients and intercept alike.

    weights, start  the places of w and of theta_first among the weightings and anchors of the solve
    """
    if head.penalty != "l2":
        raise FitError(f"{type(head).__name__} ties its head to the first one by 'l2' only, found {head.penalty!r}")
    return Problem(
        weights, float(head.C), tol=head.tol, max_iter=head.max_iter, anchor=start, anchored_intercept=True,
    )  # fmt: skip
