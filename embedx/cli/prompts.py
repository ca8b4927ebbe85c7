"""`embedx prompts`: prompts through the text tower of a backbone into a cache of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.workspace import Workspace


@click.command("prompts")
@click.argument("backbone", metavar="[NAME=]FAMILY:MODEL")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("-f", "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Prompts in a file, one per line.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights for the backbone, both towers.")
@click.pass_obj
def command(
    workspace: Workspace, backbone: str, prompts: tuple[str, ...], file: Path | None, weights: Path | None
) -> None:
    """Compute the text features of prompts and keep them; those kept already are not computed again.

    They meet image features after the projection that lies in the backbone's feature caches. Neither is normalised.

    \b
    Example:
      embedx prompts clip-vit-b16 "a photo of a waterbird" "a photo of a landbird"
      embedx prompts clip:ViT-B-16/laion2b_s34b_b88k -f prompts.txt
    """
    from embedx.cli._output import remark
    from embedx.errors import ExtractionError
    from embedx.extract.prompts import texts

    asked = list(prompts)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ExtractionError(f"{file} is no UTF-8 text ({error}); save it as UTF-8") from error
        asked += [line.removesuffix("\r") for line in lines if line.strip()]
    if not asked:
        raise click.UsageError("no prompts; write them after the backbone or give a file with -f")
    result = texts(workspace, backbone, asked, weights)
    if any(mark in result.licence.lower() for mark in ("-nc", "noncommercial", "non-commercial")):
        remark(f"note: {backbone} is licensed for non-commercial use only ({result.licence})")
    dim = result.features.shape[1]
    click.echo(f"{result.path}: {result.computed:,} prompts computed, {result.cached:,} cached, {dim:,} features each")
