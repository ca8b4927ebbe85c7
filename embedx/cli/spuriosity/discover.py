"""`embedx spuriosity discover`: which features a head leans on, class by class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli.spuriosity._figures import points

if TYPE_CHECKING:
    from embedx.data.manifest import Manifest
    from embedx.spuriosity.records.discovery import Candidate, Discovery
    from embedx.workspace import Workspace

SHOWN = 50  # rows of the table


@click.command("discover")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="A cached backbone whose features a person can make sense of.")
@click.option("--recipe", default="convex", show_default=True,
              help="Where the head comes from: convex, pretrained (the backbone's own), paper, code.")  # fmt: skip
@click.option("--group", "grouping", default="label", show_default=True,
              help="The training images that speak for a class: label, predicted, correct.")  # fmt: skip
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Features of each class.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True,
              help="Repeat the recipes that draw, to see whether they find the same features.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    recipe: str,
    grouping: str,
    top: int,
    seeds: int,
    out: Path | None,
) -> None:
    """Fit a head on BACKBONE's features and list, for every class, the features that add most to its logit.

    Writes discovery.json and the head. Look at the features with `embedx spuriosity panels`, and say which of them are
    spurious with `embedx spuriosity annotate`.

    \b
    Example:
      embedx spuriosity discover planted -b tiny:broad
    """
    from embedx.cli._output import progress
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.spuriosity.discover import discover

    analysis = open_analysis(workspace, dataset, backbone, out)
    with progress("discover", "blocks") as bar:
        discovery = discover(analysis, recipe=recipe, grouping=grouping, k=top, seeds=seeds, progress=bar)
    _show(discovery, analysis.manifest, analysis.folder, top)


def _show(discovery: Discovery, manifest: Manifest, folder: Path, top: int) -> None:
    """The features by their importance, and whether other seeds, recipes and groupings find the same."""
    from embedx.cli._output import intervals, remark, show_table
    from embedx.spuriosity.records.discovery import FILE

    columns = (
        ("class (n)", False), ("rank", True), ("feature", True), ("importance", True), ("share %", True),
        ("gap on validation, points", True), ("images a side", True), ("also of", False),
    )  # fmt: skip
    rows = [_row(c, discovery.sizes[c.label], discovery.classes) for c in discovery.candidates[:SHOWN]]
    title = f"{discovery.dataset}  {discovery.backbone}  {discovery.recipe} head: features by their part in the logit"
    caption = (
        f"gap: accuracy where the feature is strongest minus where it is weakest, in the class; {intervals(manifest)}"
    )
    show_table(title, columns, rows, caption=caption, spare=("also of", "images a side", "share %"))
    if (more := len(discovery.candidates) - SHOWN) > 0:
        remark(f"note: {more:,} more in {folder / FILE}")
    kinds = {"seeds": "two seeds", "recipes": "two recipes", "groupings": "two groupings"}
    overlaps = [(kinds[kind], what, f"{v:.2f}") for kind, of in discovery.stability.items() for what, v in of.items()]
    columns = (("between", False), ("which", False), ("overlap", True))
    show_table(f"Are the {top} features of a class the same?", columns, overlaps, caption="mean Jaccard index; 1: all")
    if discovery.fallbacks:
        names = ", ".join(discovery.classes[c] for c in discovery.fallbacks[:5])
        remark(
            f"note: no training image is {discovery.grouping} for {len(discovery.fallbacks):,} classes ({names}); "
            "label was used"
        )
    click.echo(f"wrote {folder / FILE} and {discovery.head}")


def _row(c: Candidate, size: int, classes: tuple[str, ...]) -> tuple[str, ...]:
    first = f"{c.class_name} ({size:,})" if c.rank == 1 else ""
    gap = points(c.gap) if c.gap else "–"
    others = [classes[e] for e in c.elsewhere]
    also = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return (
        first, str(c.rank), str(c.feature), f"{c.importance:.3f}", f"{100 * c.share:.1f}", gap, str(c.n), also,
    )  # fmt: skip
