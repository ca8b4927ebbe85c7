"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from embedx.evaluation.model import ModelName

HEAD_OF_MODEL = (
    "HEAD: a name, pretrained, a recipe of `discover` (convex, paper, code), or a saved head's file. Without it: the "
    "head of `discover`, if it is of that backbone, else the backbone's own classifier, else plain."
)
"""What every `--model BACKBONE[=HEAD]` says in its help."""


class ModelOption(click.ParamType):
    """`BACKBONE[=HEAD]` as a `ModelName`."""

    name = "BACKBONE[=HEAD]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ModelName:
        """The name that the text spells; a text that spells none is a usage error."""
        from embedx.errors import UnknownName
        from embedx.evaluation.model import ModelName

        try:
            return value if isinstance(value, ModelName) else ModelName.parse(str(value))
        except UnknownName as error:
            self.fail(str(error), param, ctx)


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE words as a dictionary."""
    if wrong := [v for v in values if "=" not in v]:
        raise click.BadParameter(f"{wrong[0]!r} is not KEY=VALUE")
    return dict(v.split("=", 1) for v in values)


def prompts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """CLASS=TEXT words as {class: texts}, several texts for one class in the order given."""
    if wrong := [v for v in values if "=" not in v]:
        raise click.BadParameter(f"{wrong[0]!r} is not CLASS=TEXT")
    texts: dict[str, tuple[str, ...]] = {}
    for label, _, text in (v.partition("=") for v in values):
        texts[label] = (*texts.get(label, ()), text)
    return texts


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
