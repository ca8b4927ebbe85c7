"""`embedx spuriosity review`: images whose labels may be wrong, or that show several objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.data.manifest import Manifest
    from embedx.spuriosity.measures.predictions import Linear
    from embedx.spuriosity.review import Flag
    from embedx.workspace import Workspace

SHOWN = 20  # rows of the table


@click.command("review")
@click.argument("dataset")
@click.option(
    "-b", "--backbone", required=True, help="The backbone that ranked, whose features `discover` looked into."
)
@click.option("--model", metavar="BACKBONE[=HEAD]",
              help="Whose answers count; one that `gap` measured. Default: the ranking backbone, as `gap`.",
              )  # fmt: skip
@click.option("--split", "splits", type=click.Choice(["train", "val", "test"]), multiple=True,
              help="The images to look through, repeatable. Default: all.")  # fmt: skip
@click.option("--confident", type=click.FloatRange(0.5, 1, min_open=True), default=0.9, show_default=True,
              help="From what probability of another class on an image of any class is listed.")  # fmt: skip
@click.option("--all-negative", is_flag=True, help="Also classes with a negative gap whose interval includes 0.")
@click.option("--images", type=click.IntRange(0), default=60, show_default=True,
              help="Pictures of either kind in the gallery; 0: none, only the table.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights, if they were extracted with such.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the analysis. Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    model: str | None,
    splits: tuple[str, ...],
    confident: float,
    all_negative: bool,
    images: int,
    weights: Path | None,
    out: Path | None,
) -> None:
    """List the images to look at again, the most suspicious first.

    These are the most spurious images of the classes that do worse where their cue is present (the 95 % interval of
    the gap lies below 0), and images that the head is sure to be of another class. Writes review.csv and review.html,
    with a preview of each image cropped to the core features of its class.

    \b
    Example:
      embedx spuriosity review planted -b tiny:broad --split train
    """
    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark
    from embedx.cli.spuriosity._defaults import head_of, ranking_of
    from embedx.data.manifest import SPLITS
    from embedx.evaluation.compare import open_cache
    from embedx.evaluation.records import alone
    from embedx.spuriosity import review
    from embedx.spuriosity.measures.predictions import linear
    from embedx.spuriosity.pages.previews import tidy
    from embedx.spuriosity.records.gaps import Measured

    manifest = opened(workspace, dataset, [backbone, *([model] if model else [])])
    folder = out or Path("results") / manifest.name / "spuriosity"
    review.require(folder)
    measured = Measured.load(folder)
    ranking = ranking_of(workspace, manifest, backbone, folder)
    measured.check(ranking, folder)
    name, _, named = (model or backbone).partition("=")
    cache = open_cache(workspace, manifest, name)
    head, known = head_of(manifest, cache, named, folder)
    found, pulls = measured.of(f"{cache.header.backbone}={known}")
    weigh = linear(manifest, cache, head)
    with progress("review", "blocks") as bar:
        options = review.ReviewSettings(splits or SPLITS, confident, all_negative)
        flags = review.review(manifest, cache, weigh, ranking, found, pulls, options, bar)
    with alone(folder / review.FILE, remark):
        if images and flags:
            own = weigh if cache.path == open_cache(workspace, manifest, backbone).path else None
            flags = _drawn(workspace, manifest, (backbone, weights), folder, flags, images, own)
        path = review.save(folder, flags, remark)
        page = review.gallery(folder, flags, manifest.name, backbone)
        tidy(folder, flags)
    _show(flags, all_negative)
    click.echo(f"wrote {path}: {len(flags):,} images, and {page}")


def _drawn(
    workspace: Workspace,
    manifest: Manifest,
    ranker: tuple[str, Path | None],
    folder: Path,
    flags: list[Flag],
    images: int,
    head: Linear | None,
) -> list[Flag]:
    """The flags with pictures, by the features of the backbone that ranked, given with its weights."""
    from embedx.cli._output import progress, remark
    from embedx.evaluation.compare import open_cache
    from embedx.extract.devices import devices_of
    from embedx.spuriosity import annotations
    from embedx.spuriosity.analysis import core_features
    from embedx.spuriosity.discover import Discovery
    from embedx.spuriosity.features.image_inspection import ImageInspector
    from embedx.spuriosity.pages.previews import draw

    discovery, cache = Discovery.load(folder), open_cache(workspace, manifest, ranker[0])
    discovery.check(cache)
    notes = folder / annotations.FILE
    said = annotations.read(notes, remark) if notes.is_file() else ()
    annotations.check(said, cache, manifest)
    lens = ImageInspector.open(workspace, manifest, cache, devices_of("auto")[0], ranker[1])
    with progress("review", "images") as bar:
        return draw(lens, flags, core_features(discovery, said), folder, images=images, head=head, progress=bar)


def _show(flags: list[Flag], every: bool) -> None:
    from embedx.cli._output import remark, show_table
    from embedx.spuriosity.pages.page import share
    from embedx.spuriosity.review import NEGATIVE, SURE, counts

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
