"""`embedx annotate`: a page in which a person says what features show."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.workspace import Workspace


@click.command("annotate")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The backbone whose features `embedx spuriosity discover` found.")
@click.option("--annotator", metavar="NAME", help="Under which name answers are kept. Default: your login name.")
@click.option("--blind", is_flag=True, help="Hide gaps and what others answered, for everybody.")
@click.option("--read-only", is_flag=True, help="Show the pages and take no answers.")
@click.option("--gold", type=click.Path(dir_okay=False, path_type=Path), metavar="ANNOTATIONS.jsonl",
              help="Answers known beforehand, by which annotators are measured.")  # fmt: skip
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 lets others on the network in.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8642, or the next one that is free.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights, if they were extracted with such.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder with discovery.json. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    annotator: str | None,
    blind: bool,
    read_only: bool,
    gold: Path | None,
    host: str,
    port: int | None,
    weights: Path | None,
    out: Path | None,
) -> None:
    """Open a page in the browser in which you label the features of each class: core, background, separate object.

    Made for the keyboard: 1 to 4 answer, j and k go through the features, n and p through the classes, ? lists all
    keys. Every answer is added to annotations.jsonl before the page says "saved". The page is served from this machine
    to this machine alone; over `ssh -L 8642:localhost:8642`, to yours. Ctrl-C ends it.

    \b
    Example:
      embedx annotate planted -b tiny:broad
    """
    from contextlib import ExitStack

    from embedx.annotation.board import PageSettings
    from embedx.annotation.gold import gold_answers
    from embedx.annotation.serve import Address, in_browser, serve
    from embedx.annotation.work import Place
    from embedx.cli._output import remark
    from embedx.spuriosity.analysis import default_folder

    folder = out or default_folder(dataset)
    known = gold_answers(gold, folder) if gold else {}
    if annotator is not None and not annotator.strip():
        raise click.BadParameter("expected a name", param_hint="--annotator")
    settings = PageSettings((annotator or _login()).strip(), blind, read_only, known, named=annotator is not None)
    with ExitStack() as stack:

        def ready(url: str) -> None:
            opened = sys.stdin.isatty() and stack.enter_context(in_browser(url))
            click.echo(f"{'opened' if opened else 'open'} {url}\nCtrl-C ends it; every answer is saved already")

        serve(
            Place(workspace.path, dataset, backbone, folder, weights), settings, Address(host, port), ready=ready,
            notice=remark,
        )  # fmt: skip


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in containers
        return "me"
