"""The choice among settings as it goes on: all are tried, coarsely at first, and some again.

**Finer.** A fit that stops early has other labels than the minimum, most where regularisation is weak. By how much a
score may still move is judged by how far labels moved since the gradient was ten times larger: as many more may change
in every class or group. Settings that could still be the best, and whose scores may move by more than `SETTLED`, are
solved ten times finer, until none is left or at `FINEST`. This is no proof; where the objective is strongly convex,
there is one (`Judged.certain`), and rows that it covers count as settled.

**Further.** A setting is at an edge where one of its numbers is the smallest or the largest of the settings that agree
with it in everything else, and better than the next of these: what lies beyond may be better still. One step further,
as long as the last one, is then tried too, until the best lies inside, or `ROUNDS` times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral, Real
from typing import Any

import numpy as np

from embedx.probes import FitError

ROUNDS = 3
"""How often a grid grows; a step beyond an edge is usually a factor of 3 to 10."""
SAME = 1e-12
"""Scores that differ by rounding only are ties."""
SETTLED = 5e-4
"""What a score may still move by: half a unit of the last digit that is shown. No row may, where there are few."""
FINER, FINEST = 0.1, 1e-9
"""Factor by which tolerances shrink, and the smallest one."""
Limits = Mapping[str, tuple[float, float]]
Settings = Sequence[Sequence[Mapping[str, Any]]]
"""By seed."""
Starts = Sequence[Sequence[Any]]
"""By seed, or none at all: heads that were fitted before, for each of the settings."""


class Certainty(StrEnum):
    """How sure it is that the choice is the one of the exact minima."""

    CERTIFIED = "certified"
    """A bound says so, for every setting."""
    UNCHANGED = "unchanged"
    """No label of those that could be the best changed any more since their gradients were ten times larger."""
    NOT = "not settled"
    """Some still did, at the finest tolerance or at that which was asked for."""
    UNTOLD = ""
    """Nothing tells, or nothing is iterated."""


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


@dataclass(frozen=True, eq=False)
class Judged:
    """A fitted setting on the n rows that choose.

    codes    (n,) its labels
    moved    what its score may still move by, judged by the labels that changed lately; None where nothing tells
    highest  the largest score that the minimum may have, by the rows whose labels are certain
    certain  share of these rows
    """

    score: float
    average: float
    codes: np.ndarray
    moved: float | None = None
    highest: float = 1.0
    certain: float = 0.0


@dataclass(frozen=True)
class Tolerance:
    """The tolerance at which settings are tried first, that which the chosen one is fitted with, and the finest.

    The finest is the first where a method cannot go on from a coarser fit, which would make all finer ones dear.
    """

    first: float
    full: float
    finest: float = FINEST


@dataclass(eq=False)
class _Try:
    """A setting, the tolerance of its last fit, and that fit; of one that was not fitted yet, the fit beside it."""

    setting: dict[str, Any]
    tol: float | None
    head: Any = None
    judged: Judged | None = None


Judge = Callable[[Sequence[Any], Sequence["np.ndarray | None"]], Sequence[Judged]]


class Search:
    """The settings of one seed: `wanted` are to be fitted next, and `add` takes their heads.

    settings   those to try, the strongest regularisation first
    limits     {parameter: (smallest, largest)} that the grid may grow to; parameters that are equal in every setting
               grow together
    judge      heads, and the labels that each setting had before (None at first) -> what they are worth
    tolerance  None where it is not for us to change
    """

    def __init__(
        self, settings: Sequence[dict[str, Any]], limits: Limits, judge: Judge, tolerance: Tolerance | None = None
    ) -> None:
        self.tries: list[_Try] = []
        self.limits, self.judge, self.tolerance, self.grown = limits, judge, tolerance, 0
        first = tolerance and tolerance.first
        self._next: list[tuple[int, _Try]] = [(i, _Try(s, first)) for i, s in enumerate(settings)]

    @property
    def wanted(self) -> list[dict[str, Any]]:
        """The settings to fit next, with their tolerances; none at the end."""
        return [t.setting if t.tol is None else {**t.setting, "tol": t.tol} for _, t in self._next]

    @property
    def starts(self) -> list[Any]:
        """What is wanted as it was fitted before, or the setting beside which it lies; None where there is neither."""
        return [t.head for _, t in self._next]

    def add(self, heads: Sequence[Any]) -> None:
        """The heads of what was wanted; from then on `wanted` is what comes next."""
        before = [None if t.judged is None else t.judged.codes for _, t in self._next]
        judged = self.judge(heads, before)
        for shift, ((place, one), head, verdict) in enumerate(zip(self._next, heads, judged, strict=True)):
            if one.judged is None:
                self.tries.insert(place if not self.grown else place + shift, one)
            one.head, one.judged = head, verdict
        self._next = self._finer() or self._further() or self._in_full()

    def stop(self) -> None:
        """Want nothing more: what was wanted cannot be fitted."""
        self._next = []

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Those tried, the strongest regularisation first."""
        return [t.setting for t in self.tries]

    @property
    def heads(self) -> list[Any]:
        """Their heads."""
        return [t.head for t in self.tries]

    @property
    def codes(self) -> np.ndarray:
        """(m, n) their labels of the rows that choose."""
        return np.array([j.codes for j in self._judged])

    @property
    def certain(self) -> float:
        """Share of these rows whose label by the best head is certain."""
        return self._judged[self.best].certain

    @property
    def scored(self) -> Scored:
        """What they are worth."""
        return Scored(np.array([j.score for j in self._judged]), np.array([j.average for j in self._judged]))

    @property
    def best(self) -> int:
        """The place of the best setting of those tried."""
        return self.scored.best

    @property
    def chosen(self) -> _Try:
        """The best setting."""
        return self.tries[self.best]

    def certainty(self) -> Certainty:
        """How sure the choice is."""
        judged, best = self._judged, self._judged[self.best]
        if best.certain == 1 and all(j.certain == 1 or j.highest <= best.score + SAME for j in judged):
            return Certainty.CERTIFIED
        if best.moved is None:
            return Certainty.UNTOLD
        return Certainty.NOT if (self._moves()[self._contenders()] > SETTLED).any() else Certainty.UNCHANGED

    @property
    def _judged(self) -> list[Judged]:
        return [t.judged for t in self.tries if t.judged is not None]

    def _moves(self) -> np.ndarray:
        """(m,) what every score may still move by; where nothing tells, as much as any of the others."""
        known = [j.moved for j in self._judged if j.moved is not None]
        most = max(known, default=0.0)
        return np.array([most if j.moved is None else j.moved for j in self._judged])

    def _contenders(self) -> np.ndarray:
        """Places of the settings that could still be the best; the best is one of them."""
        scores, moves = self.scored.scores, self._moves()
        return np.flatnonzero(scores + moves >= (scores - moves).max() - SAME)

    def _finer(self) -> list[tuple[int, _Try]]:
        """The contenders that are not settled, to be solved finer."""
        if self.tolerance is None:
            return []
        moves, again = self._moves(), []
        for i in self._contenders():
            one = self.tries[i]
            if moves[i] > SETTLED and one.tol is not None and one.tol > self.tolerance.finest:
                one.tol = max(float(f"{one.tol * FINER:.3g}"), self.tolerance.finest)
                again.append((int(i), one))
        return again

    def _further(self) -> list[tuple[int, _Try]]:
        """The settings beyond the edges at which the best is."""
        if self.grown == ROUNDS:
            return []
        first = self.tolerance and self.tolerance.first
        beyond = [(place, _Try(setting, first, self.chosen.head)) for place, setting in self._beyond()]
        self.grown += bool(beyond)
        return beyond

    def _in_full(self) -> list[tuple[int, _Try]]:
        """The best setting, if it was only tried."""
        best = self.chosen
        if self.tolerance is None or best.tol is None or best.tol <= self.tolerance.full:
            return []
        best.tol = self.tolerance.full
        return [(self.best, best)]

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
        best, scored = self.settings[self.best], self.scored
        for names in self._ladders():
            name, value = names[0], best[names[0]]
            rest = {n: v for n, v in best.items() if n not in names}
            line = [i for i, s in enumerate(self.settings) if {n: s.get(n) for n in s if n not in names} == rest]
            values = sorted({self.settings[i][name] for i in line})
            if len(values) < 2 or value not in (values[0], values[-1]):
                continue
            inner = values[1] if value == values[0] else values[-2]
            neighbour = next(i for i in line if self.settings[i][name] == inner)
            if scored.better(scored.best, neighbour):
                yield names, scored.best > neighbour, self._step(name, value, inner, positive=values[0] > 0)

    def _ladders(self) -> list[list[str]]:
        """Parameters that are numbers in every setting of the best one's kind; those equal in each of them together.

        A grid may hold several kinds, such as solved heads by C and heads that are stopped early by their steps.
        """
        best = self.settings[self.best]
        alike = [s for s in self.settings if s.keys() == best.keys()]
        ladders: dict[tuple[Any, ...], list[str]] = {}
        for name in sorted(best, key=lambda name: name not in self.limits):
            values = [s[name] for s in alike]
            if all(isinstance(v, Real) and not isinstance(v, bool) for v in values):
                ladders.setdefault(tuple(values), []).append(name)
        return list(ladders.values())

    def _step(self, name: str, value: float, inner: float, *, positive: bool) -> float | None:
        """One step beyond, as long as that from `inner` to `value`, by a factor where all values are positive."""
        low, high = self.limits.get(name, (-np.inf, np.inf))
        beyond = value * (value / inner) if positive else value + (value - inner)
        beyond = min(max(beyond, low), high)
        beyond = round(beyond) if isinstance(value, Integral) else float(f"{beyond:.6g}")
        return beyond if (beyond - value) * (value - inner) > 0 else None


def pursue(searches: Sequence[Search], fit: Callable[[Settings, Starts], Sequence[Sequence[Any]]]) -> None:
    """Search to the end, all seeds side by side; where the method fails beyond its grid, without what lies there.

    fit  what is wanted, by seed, and what it may start from -> its heads
    Raises what `fit` raises on the grid.
    """
    while any(s.wanted for s in searches):
        try:
            fitted = fit([s.wanted for s in searches], [s.starts for s in searches])
        except FitError:
            if not all(s.tries for s in searches):
                raise
            for s in searches:
                s.stop()
            return
        for search, heads in zip(searches, fitted, strict=True):
            if heads:
                search.add(heads)
