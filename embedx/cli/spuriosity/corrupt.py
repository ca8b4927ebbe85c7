"""`embedx spuriosity corrupt`: what models lose when the colour, texture or shape of one feature is taken away."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.data.manifest import Manifest
    from embedx.spuriosity.corrupt import Judge
    from embedx.spuriosity.records.sensitivity import Sensitivities
    from embedx.workspace import Workspace

SHOWN = 30  # rows of the table


@click.command("corrupt")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose features `discover` looked into.")
@click.option(
    "--model",
    "models",
    metavar="BACKBONE[=HEAD]",
    multiple=True,
    help="A model to measure, repeatable. HEAD: a name, a saved file, or pretrained. Default: as `gap`.",
)
@click.option("--images", type=click.IntRange(1), default=65, show_default=True,
              help="Most images of each feature: the most activating ones, at most a fifth of the class.")  # fmt: skip
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True,
              help="Whose images.")  # fmt: skip
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
    models: tuple[str, ...],
    images: int,
    split: str,
    soft: bool,
    device: str,
    workers: int,
    out: Path | None,
) -> None:
    """Make the region of each feature grey, blur it, or turn its patches, and measure what models still get right.

    The region comes from the activation maps of BACKBONE; where annotations.jsonl calls the feature spurious, the
    region of the class's core features is left alone. Needs the images. Adds to sensitivity.json.

    \b
    Example:
      embedx spuriosity corrupt planted -b tiny:broad --model tiny:broad --model tiny:narrow=plain
    """
    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark
    from embedx.evaluation.compare import open_cache
    from embedx.extract.devices import devices_of
    from embedx.spuriosity import annotations
    from embedx.spuriosity.corrupt import CorruptionSettings, sensitivities, with_roles
    from embedx.spuriosity.discover import Discovery
    from embedx.spuriosity.features.image_inspection import ImageInspector
    from embedx.spuriosity.records.sensitivity import FILE, Sensitivities

    manifest = opened(workspace, dataset, [backbone])
    folder = out or Path("results") / manifest.name / "spuriosity"
    if (folder / FILE).is_file():
        Sensitivities.load(folder)  # before the work, as the result is to be added to it
    discovery = Discovery.load(folder)
    cache = open_cache(workspace, manifest, backbone)
    discovery.check(cache)
    file = folder / annotations.FILE
    said = annotations.read(file, remark) if file.is_file() else ()
    annotations.check(said, cache, manifest)
    if not said:
        remark(f"note: {file} is not there, so no feature counts as spurious and no core region is left alone")
    pairs, cores = with_roles([(c.label, c.feature) for c in discovery.candidates], said)
    where = devices_of(device)[0]
    lens = ImageInspector.open(workspace, manifest, cache, where)
    options = CorruptionSettings(
        split, images, threshold=None if soft else CorruptionSettings.threshold, workers=workers
    )
    judges = [_judge(workspace, manifest, spec, folder, where) for spec in dict.fromkeys(models or (backbone,))]
    with progress("corrupt", "images") as bar:
        found = sensitivities(lens, pairs, cores, judges, options, bar)
    _show(found)
    click.echo(f"wrote {found.add(folder, remark)}")


def _judge(workspace: Workspace, manifest: Manifest, spec: str, folder: Path, device: str) -> Judge:
    """The model that `BACKBONE[=HEAD]` names."""
    from embedx.cli.spuriosity._defaults import head_of
    from embedx.evaluation.compare import open_cache
    from embedx.spuriosity.corrupt import Judge

    backbone, _, named = spec.partition("=")
    cache = open_cache(workspace, manifest, backbone)
    return Judge.of(manifest, cache, head_of(manifest, cache, named, folder)[0], device)


def _show(found: Sensitivities) -> None:
    """The largest losses, and how far models agree."""
    from embedx.cli._output import INTERVALS, percent, remark, show_table

    ordered = sorted(found.found, key=lambda s: -abs(s.drop.value))
    rows = [
        [s.model, s.class_name, str(s.feature), s.role, s.kind, str(s.drop.n), percent(s.before), percent(s.after),
         f"{100 * s.drop.value:+.1f} ({100 * s.drop.low:+.1f} to {100 * s.drop.high:+.1f})", percent(s.area)]
        for s in ordered[:SHOWN]
    ]  # fmt: skip
    headings = ("model", "class", "feature", "role", "corruption", "n", "before %", "after %", "lost, points",
                "of the image %")  # fmt: skip
    columns = [(h, h not in ("model", "class", "role", "corruption")) for h in headings]
    title = f"{found.dataset} ({found.settings['split']})  features of {found.backbone}"
    caption = f"lost: accuracy before minus after on the same images, {INTERVALS}; the largest first"
    show_table(title, columns, rows, caption=caption, spare=("of the image %", "role", "n"))
    if (more := len(ordered) - SHOWN) > 0:
        remark(f"note: {more:,} more in sensitivity.json")
    rows = []
    for a, b in combinations(found.models, 2):
        for kind in (None, *dict.fromkeys(s.kind for s in found.found)):
            r = found.agreement(a, b, kind)
            value = "–" if r is None else f"{r.value:+.2f} ({r.low:+.2f} to {r.high:+.2f})"
            rows.append([f"{a} and {b}", kind or "all", value])
    if rows:
        columns = (("models", False), ("corruption", False), ("correlation of what they lose", True))
        show_table("Do models lose the same?", columns, rows)
