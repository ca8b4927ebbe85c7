"""Answer of the studies of public datasets: our figures beside the published ones, and a verdict on each backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedx.evaluation.runs import Run
from embedx.report.published import KINDS, Published, counterpart, published, same_test_set
from embedx.report.results import HeadResult, SeedMean, by_backbone, result_of
from embedx.report.text import signed
from embedx.statistics import Interval, difference, wilson
from embedx.statistics.intervals import normal_limit
from embedx.studies.engine.default import ranks_and_verdicts
from embedx.studies.outcome import Answer, CellRuns, Outcome, Section

if TYPE_CHECKING:
    import pandas as pd

RULE = (
    "Intervals at 95 %: ours over the test rows and from the lowest to the highest end of the seeds; a published one "
    "is Wilson's for the smallest test group (of an average: for all rows), widened by 1.96 times the printed spread. "
    "Both are of the same test rows, so the interval of the difference is rather too wide. † could not be traced to "
    "its source."
)


def answer(outcome: Outcome) -> Answer:
    """Are published figures found again, does a plain head reach those of heads with group labels, is it enough?"""
    sections = []
    for cell in outcome.cells:
        rows = published(source_of(cell))
        sections += [_found_again(cell, rows), _reached(cell, rows)]
    sections = [*filter(None, sections), *ranks_and_verdicts(outcome).sections]
    return Answer.of(*sections)


def source_of(cell: CellRuns) -> str:
    """The plug-in that read the dataset, whatever the dataset is called."""
    return cell.manifest.origin.dataset if cell.manifest.origin else cell.manifest.name


def _found_again(cell: CellRuns, rows: Sequence[Published]) -> Section | None:
    """Published heads on frozen features beside the same heads here."""
    results, table, agree = by_backbone(cell.runs), [], []
    alike = same_test_set(source_of(cell), _sizes(cell.runs))
    for row in rows:
        backbone, head = counterpart(row) or ("", "")
        ours = result_of(results.get(backbone, ()), head, groups=False)
        if ours is None:
            continue
        for what, theirs, mine in _figures(row, ours, cell.runs):
            gap = difference(mine, theirs)
            overlap = mine.low <= theirs.high and theirs.low <= mine.high
            agree.append(overlap)
            table.append({
                "features": row.network, "head": row.method, "figure": what, "published, %": _percent(theirs, row),
                "here, %": _percent(mine), "n": mine.n, "difference, points": _points(gap),
                "intervals overlap": ("yes" if overlap else "no") if alike else "not the same test rows",
                "source": row.source + ("" if row.traced else " †"),
            })  # fmt: skip
    if not table:
        return None
    if alike:
        text = f"Of {len(agree)} published figures of heads on frozen features {sum(agree)} agree with ours: the "
        text += "intervals overlap."
    else:
        text = (
            f"The test groups here ({', '.join(f'{n:,}' for n in _sizes(cell.runs))}) are not those of the published "
            "figures: the differences below say nothing of them."
        )
    return Section(f"{cell.manifest.name}: are published figures found again?", text, RULE,
                   tables=(("Heads on frozen features, published and here", _frame(table)),))  # fmt: skip


def _reached(cell: CellRuns, rows: Sequence[Published]) -> Section | None:
    """The plain head on the backbone that validation finds best, beside what networks reached that were trained."""
    rivals = [row for row in rows if row.kind in ("end", "last") and row.worst_group is not None]
    best = _best_plain(cell.runs)
    if not rivals or best is None or not same_test_set(source_of(cell), _sizes(cell.runs)):
        return None
    mine, table = _interval(best.worst_group), []
    above = behind = 0
    for row in rivals:
        theirs = _worst_group(row, cell.runs)
        gap = difference(mine, theirs)
        above, behind = above + (gap.low > 0), behind + (gap.high < 0)
        table.append({
            "what was trained": KINDS[row.kind], "method": f"{row.method}, {row.network}".rstrip(", "),
            "group labels": row.labels or "–", "published, %": _percent(theirs, row),
            "ours minus it, points": _points(gap), "source": row.source + ("" if row.traced else " †"),
        })  # fmt: skip
    text = (
        f"The plain head on {best.backbone}, the backbone that validation finds best for it, has a worst group of "
        f"{_percent(mine)} % (n = {mine.n:,}): above {above} of {len(rivals)} published figures of networks that were "
        f"trained on the dataset, below {behind}, and not told apart from {len(rivals) - above - behind}."
    )
    return Section(f"{cell.manifest.name}: does a plain head on frozen features reach networks that were trained?",
                   text, RULE, tables=(("Trained networks", _frame(table)),))  # fmt: skip


def _best_plain(runs: Sequence[Run]) -> HeadResult | None:
    """Of the plain heads that were chosen without group labels, by their worst group on validation."""
    plain = [r for results in by_backbone(runs).values() if (r := result_of(results, "plain", groups=False))]
    known = [r for r in plain if not r.uses_groups and r.runs[0].validation_worst_group is not None]
    return max(known, key=lambda r: r.runs[0].validation_worst_group or 0.0, default=None)


def _figures(row: Published, ours: HeadResult, runs: Sequence[Run]) -> list[tuple[str, Interval, Interval]]:
    """(its name, published, ours) of worst group and average, as far as published."""
    found = []
    if row.worst_group is not None:
        found.append(("worst group", _worst_group(row, runs), _interval(ours.worst_group)))
    if row.average is not None:
        own = ours.average if row.average_raw else ours.adjusted_average
        name = "average" if row.average_raw else "adjusted average"
        found.append((name, _widened(row.average, row.average_spread, sum(_sizes(runs))), _interval(own)))
    return found


def _worst_group(row: Published, runs: Sequence[Run]) -> Interval:
    assert row.worst_group is not None
    return _widened(row.worst_group, row.worst_group_spread, min(n for n in _sizes(runs) if n))


def _widened(value: float, spread: float | None, n: int) -> Interval:
    """A published figure with the interval of `RULE`."""
    low, high = wilson(value * n, n)
    more = normal_limit() * (spread or 0.0)
    return Interval(value, max(0.0, low - more), min(1.0, high + more), n)


def _sizes(runs: Sequence[Run]) -> list[int]:
    """Rows of each test group."""
    return [group.n for group in runs[0].metrics.groups]


def _interval(mean: SeedMean) -> Interval:
    return Interval(mean.mean / 100, mean.low / 100, mean.high / 100, max(mean.rows))


def _percent(x: Interval, row: Published | None = None) -> str:
    untraced = " †" if row is not None and not row.traced else ""
    return f"{100 * x.value:.1f} ({100 * x.low:.1f}–{100 * x.high:.1f}){untraced}"


def _points(x: Interval) -> str:
    return f"{signed(x.value)} ({signed(x.low)} to {signed(x.high)})"


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)
