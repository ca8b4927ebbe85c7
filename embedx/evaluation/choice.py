"""The choice among settings as it goes on: all are tried, and the grid grows where the best stands at its edge.

A setting is at an edge where one of its numbers is the smallest or the largest of the settings that agree with it in
everything else, and better than the next of these: what lies beyond may be better still. One step further, as long as
the last one, is then tried too, until the best lies inside, or `ROUNDS` times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

ROUNDS = 4
"""How often a grid grows; a step beyond an edge is usually a factor of 3 to 10."""
SAME = 1e-12
"""Scores that differ by rounding only are ties."""
Limits = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Scored:
    """Settings in the order of their regularisation, the strongest first, and how good each is.

    scores    (m,) by the rule
    averages  (m,) accuracy on the same rows, which breaks ties
    """

    scores: np.ndarray
    averages: np.ndarray

    @property
    def best(self) -> int:
        """Index of the largest score; of equal ones that of the largest average, and of these the first."""
        return int(np.argmax(self.tied & (self.averages >= self.averages[self.tied].max() - SAME)))

    @property
    def tied(self) -> np.ndarray:
        """(m,) whether a score is the largest."""
        return self.scores >= self.scores.max() - SAME

    def better(self, i: int, j: int) -> bool:
        """Whether setting i is better than j, not merely before it."""
        gain = self.scores[i] - self.scores[j]
        return bool(gain > SAME or (gain >= -SAME and self.averages[i] > self.averages[j] + SAME))


class Search:
    """The settings of one seed: `wanted` are to be fitted next, and `add` takes their heads.

    settings  those to try, the strongest regularisation first
    limits    {parameter: (smallest, largest)} that the grid may grow to; parameters that are equal in every setting
              grow together
    score     heads -> their scores and averages
    """

    def __init__(
        self, settings: Sequence[dict[str, Any]], limits: Limits, score: Callable[[Sequence[Any]], Scored]
    ) -> None:
        self.settings: list[dict[str, Any]] = []
        self.heads: list[Any] = []
        self.limits, self.score, self.round = limits, score, 0
        self.scored = Scored(np.zeros(0), np.zeros(0))
        self._places = list(enumerate(settings))

    @property
    def wanted(self) -> list[dict[str, Any]]:
        """The settings to fit next, none at the end."""
        return [setting for _, setting in self._places]

    @property
    def best(self) -> int:
        """The place of the best setting of those tried."""
        return self.scored.best

    def add(self, heads: Sequence[Any]) -> None:
        """The heads of what was wanted; from then on `wanted` is what comes next."""
        scored = self.score(heads)
        scores, averages = list(self.scored.scores), list(self.scored.averages)
        for shift, ((place, setting), head) in enumerate(zip(self._places, heads, strict=True)):
            at = place + shift * (self.round > 0)
            self.settings.insert(at, setting)
            self.heads.insert(at, head)
            scores.insert(at, scored.scores[shift])
            averages.insert(at, scored.averages[shift])
        self.scored = Scored(np.array(scores), np.array(averages))
        self.round += 1
        self._places = self._beyond() if self.round <= ROUNDS else []

    def stop(self) -> None:
        """Want nothing more: what was wanted cannot be fitted."""
        self._places = []

    def edges(self) -> dict[str, float]:
        """{parameter: its value in the best setting} where that is at an edge, and the grid may grow no further."""
        best = self.settings[self.best]
        return {names[0]: best[names[0]] for names, _, value in self._outer() if value is not None}

    def _beyond(self) -> list[tuple[int, dict[str, Any]]]:
        """The settings beyond the edges at which the best is, by their places."""
        best = self.settings[self.best]
        grown = [
            (self.best + after, {**best, **dict.fromkeys(names, value)})
            for names, after, value in self._outer()
            if value is not None and names[0] in self.limits
        ]
        return sorted(grown, key=lambda one: one[0])

    def _outer(self) -> Iterator[tuple[list[str], bool, float | None]]:
        """Of each edge: parameters, whether what lies beyond comes after the best, next value or None at a limit."""
        best = self.settings[self.best]
        for names in self._ladders():
            name, value = names[0], best[names[0]]
            rest = {n: v for n, v in best.items() if n not in names}
            line = [i for i, s in enumerate(self.settings) if {n: s.get(n) for n in s if n not in names} == rest]
            values = sorted({self.settings[i][name] for i in line})
            if len(values) < 2 or value not in (values[0], values[-1]):
                continue
            inner = values[1] if value == values[0] else values[-2]
            neighbour = next(i for i in line if self.settings[i][name] == inner)
            if self.scored.better(self.best, neighbour):
                yield names, self.best > neighbour, self._next(name, value, inner, positive=values[0] > 0)

    def _ladders(self) -> list[list[str]]:
        """The parameters that are numbers in every setting; those that are equal in every one together."""
        ladders: dict[tuple[float, ...], list[str]] = {}
        for name in sorted(self.settings[self.best], key=lambda name: name not in self.limits):
            values = [s.get(name) for s in self.settings]
            if all(isinstance(v, Real) and not isinstance(v, bool) for v in values):
                ladders.setdefault(tuple(values), []).append(name)
        return list(ladders.values())

    def _next(self, name: str, value: float, inner: float, *, positive: bool) -> float | None:
        """One step beyond, as long as that from `inner` to `value`, by a factor where all values are positive."""
        low, high = self.limits.get(name, (-np.inf, np.inf))
        beyond = value * (value / inner) if positive else value + (value - inner)
        beyond = min(max(beyond, low), high)
        beyond = round(beyond) if isinstance(value, Integral) else float(f"{beyond:.6g}")
        return None if beyond == value else beyond
