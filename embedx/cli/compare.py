"""`embedx compare`: every head on every backbone, one table and one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.home import Home


@click.command("compare")
@click.argument("dataset")
@click.option("-b", "--backbone", "backbones", multiple=True, help="Cached backbone, repeatable; default: every one.")
@click.option(
    "--head", "heads", multiple=True, help="Head, repeatable; default: the standard heads that the data can feed."
)
@click.option("--select-by", "rule", metavar="RULE",
              help="How C is chosen on validation: average, adjusted-average, worst-class or worst-group. "
              "Default: worst-group for heads that need groups, else average.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Repeat the heads that draw rows.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Default: results/DATASET.")
@click.pass_obj
def command(
    home: Home,
    dataset: str,
    backbones: tuple[str, ...],
    heads: tuple[str, ...],
    rule: str | None,
    seeds: int,
    out: Path | None,
) -> None:
    """Compare linear heads on the cached features of DATASET.

    Prints a table and writes runs.json, runs.csv, report.html and plots/*.svg.

    \b
    Example:
      embedx compare demo
      embedx compare waterbirds -b timm:resnet50.tv_in1k --head plain --head group-balanced --seeds 5
    """
    from embedx import report, runs
    from embedx.catalog import EDITED, open_prepared
    from embedx.cli._output import progress, remark, show_runs
    from embedx.compare import compare, standard_heads
    from embedx.errors import CacheError

    manifest, edited = open_prepared(home, dataset)
    if edited:
        remark(f"note: {EDITED.format(manifest.name)}")
    chosen = backbones or home.backbones(manifest.name)
    if not chosen:
        raise CacheError(
            f"{manifest.name} has no feature cache yet; make one with `embedx extract {manifest.name} -b BACKBONE`"
        )
    folder = out or Path("results") / manifest.name
    folder.mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be written
    with progress("compare", "runs") as bar:
        results = compare(
            home, manifest, chosen, heads or standard_heads(manifest), rule=rule, seeds=seeds, progress=bar
        )
    runs.save(results, folder)
    page = report.write(results, folder)
    show_runs(f"{manifest.name}: test split, {results[0].rows['test']:,} images", results)
    for backbone in {r.backbone: r for r in results if sum(r.left_out.values())}:
        remark(f"note: {backbone}: rows were left out because they could not be extracted; runs.json says how many")
    click.echo(f"wrote {page}, runs.json, runs.csv and plots/ in {folder}")
