"""The plots of a comparison as SVG text: the same runs give the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedx.report.comparison import Comparison
from embedx.report.drawing import (
    FAINT,
    INK,
    PAPER,
    axes,
    cross,
    lay_out,
    legend,
    limits,
    looks_of,
    luminance,
    name_backbones,
    svg_of,
)
from embedx.report.results import HeadResult
from embedx.report.text import count, short, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 6
"""Groups of which each has a wide cell and a level heading in the heat map."""


def worst_group(comparison: Comparison) -> str:
    """Worst-group accuracy: a row per head under its backbone, with interval; on the right in figures, whose and n."""

    def draw() -> Figure:
        lines, headers, height = lay_out(comparison.results)
        figure, ax = axes(4.6, height)
        looks = looks_of(result.name for result in comparison.rows)
        for result, y in zip(comparison.rows, lines, strict=True):
            mean, look = result.worst_group, looks[result.name]
            ax.plot([mean.low, mean.high], [y, y], color=look["color"], lw=1.2, marker="|", ms=5)
            ax.plot([mean.first, mean.last], [y, y], color=look["color"], lw=3.5, solid_capstyle="butt")
            ax.plot([mean.mean], [y], **look)
            text = f"{mean.mean:.1f} ({mean.low:.1f}–{mean.high:.1f})  {_which_group(result)}"
            ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        ax.set_yticks(lines, [short(result.name, 26) for result in comparison.rows])
        name_backbones(ax, headers)
        ax.set_xlim(limits([result.worst_group for result in comparison.rows]))
        ax.tick_params(axis="y", labelsize=8)
        ax.set_xlabel("worst-group accuracy on test (%)")
        ax.grid(axis="x")
        ax.tick_params(axis="x", top=height > 30, labeltop=height > 30)
        return figure

    return svg_of(draw)


def _which_group(result: HeadResult) -> str:
    """The worst group and its n; the seeds of one head need not agree on it."""
    names = dict.fromkeys(run.metrics.worst_group_name for run in result.runs)
    text = short(next(iter(names)), 40) if len(names) == 1 else f"{len(names)} groups, by seed"
    text += f", n = {count(result.worst_group.rows)}"
    return text if result.seeds == 1 else f"{text}; {result.seeds} seeds"


def worst_against_average(comparison: Comparison) -> str:
    """Worst-group against average accuracy: a panel per backbone, the others grey behind, interval crosses.

    Of more than 8 heads only the markers, as nothing could be seen behind so many crosses.
    """

    def draw() -> Figure:
        from matplotlib.figure import Figure

        runs, backbones = comparison.runs, comparison.backbones
        looks = looks_of(result.name for result in comparison.rows)
        points = [(result, result.average, result.worst_group) for result in comparison.rows]
        if comparison.crowded:
            points = [(result, a.without_interval(), w.without_interval()) for result, a, w in points]
        frame = limits([mean for _, *pair in points for mean in pair])
        columns = min(len(backbones), 3)
        side, gap = (4.6 if columns == 1 else 3.0), 0.55
        lines = -(-len(backbones) // columns)
        figure = Figure(figsize=(columns * (side + gap), lines * (side + gap)))
        for i, backbone in enumerate(backbones):
            x, y = (i % columns) / columns, 1 - (i // columns + 1) / lines
            ax = figure.add_axes((x, y, side / (side + gap) / columns, side / (side + gap) / lines))
            ax.axline((0, 0), slope=1, color=INK, lw=0.8, ls=(0, (4, 3)))
            others = [(a.mean, w.mean) for result, a, w in points if result.backbone != backbone]
            ax.plot(*zip(*others, strict=True) if others else ([], []), "o", ms=3.5, color=FAINT, zorder=1.5)
            for result, a, w in points:
                if result.backbone == backbone:
                    cross(ax, a, w, looks[result.name])
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


def group_heatmap(comparison: Comparison) -> str:
    """Accuracy of every test group (columns) for every head under its backbone; the worst of each row is framed."""

    def draw() -> Figure:
        import numpy as np
        from matplotlib import colormaps
        from matplotlib.patches import Rectangle

        rows, headers, height = lay_out(comparison.results)
        names, titles = comparison.group_names, _group_titles(comparison)
        level = len(names) <= WIDE
        figure, ax = axes((1.15 if level else 0.52) * len(names), height)
        cells = np.array([[result.group_mean(name) for name in names] for result in comparison.rows])
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
        ax.set_xticks([x + 0.5 for x in range(len(names))], titles)
        if not level:
            for label in ax.get_xticklabels():
                label.set(rotation=45, ha="left", rotation_mode="anchor")
        ax.set_yticks(rows, [short(result.name, 26) for result in comparison.rows])
        ax.tick_params(length=0, labelsize=8)
        ax.spines[:].set_visible(False)
        name_backbones(ax, headers)
        ax.set_xlabel("accuracy on test (%) by group")
        return figure

    return svg_of(draw)


def _group_titles(comparison: Comparison) -> list[str]:
    """Group names with their n, in lines for level headings, in one line for slanted ones."""
    rows: dict[str, list[int]] = {name: [] for name in comparison.group_names}
    for run in comparison.runs:
        for group in run.metrics.groups:
            rows[group.name].append(group.n)
    if len(rows) <= WIDE:
        return ["\n".join([*wrap(name, 15), f"n = {count(n)}"]) for name, n in rows.items()]
    return [f"{short(name, 40)}, n = {count(n)}" for name, n in rows.items()]
