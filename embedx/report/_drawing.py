"""What every plot shares: style, axes, and how a drawing becomes SVG text.

A head, or a backbone, has one marker and one colour (Okabe-Ito); the marker alone tells them apart in grey print. Text
stays text, so that a browser sets names in any script and a reader can search them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from embedx.report._points import Bar, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#1a1a1a", "#d8d8d8", "#fefefe"  # the page swaps these three in its dark scheme
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)  # yellow vanishes on white
MARKERS = "os^DvPX*<>"  # from the 11th name on: the same, hollow; from the 21st: half filled
ROW = 0.22  # inches
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "embedx", "text.parse_math": False, "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "grid.color": FAINT, "grid.linewidth": 0.7, "axes.axisbelow": True, "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER, "axes.facecolor": PAPER,
}  # fmt: skip


def svg_of(draw: Callable[[], Figure]) -> str:
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


def axes(width: float, lines: float) -> tuple[Figure, Axes]:
    """Axes of a given size in inches and text lines, line 0 on top; what stands outside is added when saved."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, lines * ROW))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_ylim(lines - 0.5, -0.5)
    return figure, ax


def name_backbones(ax: Axes, headers: Mapping[str, float]) -> None:
    """Backbones in bold, each on its line."""
    for backbone, y in headers.items():
        ax.text(0.008, y, short(backbone, 64), transform=ax.get_yaxis_transform(), va="center", fontweight="bold")


def looks_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Marker and colour of every name, as keywords of `plot`; 30 of them can be told apart in grey."""
    looks = {}
    for i, name in enumerate(dict.fromkeys(names)):
        colour, fill = COLOURS[i % len(COLOURS)], i // len(MARKERS) % 3
        looks[name] = {
            "marker": MARKERS[i % len(MARKERS)], "ms": 7, "ls": "none", "color": colour,
            "mfc": PAPER if fill == 1 else colour, "mec": colour if fill == 1 else INK,
            "mew": 1.4 if fill == 1 else 0.7,
            "fillstyle": "left" if fill == 2 else "full", "markerfacecoloralt": PAPER,
        }  # fmt: skip
    return looks


def cross(ax: Axes, x: Bar, y: Bar, look: Mapping[str, Any]) -> None:
    """A marker at the means, thin lines for the intervals, thick ones for the range of the seeds."""
    for low, high, width in ((x.low, x.high, 0.9), (x.first, x.last, 2.6)):
        if low < high:
            ax.plot([low, high], [y.mean, y.mean], color=look["color"], lw=width, solid_capstyle="butt")
    for low, high, width in ((y.low, y.high, 0.9), (y.first, y.last, 2.6)):
        if low < high:
            ax.plot([x.mean, x.mean], [low, high], color=look["color"], lw=width, solid_capstyle="butt")
    ax.plot([x.mean], [y.mean], **look)


def legend(figure: Figure, looks: Mapping[str, Mapping[str, Any]], columns: int) -> None:
    """All names below the panels, in as many columns as they leave room for."""
    from matplotlib.lines import Line2D

    names = [short(name, 36) for name in looks]
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
