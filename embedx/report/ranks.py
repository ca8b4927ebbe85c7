"""The critical-difference plot: methods on the line of their mean ranks, joined where they are not told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedx.report.drawing import GREY, INK, ROW, looks_of, svg_of
from embedx.report.text import short
from embedx.statistics.across_datasets import RanksOverDatasets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 4.6
"""Inches of the line of ranks."""


def critical_difference(ranks: RanksOverDatasets, names: Sequence[str]) -> str:
    """SVG text: rank 1, the best, on the left; the better half is named on the left, the other on the right.

    Thick lines join neighbours of which no pair is told apart (Wilcoxon, Holm; `RanksOverDatasets.alike`). The ruler
    on top is Nemenyi's critical difference, by which mean ranks themselves would be told apart.
    """

    def draw() -> Figure:
        from matplotlib.figure import Figure

        order, k, bars = ranks.best_first, len(names), ranks.alike
        half = (k + 1) // 2
        lines = 2.2 + len(bars) * 0.55
        depth = lines + max(half, k - half)
        figure = Figure(figsize=(WIDE, (depth + 2.6) * ROW))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(1, k), ylim=(depth, -2.6))
        ax.axis("off")
        _line_of_ranks(ax, k)
        _ruler(ax, ranks.critical_difference, k)
        looks = looks_of(names)
        for place, j in enumerate(order):
            left = place < half
            y = lines + (place if left else k - 1 - place)
            x, edge = ranks.mean_ranks[j], 1 if left else k
            ax.plot([x, x, edge], [0, y, y], color=GREY, lw=0.8, solid_joinstyle="miter", clip_on=False)
            ax.plot([x], [0], **{**looks[names[j]], "ms": 6}, clip_on=False, zorder=3)
            text, pad = f"{short(names[j], 30)}  {x:.2f}", 0.015 * (k - 1)
            ax.text(
                edge - pad if left else edge + pad, y, text, ha="right" if left else "left", va="center", fontsize=8
            )
        for i, stretch in enumerate(bars):
            ends, y = [ranks.mean_ranks[j] for j in (stretch[0], stretch[-1])], 1.1 + 0.55 * i
            ax.plot([ends[0] - 0.012 * (k - 1), ends[1] + 0.012 * (k - 1)], [y, y], color=INK, lw=3.5)
        return figure

    return svg_of(draw)


def _line_of_ranks(ax: Axes, k: int) -> None:
    ax.plot([1, k], [0, 0], color=INK, lw=1)
    for rank in range(1, k + 1):
        ax.plot([rank, rank], [0, -0.35], color=INK, lw=0.8, clip_on=False)
        ax.text(rank, -0.55, str(rank), ha="center", va="bottom", fontsize=8)


def _ruler(ax: Axes, width: float, k: int) -> None:
    """The critical difference as a length; where it is longer than the line no two mean ranks can differ by it."""
    end = min(1 + width, k)
    ax.plot([1, end], [-2.1, -2.1], color=INK, lw=1, marker="|" if end == 1 + width else "", ms=5, clip_on=False)
    longer = "" if end == 1 + width else ", longer than the line"
    ax.text(1, -2.35, f"critical difference {width:.2f}{longer}", ha="left", va="bottom", fontsize=8)
