"""Does the worst group rise with the size of the backbone and of its pre-training? A plot and a rank correlation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedx.evaluation.runs import Run
from embedx.report._drawing import INK, legend, looks_of, svg_of
from embedx.report._points import Bar, bar, count, limits, short, spots
from embedx.report.published import parameters, pretraining
from embedx.report.verdicts import named, p_text, reference, worst
from embedx.statistics import Correlation, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Scale:
    """One size of the backbones, for those of which it is known: `sizes` by name."""

    title: str
    axis: str
    sizes: dict[str, float]
    unknown: tuple[str, ...]
    correlation: Correlation | None


def scales(runs: Sequence[Run]) -> list[Scale]:
    """Parameters and pre-training images against the worst group of the reference head."""
    of = worst_by_backbone(runs)

    def scale(title: str, axis: str, size: Callable[[str], int | None]) -> Scale:
        found = {name: size(name) for name in of}
        sizes = {name: float(s) for name, s in found.items() if s is not None}
        unknown = tuple(name for name, s in found.items() if s is None)
        return Scale(title, axis, sizes, unknown, spearman(list(sizes.values()), [of[name].mean for name in sizes]))

    return [
        scale("parameters", "parameters of the backbone", parameters),
        scale(
            "pre-training images", "images in pre-training", lambda name: p.images if (p := pretraining(name)) else None
        ),
    ]


def worst_by_backbone(runs: Sequence[Run]) -> dict[str, Bar]:
    """Worst-group accuracy of the reference head on every backbone that has it."""
    found, head = spots(runs), reference(runs)
    own = ((name, named(found, name, head, groups=False)) for name in dict.fromkeys(run.backbone for run in runs))
    return {name: bar(spot, worst) for name, spot in own if spot is not None}


def against_size(runs: Sequence[Run], given: Sequence[Scale]) -> str:
    """Worst group of the reference head against each size, on log axes; a marker and an interval per backbone."""

    def draw() -> Figure:
        from matplotlib.figure import Figure

        of, head = worst_by_backbone(runs), reference(runs)
        looks = looks_of(name for name in of if any(name in s.sizes for s in given))
        side, gap = 3.3, 0.75
        figure = Figure(figsize=(len(given) * (side + gap), side))
        for i, scale in enumerate(given):
            ax = figure.add_axes((i / len(given), 0, side / (side + gap) / len(given), 1))
            for name, size in scale.sizes.items():
                b, look = of[name], looks[name]
                ax.plot([size, size], [b.low, b.high], color=look["color"], lw=0.9)
                ax.plot([size], [b.mean], **look)
            _logarithmic(ax, scale)
            ax.set_ylim(limits(list(of.values())))
            ax.set_title(in_words(scale.correlation), fontsize=9, loc="left", color=INK)
            ax.set_xlabel(f"{scale.axis} (million, log scale)")
            if not i:
                n = count([k for b in of.values() for k in b.rows])
                ax.set_ylabel(f"worst-group accuracy of {short(head, 26)} (%), n = {n}")
            ax.tick_params(labelleft=not i)
            ax.grid()
        legend(figure, looks, len(given))
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


def in_words(found: Correlation | None) -> str:
    """The correlation in one line."""
    if found is None:
        return "no rank correlation: too few or equal sizes"
    interval = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
    return f"Spearman {found.rho:.2f}{interval}, {p_text(found.p)}, n = {found.n}".replace("-", "−")
