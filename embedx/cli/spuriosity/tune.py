"""`embedx spuriosity tune`: fix a head with the images that show the cues the least, and see what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedx.cli._options import HEAD_OF_MODEL, ModelOption, rows_or_share
from embedx.cli.spuriosity._figures import points

if TYPE_CHECKING:
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.measures.changes import Figure
    from embedx.spuriosity.measures.tuned import Result, Tuning
    from embedx.workspace import Workspace


@click.command("tune")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose ranking to use.")
@click.option("--model", "models", type=ModelOption(), multiple=True,
              help=f"A model to tune, repeatable. {HEAD_OF_MODEL} Default: the backbone that ranks.")  # fmt: skip
@click.option("-k", "k", callback=rows_or_share, metavar="N",
              help="Images to tune on in each class, or a fraction of them; at most half of them. "
              "Default: 0.08, the share of the paper (100 of some 1,300).")  # fmt: skip
@click.option("--trials", type=click.IntRange(1), default=3, show_default=True, help="Repeat what draws images.")
@click.option("--target", type=click.FloatRange(0, 100), default=5, show_default=True,
              help="Stop when the gap is this near to 0, in points.")  # fmt: skip
@click.option("--published", is_flag=True,
              help="As in the paper: 100 images of every class with a ranking and none of others, by gradient descent. "
              "Else classes whose gap is positive on validation, random images of the others to keep them where they "
              "are, and a pull towards the head as it was, weaker and weaker.")  # fmt: skip
@click.option("--second", type=click.Path(dir_okay=False, path_type=Path),
              help="Another ranking to check the tuning by. Default: half of the spurious features of each class, for "
              "a tuning by the other half.")  # fmt: skip
@click.option("--anyway", is_flag=True, help="Write the tuned head also where validation speaks against it.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for tuning.json and the tuned heads. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    models: tuple[ModelName, ...],
    k: float | None,
    trials: int,
    target: float,
    published: bool,
    second: Path | None,
    anyway: bool,
    out: Path | None,
) -> None:
    """Tune a head on the least spurious training images of each class that has a ranking.

    Beside it the same with random, misclassified and the most spurious images. Tuning stops on validation; the tables
    are of the test split. What validation says of the first, without group labels, stands below; where it speaks
    against it, the head is left as it was. Writes tuning.json and the heads, which `embedx predict` applies.

    \b
    Example:
      embedx spuriosity tune planted -b tiny:broad
      embedx spuriosity tune waterbirds -b robust:l2-3 --model clip:vit-b-16 --model clip:vit-l-14=class-balanced
    """
    from embedx.cli._output import intervals, progress, show_dependence
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.spuriosity.measures.tuning_settings import TuningSettings
    from embedx.spuriosity.records.tunings import FILE
    from embedx.spuriosity.tune import tune

    analysis = open_analysis(workspace, dataset, backbone, out, [name.backbone for name in models])
    given: dict[str, Any] = {"trials": trials, "target": target / 100, "keep": not anyway} | (
        {} if k is None else {"k": k}
    )
    settings = TuningSettings.published(**given) if published else TuningSettings(**given)
    with progress("tune", "ways") as bar:
        tuned = tune(analysis, models, settings, second=second, progress=bar)
    for head in tuned:
        show(head.tuning, intervals(analysis.manifest))
    show_dependence(analysis.manifest)
    files = dict.fromkeys(head.file.name for head in tuned)
    click.echo(f"wrote {', '.join(files)} and {FILE} in {analysis.folder}")


def show(tuned: Tuning, counted: str) -> None:
    """Before and after: what each choice of images did to the gap, and what it cost."""
    from embedx.cli._output import remark, show_table
    from embedx.evaluation.figures import interval, percent

    rows = [
        [
            r.rows, f"{r.tuned_on:,}" if r.tuned_on else "–", _figure(r.gap, signed=True), _figure(r.average),
            f"{_figure(r.worst_class)} {r.worst_class_name}", _figure(r.untouched),
            f"{_figure(r.worst_group)} {r.worst_group_name}" if r.worst_group else "–", f"{r.met} of {r.trials}",
        ]
        for r in tuned.results
    ]  # fmt: skip
    unranked, groups = tuned.results[0].untouched is not None, bool(tuned.results[0].worst_group)
    headings = ("tuned on", "images", "gap, points", "average %", "worst class %", "other classes %",
                "worst group %", "target met")  # fmt: skip
    kept = [i for i in range(len(headings)) if (i != 5 or unranked) and (i != 6 or groups)]
    n = tuned.results[0]
    sizes = f"gap: {n.gap.value.n:,} images of {len(tuned.ranked):,} classes, average: {n.average.value.n:,}"
    caption = f"test split, target met: {tuned.stop}; {sizes}; in brackets: {counted}, then the change and its interval"
    show_table(
        f"{tuned.dataset}  {tuned.model}  ranked by {tuned.ranker}, stopped on {tuned.stop} "
        f"({tuned.rows['stop']:,} images) within {100 * tuned.options.target:g} points",
        [(headings[i], i in (1, 2)) for i in kept], [[row[i] for i in kept] for row in rows], caption=caption,
        spare=("other classes %", "worst class %", "images"),
    )  # fmt: skip
    if tuned.set_aside:
        names = ", ".join(tuned.set_aside[:5]) + (", ..." if len(tuned.set_aside) > 5 else "")
        remark(
            f"note: not tuned on, as the gap on {tuned.stop} is not positive: {names} "
            f"({len(tuned.set_aside):,} of {len(tuned.set_aside) + len(tuned.ranked):,} classes with a ranking)"
        )
    if not tuned.results[1].met:
        remark("note: no head met the target on the rows that stop; the one whose gap is nearest to 0 was taken")
    show_evidence(tuned, counted)
    if tuned.recovery:
        aurocs = [[name, str(a.n), f"{a.value:.3f}", f"{a.low:.3f}–{a.high:.3f}"] for name, a in tuned.recovery.items()]
        columns = (("class", False), ("n", True), ("AUROC", True), ("95 % interval", True))
        show_table(
            "Does low spuriosity find the smallest group of the class? n: its training images",
            columns,
            aurocs,
            counted,
        )
    if tuned.rivals:
        lines = [
            [head, supervision, f"{percent(w.value)} ({interval(w)})", f"{name} ({w.n})",
             f"{percent(a.value)} ({interval(a)})", points(gap)]
            for head, supervision, w, name, a, gap in _beside(tuned)
        ]  # fmt: skip
        columns = (("head", False), ("supervision", False), ("worst group %", True), ("which (n)", False),
                   ("average %", True), ("gap, points", True))  # fmt: skip
        show_table("Worst group beside other heads on the same features", columns, lines, f"in brackets: {counted}")


def show_evidence(tuned: Tuning, counted: str) -> None:
    """What validation says of the first choice of images, without group labels, and what follows."""
    from embedx.cli._output import remark, show_table

    e = tuned.evidence
    if e is None:
        remark("note: half of validation has too few images to say whether tuning was worth it")
        return
    rows = [
        [what, f"{100 * (f.value.value - change.value):.1f}", f"{100 * f.value.value:.1f}", points(change),
         f"{f.value.n:,}"]
        for what, f, change in e.lines
    ]  # fmt: skip
    columns = (("on validation", False), ("before", True), ("after", True), ("change", True), ("n", True))
    caption = (
        f"tuned on {tuned.results[1].rows}; each half of the images stops a head that the other half judges; a part: "
        f"an end or the middle of a class by its ranking; {counted}"
    )
    show_table("Was it worth it? What can be seen without group labels", columns, rows, caption=caption)


def _beside(tuned: Tuning) -> list[tuple]:
    """Head, supervision, worst group and whose, average and gap: untouched, tuned, and the others."""
    from embedx.probes import supervision_in_words

    def line(name: str, supervision: str, r: Result) -> tuple:
        assert r.worst_group is not None
        return name, supervision, r.worst_group.value, r.worst_group_name, r.average.value, r.gap.value

    first = [line("untouched", tuned.supervision or "–", tuned.results[0])]
    first += [
        line(
            "low-spuriosity",
            f"{' '.join(filter(None, ['spuriosity ranking', tuned.ranked_by]))}, to fit and to stop",
            tuned.results[1],
        )
    ]
    others = [
        (r.head, supervision_in_words(r.supervision), r.worst_group, r.worst_group_name, r.average, r.gap.value)
        for r in tuned.rivals
    ]
    return first + others


def _figure(x: Figure | None, *, signed: bool = False) -> str:
    """Value, interval, change and its interval, the way they are compared."""
    if x is None:
        return "–"
    from embedx.evaluation.figures import interval, percent

    text = points(x.value) if signed else f"{percent(x.value.value)} ({interval(x.value)})"
    return text if x.change is None else f"{text}, {points(x.change)}"
