"""`embedx spuriosity corrupt`: what models lose when the colour, texture or shape of one feature is taken away."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import HEAD_OF_MODEL, ModelOption
from embedx.cli.spuriosity._figures import points

if TYPE_CHECKING:
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.records.sensitivity import Sensitivities
    from embedx.workspace import Workspace

SHOWN = 30  # rows of the table


@click.command("corrupt")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose features `discover` looked into.")
@click.option("--model", "models", type=ModelOption(), multiple=True,
              help=f"A model to measure, repeatable. {HEAD_OF_MODEL} Default: the backbone.")  # fmt: skip
@click.option("--images", type=click.IntRange(1), default=65, show_default=True,
              help="Most images of each feature: the most activating ones, at most a fifth of the class.")  # fmt: skip
@click.option("--split", type=click.Choice(["train", "val", "test"]),
              help="Whose images. Default: test; with --masks, those that have masks.")  # fmt: skip
@click.option("--masks", type=click.Path(file_okay=False, path_type=Path),
              help="A folder that `embedx spuriosity masks` wrote, to take the regions from.")  # fmt: skip
@click.option("--soft", is_flag=True, help="Blend by the activation map, instead of changing all where it passes half.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N; auto: a GPU if there is one.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
              help="Threads that decode and corrupt; 0: none.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder with discovery.json. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    models: tuple[ModelName, ...],
    images: int,
    split: str | None,
    masks: Path | None,
    soft: bool,
    device: str,
    workers: int,
    out: Path | None,
) -> None:
    """Make the region of each feature grey, blur it, or turn its patches, and measure what models still get right.

    The same is done to a region of the same shape elsewhere in the image, and what counts is what is lost beyond that.

    The region comes from the activation maps of BACKBONE; where annotations.jsonl calls the feature spurious, the
    region of the class's core features is left alone. Needs the images. Adds to sensitivity.json.

    \b
    Example:
      embedx spuriosity corrupt planted -b tiny:broad --model tiny:broad --model tiny:narrow=plain
    """
    from embedx.cli._output import intervals, progress, show_dependence
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.extract.devices import devices_of
    from embedx.spuriosity.corrupt import corrupt
    from embedx.spuriosity.features.corruptions import CorruptionSettings
    from embedx.spuriosity.records.mask_set import MaskSet
    from embedx.spuriosity.records.sensitivity import FILE

    analysis = open_analysis(workspace, dataset, backbone, out, [name.backbone for name in models])
    threshold = None if soft else CorruptionSettings.threshold
    split = split or ("test" if masks is None else MaskSet.load(masks).split)
    settings = CorruptionSettings(split, images, threshold=threshold, workers=workers)
    with progress("corrupt", "images") as bar:
        losses = corrupt(analysis, models, settings, masks=masks, device=devices_of(device)[0], progress=bar)
    _show(losses, intervals(analysis.manifest))
    show_dependence(analysis.manifest, split)
    click.echo(f"wrote {analysis.folder / FILE}")


def _show(losses: Sensitivities, counted: str) -> None:
    """The largest losses, and how far models agree."""
    from embedx.cli._output import remark, show_table
    from embedx.evaluation.figures import percent

    ordered = sorted(losses.found, key=lambda s: -abs((s.beyond or s.drop).value))
    rows = [
        [s.model, s.class_name, str(s.feature), s.role, s.kind, str(s.drop.n), percent(s.before), percent(s.after),
         points(s.drop), "–" if s.elsewhere is None else points(s.elsewhere),
         "–" if s.beyond is None else points(s.beyond), percent(s.area)]
        for s in ordered[:SHOWN]
    ]  # fmt: skip
    headings = ("model", "class", "feature", "role", "corruption", "n", "before %", "after %", "lost, points",
                "lost elsewhere", "beyond that", "of the image %")  # fmt: skip
    columns = [(h, h not in ("model", "class", "role", "corruption")) for h in headings]
    title = f"{losses.dataset} ({losses.settings['split']})  features of {losses.backbone}"
    caption = (
        "lost: accuracy before minus after on the same images; elsewhere: when a region of the same shape elsewhere is "
        f"corrupted; {counted}; the largest beyond that first"
    )
    show_table(title, columns, rows, caption=caption, spare=("of the image %", "before %", "after %", "role", "n"))
    if (more := len(ordered) - SHOWN) > 0:
        remark(f"note: {more:,} more in sensitivity.json")
    rows = []
    for a, b in combinations(losses.models, 2):
        for kind in (None, *dict.fromkeys(s.kind for s in losses.found)):
            r = losses.agreement(a, b, kind)
            value = "–" if r is None else f"{r.value:+.2f} ({r.low:+.2f} to {r.high:+.2f})"
            rows.append([f"{a} and {b}", kind or "all", value])
    if rows:
        columns = (("models", False), ("corruption", False), ("correlation of what they lose", True))
        show_table("Do models lose the same?", columns, rows)
