"""What the plots show, before any drawing: runs joined over seeds, in percent, where they go, and names that fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from embedx.evaluation.runs import Run
from embedx.statistics import Interval


@dataclass(frozen=True)
class Spot:
    """One head on one backbone: its runs differ in the seed only."""

    backbone: str
    head: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Bar:
    """In percent: mean over the seeds, their range, and from the lowest to the highest end of their intervals.

    spread  standard deviation over the seeds; None for a single one
    rows    n of each seed
    """

    mean: float
    first: float
    last: float
    low: float
    high: float
    spread: float | None
    rows: tuple[int, ...]


def spots(runs: Sequence[Run]) -> list[Spot]:
    """Runs of the same backbone and head together, both in the order of their first run.

    A head that was chosen by several rules is as many heads, named with the rule.
    """
    rules: dict[str, set[str]] = {run.head: set() for run in runs}
    for run in runs:
        rules[run.head].add(run.selection)
    names = [run.head if len(rules[run.head]) == 1 else f"{run.head}, {run.selection}" for run in runs]
    found: dict[tuple[str, str], list[Run]] = {
        (b, h): [] for b in dict.fromkeys(run.backbone for run in runs) for h in dict.fromkeys(names)
    }
    for run, name in zip(runs, names, strict=True):
        found[run.backbone, name].append(run)
    return [Spot(b, h, tuple(same)) for (b, h), same in found.items() if same]


def bar(spot: Spot, of: Callable[[Run], Interval]) -> Bar:
    return joined([of(run) for run in spot.runs])


def joined(found: Sequence[Interval]) -> Bar:
    """The same figure of several seeds as one."""
    values = [100 * x.value for x in found]
    low, high = 100 * min(x.low for x in found), 100 * max(x.high for x in found)
    spread = stdev(values) if len(values) > 1 else None
    return Bar(fmean(values), min(values), max(values), low, high, spread, tuple(x.n for x in found))


def without_interval(b: Bar) -> Bar:
    return replace(b, low=b.mean, high=b.mean, first=b.mean, last=b.mean)


def group_mean(spot: Spot, name: str) -> float:
    """Accuracy of one group in percent, mean over the seeds; NaN without test rows."""
    found = [g.accuracy for run in spot.runs for g in run.metrics.groups if g.name == name and g.accuracy is not None]
    return 100 * sum(found) / len(found) if found else float("nan")


def limits(bars: Sequence[Bar]) -> tuple[float, float]:
    """Axis limits that hold all intervals, at least 10 points apart, hardly beyond 0..100."""
    low, high = min(b.low for b in bars), max(b.high for b in bars)
    margin = max(0.04 * (high - low), (10 - (high - low)) / 2)
    return max(low - margin, -1.5), min(high + margin, 101.5)


def lay_out(found: Sequence[Spot]) -> tuple[list[float], dict[str, float], float]:
    """Line of every spot, of every backbone's heading, and how many lines there are."""
    rows, headers, line = [], {}, 0.0
    for spot in found:
        if spot.backbone not in headers:
            line += 0.4 * bool(headers)
            headers[spot.backbone] = line
            line += 1
        rows.append(line)
        line += 1
    return rows, headers, line


def count(numbers: Sequence[int]) -> str:
    """`642`, or `133–642` when the numbers differ."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def whose(spot: Spot) -> str:
    """The worst group and its n; the seeds of one head need not agree on it."""
    names = dict.fromkeys(run.metrics.worst_group_name for run in spot.runs)
    text = short(next(iter(names)), 40) if len(names) == 1 else f"{len(names)} groups, by seed"
    text += f", n = {count([run.metrics.worst_group.n for run in spot.runs])}"
    return text if len(spot.runs) == 1 else f"{text}; {len(spot.runs)} seeds"


def headings(names: Sequence[str], runs: Sequence[Run], level: bool) -> list[str]:
    """Group names with their n, in lines for level headings, in one line for slanted ones."""
    rows: dict[str, list[int]] = {name: [] for name in names}
    for run in runs:
        for group in run.metrics.groups:
            rows[group.name].append(group.n)
    if level:
        return ["\n".join([*wrap(name, 15), f"n = {count(rows[name])}"]) for name in names]
    return [f"{short(name, 40)}, n = {count(rows[name])}" for name in names]


def plain(text: str) -> str:
    """Without control characters, direction overrides and half characters, which no document may hold."""
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else "\ufffd" for c in text)


def short(text: str, width: int) -> str:
    """At most `width` characters; the middle goes, names often differ at their ends."""
    text = plain(text)
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - half]}…{text[-half:]}"


def wrap(text: str, width: int, lines: int = 3) -> list[str]:
    """The text in about `lines` lines at most, broken after separators where there are any."""
    found = [""]
    for piece in re.findall(rf"[^ /_.:,-]{{1,{width - 1}}}[ /_.:,-]?|[ /_.:,-]", short(text, lines * width * 3 // 4)):
        if len(found[-1]) + len(piece) > width:
            found.append("")
        found[-1] += piece
    return found


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
