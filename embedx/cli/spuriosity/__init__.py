"""`embedx spuriosity`: rank images by how strongly they show what a classifier should not lean on."""

from __future__ import annotations

import click

from embedx.cli import Commands


class Steps(Commands):
    """The steps of the analysis."""

    package = __name__


@click.group("spuriosity", cls=Steps)
def command() -> None:
    """Find what a classifier leans on, measure it and fix it, without group labels.

    \b
    Example:
      embedx spuriosity discover planted -b tiny:broad
    """
