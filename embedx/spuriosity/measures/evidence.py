"""Was it worth it to tune? What can be seen of that without group labels, on validation.

A gap can close because the least spurious images are got right, or because the most spurious ones are got wrong; and
what tuning costs, it costs elsewhere. So the heads of a front are taken by halves: the head that one half of the stop
rows would stop at is judged on the other, and the other way round. Then, before and after, on the same rows:

    gap, low, high   of the classes tuned on: the mean gap, and the accuracy at either end, means over classes
    average          of all rows; worst_class: the lowest accuracy of a class; others: of the classes not tuned on
    worst_part       the lowest accuracy of a part: the two ends and the middle of each class that has a ranking, also
                     where it was set aside, and each other class as a whole. It stands for the worst group, whose
                     labels nobody has; a class whose parts would be of fewer than `FEW` rows is one part
    second           the mean gap by another ranking, which did not choose the rows to tune on

It speaks against tuning where

    the gap is no smaller;  the least spurious images are got right no more often;  the worst part or the worst class is
    got right less often;  or the gap by the second ranking is no smaller.

These are comparisons of figures, not tests: a head that is as good as before is left alone. Each has its interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedx.errors import SpuriosityError
from embedx.spuriosity.measures.changes import Figure, share, weighted, worst
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.spuriosity.measures.stopping import Judged, half_of, stopped
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.statistics import Interval

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

FEW = 10
BINS = 10
PARTS = ("the least spurious", "the middle", "the most spurious")


@dataclass(frozen=True)
class OfClass:
    """One class: its accuracy before and after.

    before, after  on all of its rows
    """

    name: str
    n: int
    before: float
    after: float


@dataclass(frozen=True)
class Evidence:
    """Before and after tuning, on validation; see the module.

    gap, low, high    figures of the classes tuned on, after tuning, with their change
    average           of all rows; others: of the classes not tuned on; second: the gap by another ranking
    worst_class       lowest accuracy of a class; worst_class_name: whose it is after tuning
    worst_part        lowest accuracy of a part of a class; worst_part_name: which that is after tuning
    classes           every class
    positions         accuracy by place in the ranking, least spurious first: before, and after
    against           what speaks against tuning, in words; empty where nothing does
    """

    gap: Figure
    low: Figure
    high: Figure
    average: Figure
    worst_class: Figure
    worst_class_name: str
    worst_part: Figure
    worst_part_name: str
    others: Figure | None
    second: Figure | None
    classes: tuple[OfClass, ...]
    positions: tuple[tuple[float, ...], tuple[float, ...]]
    against: tuple[str, ...]

    @property
    def lines(self) -> list[tuple[str, Figure, Interval]]:
        """What there is to show: in words, the figure, and its change."""
        named = [
            ("gap, points", self.gap), ("least spurious images %", self.low), ("most spurious images %", self.high),
            ("average %", self.average), (f"worst class %: {self.worst_class_name}", self.worst_class),
            (f"worst part %: {self.worst_part_name}", self.worst_part), ("other classes %", self.others),
            ("gap by a second ranking, points", self.second),
        ]  # fmt: skip
        return [(what, f, f.change) for what, f in named if f is not None and f.change is not None]


@dataclass(frozen=True, eq=False)
class Check:
    """Another ranking, and what it judges: a front with its codes (trials, settings, n), stopped by `by`."""

    ranking: Ranking
    by: Ranking
    codes: np.ndarray


def evidence(
    stop: Judged,
    ranking: Ranking,
    every: Ranking,
    codes: np.ndarray,
    options: TuningSettings,
    *,
    second: Check | None = None,
) -> Evidence | None:
    """What the stop rows say of a front of heads; None where half of them has no class with two ranked rows.

    codes    (trials, settings, n) of the front on the stop rows, the head before tuning first
    every    the ranking with the classes that are set aside
    second   another ranking to judge by
    """
    try:
        found = _crossed(stop, ranking, codes, options)
    except SpuriosityError:
        return None
    part, names, whose = stop.part, stop.before.classes, stop.part.subjects
    before, hits = stop.hits(stop.untouched)[0].astype(float), stop.hits(found).astype(float)
    ends = [[(rows, abs(w)) for rows, w in stop.strata if (w > 0) == high] for high in (False, True)]
    average = share(hits, before, np.arange(len(part)), whose)
    assert average is not None
    lowest, label = worst(hits, before, part.y, whose)
    parts, of_part = _parts(stop, every, options.measured)
    weakest, at = worst(hits, before, parts, whose)
    by_second = None if second is None else _by(second, stop, options)
    after = [replace(stop.before, predicted=c) for c in found]
    shown = tuple(
        tuple(RankedRows.of(ranking, heads).by_position(BINS).mean(axis=(0, 1)).tolist())
        for heads in ([stop.before], after)
    )
    classes = tuple(
        OfClass(names[c], len(rows), float(before[rows].mean()), float(hits[:, rows].mean()))
        for c in range(len(names))
        if len(rows := np.flatnonzero(part.y == c))
    )
    others = share(hits, before, np.flatnonzero(~np.isin(part.y, stop.classes)), whose)
    facts = Evidence(
        gap=weighted(hits, before, stop.strata, whose), low=weighted(hits, before, ends[0], whose),
        high=weighted(hits, before, ends[1], whose), average=average, worst_class=lowest, worst_class_name=names[label],
        worst_part=weakest, worst_part_name=of_part[at], others=others, second=by_second, classes=classes,
        positions=(shown[0], shown[1]), against=(),
    )  # fmt: skip
    return replace(facts, against=_against(facts))


def _crossed(stop: Judged, ranking: Ranking, codes: np.ndarray, options: TuningSettings) -> np.ndarray:
    """(trials, n) codes: on each half of the rows those of the head that the other half stops at."""
    first, out = half_of(stop.part), np.empty((len(codes), codes.shape[2]), dtype=codes.dtype)
    for mine in (first, ~first):
        rows = np.flatnonzero(mine)
        before = stop.before
        half = Judged.of(
            ranking, stop.part.take(rows),
            replace(before, ids=before.ids[rows], y=before.y[rows], predicted=before.predicted[rows]),
            options.measured,
        )  # fmt: skip
        for t, of_trial in enumerate(codes):
            chosen, _ = stopped(half.gaps(half.hits(of_trial[:, rows])), options.target)
            out[t, ~mine] = of_trial[chosen, ~mine]
    return out


def _by(second: Check, stop: Judged, options: TuningSettings) -> Figure | None:
    """The mean gap by a second ranking; None where it ranks no class that is tuned on."""
    other = second.ranking
    limited = replace(other, scores=np.where(np.isin(other.labels, stop.classes), other.scores, np.nan))
    try:
        judged = Judged.of(limited, stop.part, stop.before, options.measured)
        found = _crossed(stop, second.by, second.codes, options)
    except SpuriosityError:
        return None
    before = stop.hits(stop.untouched)[0].astype(float)
    return weighted(stop.hits(found).astype(float), before, judged.strata, stop.part.subjects)


def _parts(stop: Judged, every: Ranking, measured: float) -> tuple[np.ndarray, dict[int, str]]:
    """(n,) part of every stop row, and what the parts are called."""
    order = RankedRows.of(every, [stop.before])
    parts, names = stop.part.y.astype(np.int64) * len(PARTS), {}
    for label, name in enumerate(stop.before.classes):
        names[label * len(PARTS)] = name
    rows = np.searchsorted(stop.part.ids, order.ids)
    for label, start, size, k in zip(order.labels, order.starts, order.sizes, order.places(measured), strict=True):
        if k < FEW:
            continue
        first = int(label) * len(PARTS)
        for i, at in enumerate((slice(0, k), slice(k, size - k), slice(size - k, size))):
            parts[rows[start : start + size][at]] = first + i
            names[first + i] = f"{stop.before.classes[int(label)]}, {PARTS[i]}"
    return parts, names


def _against(e: Evidence) -> tuple[str, ...]:
    """What speaks against tuning."""

    def change(figure: Figure | None) -> float:
        return 0.0 if figure is None or figure.change is None else figure.change.value

    def told(what: str, figure: Figure) -> str:
        after = 100 * figure.value.value
        return f"{what} ({after - 100 * change(figure):.1f} to {after:.1f})"

    def no_smaller(figure: Figure) -> bool:
        after = figure.value.value
        return abs(after) >= abs(after - change(figure)) - 1e-12

    reasons = []
    if no_smaller(e.gap):
        reasons.append(told("the gap does not close on images that did not choose the head", e.gap))
    if change(e.low) <= 0:
        reasons.append(told("the least spurious images are got right no more often", e.low))
    if change(e.worst_part) < -1e-12:
        reasons.append(told(f"the worst part of a class, {e.worst_part_name}, is got right less often", e.worst_part))
    if change(e.worst_class) < -1e-12:
        reasons.append(told(f"the worst class, {e.worst_class_name}, is got right less often", e.worst_class))
    if e.second is not None and no_smaller(e.second):
        reasons.append(told("the gap by a second ranking does not close", e.second))
    return tuple(reasons)
