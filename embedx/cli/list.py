"""`embedx list`: what there is."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.home import Home


@click.command("list")
@click.argument("what", type=click.Choice(["backbones", "datasets", "heads"]))
@click.argument("pattern", required=False)
@click.pass_obj
def command(home: Home, what: str, pattern: str | None) -> None:
    """List backbones, datasets or heads. A PATTERN lists the single models of the backbones.

    \b
    Example:
      embedx list heads
      embedx list backbones
      embedx list backbones 'timm:resnet50*'
    """
    from embedx import plugins
    from embedx.cli._output import show_table

    kind = {"backbones": plugins.BACKBONES, "datasets": plugins.DATASETS, "heads": plugins.HEADS}[what]
    if what == "backbones" and pattern:
        _models(pattern)
        return
    names = [n for n in plugins.names(kind) if fnmatch(n, pattern or "*")]
    if not names:
        raise click.UsageError(f"nothing matches {pattern!r}; leave the pattern out to see all")
    rows = [(name, plugins.summary(kind, name), *_facts(what, name)) for name in names]
    more = {"backbones": ("models",), "datasets": (), "heads": ("needs", "supervision beyond class labels")}[what]
    show_table("", [(c, False) for c in (kind.noun, "what it is", *more)], rows)
    if what == "datasets" and home.datasets():
        click.echo(f"prepared in {home.path}: {', '.join(home.datasets())}")


def _facts(what: str, name: str) -> tuple[str, ...]:
    from embedx import plugins

    if what == "heads":
        from embedx.compare import load_head

        head = load_head(name)
        return ", ".join(sorted(head.needs)) or "–", head.supervision
    if what == "backbones":
        models = plugins.load(plugins.BACKBONES, name).models()
        shown = ", ".join(f"{name}:{m}" for m in models[:3])
        return (shown + (f", … ({len(models):,}; list them with '{name}:*')" if len(models) > 3 else ""),)
    return ()


def _models(pattern: str) -> None:
    from embedx import plugins

    family = pattern.partition(":")[0]
    families = [family] if family in plugins.names(plugins.BACKBONES) else plugins.names(plugins.BACKBONES)
    found = [
        spec
        for f in families
        for spec in (f"{f}:{m}" for m in plugins.load(plugins.BACKBONES, f).models())
        if fnmatch(spec, pattern)
    ]
    if not found:
        raise click.UsageError(f"nothing matches {pattern!r}; a pattern looks like 'timm:resnet50*'")
    click.echo("\n".join(found))
