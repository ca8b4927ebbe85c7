"""Options that several commands share."""

from __future__ import annotations

import click


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE words as a dictionary."""
    if wrong := [v for v in values if "=" not in v]:
        raise click.BadParameter(f"{wrong[0]!r} is not KEY=VALUE")
    return dict(v.split("=", 1) for v in values)


def prompts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """CLASS=TEXT words as {class: texts}, several texts for one class in the order given."""
    if wrong := [v for v in values if "=" not in v]:
        raise click.BadParameter(f"{wrong[0]!r} is not CLASS=TEXT")
    found: dict[str, tuple[str, ...]] = {}
    for label, _, text in (v.partition("=") for v in values):
        found[label] = (*found.get(label, ()), text)
    return found
