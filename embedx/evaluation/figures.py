"""How a figure is written for people: accuracies, fractions in the API, in percent, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedx.evaluation.metrics import GroupAccuracy
    from embedx.statistics import Interval


def percent(value: float | None) -> str:
    """`92.9` of 0.929; a dash where there is no figure."""
    return "–" if value is None else f"{100 * value:.1f}"


def interval(x: Interval | GroupAccuracy) -> str:
    """`90.3–94.9`; a dash where there is no interval."""
    return "–" if x.low is None or x.high is None else f"{100 * x.low:.1f}–{100 * x.high:.1f}"


def with_interval(x: Interval) -> str:
    """`92.9 (90.3–94.9)`."""
    return f"{percent(x.value)} ({interval(x)})"
