"""Figures as the tables of the steps show them; accuracies are fractions, shown as percent or points."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedx.statistics import Interval


def points(x: Interval) -> str:
    """A difference of accuracies with its interval, in points: `+12.0 (+3.1 to +20.4)`."""
    return f"{100 * x.value:+.1f} ({span(x.low, x.high)})"


def accuracy(x: Interval) -> str:
    """An accuracy with its interval, in percent: `81.2 (70.0–89.4)`."""
    return f"{100 * x.value:.1f} ({100 * x.low:.1f}–{100 * x.high:.1f})"


def span(low: float, high: float) -> str:
    """A range of differences, in points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def p_value(p: float) -> str:
    """A p-value, three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
