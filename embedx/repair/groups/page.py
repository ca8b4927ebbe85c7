"""The files of a repair of groups: the record, one page that opens offline, and its plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from embedx.evaluation.figures import percent
from embedx.html import breakable, environment
from embedx.repair.files import facts, over_seeds, p_value, points, style, written
from embedx.repair.groups.plots import plots
from embedx.repair.groups.records import FILE, KIND, GroupOutcome, GroupRepairRecord
from embedx.repair.groups.repair import RepairedGroups
from embedx.repair.groups.settings import GroupSetting
from embedx.report.drawing import inline
from embedx.statistics import Interval

HERE = Path(__file__).parent
PAGE = "repair-groups.html"
COLUMNS: dict[str, Callable[[Sequence[GroupOutcome]], str]] = {
    "k": lambda of: f"{of[0].setting.shots:,}",
    "rate": lambda of: f"{of[0].setting.rate:g}",
    "pull": lambda of: of[0].setting.pull,
    "balanced": lambda of: f"{sum(o.reached for o in of)} of {len(of)}",
    "steps": lambda of: f"{median(o.steps for o in of):,g}",
    "worst on val %": lambda of: percent(fmean(o.worst_val for o in of)),
    "worst group %": lambda of: _mean(of, lambda o: o.figures.worst_group),
    "adjusted average %": lambda of: _mean(of, lambda o: o.figures.adjusted_average),
    "average %": lambda of: _mean(of, lambda o: o.figures.average),
    "lost": lambda of: f"{fmean(o.lost for o in of):,.1f}",
    "gained": lambda of: f"{fmean(o.gained for o in of):,.1f}",
    "KL": lambda of: f"{fmean(o.kl for o in of):.3f}",
    "‖ΔW‖": lambda of: f"{fmean(o.weight for o in of):.3g}",
}
"""The table of all settings: {heading: cell of a setting's outcomes}."""


def publish_groups(repaired: RepairedGroups, folder: Path) -> tuple[Path, Path]:
    """Write `repair-groups.json`, `repair-groups.html`, `plots/*.svg` and the head; returns page and head.

    Each file lands whole or not at all, and takes the place of that of an earlier repair of groups.
    """
    record, drawn = repaired.record, plots(repaired.record)
    file = written(repaired.model, folder, "repaired-groups", drawn, {PAGE: page(record, drawn)})
    KIND.write(folder / FILE, record)
    return folder / PAGE, file


def page(record: GroupRepairRecord, drawn: Mapping[str, str]) -> str:
    """The page as text; drawn: {name: SVG text}."""
    templates = environment(HERE)
    templates.filters |= {"percent": percent, "points": points, "p": p_value, "breakable": breakable}
    return templates.get_template("page.html.j2").render(
        r=record, style=style(), plots={name: inline(svg) for name, svg in drawn.items()}, headings=list(COLUMNS),
        rows=[row(record, setting) for setting in record.grid], groups=list(_groups(record).items()),
        facts=facts(record, {"most steps": f"{record.settings.steps:,}"}),
        compared=list(compared(record).items()),
    )  # fmt: skip


def compared(record: GroupRepairRecord) -> dict[str, tuple[Interval, Interval, Interval, str, str]]:
    """{head: worst group, adjusted average, average, rows lost, gained}: the original, then for each k the chosen."""
    before = record.before
    out = {"original": (before.worst_group, before.adjusted_average, before.average, "–", "–")}
    for one in record.by_shots:
        of = record.of(one.setting)
        f = [o.figures for o in of]
        means = (over_seeds([getattr(x, name) for x in f]) for name in ("worst_group", "adjusted_average", "average"))
        flips = (f"{fmean(values):,.1f}" for values in ([o.lost for o in of], [o.gained for o in of]))
        s = one.setting
        name = f"k = {s.shots:,}, rate {s.rate:g}" + (f", {s.pull}" if s.pull != "none" else "")
        out[name] = (*means, *flips)  # type: ignore[assignment]  three intervals and two texts
    return out


def row(record: GroupRepairRecord, setting: GroupSetting) -> list[str]:
    """The cells of a setting, as `COLUMNS` has them."""
    return [cell(record.of(setting)) for cell in COLUMNS.values()]


def _groups(record: GroupRepairRecord) -> dict[str, tuple[Interval, Interval, bool]]:
    """{group: accuracy before, after with the chosen setting, whether it is weak}."""
    of = record.of(record.chosen)
    return {
        name: (before, over_seeds([o.figures.groups[name] for o in of]), name in record.weak)
        for name, before in record.before.groups.items()
    }


def _mean(of: Sequence[GroupOutcome], value: Callable[[GroupOutcome], Interval]) -> str:
    return percent(fmean(value(o).value for o in of))
