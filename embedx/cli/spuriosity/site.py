"""`embedx spuriosity site`: the whole analysis as pages that open from disk."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("site")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose features `discover` looked into.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the analysis. Default: results/DATASET/spuriosity.")  # fmt: skip
def command(dataset: str, backbone: str, out: Path | None) -> None:
    """Make pages of everything that the analysis has found: open site/index.html in a browser.

    A table of all classes to search, a page for each with its features, pictures, votes and gaps, and the figures over
    all classes. What a step has not made yet is left out and named. The folder site/ stands by itself.

    \b
    Example:
      embedx spuriosity site planted -b tiny:broad
    """
    from embedx.cli._output import progress, remark
    from embedx.spuriosity.site import build
    from embedx.workspace import slug

    folder = out or Path("results") / slug(dataset) / "spuriosity"
    with progress("site", "classes") as bar:
        index = build(folder, dataset, backbone, remark, bar)
    click.echo(f"wrote {index}")
