"""What the commands share: tables to standard output, remarks and progress to standard error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

import click

from embedx.evaluation.figures import with_interval

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

    from embedx.data.manifest import Manifest
    from embedx.evaluation.runs import Run
    from embedx.evaluation.verdict import Verdict
    from embedx.statistics import Interval


INTERVALS = "95 % intervals, rows taken as independent"
"""What stands below tables with intervals that count rows."""


def intervals(manifest: Manifest) -> str:
    """What stands below tables with intervals that count subjects, where the manifest names a cluster."""
    subjects = manifest.subjects
    return INTERVALS if subjects is None else f"95 % intervals, subjects ({subjects.column}) taken as independent"


class Progress(Protocol):
    """Told how many of how many are done, and what comes next."""

    def __call__(self, done: int, total: int, what: str = "") -> None: ...


@contextmanager
def progress(label: str, unit: str) -> Iterator[Progress]:
    """A progress bar on standard error; nothing at all when that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(label, total=None)

        def update(done: int, total: int, what: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{label}  {what}" if what else label)

        yield update


def remark(text: str) -> None:
    """One line for the user on standard error."""
    click.echo(text, err=True)


def show_table(
    title: str,
    columns: Sequence[tuple[str, bool]],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    spare: Sequence[str] = (),
) -> None:
    """A table on standard output; columns are (heading, is a number).

    spare  headings of columns to leave out, first to last, while a terminal is too narrow for the whole table
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def build(left_out: Sequence[str]) -> Table:
        shown = [c for c, (heading, _) in enumerate(columns) if heading not in left_out]
        note = f"too narrow here for: {', '.join(left_out)}" if left_out else ""
        table = Table(
            title=title, caption="; ".join(filter(None, (caption, note))) or None, box=box.SIMPLE_HEAD,
            title_justify="left", caption_justify="left",
        )  # fmt: skip
        for c in shown:
            heading, number = columns[c]
            table.add_column(heading, justify="right" if number else "left", no_wrap=number, overflow="fold")
        for row in rows:
            table.add_row(*(row[c] for c in shown))
        return table

    console = Console(highlight=False, markup=False, emoji=False)
    left_out: list[str] = []
    spare = [heading for heading in spare if heading in dict(columns)]
    if console.is_terminal:
        while (
            len(left_out) < len(spare)
            and console.measure(build(left_out), options=_unbound(console)).maximum > console.width
        ):
            left_out.append(spare[len(left_out)])
        console.print(build(left_out))
        return
    console.width = console.measure(build(()), options=_unbound(console)).maximum
    with console.capture() as captured:
        console.print(build(()))
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _unbound(console: Console) -> ConsoleOptions:
    """Options under which a table takes the width it needs."""
    return console.options.update(width=10_000)


def show_dependence(manifest: Manifest, split: str = "test") -> None:
    """Where a split shows subjects several times, that these count and not rows."""
    from embedx.data.manifest import SPLITS
    from embedx.evaluation.metrics import dependence

    if (subjects := manifest.subjects) is not None:
        rows = manifest.splits == SPLITS.index(split)
        if line := dependence(subjects.column, int(rows.sum()), subjects.count(rows), split):
            remark(f"note: {line}; intervals and p-values count subjects")


def show_comparison(runs: Sequence[Run], verdicts: Sequence[Verdict]) -> None:
    """All that a comparison says: a sentence, the runs, a verdict for each backbone, and what was left out."""
    from embedx.report import Comparison
    from embedx.report.verdicts import limit_text

    comparison = Comparison.of(runs, verdicts)
    if comparison.headline:
        click.echo(f"{comparison.headline}\n")
    show_runs(f"{runs[0].dataset}: test split, {runs[0].rows['test']:,} images", runs)
    show_verdicts(verdicts)
    for limit in comparison.limits:
        click.echo(f"{limit.backbone}: {limit_text(limit)}")
    for stated in comparison.verdicts:
        for line in stated.remarks:
            click.echo(f"{stated.verdict.backbone}: {line}")
    for backbone in dict.fromkeys(run.backbone for run in runs if sum(run.left_out.values())):
        remark(f"note: {backbone}: rows were left out because they could not be extracted; runs.json says how many")


def show_runs(title: str, runs: Sequence[Run]) -> None:
    """The comparison table: worst group first, every figure with its interval, and the supervision it took."""
    from embedx.evaluation.runs import cautions, independent

    headings = (
        "backbone", "head", "seed", "worst group %", "which (n)", "average %", "adjusted average %", "chosen by",
        "tried", "group labels used",
    )  # fmt: skip
    rows, before = [], ""
    for run in runs:
        m = run.metrics
        rows.append([
            run.backbone if run.backbone != before else "", run.head, str(run.seed), with_interval(m.worst_group),
            f"{m.worst_group_name} ({m.worst_group.n})", with_interval(m.average), with_interval(m.adjusted_average),
            run.selection, str(run.configurations), "; ".join(one.brief for one in run.supervision) or "none",
        ])  # fmt: skip
        before = run.backbone
    if not any(run.seed for run in runs):  # a column of zeros says nothing
        headings = headings[:2] + headings[3:]
        rows = [row[:2] + row[3:] for row in rows]
    for attribute in dict.fromkeys(a for run in runs for a in run.attributes):
        headings = (*headings, f"{attribute} told %")
        told = [run.attributes.get(attribute) for run in runs]
        rows = [[*row, with_interval(x) if x else "–"] for row, x in zip(rows, told, strict=True)]
    columns = [(h, h.endswith("%") or h == "tried") for h in headings]
    spare = ("tried", "adjusted average %", "chosen by", "average %", "which (n)", "seed")
    show_table(title, columns, rows, caption=f"in brackets: 95 % intervals, {independent(runs)}", spare=spare)
    for line in cautions(runs):
        remark(f"note: {line}")
    if unconverged := [f"{r.backbone} {r.head}" for r in runs if not r.converged]:
        remark(f"note: not converged to tolerance: {', '.join(dict.fromkeys(unconverged))}")
    for line in dict.fromkeys(line for run in runs for line in _outlying(run)):
        remark(f"note: {line}")


def _outlying(run: Run) -> list[str]:
    """Rows whose features lie far from all others', a line for each split that has some."""
    lines, outlying = [], cast("dict[str, list[str]]", run.inputs.get("outlying", {}))
    for split, ids in outlying.items():
        examples = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        lines.append(
            f"{run.backbone}: {len(ids):,} {split} rows lie more than a million spreads from the others in some "
            f"feature ({examples}); look at these images, or drop their rows from manifest.csv"
        )
    return lines


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """For each backbone: does the plain head do?"""
    if not verdicts:
        return
    rows = [
        [v.backbone, v.rival, f"{100 * v.difference.value:+.1f} ({_signed(v.difference)})",
         _p(v.p_suffices), _p(v.p_not), f"plain {v.verdict}" if v.verdict != "undecided" else v.verdict]
        for v in verdicts
    ]  # fmt: skip
    headings = ("backbone", "gains most with groups", "worst group gained, points", "p suffices", "p not", "verdict")
    columns = [(h, h.startswith(("worst", "p "))) for h in headings]
    caption = (
        f"does the plain head come within {100 * verdicts[0].margin:g} points of the best head with group labels? "
        "p-values allow for the best of several heads, and are corrected over backbones (Holm); "
        f"{verdicts[0].drawn} taken as independent"
    )
    show_table("Is the plain head enough?", columns, rows, caption=caption, spare=("p not", "p suffices"))


def _signed(x: Interval) -> str:
    return f"{100 * x.low:+.1f} to {100 * x.high:+.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
