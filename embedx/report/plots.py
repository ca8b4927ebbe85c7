"""The plots of a comparison as SVG text: the same runs give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedx.evaluation.runs import Run
from embedx.report._drawing import (
    FAINT,
    INK,
    PAPER,
    axes,
    cross,
    legend,
    looks_of,
    name_backbones,
    svg_of,
)
from embedx.report._points import (
    bar,
    count,
    group_mean,
    headings,
    lay_out,
    limits,
    luminance,
    short,
    spots,
    whose,
    without_interval,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def worst_group(runs: Sequence[Run]) -> str:
    """Worst-group accuracy: a row per head under its backbone, with interval; on the right in figures, whose and n."""

    def draw() -> Figure:
        found = spots(runs)
        rows, headers, height = lay_out(found)
        figure, ax = axes(4.6, height)
        bars = [bar(spot, lambda run: run.metrics.worst_group) for spot in found]
        looks = looks_of(spot.head for spot in found)
        for spot, b, y in zip(found, bars, rows, strict=True):
            look = looks[spot.head]
            ax.plot([b.low, b.high], [y, y], color=look["color"], lw=1.2, marker="|", ms=5)
            ax.plot([b.first, b.last], [y, y], color=look["color"], lw=3.5, solid_capstyle="butt")
            ax.plot([b.mean], [y], **look)
            text = f"{b.mean:.1f} ({b.low:.1f}–{b.high:.1f})  {whose(spot)}"
            ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        ax.set_yticks(rows, [short(spot.head, 26) for spot in found])
        name_backbones(ax, headers)
        ax.set_xlim(limits(bars))
        ax.tick_params(axis="y", labelsize=8)
        ax.set_xlabel("worst-group accuracy on test (%)")
        ax.grid(axis="x")
        ax.tick_params(axis="x", top=height > 30, labeltop=height > 30)
        return figure

    return svg_of(draw)


def worst_against_average(runs: Sequence[Run]) -> str:
    """Worst-group against average accuracy: a panel per backbone, the others grey behind, interval crosses.

    Of more than 8 heads only the markers, as nothing could be seen behind so many crosses.
    """

    def draw() -> Figure:
        from matplotlib.figure import Figure

        found = spots(runs)
        looks = looks_of(spot.head for spot in found)
        points = [(s, bar(s, lambda r: r.metrics.average), bar(s, lambda r: r.metrics.worst_group)) for s in found]
        if crowded(runs):
            points = [(s, without_interval(a), without_interval(w)) for s, a, w in points]
        frame = limits([x for _, *pair in points for x in pair])
        backbones = list(dict.fromkeys(spot.backbone for spot in found))
        columns = min(len(backbones), 3)
        side, gap = (4.6 if columns == 1 else 3.0), 0.55
        lines = -(-len(backbones) // columns)
        figure = Figure(figsize=(columns * (side + gap), lines * (side + gap)))
        for i, backbone in enumerate(backbones):
            x, y = (i % columns) / columns, 1 - (i // columns + 1) / lines
            ax = figure.add_axes((x, y, side / (side + gap) / columns, side / (side + gap) / lines))
            ax.axline((0, 0), slope=1, color=INK, lw=0.8, ls=(0, (4, 3)))
            others = [(a.mean, w.mean) for spot, a, w in points if spot.backbone != backbone]
            ax.plot(*zip(*others, strict=True) if others else ([], []), "o", ms=3.5, color=FAINT, zorder=1.5)
            for spot, a, w in points:
                if spot.backbone == backbone:
                    cross(ax, a, w, looks[spot.head])
            ax.set(xlim=frame, ylim=frame, aspect="equal")
            ax.set_title("\n".join(wrap(backbone, 34)), fontsize=9, fontweight="bold", loc="left")
            ax.grid()
            ax.tick_params(labelbottom=i + columns >= len(backbones), labelleft=i % columns == 0)
            if i + columns >= len(backbones):
                ax.set_xlabel(f"average accuracy (%), n = {count([r.metrics.average.n for r in runs])}")
            if i % columns == 0:
                ax.set_ylabel(f"worst-group accuracy (%), n = {count([r.metrics.worst_group.n for r in runs])}")
        legend(figure, looks, columns)
        return figure

    return svg_of(draw)


def crowded(runs: Sequence[Run]) -> bool:
    """Whether there are too many heads for a cross each."""
    return len({spot.head for spot in spots(runs)}) > 8


def group_heatmap(runs: Sequence[Run]) -> str:
    """Accuracy of every test group (columns) for every head under its backbone; the worst of each row is framed."""

    def draw() -> Figure:
        import numpy as np
        from matplotlib import colormaps
        from matplotlib.patches import Rectangle

        found = spots(runs)
        rows, headers, height = lay_out(found)
        names = list(dict.fromkeys(g.name for run in runs for g in run.metrics.groups))
        level = len(names) <= 6  # few columns: wide cells, level headings
        figure, ax = axes((1.15 if level else 0.52) * len(names), height)
        cells = np.array([[group_mean(spot, name) for name in names] for spot in found])
        low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
        colours = colormaps["cividis"]((cells - low) / max(high - low, 10))
        for y, line, shades in zip(rows, cells, colours, strict=True):
            worst = int(np.nanargmin(line))
            for x, (value, shade) in enumerate(zip(line, shades, strict=True)):
                missing = bool(np.isnan(value))
                ax.add_patch(
                    Rectangle((x, y - 0.5), 1, 1, facecolor="none" if missing else shade, edgecolor=PAPER, lw=0.5)
                )
                ink = INK if missing else ("#ffffff" if luminance(shade) < 0.18 else "#000000")
                text = "–" if missing else f"{value:.1f}"
                ax.text(x + 0.5, y, text, color=ink, ha="center", va="center", fontsize=8, in_layout=False,
                        fontweight="bold" if x == worst else "normal")  # fmt: skip
                if x == worst:
                    ax.add_patch(Rectangle((x + 0.03, y - 0.42), 0.94, 0.84, facecolor="none", edgecolor=ink, lw=1.2))
        ax.set(xlim=(0, len(names)), facecolor="none")
        ax.xaxis.tick_top()
        ax.set_xticks([x + 0.5 for x in range(len(names))], headings(names, runs, level))
        if not level:
            for label in ax.get_xticklabels():
                label.set(rotation=45, ha="left", rotation_mode="anchor")
        ax.set_yticks(rows, [short(spot.head, 26) for spot in found])
        ax.tick_params(length=0, labelsize=8)
        ax.spines[:].set_visible(False)
        name_backbones(ax, headers)
        ax.set_xlabel("accuracy on test (%) by group")
        return figure

    return svg_of(draw)
