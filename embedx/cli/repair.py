"""`embedx repair`: a few images of what a head gets wrong, and what mending it breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedx.cli._options import ModelOption

if TYPE_CHECKING:
    from embedx.evaluation.model import Model, ModelName
    from embedx.repair import GroupRepairSettings, RepairSettings
    from embedx.repair.groups.records import GroupRepairRecord
    from embedx.repair.records import RepairRecord
    from embedx.spuriosity.analysis import Analysis
    from embedx.workspace import Workspace


def listed(kind: Callable[[str], Any], what: str) -> Callable[..., tuple[Any, ...]]:
    """A callback that reads values with commas between them."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Any, ...]:
        try:
            return tuple(kind(word) for word in value.split(",")) if value else ()
        except ValueError as error:
            raise click.BadParameter(f"{value!r} are not {what} with commas between them") from error

    return read


@click.command("repair")
@click.argument("dataset")
@click.option("-b", "--backbone", "name", type=ModelOption(), required=True, metavar="BACKBONE[=HEAD]",
              help="The head to repair: a name, pretrained, or a saved head's file. Default: the backbone's own "
              "classifier, else plain.")  # fmt: skip
@click.option("--groups", "of_groups", is_flag=True, help="Repair the weak groups, in the place of a concept.")
@click.option("--concept", metavar="SPEC",
              help="What it gets wrong: ATTRIBUTE=VALUE (rows of the target), a file of ids, or a folder.")  # fmt: skip
@click.option("--target", metavar="CLASS", help="The class that these images should get.")
@click.option("--shots", callback=listed(int, "whole numbers"), metavar="K,...",
              help="Images of the concept, or of each group, that are fitted on. Default: 1,2,5,10; of groups 25 as "
              "well, as far as there are so many.")  # fmt: skip
@click.option("--classes", callback=listed(int, "whole numbers"), metavar="N,...",
              help="Classes of which one image each is fitted on. Default: none, a quarter, half, all.")  # fmt: skip
@click.option("--lr", "rates", default="0.001,0.01,0.1", show_default=True, callback=listed(float, "numbers"),
              help="Learning rates of full-batch gradient descent.")  # fmt: skip
@click.option("--pull", "pulls", default="none", show_default=True, callback=listed(str, "pulls"),
              help="Towards the original head: none, l2:STRENGTH, kl:STRENGTH.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Repeat all draws.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Default: results/DATASET/repair.")
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    name: ModelName,
    of_groups: bool,
    concept: str | None,
    target: str | None,
    shots: tuple[int, ...],
    classes: tuple[int, ...],
    rates: tuple[float, ...],
    pulls: tuple[str, ...],
    seeds: int,
    out: Path | None,
) -> None:
    """Repair a head on DATASET with a few images of a concept that it gets wrong, and see what that breaks.

    Every combination of shots, classes, learning rates and pulls is a candidate, for each seed. The descent stops on
    validation images of the concept, validation chooses, and test images report: what was gained, what was lost, and
    whether the head learned the class, the concept, or only to say the target more. Writes repair.html, repair.json,
    plots/*.svg and the repaired head, which `embedx predict` takes.

    With --groups it is the groups that are repaired which the head gets wrong on validation more often than others of
    their class, with k images of each group. Writes repair-groups.html and repair-groups.json.

    \b
    Example:
      embedx extract planted -b tiny:broad
      embedx repair planted -b tiny:broad --concept companion=with --target four
      embedx repair planted -b tiny:broad --groups
    """
    from embedx.cli._opening import opened
    from embedx.cli._output import remark
    from embedx.repair import GroupRepairSettings, RepairSettings, Restraint
    from embedx.spuriosity.analysis import Analysis

    restraints = tuple(map(Restraint.parse, pulls))
    if of_groups and (concept or target or classes):
        raise click.UsageError("--groups repairs every weak group: leave out --concept, --target and --classes")
    if not of_groups and not (concept and target):
        raise click.UsageError("name what the head gets wrong with --concept and --target, or ask for --groups")
    manifest = opened(workspace, dataset, [name.backbone])
    analysis = Analysis.open(workspace, manifest, name.backbone, notice=remark)
    (whole,) = analysis.names([name])
    model, folder = analysis.model(whole), out or Path("results") / manifest.name / "repair"
    if of_groups:
        page, file = _groups(analysis, model, GroupRepairSettings(shots, rates, restraints, seeds), folder)
    else:
        settings = RepairSettings(shots or RepairSettings().shots, classes, rates, restraints, seeds)
        page, file = _concept(analysis, model, (concept or "", target or ""), settings, folder)
    click.echo(f"wrote {page}, {page.stem}.json, plots/ and {file.name} in {page.parent}")


def _concept(
    analysis: Analysis, model: Model, what: tuple[str, str], settings: RepairSettings, folder: Path
) -> tuple[Path, Path]:
    """Repair a concept and its target, show and publish it; returns page and head."""
    from embedx.cli._output import progress, remark
    from embedx.repair import publish, repair_head

    with progress("repair", "heads") as bar:
        repaired = repair_head(
            analysis.manifest, analysis.cache, model, *what, settings, progress=bar, notice=remark
        )  # fmt: skip
    files = publish(repaired, folder)
    _show(repaired.record, _drawn(analysis))
    return files


def _groups(analysis: Analysis, model: Model, settings: GroupRepairSettings, folder: Path) -> tuple[Path, Path]:
    """Repair the weak groups, show and publish it; returns page and head."""
    from embedx.cli._output import progress, remark
    from embedx.repair import publish_groups, repair_groups

    with progress("repair", "heads") as bar:
        repaired = repair_groups(analysis.manifest, analysis.cache, model, settings, progress=bar, notice=remark)
    files = publish_groups(repaired, folder)
    _show_groups(repaired.record, _drawn(analysis))
    return files


def _drawn(analysis: Analysis) -> str:
    """What intervals take as independent draws."""
    subjects = analysis.manifest.subjects
    return "rows" if subjects is None else f"subjects ({subjects.column})"


def _show_groups(record: GroupRepairRecord, drawn: str) -> None:
    """The worst group and what else changed, for every k; then the answer."""
    from embedx.cli._output import show_table
    from embedx.evaluation.figures import with_interval
    from embedx.repair.groups.page import compared

    headings = ("head", "worst group %", "adjusted average %", "average %", "rows lost", "gained")
    cells = [
        [name, *(with_interval(i) for i in (worst, adjusted, average)), lost, gained]
        for name, (worst, adjusted, average, lost, gained) in compared(record).items()
    ]
    title = f"{record.dataset}: weak groups {', '.join(record.weak)}; {record.model}"
    caption = f"on test; in brackets 95 % intervals, of the original over {drawn}, of the others over seeds"
    show_table(title, [(h, h != "head") for h in headings], cells, caption=caption)
    click.echo(record.sentence)


def _show(record: RepairRecord, drawn: str) -> None:
    """Before, after and the controls; then the answer."""
    from embedx.cli._output import show_table
    from embedx.evaluation.figures import with_interval
    from embedx.repair.page import compared

    before = record.before
    rows = {"original": (before.concept, before.others, before.said_target, before.top1)} | compared(record)
    headings = ("head", "concept %", "others of the class %", "other rows said to be it %", "top-1, other rows %")
    cells = [[name, *("–" if i is None else with_interval(i) for i in row)] for name, row in rows.items()]
    title = f"{record.dataset}: {record.target} where {record.concept}, {record.model}; {record.chosen}"
    caption = f"on test; in brackets 95 % intervals, of the original over {drawn}, of the others over seeds"
    show_table(title, [(h, h != "head") for h in headings], cells, caption=caption)
    click.echo(record.answer.sentence)
