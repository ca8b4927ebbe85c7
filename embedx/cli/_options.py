"""Options that several commands share."""

from __future__ import annotations

import click


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE words as a dictionary."""
    if wrong := [v for v in values if "=" not in v]:
        raise click.BadParameter(f"{wrong[0]!r} is not KEY=VALUE")
    return dict(v.split("=", 1) for v in values)
