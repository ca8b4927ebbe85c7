"""`embedx spuriosity gap`: how much worse models do where the cues of a class are absent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import HEAD_OF_MODEL, ModelOption, pairs, rows_or_share
from embedx.cli.spuriosity._figures import accuracy, p_value, points, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedx.data.manifest import Manifest
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.gap import Measurement
    from embedx.spuriosity.measures.across_models import Across
    from embedx.spuriosity.measures.collisions import Collision
    from embedx.spuriosity.measures.gaps import Gaps
    from embedx.workspace import Workspace

SHOWN = 30  # classes in a table
IN_FULL = 3  # models whose classes are shown
ALPHA = 0.05


def peers_of(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    """A number of features, or the name of a set."""
    if not value.isdecimal():
        return value
    if int(value) < 1:
        raise click.BadParameter(f"{value} features, expected one or more")
    return int(value)


@click.command("gap")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone that ranked, see `embedx spuriosity rank`.")
@click.option("--model", "models", type=ModelOption(), multiple=True,
              help=f"A model to measure, repeatable. {HEAD_OF_MODEL} Default: the backbone that ranked.")  # fmt: skip
@click.option("-k", default="0.2", show_default=True, callback=rows_or_share, metavar="K",
              help="Images at each end of a class: a number, or a fraction of the class.")  # fmt: skip
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True,
              help="The images to report on.")  # fmt: skip
@click.option("--control", "controls", metavar="NAME=FILE", multiple=True, callback=pairs,
              help="Another ranking to set the gap beside, such as one by a core feature; repeatable.")  # fmt: skip
@click.option("--among", default="50", show_default=True, callback=peers_of, metavar="SET",
              help="Other features of each class to set its gap among: so many that are nearest in importance, core "
              "for those annotated so, or a CSV file with the columns class and feature.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for gaps.json. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    models: tuple[ModelName, ...],
    k: float,
    split: str,
    controls: dict[str, str],
    among: int | str,
    out: Path | None,
) -> None:
    """Measure the accuracy on the most and on the least spurious images of every class, and the gap between them.

    One backbone ranks, any others can be measured. Models that were measured before by the same ranking stay in
    gaps.json and are compared with those measured now. Every figure has its interval, and stands beside what a random
    ranking would give, and among the gaps of rankings by other features that count as much for the class.

    \b
    Example:
      embedx spuriosity gap planted -b tiny:broad --model tiny:narrow=plain --model tiny:broad=group-balanced
    """
    from embedx.cli._output import progress
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.spuriosity.gap import gap
    from embedx.spuriosity.measures.gaps import FILE

    analysis = open_analysis(workspace, dataset, backbone, out, [name.backbone for name in models])
    others = {name: Path(file) for name, file in controls.items()}
    with progress("gap", "models") as bar:
        measurement = gap(analysis, models, k=k, split=split, controls=others, among=among, progress=bar)
    _show(measurement, analysis.manifest)
    click.echo(f"wrote {analysis.folder / FILE}: {len(measurement.table.models):,} models")


def _show(measurement: Measurement, manifest: Manifest) -> None:
    """Classes and collisions of the first models, all models together, and what to keep in mind."""
    from embedx.cli._output import intervals, remark, show_dependence

    counted = intervals(manifest)
    for gaps, pulls in list(zip(measurement.gaps, measurement.collisions, strict=True))[:IN_FULL]:
        _show_classes(gaps, counted)
        _show_peers(gaps)
        _show_collisions(gaps, pulls, counted)
    if any(g.peers and g.peers.mean and g.peers.mean.p > ALPHA for g in measurement.gaps[:IN_FULL]):
        remark(
            "note: where p among other features is large, features that count as much for the class give gaps like it, "
            "so the gap alone does not tell a cue from any of them; --among core sets it among those of the object"
        )
    _show_models(measurement.table.models, measurement.across, counted)
    if measurement.across is not None:
        _show_across(measurement.across)
    split = measurement.gaps[0].split
    if split != "test":
        how = {"train": "fitted", "val": "chosen"}[split]
        remark(f"note: heads are {how} on {split}, so accuracies and gaps on it are not those on new images")
    show_dependence(manifest, split)
    if lost := max(g.left_out for g in measurement.gaps):
        remark(f"note: {lost:,} rows were left out because they could not be extracted")


def _show_classes(gaps: Gaps, counted: str) -> None:
    """The classes by their gaps; of many the ends."""
    from embedx.cli._output import remark, show_table

    ordered = sorted(gaps.classes, key=lambda c: -c.gap.value)
    shown = ordered if len(ordered) <= SHOWN else [*ordered[: SHOWN // 2], *ordered[-SHOWN // 2 :]]
    rows = [
        [c.name, str(c.n), str(c.k), accuracy(c.high), accuracy(c.low), points(c.gap), span(*c.null), p_value(c.p),
         p_value(c.holm), "–" if c.rho is None else f"{c.rho:+.2f}",
         ", ".join(["few rows"] * c.small + ["ties"] * c.tied)]
        for c in shown
    ]  # fmt: skip
    headings = ("class", "n", "k", "high %", "low %", "gap, points", "random ranking", "p", "p (Holm)", "rho", "note")
    columns = [(h, h not in ("class", "note")) for h in headings]
    title = f"{gaps.dataset} ({gaps.split})  {gaps.backbone}  {gaps.head}, ranked by {gaps.ranker}"
    spare = ("rho", "random ranking", "n", "p")
    show_table(title, columns, rows, caption=f"in brackets: {counted}", spare=spare)
    if len(shown) < len(ordered):
        remark(f"note: the {SHOWN // 2} largest and smallest gaps of {len(ordered):,} classes; gaps.json has all")
    if gaps.single:
        remark(f"note: {len(gaps.single):,} classes have one ranked row in {gaps.split}, so no gap")


def _show_peers(gaps: Gaps) -> None:
    """Where the gaps stand among those of other features that matter to the class."""
    from embedx.cli._output import remark, show_table

    if gaps.peers is None:
        return
    of, standing = gaps.peers, [(c.name, s) for c, s in zip(gaps.classes, gaps.peers.classes, strict=True) if s]
    if of.mean is None:
        remark("note: no class has other features to set its gap among; see --among")
        return
    standing.sort(key=lambda pair: -pair[1].value)
    shown = standing if len(standing) <= SHOWN else [*standing[: SHOWN // 2], *standing[-SHOWN // 2 :]]
    rows = [
        [name, f"{100 * s.value:+.1f}", f"{100 * s.median:+.1f}", span(s.low, s.high), f"{100 * s.below:.0f}",
         p_value(s.p), f"{s.sets:,}"]
        for name, s in [("all: mean", of.mean), *shown]
    ]  # fmt: skip
    headings = ("class", "gap, points", "others: median", "95 % of these", "percentile", "p", "others")
    pool = "features annotated as core" if of.among == "core" else of.among
    what = f"the {of.pool:.0f} features nearest in importance" if of.among == "nearest" else f"{of.pool:.0f} {pool}"
    caption = (
        f"others: rankings by as many features of the class, drawn from {what}; percentile: % of them with a smaller "
        f"gap; share of importance {100 * of.importance:.1f} % a feature here, {100 * of.theirs:.1f} % there"
    )
    show_table(f"{gaps.model} among other features", [(h, h != "class") for h in headings], rows, caption=caption,
               spare=("others", "95 % of these"))  # fmt: skip


def _show_collisions(gaps: Gaps, pulls: Sequence[Collision], counted: str) -> None:
    """The most negative classes and what they are taken for."""
    from embedx.cli._output import show_table

    if not pulls:
        return
    rows = [
        [c.name, points(c.gap), p_value(c.holm), c.other_name, f"{c.taken} of {c.of}", f"{c.low} of {c.of}",
         *(("–",) * 3 if c.pull is None else (str(c.pull.feature), f"{c.pull.towards:+.2f}", f"{c.pull.own:+.2f}"))]
        for c in pulls[:SHOWN]
    ]  # fmt: skip
    headings = ("class", "gap, points", "p (Holm)", "taken for", "most spurious", "least spurious", "feature",
                "adds there", "adds to own")  # fmt: skip
    columns = [(h, h not in ("class", "taken for")) for h in headings]
    show_table(
        f"Negative gaps of {gaps.model}", columns, rows, caption=f"in brackets: {counted}",
        spare=("p (Holm)", "least spurious"),
    )  # fmt: skip


def _show_models(models: Sequence[Gaps], together: Across | None, counted: str) -> None:
    """One line per model, over all classes."""
    from embedx.cli._output import show_table

    above = {} if together is None else {r.model: r.effective for r in together.robustness}
    rows = []
    for g in models:
        m, robust = g.mean, above.get(g.model)
        rows.append([
            g.backbone, g.head, str(m.classes), accuracy(m.high), accuracy(m.low), points(m.gap), span(*m.null),
            p_value(m.p), "–" if g.trend is None else f"{g.trend.rho:+.3f} (p {p_value(g.trend.p)})",
            "–" if robust is None else points(robust),
        ])  # fmt: skip
        rows += [
            ["", f"control: {name}", str(c.classes), accuracy(c.high), accuracy(c.low), points(c.gap),
             span(*c.null), p_value(c.p), "–", "–"]
            for name, c in g.controls.items()
        ]  # fmt: skip
    headings = ["backbone", "head", "classes", "high %", "low %", "gap, points", "random ranking", "p", "rho",
                "effective robustness"]  # fmt: skip
    if not any(r is not None for r in above.values()):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    columns = [(h, h not in ("backbone", "head")) for h in headings]
    show_table(
        "All classes: mean of their gaps", columns, rows, caption=f"in brackets: {counted}",
        spare=("rho", "classes", "random ranking"),
    )  # fmt: skip


def _show_across(together: Across) -> None:
    """What models share, and what they would share on a random ranking."""
    from embedx.cli._output import remark, show_table

    named = {
        "correlation of class gaps between models": together.mean_correlation,
        "variance over classes / over models": together.variance_ratio,
        "share of classes with a negative gap": together.negative,
    }
    rows = [
        [name, f"{x.value:.3f}", f"{x.null:.3f}", f"{x.low:.3f} to {x.high:.3f}", p_value(x.p)]
        for name, x in named.items()
        if x is not None and x.value == x.value  # not of a single class, which has no variance
    ]
    if together.reliability is not None:
        r = together.reliability
        rows.append(["the same, each model on its own half of the images", f"{r.other_model:.3f}", "–", "–", "–"])
        rows.append(["reliability of class gaps, mean over models", f"{r.whole:.3f}", "–", "–", "–"])
    columns = (("over models", False), ("value", True), ("random ranking", True), ("95 % of these", True), ("p", True))
    show_table(f"{len(together.models)} models", columns, rows)
    if together.line is None:
        remark("note: effective robustness needs three models or more, and four images or more at either end")
