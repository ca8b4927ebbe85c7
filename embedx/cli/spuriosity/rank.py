"""`embedx spuriosity rank`: every image by how strongly it shows the spurious cues of its class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.spuriosity.annotations import Rule
    from embedx.workspace import Workspace

SHOWN = 30  # classes in the table


def _rule(ctx: click.Context, param: click.Parameter, value: str | None) -> Rule | None:
    """A rule as the annotations know it."""
    from embedx.spuriosity.annotations.votes import rule_of

    try:
        return None if value is None else rule_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("rank")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The cached backbone whose features were annotated.")
@click.option("--min-votes", "rule", metavar="RULE", callback=_rule,
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
    import numpy as np

    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark, show_table
    from embedx.data.manifest import SPLITS
    from embedx.errors import SpuriosityError
    from embedx.spuriosity import annotations
    from embedx.spuriosity.records.ranking import place, rank, replaced
    from embedx.store import open_cache

    manifest = opened(workspace, dataset, [backbone])
    cache = open_cache(workspace, manifest, backbone)
    file = (out or Path("results") / manifest.name / "spuriosity") / annotations.FILE
    if not file.is_file():
        raise SpuriosityError(f"{file} does not exist: make it with `embedx spuriosity annotate {manifest.name}`")
    said = [a for a in annotations.read(file, remark) if a.feature is not None]  # words rank in their own backbone
    annotations.check(said, cache, manifest)
    cues = annotations.spurious(said, rule)
    named = {(a.class_index, a.feature): a.cue for a in said}
    sources = sorted({a.source for a in said if a.feature in cues.get(a.class_index, ())})
    words = {c: [named.get((c, i)) or f"feature {i}" for i in features] for c, features in cues.items()}
    with progress("rank", "blocks") as bar:
        found = rank(
            manifest, cache, cues, statistics="per-split" if per_split else "train", words=words, sources=sources,
            min_votes=rule, progress=bar,
        )  # fmt: skip
    rows = []
    for c, features in list(found.features.items())[:SHOWN]:
        mine = np.flatnonzero((found.labels == c) & (found.positions >= 0))
        test = mine[found.splits[mine] == SPLITS.index("test")]
        order = test[np.argsort(found.positions[test])]
        ends = [str(found.ids[order[i]]) if len(order) else "–" for i in (0, -1)]
        rows.append(
            [found.classes[c], ", ".join(dict.fromkeys(found.cues[c])), str(len(features)), f"{len(mine):,}", *ends]
        )
    columns = (("class", False), ("cues", False), ("features", True), ("images", True),
               ("least spurious test image", False), ("most spurious test image", False))  # fmt: skip
    spare = ("features", "images", "least spurious test image", "most spurious test image")
    show_table(f"{found.dataset}  ranked by {found.backbone}", columns, rows, spare=spare)
    if (more := len(found.features) - SHOWN) > 0:
        remark(f"note: {more:,} more classes in the table")
    for c, features in found.dropped.items():
        remark(f"note: {found.classes[c]}: never varies, left out: feature {', '.join(map(str, features))}")
    if left := len(manifest.classes) - len(found.features):
        remark(
            f"note: {left:,} of {len(manifest.classes):,} classes have no spurious feature; their images have no rank"
        )
    path = place(workspace, manifest.name, cache.header.backbone)
    if said := replaced(path, manifest, found):
        remark(said)
    found.save(path)
    click.echo(f"wrote {path}: {int(np.count_nonzero(found.positions >= 0)):,} images ranked")
