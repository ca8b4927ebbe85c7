"""Options that several steps share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.spuriosity.annotations import Rule


def rule_of_votes(ctx: click.Context, param: click.Parameter, value: str | None) -> Rule | None:
    """A rule as the annotations know it."""
    from embedx.spuriosity.annotations.votes import rule_of

    try:
        return None if value is None else rule_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
