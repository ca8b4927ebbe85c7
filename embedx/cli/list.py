"""`embedx list`: what there is."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.workspace import Workspace

WORST = (
    "in brackets: worst group of the default minus that of variant=published, on simulated sets with the counts of "
    "Waterbirds, with its standard error"
)


@click.command("list")
@click.argument("what", type=click.Choice(["backbones", "datasets", "heads"]))
@click.argument("pattern", required=False)
@click.pass_obj
def command(workspace: Workspace, what: str, pattern: str | None) -> None:
    """List backbones, datasets or heads. A PATTERN lists short names and single models of the backbones.

    \b
    Example:
      embedx list heads
      embedx list backbones
      embedx list backbones 'timm:resnet50*'
      embedx list backbones '*vit-h14*'
    """
    from embedx import plugins
    from embedx.cli._output import show_table

    if what == "backbones":
        if pattern:
            _models(pattern)
        else:
            _backbones()
        return
    kind = {"datasets": plugins.DATASETS, "heads": plugins.HEADS}[what]
    names = [n for n in plugins.names(kind) if fnmatch(n, pattern or "*")]
    if not names:
        raise click.UsageError(f"nothing matches {pattern!r}; leave the pattern out to see all")
    rows = [(name, plugins.summary(kind, name), *_facts(what, name)) for name in names]
    more = {"datasets": (), "heads": ("needs", "supervision beyond class labels", "default against published")}[what]
    show_table(
        "",
        [(c, False) for c in (kind.noun, "what it is", *more)],
        rows,
        caption=WORST if what == "heads" else "",
    )
    if what == "datasets" and workspace.datasets():
        click.echo(f"prepared in {workspace.path}: {', '.join(workspace.datasets())}")


def _facts(what: str, name: str) -> tuple[str, ...]:
    if what == "heads":
        from embedx.evaluation.departures import departure
        from embedx.evaluation.heads import load_head
        from embedx.probes import supervision_in_words

        head = load_head(name)
        return ", ".join(sorted(head.needs)) or "–", supervision_in_words(head.supervision), str(departure(name) or "–")
    return ()


def _backbones() -> None:
    """The families and the short names, without the libraries that build the networks."""
    from embedx import plugins
    from embedx.cli._output import show_table
    from embedx.extractors import ALIASES

    kind = plugins.BACKBONES
    rows = [(name, plugins.summary(kind, name), ", ".join(_examples(name))) for name in plugins.names(kind)]
    columns = [(c, False) for c in (kind.noun, "what it is", "examples")]
    show_table("", columns, rows, caption="all models of a family: embedx list backbones 'timm:*'")
    rows = [
        (name, a.spec, f"{a.dim:,}", f"{a.parameters / 1e6:,.1f}", str(a.pixels), a.licence, f"{a.download_mb:,}")
        for name, a in ALIASES.items()
    ]
    headings = ("short name", "backbone", "features", "parameters (M)", "pixels", "licence", "download about (MB)")
    columns = [(h, h not in ("short name", "backbone", "licence")) for h in headings]
    spare = ("parameters (M)", "download about (MB)", "pixels", "features")
    show_table("", columns, rows, caption="-nc: for non-commercial use only", spare=spare)


def _examples(family: str) -> list[str]:
    """Three models of a family: those with short names, which cost no import, before what the family itself says."""
    from embedx import plugins
    from embedx.extract.backbones import models_of
    from embedx.extractors import ALIASES

    specs = [a.spec for a in ALIASES.values() if a.spec.startswith(f"{family}:")]
    return specs[:3] or [f"{family}:{m}" for m in models_of(plugins.load(plugins.BACKBONES, family))[:3]]


def _models(pattern: str) -> None:
    from embedx import plugins
    from embedx.extract.backbones import models_of
    from embedx.extractors import ALIASES

    fixed = re.split(r"[*?[]", pattern)[0]  # a family that cannot match need not be imported
    families = [f"{f}:" for f in plugins.names(plugins.BACKBONES)]
    matches = [name for name in ALIASES if fnmatch(name, pattern)]
    matches += [
        spec
        for f in families
        if f.startswith(fixed) or fixed.startswith(f)
        for spec in (f + m for m in models_of(plugins.load(plugins.BACKBONES, f.removesuffix(":"))))
        if fnmatch(spec, pattern)
    ]
    if not matches:
        raise click.UsageError(f"nothing matches {pattern!r}; a pattern looks like 'timm:resnet50*'")
    click.echo("\n".join(matches))
