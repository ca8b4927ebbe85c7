"""Does the worst group rise with the size of the backbone and of its pre-training? A plot and a rank correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedx.report.drawing import INK, legend, limits, looks_of, svg_of
from embedx.report.published import parameters, pretraining
from embedx.report.results import SeedMean
from embedx.report.text import count, p_text, short
from embedx.statistics import Correlation, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from embedx.report.comparison import Comparison


@dataclass(frozen=True)
class Scale:
    """One size of the backbones, for those of which it is known: `sizes` by name."""

    title: str
    axis: str
    sizes: dict[str, float]
    unknown: tuple[str, ...]
    correlation: Correlation | None


def scales(worst: Mapping[str, SeedMean]) -> tuple[Scale, ...]:
    """Parameters and pre-training images against the worst group {backbone: its mean} of the reference head."""

    def scale(title: str, axis: str, size_of: Callable[[str], int | None]) -> Scale:
        counts = {name: size_of(name) for name in worst}
        sizes = {name: float(size) for name, size in counts.items() if size is not None}
        unknown = tuple(name for name, size in counts.items() if size is None)
        return Scale(title, axis, sizes, unknown, spearman(list(sizes.values()), [worst[name].mean for name in sizes]))

    def images(name: str) -> int | None:
        return None if (source := pretraining(name)) is None else source.images

    return (
        scale("parameters", "parameters of the backbone", parameters),
        scale("pre-training images", "images in pre-training", images),
    )


def against_size(comparison: Comparison) -> str:
    """Worst group of the reference head against each size, on log axes; a marker and an interval per backbone."""
    worst, shown = comparison.standing, comparison.scales

    def draw() -> Figure:
        from matplotlib.figure import Figure

        looks = looks_of(name for name in worst if any(name in scale.sizes for scale in shown))
        side, gap = 3.3, 0.75
        figure = Figure(figsize=(len(shown) * (side + gap), side))
        for i, scale in enumerate(shown):
            ax = figure.add_axes((i / len(shown), 0, side / (side + gap) / len(shown), 1))
            for name, size in scale.sizes.items():
                mean, look = worst[name], looks[name]
                ax.plot([size, size], [mean.low, mean.high], color=look["color"], lw=0.9)
                ax.plot([size], [mean.mean], **look)
            _logarithmic(ax, scale)
            ax.set_ylim(limits(list(worst.values())))
            ax.set_title(in_words(scale.correlation), fontsize=9, loc="left", color=INK)
            ax.set_xlabel(f"{scale.axis} (million, log scale)")
            if not i:
                n = count([rows for mean in worst.values() for rows in mean.rows])
                ax.set_ylabel(f"worst-group accuracy of {short(comparison.reference, 26)} (%), n = {n}")
            ax.tick_params(labelleft=not i)
            ax.grid()
        legend(figure, looks, len(shown))
        return figure

    return svg_of(draw)


def _logarithmic(ax: Axes, scale: Scale) -> None:
    """A log axis in millions, labelled without powers, which need mathematical typesetting."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = (f(scale.sizes.values(), default=1e6) for f in (min, max))
    ax.set(xscale="log", xlim=(low / 2, high * 2))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 100 else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size / 1e6:,g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def in_words(correlation: Correlation | None) -> str:
    """The correlation in one line."""
    if correlation is None:
        return "no rank correlation: too few or equal sizes"
    interval = "" if correlation.low is None else f" ({correlation.low:.2f} to {correlation.high:.2f})"
    return f"Spearman {correlation.rho:.2f}{interval}, {p_text(correlation.p)}, n = {correlation.n}".replace("-", "−")
