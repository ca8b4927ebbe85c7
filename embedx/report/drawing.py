"""What every plot shares: style, axes, and how a drawing becomes SVG text.

A head, or a backbone, has one marker and one colour (Okabe-Ito); the marker alone tells them apart in grey print. Text
stays text, so that a browser sets names in any script and a reader can search them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedx.report.results import HeadResult, SeedMean
from embedx.report.text import short

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#858585"  # dark enough on white, light enough on black
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


def limits(means: Sequence[SeedMean]) -> tuple[float, float]:
    """Axis limits that hold all intervals, at least 10 points apart, hardly beyond 0..100."""
    low, high = min(mean.low for mean in means), max(mean.high for mean in means)
    margin = max(0.04 * (high - low), (10 - (high - low)) / 2)
    return max(low - margin, -1.5), min(high + margin, 101.5)


def lay_out(results: Mapping[str, Sequence[HeadResult]]) -> tuple[list[float], dict[str, float], float]:
    """Line of every result, of every backbone's heading, and how many lines there are."""
    rows, headers, line = [], {}, 0.0
    for backbone, heads in results.items():
        line += 0.4 * bool(headers)
        headers[backbone] = line
        for _ in heads:
            line += 1
            rows.append(line)
        line += 1
    return rows, headers, line


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


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


def cross(ax: Axes, x: SeedMean, y: SeedMean, look: Mapping[str, Any]) -> None:
    """A marker at the means, thin lines for the intervals, thick ones for the range of the seeds."""
    for low, high, width in ((x.low, x.high, 0.9), (x.first, x.last, 2.6)):
        if low < high:
            ax.plot([low, high], [y.mean, y.mean], color=look["color"], lw=width, solid_capstyle="butt")
    for low, high, width in ((y.low, y.high, 0.9), (y.first, y.last, 2.6)):
        if low < high:
            ax.plot([x.mean, x.mean], [low, high], color=look["color"], lw=width, solid_capstyle="butt")
    ax.plot([x.mean], [y.mean], **look)


def legend(figure: Figure, looks: Mapping[str, Mapping[str, Any]], columns: int, gap: float = 0.55) -> None:
    """All names below the panels, in as many columns as they leave room for; `gap` inches are left above them."""
    from matplotlib.lines import Line2D

    names = [short(name, 36) for name in looks]
    per_row = max(1, columns * 46 // (max(map(len, names)) + 6))
    handles = [Line2D([], [], **look) for look in looks.values()]
    below = -gap / figure.get_figheight()
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0, below),
        ncols=per_row,
        frameon=False,
        borderaxespad=0,
    )


def inline(svg: str) -> Markup:
    """A plot as part of a page: as wide as the page, never wider or much smaller than drawn, in the page's colours.

    svg  made by `svg_of`, where matplotlib escapes all texts
    """
    from markupsafe import Markup

    svg = svg[svg.index("<svg") :]
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])  # type: ignore[index]  always there
    svg = re.sub(
        r'width="[\d.]+pt"',
        f'role="img" style="min-width: {0.85 * width:.0f}pt; max-width: {1.2 * width:.0f}pt"',
        svg,
        count=1,
    )
    svg = re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    for name, colour in (("ink", INK), ("faint", FAINT), ("paper", PAPER)):
        svg = re.sub(f"(fill|stroke): {colour}", rf"\1: var(--{name})", svg)
    return Markup(svg)  # noqa: S704
