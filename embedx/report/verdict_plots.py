"""The plots of the verdicts as SVG text: worst groups by backbone, and what the rival gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedx.report.comparison import Comparison
from embedx.report.drawing import COLOURS, FAINT, GREY, INK, axes, limits, svg_of
from embedx.report.results import HeadResult, result_of
from embedx.report.text import count, mean_and_interval, short, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPACING = 2.3
"""Lines of a backbone in `backbones`."""


def backbones(comparison: Comparison) -> str:
    """Worst group by backbone: the plain head above its rival, where there is one, and all other heads as ticks."""
    rivals = {v.verdict.backbone: v.rival for v in comparison.verdicts}

    def draw() -> Figure:
        names = comparison.backbones
        figure, ax = axes(4.6, SPACING * len(names))
        ax.set_ylim(SPACING * len(names) - 0.5, -0.9)
        for i, (backbone, heads) in enumerate(comparison.results.items()):
            y = SPACING * i
            plain, rival = result_of(heads, comparison.reference, groups=False), rivals.get(backbone)
            rest = [result.worst_group.mean for result in heads if result not in (plain, rival)]
            ax.plot(rest, [y + 0.5] * len(rest), "|", color=GREY, ms=9, mew=1)
            if plain is not None:
                _head(ax, plain, y, "o", COLOURS[0])
            if rival is not None:
                _head(ax, rival, y + 1, "s", COLOURS[1])
            if i:
                ax.axhline(y - 0.65, color=FAINT, lw=0.7)
        ax.set_yticks([SPACING * i + 0.5 for i in range(len(names))], [short(name, 34) for name in names])
        ax.tick_params(axis="y", labelsize=8, length=0)
        ax.set_xlim(limits([result.worst_group for result in comparison.rows]))
        ax.set_xlabel("worst-group accuracy on test (%)")
        ax.grid(axis="x")
        return figure

    return svg_of(draw)


def _head(ax: Axes, result: HeadResult, line: float, marker: str, colour: str) -> None:
    """One head: marker, interval, and in figures on the right."""
    mean = result.worst_group
    ax.plot([mean.low, mean.high], [line, line], color=colour, lw=1.2, marker="|", ms=5)
    ax.plot([mean.mean], [line], marker, color=colour, ms=7, mec=INK, mew=0.7)
    text = f"{mean_and_interval(mean)}  {short(result.name, 30)}, n = {count(mean.rows)}"
    ax.text(1.02, line, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)


def differences(comparison: Comparison) -> str:
    """What the rival gains over the plain head on the worst group, with intervals, against the margin."""
    verdicts = [stated.verdict for stated in comparison.verdicts]

    def draw() -> Figure:
        figure, ax = axes(4.6, 1.3 * len(verdicts))
        ax.set_ylim(1.3 * len(verdicts) - 0.5, -0.8)
        low, high = (100 * f(getattr(v.difference, end) for v in verdicts) for f, end in ((min, "low"), (max, "high")))
        margins = sorted({100 * v.margin for v in verdicts})
        for margin in margins:
            ax.axvline(margin, color=INK, lw=1, ls=(0, (4, 3)))
        ax.axvline(0, color=GREY, lw=0.8)
        for i, verdict in enumerate(verdicts):
            d, y = verdict.difference, 1.3 * i
            full = verdict.verdict != "undecided"
            ax.plot([100 * d.low, 100 * d.high], [y, y], color=INK, lw=1.2, marker="|", ms=5)
            ax.plot([100 * d.value], [y], "D", color=INK, ms=6, mfc=INK if full else "none", mew=1.2)
            text = f"{signed(d.value)} ({signed(d.low)} to {signed(d.high)})  {verdict.verdict}"
            ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        ax.set_yticks([1.3 * i for i in range(len(verdicts))], [short(v.backbone, 34) for v in verdicts])
        ax.tick_params(axis="y", labelsize=8, length=0)
        pad = 0.05 * (max(high, *margins, 0) - min(low, 0)) + 0.5
        ax.set_xlim(min(low, 0) - pad, max(high, *margins, 0) + pad)
        marked = " and ".join(f"{m:g}" for m in margins)
        ax.set_xlabel(f"rival minus plain, worst group on test (points); dashed: margin of {marked}")
        ax.grid(axis="x")
        return figure

    return svg_of(draw)
