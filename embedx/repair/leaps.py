"""Gradient descent of many small steps, followed in leaps.

With a small learning rate one step is hardly different from the next. Over a leap of s steps the change of step j is a
smooth function of j, so the sum of all s is that of a polynomial through a few of them: Adams' method of predictor and
corrector, with sums in the place of integrals, so that what is followed is the descent itself and not its limit for
small rates. Where predictor and corrector disagree the leap is shorter; a leap of one step is the step itself.
Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, chapter III.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

ORDER = 4
"""Changes through which the polynomial of the predictor goes; that of the corrector has one more."""
SHORTEST = 4
"""Steps of the shortest leap that pays: a leap costs two gradients."""
LONGER, SHORTER, CAREFUL = 4.0, 0.1, 0.8
"""Bounds of the factor from one leap to the next, and what is taken off it."""
LOOKS, CELLS = 16, 1 << 20
"""Steps of a leap at which a stop is looked for, before it is looked for between two of them; and how many numbers are
few enough to look at every step."""


@dataclass(frozen=True, eq=False)
class Place:
    """A point of the path.

    step    how many steps lead there
    A       its state; change: what the next step adds to it
    fitted  what the error of a leap is measured on
    judged  what may stop the path; it moves linearly with the state
    """

    step: int
    A: torch.Tensor
    change: torch.Tensor
    fitted: torch.Tensor
    judged: torch.Tensor


@dataclass(frozen=True, eq=False)
class Path:
    """Steps A <- A + change(A).

    look       the place of a step and its state
    judged_of  what a change of the state adds to `judged`
    stops      (...) bool of `judged` (..., rows, classes)
    tolerance  the largest error of `fitted` in one leap
    """

    look: Callable[[int, torch.Tensor], Place]
    judged_of: Callable[[torch.Tensor], torch.Tensor]
    stops: Callable[[torch.Tensor], torch.Tensor]
    tolerance: float

    def followed(self, A: torch.Tensor, steps: int) -> tuple[Place, bool]:
        """The first place from A on that stops, or that of the last step; and whether it stops (see `_first_stop`).

        Raises `FloatingPointError` where the numbers overflow.
        """
        past, leap, singles, pause = [self.look(0, A)], 1, 2, 1
        while not (stopped := bool(self.stops(past[0].judged))) and past[0].step < steps:
            now = past[0]
            if not math.isfinite(float(now.fitted.sum())):
                raise FloatingPointError
            s = min(leap, steps - now.step)
            if s < SHORTEST:
                past = [self.look(now.step + 1, now.A + now.change), *past][:ORDER]
                singles -= 1
                leap = SHORTEST if singles <= 0 else 1
                continue
            there, inside, error = self._leap(past, s)
            if error > 1:
                pause *= 2
            else:
                past, pause = [there, *past][:ORDER], max(1, pause // 2)
                if inside is not None:
                    return inside, True
            leap = int(s * min(LONGER, max(SHORTER, CAREFUL * max(error, 1e-9) ** (-1 / (ORDER + 1)))))
            singles = pause
        return past[0], stopped

    def _leap(self, past: Sequence[Place], s: int) -> tuple[Place, Place | None, float]:
        """The place s steps on, one before it that stops, and the error as a share of what is tolerated."""
        now, times, changes = past[0], [p.step - past[0].step for p in past], [p.change for p in past]
        guess = self.look(now.step + s, _plus(now.A, sums(times, s)[:, -1], changes))
        weights, changes = sums([s, *times], s), [guess.change, *changes]
        there = self.look(now.step + s, _plus(now.A, weights[:, -1], changes))
        error = float((there.fitted - guess.fitted).abs().max()) / self.tolerance
        if not error <= 1:
            return there, None, error if math.isfinite(error) else 1e9
        first = self._first_stop(now.judged, weights, changes)
        inside = None if first is None else self.look(now.step + first, _plus(now.A, weights[:, first], changes))
        return there, inside, error

    def _first_stop(self, judged: torch.Tensor, weights: np.ndarray, changes: Sequence[torch.Tensor]) -> int | None:
        """The first step 1, 2, ... of a leap that stops, if one before its last does; weights: those of `sums`.

        Of many numbers not every step is looked at: a stop that holds for less than a sixteenth of the leap may be
        passed over.
        """
        moved = [self.judged_of(change) for change in changes]
        low, high, last = 0, weights.shape[1] - 1, weights.shape[1] - 1
        while high - low > 1:
            looks = np.arange(low, high + 1)
            if not (few := len(looks) * judged.numel() <= CELLS):
                looks = np.unique(np.linspace(low, high, LOOKS + 1).round().astype(int))
            find = self._together if few else self._in_turn
            if (hit := find(judged, weights[:, looks[1:]], moved)) is None:
                return None
            low, high = int(looks[hit]), int(looks[hit + 1])
        return high if high < last else None

    def _together(self, judged: torch.Tensor, weights: np.ndarray, moved: Sequence[torch.Tensor]) -> int | None:
        """The first of m steps that stops, by weights (q, m), from all of them at once."""
        import torch

        at = judged + torch.tensordot(torch.from_numpy(weights.T.copy()), torch.stack(list(moved)), 1)
        hits = torch.nonzero(self.stops(at)).ravel().tolist()
        return hits[0] if hits else None

    def _in_turn(self, judged: torch.Tensor, weights: np.ndarray, moved: Sequence[torch.Tensor]) -> int | None:
        """The same, in the memory of one."""
        return next((i for i, w in enumerate(weights.T) if bool(self.stops(_plus(judged, w, moved)))), None)


def sums(times: Sequence[int], s: int) -> np.ndarray:
    """(q, s + 1) weights of a function's values at q times, which give its sum over 0, ..., j - 1 for j = 0, ..., s.

    They are exact for polynomials of a degree below q.
    """
    t, at = np.asarray(times, np.float64) / s, np.arange(s) / s
    out = np.zeros((len(t), s + 1))
    for q in range(len(t)):
        others = np.delete(t, q)
        np.cumsum(np.prod((at[:, None] - others) / (t[q] - others), axis=1), out=out[q, 1:])
    return out


def _plus(A: torch.Tensor, weights: np.ndarray, changes: Sequence[torch.Tensor]) -> torch.Tensor:
    out = A.clone()
    for weight, change in zip(weights.tolist(), changes, strict=True):
        out.add_(change, alpha=weight)
    return out
