"""`embedx spuriosity rank`: every image by how strongly it shows the spurious cues of its class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli.spuriosity._options import rule_of_votes

if TYPE_CHECKING:
    from embedx.spuriosity.annotations import Rule
    from embedx.spuriosity.records.ranking import Ranking
    from embedx.workspace import Workspace

SHOWN = 30  # classes in the table


@click.command("rank")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The cached backbone whose features were annotated.")
@click.option("--min-votes", "rule", metavar="RULE", callback=rule_of_votes,
              help="Votes that call a feature spurious: a number, majority, unanimous. Default: the stored labels.",
              )  # fmt: skip
@click.option("--per-split", is_flag=True, help="Mean and deviation from each split's own rows, as the paper's code.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder with annotations.jsonl. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace, dataset: str, backbone: str, rule: Rule | None, per_split: bool, out: Path | None
) -> None:
    """Rank the images of every class by the features that were annotated as spurious for it.

    Writes a table with the id, the label, the split, the spuriosity and the position (0: the least spurious image of
    its class and split) beside the cache.

    \b
    Example:
      embedx spuriosity rank planted -b tiny:broad
    """
    from embedx.cli._output import progress
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.spuriosity.rank import rank, ranking_file

    analysis = open_analysis(workspace, dataset, backbone, out)
    with progress("rank", "blocks") as bar:
        statistics = "per-split" if per_split else "train"
        ranking = rank(analysis, statistics=statistics, min_votes=rule, progress=bar)
    _show(ranking)
    click.echo(f"wrote {ranking_file(analysis)}: {int((ranking.positions >= 0).sum()):,} images ranked")


def _show(ranking: Ranking) -> None:
    """The classes with their cues and the images at either end."""
    from embedx.cli._output import remark, show_table

    rows = [
        [ranking.classes[c], ", ".join(dict.fromkeys(ranking.cues[c])), str(len(features)), *_ends(ranking, c)]
        for c, features in list(ranking.features.items())[:SHOWN]
    ]
    columns = (("class", False), ("cues", False), ("features", True), ("images", True),
               ("least spurious test image", False), ("most spurious test image", False))  # fmt: skip
    spare = ("features", "images", "least spurious test image", "most spurious test image")
    show_table(f"{ranking.dataset}  ranked by {ranking.backbone}", columns, rows, spare=spare)
    if (more := len(ranking.features) - SHOWN) > 0:
        remark(f"note: {more:,} more classes in the table")
    for c, features in ranking.dropped.items():
        remark(f"note: {ranking.classes[c]}: never varies, left out: feature {', '.join(map(str, features))}")
    if left := len(ranking.classes) - len(ranking.features):
        remark(
            f"note: {left:,} of {len(ranking.classes):,} classes have no spurious feature; their images have no rank"
        )


def _ends(ranking: Ranking, label: int) -> tuple[str, str, str]:
    """How many images of a class are ranked, and the least and the most spurious one of the test split."""
    import numpy as np

    from embedx.data.manifest import SPLITS

    rows = np.flatnonzero((ranking.labels == label) & (ranking.positions >= 0))
    test = rows[ranking.splits[rows] == SPLITS.index("test")]
    order = test[np.argsort(ranking.positions[test])]
    least, most = (str(ranking.ids[order[i]]) if len(order) else "–" for i in (0, -1))
    return f"{len(rows):,}", least, most
