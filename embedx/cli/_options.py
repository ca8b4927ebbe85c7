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


def rows_or_share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Rows of a class as a whole number, or a share of them as a fraction up to one half."""
    if value is None:
        return None
    try:
        k = int(value) if value.isdecimal() else float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number of images nor a fraction of them") from error
    if not (0 < k <= 0.5 if isinstance(k, float) else k >= 1):
        raise click.BadParameter(f"{value} is neither a whole number from 1 nor a fraction up to 0.5")
    return k
