"""Differences of two figures: of different rows, and of the same rows before and after."""

from __future__ import annotations

import math

import numpy as np

from embedx.statistics.intervals import Interval, normal_limit


def difference(a: Interval, b: Interval, n: int | None = None, *, value: float | None = None) -> Interval:
    """a - b of different rows, the limits of both combined (Newcombe 1998, method 10; Zou and Donner 2008, MOVER).

        low = a - b - sqrt((a - a.low)^2 + (b.high - b)^2)        high = a - b + sqrt((a.high - a)^2 + (b - b.low)^2)

    Of figures of the same rows, which go together, it is rather too wide.

    n      what the interval says it is from, by default the rows of both
    value  a - b where the caller has it without a rounding in between
    """
    value = a.value - b.value if value is None else value
    low = value - float(np.hypot(a.value - a.low, b.high - b.value))
    high = value + float(np.hypot(a.high - a.value, b.value - b.low))
    return Interval(value, max(-1.0, low), min(1.0, high), a.n + b.n if n is None else n)


def paired_difference(lost: int, gained: int, n: int) -> Interval:
    """Proportion before minus proportion after on the same n rows, of which some were `lost` and others `gained`.

    Bonett and Price 2012: with L = (lost + 1) / (n + 2) and G = (gained + 1) / (n + 2) the limits are
    L - G -+ z sqrt((L + G - (L - G)^2) / (n + 2)).
    """
    L, G = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = normal_limit() * math.sqrt((L + G - (L - G) ** 2) / (n + 2))
    return Interval((lost - gained) / n, max(-1.0, L - G - half), min(1.0, L - G + half), n)
