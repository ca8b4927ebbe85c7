"""`embedx show`: what a feature cache holds."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("show")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(file: Path) -> None:
    """Show the header, the provenance and the failed rows of a feature cache; every block is verified.

    \b
    Example:
      embedx show cache/demo/tiny-broad.h5
    """
    from embedx.data.status import Status
    from embedx.errors import CacheError
    from embedx.store import FeatureCache

    cache = FeatureCache.open(file)
    header = cache.header
    rows = (
        f"{header.rows:,}" if header.complete else f"{header.start:,} to {header.stop:,} of {header.total:,} (a shard)"
    )
    click.echo(f"backbone    {header.backbone}")
    click.echo(f"rows        {rows}")
    click.echo(f"features    {header.dim:,} x {header.dtype}")
    for name, array in cache.extras.items():
        click.echo(f"{name:<11} {' x '.join(map(str, array.shape))}")
    for part, values in header.provenance.items():
        if isinstance(values, dict):
            click.echo(part)
            for key, value in sorted(values.items()):
                click.echo(f"  {key:<16}{value if isinstance(value, str) else json.dumps(value)}")
        else:
            click.echo(f"{part:<12}{values}")
    bad = cache.bad_rows()
    click.echo(f"failed rows {len(bad):,}")
    for row in bad:
        click.echo(f"  {cache.ids[row]}: {Status(cache.status[row]).name.lower()}, {cache.reasons.get(int(row), '')}")
    if damaged := cache.damaged():
        ranges = ", ".join(f"{a:,}–{b:,}" for a, b in damaged)
        raise CacheError(f"{file}: rows {ranges} are damaged; delete the file and extract again")
    click.echo("checksums   all fit")
