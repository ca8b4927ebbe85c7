"""The plots of a comparison as SVG text: the same runs give the same bytes.

A head has one marker and one colour (Okabe-Ito) in every plot; the marker alone tells the heads apart in grey print.
Text stays text, so that a browser sets names in any script and a reader can search them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedx.report._points import (
    Bar,
    Spot,
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
    wrap,
)
from embedx.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#1a1a1a", "#d8d8d8", "#fefefe"  # the page swaps these three in its dark scheme
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)  # yellow vanishes on white
MARKERS = "os^DvPX*<>"  # from the 11th head on: the same, hollow
ROW = 0.22  # inches
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "embedx", "text.parse_math": False, "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "grid.color": FAINT, "grid.linewidth": 0.7, "axes.axisbelow": True, "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER, "axes.facecolor": PAPER,
}  # fmt: skip


def worst_group(runs: Sequence[Run]) -> str:
    """Worst-group accuracy: a row per head under its backbone, with interval; on the right in figures, whose and n."""

    def draw() -> Figure:
        found = spots(runs)
        rows, headers, height = lay_out(found)
        figure, ax = _axes(4.6, height)
        bars = [bar(spot, lambda run: run.metrics.worst_group) for spot in found]
        looks = _looks(found)
        for spot, b, y in zip(found, bars, rows, strict=True):
            look = looks[spot.head]
            ax.plot([b.low, b.high], [y, y], color=look["color"], lw=1.2, marker="|", ms=5)
            ax.plot([b.first, b.last], [y, y], color=look["color"], lw=3.5, solid_capstyle="butt")
            ax.plot([b.mean], [y], **look)
            text = f"{b.mean:.1f} ({b.low:.1f}–{b.high:.1f})  {whose(spot)}"
            ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        ax.set_yticks(rows, [short(spot.head, 26) for spot in found])
        _headers(ax, headers)
        ax.set_xlim(limits(bars))
        ax.tick_params(axis="y", labelsize=8)
        ax.set_xlabel("worst-group accuracy on test (%)")
        ax.grid(axis="x")
        ax.tick_params(axis="x", top=height > 30, labeltop=height > 30)
        return figure

    return _svg(draw)


def worst_against_average(runs: Sequence[Run]) -> str:
    """Worst-group against average accuracy: a panel per backbone, the others grey behind, interval crosses."""

    def draw() -> Figure:
        from matplotlib.figure import Figure

        found = spots(runs)
        looks = _looks(found)
        points = [(s, bar(s, lambda r: r.metrics.average), bar(s, lambda r: r.metrics.worst_group)) for s in found]
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
                    _cross(ax, a, w, looks[spot.head])
            ax.set(xlim=frame, ylim=frame, aspect="equal")
            ax.set_title("\n".join(wrap(backbone, 34)), fontsize=9, fontweight="bold", loc="left")
            ax.grid()
            ax.tick_params(labelbottom=i + columns >= len(backbones), labelleft=i % columns == 0)
            if i + columns >= len(backbones):
                ax.set_xlabel(f"average accuracy (%), n = {count([r.metrics.average.n for r in runs])}")
            if i % columns == 0:
                ax.set_ylabel(f"worst-group accuracy (%), n = {count([r.metrics.worst_group.n for r in runs])}")
        _legend(figure, looks, columns)
        return figure

    return _svg(draw)


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
        figure, ax = _axes((1.15 if level else 0.52) * len(names), height)
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
        _headers(ax, headers)
        ax.set_xlabel("accuracy on test (%) by group")
        return figure

    return _svg(draw)


def _svg(draw: Callable[[], Figure]) -> str:
    """The drawing as an SVG document, in our style whatever the user's matplotlibrc says."""
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # only measured here; the browser has the glyphs
        figure = draw()
        FigureCanvasSVG(figure).print_figure(
            out, format="svg", bbox_inches="tight", pad_inches=0.08,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )  # fmt: skip
    text = re.sub(r"<!DOCTYPE[^>]*>\s*", "", out.getvalue())
    return re.sub(r'<g id="\w+_\d+">', "<g>", text)  # nothing refers to these, and a page holds several plots


def _axes(width: float, lines: float) -> tuple[Figure, Axes]:
    """Axes of a given size in inches and text lines, line 0 on top; what stands outside is added when saved."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, lines * ROW))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_ylim(lines - 0.5, -0.5)
    return figure, ax


def _headers(ax: Axes, headers: Mapping[str, float]) -> None:
    for backbone, y in headers.items():
        ax.text(0.008, y, short(backbone, 64), transform=ax.get_yaxis_transform(), va="center", fontweight="bold")


def _looks(found: Sequence[Spot]) -> dict[str, dict[str, Any]]:
    """Marker and colour of every head, as keywords of `plot`."""
    looks = {}
    for i, head in enumerate(dict.fromkeys(spot.head for spot in found)):
        colour = COLOURS[i % len(COLOURS)]
        full = i % (2 * len(MARKERS)) < len(MARKERS)
        looks[head] = {
            "marker": MARKERS[i % len(MARKERS)], "ms": 7, "ls": "none",
            "color": colour,
            "mfc": colour if full else PAPER, "mec": INK if full else colour, "mew": 0.7 if full else 1.4,
        }  # fmt: skip
    return looks


def _cross(ax: Axes, x: Bar, y: Bar, look: Mapping[str, Any]) -> None:
    ax.plot([x.low, x.high], [y.mean, y.mean], color=look["color"], lw=0.9)
    ax.plot([x.mean, x.mean], [y.low, y.high], color=look["color"], lw=0.9)
    ax.plot([x.first, x.last], [y.mean, y.mean], color=look["color"], lw=2.6, solid_capstyle="butt")
    ax.plot([x.mean, x.mean], [y.first, y.last], color=look["color"], lw=2.6, solid_capstyle="butt")
    ax.plot([x.mean], [y.mean], **look)


def _legend(figure: Figure, looks: Mapping[str, Mapping[str, Any]], columns: int) -> None:
    """All heads below the panels, in as many columns as their names leave room for."""
    from matplotlib.lines import Line2D

    names = [short(head, 36) for head in looks]
    per_row = max(1, columns * 46 // (max(map(len, names)) + 6))
    handles = [Line2D([], [], **look) for look in looks.values()]
    below = -0.55 / figure.get_figheight()
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0, below),
        ncols=per_row,
        frameon=False,
        borderaxespad=0,
    )
