"""Problems that bring their weights and anchors along, each as an array of its own, for `solve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedx.probes import Features, Solution
from embedx.probes import Problem as Placed
from embedx.probes import solve as solve_placed


@dataclass(frozen=True, eq=False)
class Problem:
    """As `embedx.probes.Problem`, with arrays in the place of their places."""

    weights: np.ndarray
    C: float
    penalty: str = "l2"
    tol: float = 1e-5
    max_iter: int = 2000
    anchor: tuple[np.ndarray, np.ndarray] | None = None
    anchored_intercept: bool = False
    guess: tuple[np.ndarray, np.ndarray] | None = None


def solve(features: Features, y: np.ndarray, problems: Sequence[Problem], risk: Any = None) -> list[Solution]:
    """The solutions in the order of the problems."""
    anchors = [p.anchor for p in problems if p.anchor is not None]
    places = np.cumsum([p.anchor is not None for p in problems]) - 1
    placed = [
        Placed(
            i, p.C, p.penalty, p.tol, p.max_iter, None if p.anchor is None else int(places[i]), p.anchored_intercept,
            p.guess,
        )
        for i, p in enumerate(problems)
    ]  # fmt: skip
    return solve_placed(features, y, [p.weights for p in problems], placed, anchors=anchors, risk=risk)
