"""The curves of a gallery as SVG text: axes labelled, intervals drawn, and how many images are behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.report.drawing import FAINT, INK, legend, looks_of, svg_of
from embedx.spuriosity.measures.gaps import Gaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from embedx.spuriosity.measures.tuned import Point, Tuning

SHOWN = 6
"""Models in one figure."""
WIDE, HIGH = 6.4, 3.2


def depths(models: Sequence[Gaps]) -> str:
    """Mean gap over classes against k; behind it what random rankings of the first model's rows give."""

    def draw(ax: Axes) -> None:
        null = np.array([[d.k, *d.null] for d in models[0].depths]) * 100
        ax.fill_between(null[:, 0], null[:, 1], null[:, 2], color=FAINT, lw=0, zorder=0)
        ax.axhline(0, color=INK, lw=0.8)
        for i, (g, look) in enumerate(_models(models)):
            _curve(ax, [100 * d.k + 0.4 * i for d in g.depths], [d.gap for d in g.depths], look)
        ax.set_xlabel(f"k: share of a class at either end (%); {_rows(models)}")
        ax.set_ylabel("mean gap (points)")

    return _drawn(draw, [m.model for m in models[:SHOWN]])


def positions(models: Sequence[Gaps]) -> str:
    """Accuracy by place in the ranking of the class."""

    def draw(ax: Axes) -> None:
        for i, (g, look) in enumerate(_models(models)):
            bins = len(g.positions)
            x = [100 * (j + 0.5) / bins + 0.8 * i for j in range(bins)]
            _curve(ax, x, list(g.positions), look)
        ax.set_xlim(0, 100)
        ax.set_xlabel(f"place in the class, from the least spurious (%); {_rows(models)}")
        ax.set_ylabel("accuracy (%)")

    return _drawn(draw, [m.model for m in models[:SHOWN]])


def front(tuned: Tuning) -> str:
    """Gap against average on test: a line for each choice of tuning rows, and where it stopped."""

    def draw(ax: Axes) -> None:
        ax.axvline(0, color=INK, lw=0.8)
        target = 100 * tuned.options.target
        ax.axvspan(-target, target, color=FAINT, alpha=0.5, lw=0, zorder=0)
        for r in tuned.results:
            look = looks[r.rows]
            gaps, averages = _along(r.front)
            large: dict[str, Any] = look | {"ms": 10, "mfc": "none", "mec": look["color"], "mew": 1.6}
            small: dict[str, Any] = look | {"ms": 3, "ls": "-", "lw": 0.9}
            ax.plot(gaps, averages, **small)
            ax.plot([100 * r.gap.value.value], [100 * r.average.value.value], **large)
        ax.set_xlabel(f"gap on test (points), n = {tuned.results[0].gap.value.n:,}; grey: the target")
        ax.set_ylabel(f"average on test (%), n = {tuned.results[0].average.value.n:,}")

    looks = looks_of(r.rows for r in tuned.results)
    return _drawn(draw, list(looks))


def _along(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Gap and average of each setting in its order, means over trials."""
    by_setting: dict[str, list[tuple[float, float]]] = {}
    for p in points:
        by_setting.setdefault(repr(sorted(p.setting.items())), []).append((100 * p.gap, 100 * p.average))
    means = [np.mean(of, axis=0) for of in by_setting.values()]
    return [float(m[0]) for m in means], [float(m[1]) for m in means]


def tuned_positions(tuned: Tuning) -> str:
    """Accuracy by place in the ranking before tuning and after it, for each choice of tuning rows."""

    def draw(ax: Axes) -> None:
        for r in tuned.results:
            bins = len(r.positions)
            x = [100 * (j + 0.5) / bins for j in range(bins)]
            ax.plot(x, [100 * p for p in r.positions], **looks[r.rows] | {"ms": 4.5, "ls": "-", "lw": 1.1})
        ax.set_xlim(0, 100)
        ax.set_xlabel(f"place in the class, from the least spurious (%); n = {ranked_rows(tuned):,} images")
        ax.set_ylabel("accuracy (%)")

    looks = looks_of(r.rows for r in tuned.results)
    return _drawn(draw, list(looks))


def ranked_rows(tuned: Tuning) -> int:
    """Ranked test images of the model."""
    return sum(c.n for c in tuned.results[0].detail.classes)


def _models(models: Sequence[Gaps]) -> list[tuple[Gaps, dict[str, Any]]]:
    shown = models[:SHOWN]
    looks = looks_of(g.model for g in shown)
    return [(g, looks[g.model]) for g in shown]


def _rows(models: Sequence[Gaps]) -> str:
    first = models[0]
    return f"n = {sum(c.n for c in first.classes):,} images of {len(first.classes):,} classes"


def _curve(ax: Axes, x: Sequence[float], y: Sequence[Any], look: Mapping[str, Any]) -> None:
    """Markers joined by a line, and their intervals, in percent."""
    values = [100 * v.value for v in y]
    for at, v in zip(x, y, strict=True):
        ax.plot([at, at], [100 * v.low, 100 * v.high], color=look["color"], lw=0.9)
    ax.plot(x, values, **dict(look) | {"ms": 5, "ls": "-", "lw": 1.1})


def _drawn(draw: Callable[[Axes], None], names: Sequence[str]) -> str:
    def figure() -> Figure:
        from matplotlib.figure import Figure

        out = Figure(figsize=(WIDE, HIGH))
        ax = out.add_axes((0, 0, 1, 1))
        draw(ax)
        ax.grid()
        legend(out, looks_of(names), 2)
        return out

    return svg_of(figure)
