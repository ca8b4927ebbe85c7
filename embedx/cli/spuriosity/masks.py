"""`embedx spuriosity masks`: the result as a dataset, with a soft mask of every labelled feature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import rows_or_share

if TYPE_CHECKING:
    from embedx.workspace import Workspace


@click.command("masks")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose features are annotated.")
@click.option("-k", "most", default="0.05", show_default=True, callback=rows_or_share, metavar="K",
              help="Images of each feature, the most activating ones of the class: a share, or a number.")  # fmt: skip
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train", show_default=True,
              help="Whose images.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["png", "h5"]), default="png", show_default=True,
              help="A PNG file for each mask, or one HDF5 file.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N; auto: a GPU if there is one.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Threads that decode; 0: none.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights, if they were extracted with such.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder with annotations.jsonl. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    most: float,
    split: str,
    form: str,
    device: str,
    workers: int,
    weights: Path | None,
    out: Path | None,
) -> None:
    """Write a soft mask of every annotated feature on the images that show it most, as a dataset for others.

    Needs the images themselves, only those with masks. Writes masks/: the masks, tables of labels, votes, cues and
    rankings, a card in README.md, and croissant.json for programs. What is written already is not computed again, so a
    run that was stopped goes on where it was. The room on the disk is told before the work.

    \b
    Example:
      embedx spuriosity masks planted -b tiny:broad
      embedx spuriosity masks planted -b tiny:broad -k 65 --format h5
    """
    from embedx.cli._output import progress
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.extract.devices import devices_of
    from embedx.spuriosity.masks import MaskSettings, masks
    from embedx.spuriosity.records.mask_set import FOLDER

    analysis = open_analysis(workspace, dataset, backbone, out)
    settings = MaskSettings(most, split, form, workers=workers)
    with progress("masks", "images") as bar:
        made = masks(analysis, settings, device=devices_of(device)[0], weights=weights, progress=bar)
    click.echo(
        f"wrote {analysis.folder / FOLDER}: {made.masks:,} masks of {len(made.pairs):,} features on {made.images:,} "
        f"images, {made.bytes / 1e6:,.1f} MB"
    )
