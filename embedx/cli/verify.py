"""`embedx verify`: whether a feature cache is whole, and what a file of weights holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.verify import WeightsReport


@click.command("verify")
@click.argument("target")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.safetensors",
              help="Also write the weights as safetensors.")  # fmt: skip
def command(target: str, output: Path | None) -> None:
    """Read TARGET to its end: every damaged block of a feature cache (.h5), or the contents of a file of weights.

    Nothing that a checkpoint holds is executed: only its tensors are read.

    \b
    Examples:
      embedx verify cache/demo/tiny-broad.h5
      embedx verify resnet50_l2_eps3.ckpt -o resnet50_l2_eps3.safetensors
    """
    from embedx import verify

    path = Path(target)
    if not path.is_file():
        raise click.UsageError(f"there is no file {target}; give a feature cache (.h5) or a file of weights")
    if verify.is_cache(path):
        if output is not None:
            raise click.UsageError(f"-o is for files of weights; {target} is a feature cache")
        _cache(path)
        return
    report = verify.inspect_weights(path)
    _weights(report)
    if output is not None:
        verify.convert(report, output)
        click.echo(f"wrote {output}")


def _cache(path: Path) -> None:
    from embedx.errors import CacheError
    from embedx.verify import check_cache

    report = check_cache(path)
    h = report.header
    click.echo(f"backbone    {h.backbone}")
    click.echo(f"rows        {h.start:,} to {h.stop:,} of {h.total:,}{'' if h.complete else ' (a shard)'}")
    click.echo(f"features    {h.dim:,} x {h.dtype}")
    click.echo(f"weights     {h.identity.get('weights', 'unknown')}")
    for fault in report.faults:
        click.echo(f"damaged     {fault}")
    for start, stop in report.damaged:
        click.echo(f"damaged     rows {start:,} to {stop:,}")
    if report.faults or report.damaged:
        raise CacheError(
            f"{path}: {len(report.damaged):,} of {report.blocks:,} blocks and {len(report.faults):,} other parts are "
            "damaged; delete the file and extract again"
        )
    click.echo(f"checksums   all {report.blocks:,} blocks fit, and every other array")


def _weights(report: WeightsReport) -> None:
    opened, numbers = report.opened, sum(t.numel() for t in report.state.values())
    click.echo(f"file        {report.path}, {report.path.stat().st_size:,} bytes")
    click.echo(f"sha-256     {report.sha256}")
    click.echo(f"format      {opened.format}")
    if opened.wrappers:
        click.echo(f"found under {_listed(opened.wrappers)}; beside it: {_listed(opened.beside) or 'nothing'}")
    if opened.prefix:
        click.echo(f"prefix      {opened.prefix}, taken off every name")
    for key in sorted(opened.metadata):
        click.echo(f"metadata    {_listed([key])}: {_listed([opened.metadata[key]])}")
    click.echo(f"tensors     {len(opened.state):,} in the file, {len(report.state):,} of the network")
    click.echo(f"numbers     {numbers:,}" + (f", {report.parameters:,} learnt" if report.parameters else ""))
    click.echo(f"layout      {report.layout}")
    if not report.architectures:
        click.echo(f"names       {_listed(tuple(report.state))}")
    if report.published_as:
        click.echo(f"published   as {report.published_as}")
    click.echo(f"fingerprint {report.fingerprint}")
    if opened.inert:
        click.echo(f"left inert  {_listed(opened.inert, 20)}")


def _listed(names: tuple[str, ...] | list[str], most: int = 6) -> str:
    """Some names, free of what a terminal would obey: they are a stranger's."""
    shown = ["".join(c if c.isprintable() else "?" for c in n[:80]) for n in names[:most]]
    return ", ".join(shown) + (f", … ({len(names):,} in all)" if len(names) > most else "")
