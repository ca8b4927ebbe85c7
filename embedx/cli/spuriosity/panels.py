"""`embedx spuriosity panels`: for each class and feature the images that show it most and least, with maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.workspace import Workspace


@click.command("panels")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose features `discover` looked into.")
@click.option("--images", type=click.IntRange(1), default=5, show_default=True, help="Images at either end of a class.")
@click.option("--attack", is_flag=True, help="Also amplify each feature in the images that show it most; takes longer.")
@click.option("--upper", type=click.FloatRange(0, 0.5, min_open=True), metavar="SHARE",
              help="Also draw images from further down this share of the class, such as 0.2: `embedx annotate` asks "
              "whether their maps show the same.")  # fmt: skip
@click.option("--radius", type=click.FloatRange(0, min_open=True),
              help="How far the amplified image may be from its original: Euclidean norm over pixel values of 0..1. "
              "Default: no limit.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N; auto: a GPU if there is one.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Threads that decode; 0: none.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights, if they were extracted with such.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder with discovery.json. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    images: int,
    attack: bool,
    upper: float | None,
    radius: float | None,
    device: str,
    workers: int,
    weights: Path | None,
    out: Path | None,
) -> None:
    """Draw a panel for every class and feature that `embedx spuriosity discover` found.

    Needs the images themselves, only those that are shown. Writes panels/ and panels.json; what is drawn already is not
    drawn again, so a run that was stopped goes on where it was. In an overlay the line runs where the map passes half
    its largest value; the number is the activation.

    \b
    Example:
      embedx spuriosity panels planted -b tiny:broad --attack
    """
    if radius is not None and not attack:
        raise click.UsageError("--radius limits --attack; give both")
    from embedx.cli._output import progress
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.extract.devices import devices_of
    from embedx.spuriosity.panels import FOLDER, PanelSettings, panels

    analysis = open_analysis(workspace, dataset, backbone, out)
    settings = PanelSettings(images, attacks=attack, radius=radius, upper=upper, workers=workers)
    with progress("panels", "images") as bar:
        drawn = panels(analysis, settings, device=devices_of(device)[0], weights=weights, progress=bar)
    shown = len({shot.id for panel in drawn.panels for shot in panel.shots})
    click.echo(f"wrote panels.json and {analysis.folder / FOLDER}: {len(drawn.panels):,} panels of {shown:,} images")
