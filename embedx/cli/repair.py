"""`embedx repair`: a few images of what a head gets wrong, and what mending it breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedx.cli._options import ModelOption

if TYPE_CHECKING:
    from embedx.evaluation.model import ModelName
    from embedx.repair.records import RepairRecord
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
@click.option("--concept", required=True, metavar="SPEC",
              help="What it gets wrong: ATTRIBUTE=VALUE (rows of the target), a file of ids, or a folder.")  # fmt: skip
@click.option("--target", required=True, metavar="CLASS", help="The class that these images should get.")
@click.option("--shots", default="1,2,5,10", show_default=True, callback=listed(int, "whole numbers"),
              help="Images of the concept that are fitted on.")  # fmt: skip
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
    concept: str,
    target: str,
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

    \b
    Example:
      embedx extract planted -b tiny:broad
      embedx repair planted -b tiny:broad --concept companion=with --target four
    """
    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark
    from embedx.repair import RepairSettings, Restraint, publish, repair_head
    from embedx.spuriosity.analysis import Analysis

    settings = RepairSettings(shots, classes, rates, tuple(map(Restraint.parse, pulls)), seeds)
    manifest = opened(workspace, dataset, [name.backbone])
    analysis = Analysis.open(workspace, manifest, name.backbone, notice=remark)
    (whole,) = analysis.names([name])
    model = analysis.model(whole)
    with progress("repair", "heads") as bar:
        repaired = repair_head(
            manifest, analysis.cache, model, concept, target, settings, progress=bar, notice=remark
        )  # fmt: skip
    page, file = publish(repaired, out or Path("results") / manifest.name / "repair")
    _show(repaired.record)
    click.echo(f"wrote {page}, repair.json, plots/ and {file.name} in {page.parent}")


def _show(record: RepairRecord) -> None:
    """Before, after and the controls; then the answer."""
    from embedx.cli._output import show_table
    from embedx.evaluation.figures import with_interval
    from embedx.repair.page import compared

    before = record.before
    rows = {"original": (before.concept, before.others, before.said_target, before.top1)} | compared(record)
    headings = ("head", "concept %", "others of the class %", "other rows said to be it %", "top-1, other rows %")
    cells = [[name, *("–" if i is None else with_interval(i) for i in row)] for name, row in rows.items()]
    title = f"{record.dataset}: {record.target} where {record.concept}, {record.model}; {record.chosen}"
    caption = "on test; in brackets 95 % intervals, of the original over rows, of the others over seeds"
    show_table(title, [(h, h != "head") for h in headings], cells, caption=caption)
    click.echo(record.answer.sentence)
