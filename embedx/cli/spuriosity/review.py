"""`embedx spuriosity review`: images whose labels may be wrong, or that show several objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import HEAD_OF_MODEL, ModelOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.records.flags import Flag
    from embedx.workspace import Workspace

SHOWN = 20  # rows of the table


@click.command("review")
@click.argument("dataset")
@click.option(
    "-b", "--backbone", required=True, help="The backbone that ranked, whose features `discover` looked into."
)
@click.option("--model", type=ModelOption(),
              help=f"Whose predictions count; one that `gap` measured. {HEAD_OF_MODEL} Default: the backbone that "
              "ranked.")  # fmt: skip
@click.option("--split", "splits", type=click.Choice(["train", "val", "test"]), multiple=True,
              help="The images to look through, repeatable. Default: all.")  # fmt: skip
@click.option("--confident", type=click.FloatRange(0.5, 1, min_open=True), default=0.9, show_default=True,
              help="From what probability of another class on an image of any class is listed.")  # fmt: skip
@click.option("--all-negative", is_flag=True, help="Also classes with a negative gap whose interval includes 0.")
@click.option("--images", type=click.IntRange(0), default=60, show_default=True,
              help="Pictures of either kind in the gallery; 0: none, only the table.")  # fmt: skip
@click.option("--against", type=click.Path(path_type=Path), metavar="FILE",
              help="The labels that images really have: a CSV with the columns id and labels, ReaL's real.json, or a "
              "file of labelerrors.com. Says how many errors the review finds.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights, if they were extracted with such.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the analysis. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    model: ModelName | None,
    splits: tuple[str, ...],
    confident: float,
    all_negative: bool,
    images: int,
    against: Path | None,
    weights: Path | None,
    out: Path | None,
) -> None:
    """List the images to look at again, the most suspicious first.

    These are the most spurious images of the classes that do worse where their cue is present (the 95 % interval of
    the gap lies below 0), and images that the head is sure to be of another class. Writes review.csv and review.html,
    with a preview of each image cropped to the core features of its class.

    With --against it says how well this finds the images that are labelled wrongly, beside a random order and beside
    confident learning, and how many of them show several objects: review-check.json.

    \b
    Example:
      embedx spuriosity review planted -b tiny:broad --split train
    """
    from embedx.cli._output import progress
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.cli.spuriosity._review_check import show_check
    from embedx.data.manifest import SPLITS
    from embedx.extract.devices import devices_of
    from embedx.spuriosity.check_review import check_review, checked_splits
    from embedx.spuriosity.real_labels.tables import read_real_labels
    from embedx.spuriosity.records import review_check
    from embedx.spuriosity.records.flags import FILE
    from embedx.spuriosity.review import PAGE, ReviewSettings, review

    analysis = open_analysis(workspace, dataset, backbone, out, [model.backbone] if model else [])
    settings, device = (
        ReviewSettings(splits or SPLITS, confident, all_negative),
        devices_of("auto")[0] if images else "cpu",
    )
    real = None if against is None else read_real_labels(against, analysis.manifest)
    if real is not None:
        checked_splits(real, analysis.manifest, settings.splits)  # before the work
    with progress("review", "blocks, then images") as bar:
        flags = review(
            analysis, model or "", settings, images=images, device=device, weights=weights, progress=bar
        )  # fmt: skip
    _show(flags, all_negative)
    folder = analysis.folder
    if real is not None:
        with progress("check", "blocks, then folds") as bar:
            show_check(check_review(analysis, flags, real, model or "", settings, progress=bar))
        click.echo(f"wrote {folder / review_check.FILE}")
    click.echo(f"wrote {folder / FILE}: {len(flags):,} images, and {folder / PAGE}")


def _show(flags: Sequence[Flag], every: bool) -> None:
    from embedx.cli._output import remark, show_table
    from embedx.spuriosity.pages.page import share
    from embedx.spuriosity.records.flags import NEGATIVE, SURE, counts

    n = counts(flags)
    rows = [
        [str(f.place), f.reason, f.id, f.split, f"{f.class_name} ({share(f.label_probability)})",
         f"{f.predicted_name} ({share(f.probability)})", "–" if f.spuriosity is None else f"{f.spuriosity:+.2f}",
         f.other_name or "–", "–" if f.feature is None else str(f.feature), f.core_predicted or "–"]
        for reason in (NEGATIVE, SURE) for f in [f for f in flags if f.reason == reason][: SHOWN // 2]
    ]  # fmt: skip
    headings = ("place", "reason", "image", "split", "label (%)", "taken for (%)", "spuriosity", "collides with",
                "feature", "cropped to core")  # fmt: skip
    columns = [(h, h in ("place", "spuriosity", "feature")) for h in headings]
    caption = f"n = {n[NEGATIVE]:,} by a negative gap of the class, {n[SURE]:,} by confidence; review.csv has all"
    show_table("Labels and pictures to review", columns, rows, caption=caption, spare=("feature", "collides with"))
    if not n[NEGATIVE] and not every:
        remark("note: no class has a gap whose 95 % interval lies below 0; --all-negative lists those below 0 at all")
