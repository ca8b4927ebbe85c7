"""`embedx probe`: one head on one backbone, group by group."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.home import Home


@click.command("probe")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="A cached backbone.")
@click.option("--head", default="plain", show_default=True, help="See `embedx list heads`.")
@click.option("--select-by", "rule", metavar="RULE",
              help="How C is chosen on validation: average, adjusted-average, worst-class or worst-group. "
              "Default: worst-group for heads that need groups, else average.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Repeat a head that draws rows.")
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for runs.json and runs.csv."
)
@click.pass_obj
def command(home: Home, dataset: str, backbone: str, head: str, rule: str | None, seeds: int, out: Path | None) -> None:
    """Fit one linear head on the cached features of one backbone; report every group of the test split.

    \b
    Example:
      embedx probe demo -b tiny:broad --head group-balanced
    """
    from embedx import runs
    from embedx.catalog import EDITED, open_prepared
    from embedx.cli._output import interval, percent, progress, remark, show_runs, show_table
    from embedx.compare import compare

    manifest, edited = open_prepared(home, dataset)
    if edited:
        remark(f"note: {EDITED.format(manifest.name)}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be written
    with progress("probe", "runs") as bar:
        results = compare(home, manifest, [backbone], [head], rule=rule, seeds=seeds, progress=bar)
    for run in results:
        rows = [(g.name, str(g.n), str(g.correct), percent(g.accuracy), interval(g)) for g in run.metrics.groups]
        title = f"{run.dataset}  {run.backbone}  {run.head}  C = {run.parameters['C']:g}" + f"  seed {run.seed}" * (
            seeds > 1
        )
        columns = (("test group", False), ("n", True), ("correct", True), ("accuracy %", True), ("95 % interval", True))
        show_table(title, columns, rows)
    show_runs("Summary", results)
    if lost := sum(results[0].left_out.values()):
        remark(f"note: {lost:,} rows were left out because they could not be extracted")
    if out is not None:
        runs.save(results, out)
        click.echo(f"wrote {out / 'runs.json'} and {out / 'runs.csv'}")
