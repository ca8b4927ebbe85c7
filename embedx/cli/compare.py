"""`embedx compare`: every head on every backbone, a verdict for each, one table and one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import prompts as read_prompts

if TYPE_CHECKING:
    from embedx.evaluation.split import Split
    from embedx.workspace import Workspace


@click.command("compare")
@click.argument("dataset")
@click.option("-b", "--backbone", "backbones", multiple=True, help="Cached backbone, repeatable; default: every one.")
@click.option("--head", "heads", multiple=True,
              help="Head, repeatable, or `all`; with parameters: \"irm partition=groups\". Default: the standard "
              "heads that the data can feed.")  # fmt: skip
@click.option("--select-by", "rule", metavar="RULE",
              help="How settings are chosen on validation: average, adjusted-average, balanced, worst-class, "
              "worst-group, worst-inferred-group, spuriosity-halves. Default: as the head's authors do.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Repeat the heads that draw rows.")
@click.option("--margin", type=click.FloatRange(0, 50), metavar="POINTS",
              help="Points that the plain head may fall behind on the worst group; default: 2.")  # fmt: skip
@click.option("--attributes", is_flag=True, help="Also tell how well each embedding predicts the attributes.")
@click.option("--map", "drawn", is_flag=True, help="Draw a t-SNE map of each embedding into the report.")
@click.option("--prompt", "prompts", metavar="CLASS=TEXT", multiple=True, callback=read_prompts,
              help="Prompt for a class, an attribute's value or a group, repeatable: for heads of text.")  # fmt: skip
@click.option("--drop-leaks", "drop_leaks", is_flag=True,
              help="Leave out of train what is in val or test too, and of val what is in test: images with the same "
              "bytes, and those of one subject where the dataset names a cluster.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1),
              help="Heads at a time, each in a process with its share of the cores and its own copy of the features. "
              "Default: one if the work is small, else one a core, at most 4 and as memory allows.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Default: results/DATASET.")
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbones: tuple[str, ...],
    heads: tuple[str, ...],
    rule: str | None,
    seeds: int,
    margin: float | None,
    attributes: bool,
    drawn: bool,
    prompts: dict[str, tuple[str, ...]],
    drop_leaks: bool,
    jobs: int | None,
    out: Path | None,
) -> None:
    """Compare linear heads on the cached features of DATASET: is a good embedding enough?

    Prints tables and writes report.html, runs.json, runs.csv, table.md, table.tex and plots/*.svg. Finished runs are
    kept in the folder: a comparison that was stopped goes on where it was.

    \b
    Example:
      embedx compare demo
      embedx compare waterbirds -b timm:resnet50.tv_in1k --head plain --head group-balanced --seeds 5
    """
    from embedx import report
    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark, show_comparison
    from embedx.evaluation.compare import compare
    from embedx.evaluation.plan import ComparisonSettings
    from embedx.evaluation.verdict import verdicts
    from embedx.report.tsne import embedding_map
    from embedx.spuriosity.records.ranking import rankings_for

    manifest = opened(workspace, dataset, backbones, all_cached=True)
    folder = out or Path("results") / manifest.name
    rankings = rankings_for(workspace, manifest, backbones, heads, rule)
    settings = ComparisonSettings(
        rule, seeds, jobs, attributes, folder, prompts or None, rankings=rankings, drop_leaks=drop_leaks
    )
    maps: dict[str, str] = {}

    def draw(split: Split) -> None:
        maps[split.backbone] = embedding_map(split)

    with progress("compare", "heads") as bar:
        runs = compare(
            workspace, manifest, backbones, heads, settings, progress=bar, notice=remark,
            with_split=draw if drawn else None,
        )  # fmt: skip
    answers = verdicts(runs) if margin is None else verdicts(runs, margin / 100)
    page = report.publish(runs, folder, verdicts=answers, maps=maps, notice=remark)
    show_comparison(runs, answers)
    click.echo(f"wrote {page}, runs.json, runs.csv, table.md, table.tex and plots/ in {folder}")
