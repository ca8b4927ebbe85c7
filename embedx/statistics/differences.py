"""Differences of two figures: of different rows, and of the same rows before and after."""

from __future__ import annotations

import math

import numpy as np

from embedx.statistics.intervals import Interval, normal_limit


def difference(
    a: Interval, b: Interval, n: int | None = None, *, value: float | None = None, correlation: float = 0.0,
    most: float = 1.0,
) -> Interval:  # fmt: skip
    """a - b of different rows, the limits of both combined (Newcombe 1998, method 10; Zou and Donner 2008, MOVER).

        low = a - b - sqrt((a - a.low)^2 + (b.high - b)^2)        high = a - b + sqrt((a.high - a)^2 + (b - b.low)^2)

    Of figures of the same rows, which go together, it is rather too wide.

    n            what the interval says it is from, by default the rows of both
    value        a - b where the caller has it without a rounding in between
    correlation  r of the two, of which 2 r (a - a.low) (b.high - b) is taken off under the root, and so above (Zou and
                 Donner 2008)
    most         how far from 0 it can be
    """
    value = a.value - b.value if value is None else value
    low = value - _root(a.value - a.low, b.high - b.value, correlation)
    high = value + _root(a.high - a.value, b.value - b.low, correlation)
    return Interval(value, max(-most, low), min(most, high), a.n + b.n if n is None else n)


def _root(a: float, b: float, r: float) -> float:
    """sqrt(a^2 + b^2 - 2 r a b)."""
    return float(np.sqrt(np.hypot(a, b) ** 2 - 2 * r * a * b)) if r else float(np.hypot(a, b))


def paired_difference(lost: int, gained: int, n: int) -> Interval:
    """Proportion before minus proportion after on the same n rows, of which some were `lost` and others `gained`.

    Bonett and Price 2012: with L = (lost + 1) / (n + 2) and G = (gained + 1) / (n + 2) the limits are
    L - G -+ z sqrt((L + G - (L - G)^2) / (n + 2)).
    """
    L, G = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = normal_limit() * math.sqrt((L + G - (L - G) ** 2) / (n + 2))
    return Interval((lost - gained) / n, max(-1.0, L - G - half), min(1.0, L - G + half), n)


def effective_difference(value: float, square: float, rows: float, n: int) -> Interval:
    """A mean difference with mean square of what is in -1..1 that is worth as much as one of so many `rows`.

    The interval is that of `paired_difference`, of which (lost - gained) / n is the value and (lost + gained) / n the
    square; `n` is what it says it is from.
    """
    centre = value * rows / (rows + 2)
    half = normal_limit() * math.sqrt(max(0.0, (square * rows + 2) / (rows + 2) - centre**2) / (rows + 2))
    return Interval(value, min(value, max(-1.0, centre - half)), max(value, min(1.0, centre + half)), n)
