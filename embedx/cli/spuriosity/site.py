"""`embedx spuriosity site`: the whole analysis as pages that open from disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.workspace import Workspace


@click.command("site")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose features `discover` looked into.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the analysis. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(workspace: Workspace, dataset: str, backbone: str, out: Path | None) -> None:
    """Make pages of everything that the analysis has found: open site/index.html in a browser.

    A table of all classes to search, a page for each with its features, pictures, votes and gaps, and the figures over
    all classes. What a step has not made yet is left out and named. The folder site/ stands by itself.

    \b
    Example:
      embedx spuriosity site planted -b tiny:broad
    """
    from embedx.cli._output import progress, remark
    from embedx.spuriosity.analysis import Analysis, default_folder
    from embedx.spuriosity.site import site

    analysis = Analysis(workspace, dataset, backbone, out or default_folder(dataset), remark)
    with progress("site", "classes") as bar:
        index = site(analysis, progress=bar)
    click.echo(f"wrote {index}")
