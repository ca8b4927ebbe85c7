"""Plots that studies share: figures along an axis, with intervals over seeds, as SVG text in the style of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.html import plain
from embedx.report.drawing import FAINT, legend, looks_of, svg_of
from embedx.report.text import short
from embedx.statistics import half_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ENDS = ("low", "high")
FRACTIONS = ("average", "adjusted_average", "worst_group", "worst_class", "balanced_accuracy")
"""Figures between 0 and 1."""
PERCENT = (*FRACTIONS, "gap")
"""Figures that are shown in percent."""
IN_WORDS = {
    "worst_group": "worst-group accuracy on test (%)", "average": "average accuracy on test (%)",
    "adjusted_average": "adjusted average on test (%)", "worst_class": "worst-class accuracy on test (%)",
    "balanced_accuracy": "balanced accuracy on test (%)", "gap": "adjusted average minus worst group (points)",
}  # fmt: skip
WIDE, HIGH, ACROSS = 3.1, 2.7, 3
"""Inches of a panel; panels in a row."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % interval, of seeds and of test rows together."""

    value: float
    low: float
    high: float
    seeds: int


def mean_of(frame: pd.DataFrame, y: str) -> Mean:
    """The mean of a figure over the rows of a frame, which differ in their seeds.

    Seeds share the test rows, so that more of them narrow the one source of error and not the other. Each end lies

        sqrt(t^2 s^2 / k + r^2)

    from the mean: s the standard deviation over k seeds, t the 97.5 % quantile of Student's t with k - 1 degrees of
    freedom (0 for one seed), r the mean distance of that end of the interval of the rows (columns `y_low`, `y_high`; 0
    where the frame has none). A fraction ends at 0 and 1.
    """
    values = frame[y].to_numpy(float)
    mean, seeds = float(values.mean()), half_width(values)
    ends = [frame[f"{y}_{end}"].to_numpy(float) if f"{y}_{end}" in frame else values for end in ENDS]
    rows = [abs(float((end - values).mean())) for end in ends]
    low, high = mean - np.hypot(seeds, rows[0]), mean + np.hypot(seeds, rows[1])
    if y in FRACTIONS:
        low, high = max(low, 0.0), min(high, 1.0)
    return Mean(mean, float(low), float(high), len(values))


def lines(
    frame: pd.DataFrame, x: str, y: str = "worst_group", by: str = "head", panels: str = "", *, xlabel: str = ""
) -> str:
    """Figure `y` against column `x`, a line for each value of `by`, a panel for each of `panels`, as SVG text.

    Rows with the same x, `by` and panel are repetitions: their mean is drawn, with its interval (`mean_of`). Numbers
    stand where they lie, or evenly spaced where the largest is more than 20 times the smallest; words stand evenly.
    """

    def draw() -> Figure:
        from matplotlib.figure import Figure

        titles = list(dict.fromkeys(frame[panels])) if panels else [None]
        names = list(dict.fromkeys(frame[by]))
        places, ticks = _placed(list(dict.fromkeys(frame[x])))
        columns = min(len(titles), ACROSS)
        rows = -(-len(titles) // columns)
        figure = Figure(figsize=(WIDE * columns * (1.5 if columns == 1 else 1), HIGH * rows), layout="tight")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        looks = looks_of(map(str, names))
        scale = 100 if y in PERCENT else 1
        for title, ax in zip(titles, grid.flat, strict=False):
            part = frame if title is None else frame.loc[frame[panels] == title]
            for shift, name in enumerate(names):
                _line(
                    ax, part.loc[part[by] == name], x, y, places, looks[str(name)], scale, shift - (len(names) - 1) / 2
                )
            ax.set_xticks(*ticks)
            ax.grid(color=FAINT)
            ax.set_xlabel(xlabel or x)
            if title is not None:
                ax.set_title(f"{panels} = {short(str(title), 30)}", fontsize=9, fontweight="bold", loc="left")
        for ax in list(grid.flat)[len(titles) :]:
            ax.set_visible(False)
        for ax in grid[:, 0]:
            ax.set_ylabel(IN_WORDS.get(y, plain(y)))
        legend(figure, looks, columns, gap=0.1)
        return figure

    return svg_of(draw)


def _line(
    ax: Any,
    part: pd.DataFrame,
    x: str,
    y: str,
    places: dict[Any, float],
    look: dict[str, Any],
    scale: int,
    shift: float,
) -> None:
    """One line: means joined, their intervals as bars, a little aside so that bars of other lines stay apart."""
    step = min(np.diff(sorted(places.values())), default=1.0)
    means = [(places[value], mean_of(rows, y)) for value, rows in part.groupby(x, sort=False)]
    means.sort(key=lambda pair: pair[0])
    at = [place + 0.03 * step * shift for place, _ in means]
    for place, (_, mean) in zip(at, means, strict=True):
        ax.plot([place, place], [scale * mean.low, scale * mean.high], color=look["color"], lw=1)
    ax.plot(at, [scale * mean.value for _, mean in means], **{**look, "ls": "-", "lw": 1.1, "ms": 5})


def _placed(values: Sequence[Any]) -> tuple[dict[Any, float], tuple[list[float], list[str]]]:
    """{value: its place}, and where ticks stand with what they say."""
    numbers = all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values)
    ordered = sorted(values) if numbers else list(values)
    texts = [f"{v:g}" if numbers else short(str(v), 24) for v in ordered]
    positive = [v for v in ordered if v > 0] if numbers else []
    crowded = numbers and len(ordered) > 1 and _crowded(ordered)
    if not numbers or crowded or (positive and positive[-1] > 20 * positive[0]):
        places = {v: float(i) for i, v in enumerate(ordered)}
    else:
        places = {v: float(v) for v in ordered}
    return places, (list(places.values()), texts)


def _crowded(ordered: Sequence[float]) -> bool:
    """Whether ticks would stand on each other: the nearest two are closer than a twentieth of the whole."""
    return float(np.diff(ordered).min()) < (ordered[-1] - ordered[0]) / 20
