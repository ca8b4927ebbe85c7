"""`embedx spuriosity gap`: how much worse models do where the cues of a class are absent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import HEAD_OF_MODEL, ModelOption, pairs, rows_or_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedx.data.manifest import Manifest
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.measures.across_models import Across
    from embedx.spuriosity.measures.collisions import Collision, Evidence
    from embedx.spuriosity.measures.gaps import Gaps
    from embedx.spuriosity.measures.predictions import Predictions
    from embedx.statistics import Interval
    from embedx.workspace import Workspace

SHOWN = 30  # classes in a table
IN_FULL = 3  # models whose classes are shown


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
    out: Path | None,
) -> None:
    """Measure the accuracy on the most and on the least spurious images of every class, and the gap between them.

    One backbone ranks, any others can be measured. Models that were measured before by the same ranking stay in
    gaps.json and are compared with those measured now. Every figure has its interval, and stands beside what a random
    ranking would give.

    \b
    Example:
      embedx spuriosity gap planted -b tiny:broad --model tiny:narrow=plain --model tiny:broad=group-balanced
    """
    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark, show_dependence
    from embedx.cli.spuriosity._defaults import head_of, models_of, ranking_of
    from embedx.spuriosity.measures.collisions import collisions
    from embedx.spuriosity.measures.gaps import FILE, gaps
    from embedx.spuriosity.measures.predictions import predictions
    from embedx.spuriosity.records.gaps import add, readable
    from embedx.spuriosity.records.ranking import Ranking
    from embedx.workspace import slug

    manifest = opened(workspace, dataset, [backbone, *(name.backbone for name in models)])
    folder = out or Path("results") / manifest.name / "spuriosity"
    folder.mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be written
    readable(folder)
    ranking = ranking_of(workspace, manifest, backbone, folder)
    others = {name: Ranking.load(Path(file), manifest) for name, file in controls.items()}
    named = models_of(workspace, manifest, models, backbone, folder)
    answered: list[Predictions] = []
    with progress("gap", "models") as bar:
        for done, (name, cache) in enumerate(named):
            bar(done, len(named), str(name))
            answered.append(predictions(manifest, cache, head_of(manifest, cache, name, folder), split))
        found = [gaps(ranking, a, k, controls=others) for a in answered]
        evidence = None
        if ranking.features and slug(backbone) in workspace.backbones(manifest.name):
            evidence = _evidence(workspace, manifest, backbone, folder)
        collided = [collisions(g, ranking, a, evidence) for g, a in zip(found, answered, strict=True)]
        measured, together = add(folder, ranking, found, collided, remark)
    for one, pulls in zip(found[:IN_FULL], collided, strict=False):
        _show_classes(one)
        _show_collisions(one, pulls)
    _show_models(measured.models, together)
    if together is not None:
        _show_across(together)
    if split != "test":
        how = {"train": "fitted", "val": "chosen"}[split]
        remark(f"note: heads are {how} on {split}, so accuracies and gaps on it are not those on new images")
    show_dependence(manifest, split)
    if lost := max(g.left_out for g in found):
        remark(f"note: {lost:,} rows were left out because they could not be extracted")
    click.echo(f"wrote {folder / FILE}: {len(measured.models):,} models")


def _evidence(workspace: Workspace, manifest: Manifest, backbone: str, folder: Path) -> Evidence:
    """The ranking backbone and its model, to tell which feature pulls."""
    from embedx.cli.spuriosity._defaults import head_of
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.measures.collisions import Evidence
    from embedx.store import open_cache

    cache = open_cache(workspace, manifest, backbone)
    return Evidence(manifest, cache, head_of(manifest, cache, ModelName(backbone), folder))


def _points(x: Interval) -> str:
    return f"{100 * x.value:+.1f} ({100 * x.low:+.1f} to {100 * x.high:+.1f})"


def _accuracy(x: Interval) -> str:
    return f"{100 * x.value:.1f} ({100 * x.low:.1f}–{100 * x.high:.1f})"


def _range(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _show_classes(found: Gaps) -> None:
    """The classes by their gaps; of many the ends."""
    from embedx.cli._output import INTERVALS, remark, show_table

    ordered = sorted(found.classes, key=lambda c: -c.gap.value)
    shown = ordered if len(ordered) <= SHOWN else [*ordered[: SHOWN // 2], *ordered[-SHOWN // 2 :]]
    rows = [
        [c.name, str(c.n), str(c.k), _accuracy(c.high), _accuracy(c.low), _points(c.gap), _range(*c.null), _p(c.p),
         _p(c.holm), "–" if c.rho is None else f"{c.rho:+.2f}", ", ".join(["few rows"] * c.small + ["ties"] * c.tied)]
        for c in shown
    ]  # fmt: skip
    headings = ("class", "n", "k", "high %", "low %", "gap, points", "random ranking", "p", "p (Holm)", "rho", "note")
    columns = [(h, h not in ("class", "note")) for h in headings]
    title = f"{found.dataset} ({found.split})  {found.backbone}  {found.head}, ranked by {found.ranker}"
    spare = ("rho", "random ranking", "n", "p")
    show_table(title, columns, rows, caption=f"in brackets: {INTERVALS}", spare=spare)
    if len(shown) < len(ordered):
        remark(f"note: the {SHOWN // 2} largest and smallest gaps of {len(ordered):,} classes; gaps.json has all")
    if found.single:
        remark(f"note: {len(found.single):,} classes have one ranked row in {found.split}, so no gap")


def _show_collisions(found: Gaps, pulls: Sequence[Collision]) -> None:
    """The most negative classes and what they are taken for."""
    from embedx.cli._output import INTERVALS, show_table

    if not pulls:
        return
    rows = [
        [c.name, _points(c.gap), _p(c.holm), c.other_name, f"{c.taken} of {c.of}", f"{c.low} of {c.of}",
         *(("–",) * 3 if c.pull is None else (str(c.pull.feature), f"{c.pull.towards:+.2f}", f"{c.pull.own:+.2f}"))]
        for c in pulls[:SHOWN]
    ]  # fmt: skip
    headings = ("class", "gap, points", "p (Holm)", "taken for", "most spurious", "least spurious", "feature",
                "adds there", "adds to own")  # fmt: skip
    columns = [(h, h not in ("class", "taken for")) for h in headings]
    show_table(
        f"Negative gaps of {found.model}", columns, rows, caption=f"in brackets: {INTERVALS}",
        spare=("p (Holm)", "least spurious"),
    )  # fmt: skip


def _show_models(found: Sequence[Gaps], together: Across | None) -> None:
    """One line per model, over all classes."""
    from embedx.cli._output import INTERVALS, show_table

    above = {} if together is None else {r.model: r.effective for r in together.robustness}
    rows = []
    for g in found:
        m, robust = g.mean, above.get(g.model)
        rows.append([
            g.backbone, g.head, str(m.classes), _accuracy(m.high), _accuracy(m.low), _points(m.gap), _range(*m.null),
            _p(m.p), "–" if g.trend is None else f"{g.trend.rho:+.3f} (p {_p(g.trend.p)})",
            "–" if robust is None else _points(robust),
        ])  # fmt: skip
        rows += [
            ["", f"control: {name}", str(c.classes), _accuracy(c.high), _accuracy(c.low), _points(c.gap),
             _range(*c.null), _p(c.p), "–", "–"]
            for name, c in g.controls.items()
        ]  # fmt: skip
    headings = ["backbone", "head", "classes", "high %", "low %", "gap, points", "random ranking", "p", "rho",
                "effective robustness"]  # fmt: skip
    if not any(r is not None for r in above.values()):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    columns = [(h, h not in ("backbone", "head")) for h in headings]
    show_table(
        "All classes: mean of their gaps", columns, rows, caption=f"in brackets: {INTERVALS}",
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
        [name, f"{x.value:.3f}", f"{x.null:.3f}", f"{x.low:.3f} to {x.high:.3f}", _p(x.p)]
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
        remark("note: effective robustness needs three models or more")
