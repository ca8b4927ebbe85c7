"""`embedx spuriosity annotate`: which features are spurious, said by people, by a file or by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import HEAD_OF_MODEL, ModelOption

if TYPE_CHECKING:
    from embedx.cli._output import Progress
    from embedx.data.manifest import Manifest
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.annotations import Annotation, Rule
    from embedx.spuriosity.annotations.automatic.by_mask import MaskOf
    from embedx.store import FeatureCache
    from embedx.workspace import Workspace

SHOWN = 50  # rows of the table


def _rule(ctx: click.Context, param: click.Parameter, value: str | None) -> Rule | None:
    """A rule as the annotations know it."""
    from embedx.spuriosity.annotations.votes import rule_of

    try:
        return None if value is None else rule_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("annotate")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The cached backbone whose features are annotated.")
@click.option("--from", "source", metavar="SOURCE",
              help="attributes, attributes=NAME, text=PHRASES.txt, masks=FOLDER, boxes=FOLDER (boxes around masks), "
              "VOTES.csv (the public table of Salient ImageNet), or ANNOTATIONS.jsonl. Without it, what there is "
              "already is shown.")  # fmt: skip
@click.option("--model", type=ModelOption(),
              help=f"For text: the model whose right and wrong predictions decide. {HEAD_OF_MODEL} Default: the "
              "backbone.")  # fmt: skip
@click.option("--min-votes", "rule", metavar="RULE", callback=_rule,
              help="Votes that call a feature spurious: a number, majority, unanimous. Default: majority.",
              )  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), help="For masks: local weights of the backbone.")
@click.option("--fingerprint", metavar="SHA256", default="",
              help="For VOTES.csv: state that a backbone from a file of yours is the network that was annotated.",
              )  # fmt: skip
@click.option("--export", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write the votes as a table like VOTES.csv.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    source: str | None,
    model: ModelName | None,
    rule: Rule | None,
    weights: Path | None,
    fingerprint: str,
    export: Path | None,
    out: Path | None,
) -> None:
    """Say which of the features found by `embedx spuriosity discover` are spurious for their class.

    Adds to annotations.jsonl: votes of people stay, and decide where there are any. Cue phrases are no features: with
    --from text=FILE, one phrase a line, the cues that a model leans on go to text-cues.jsonl, and the images are ranked
    by them at once.

    \b
    Example:
      embedx spuriosity annotate planted -b tiny:broad --from attributes=mark,ground,companion
      embedx spuriosity annotate imagenet -b robust:madry-l2-eps3 --from discover_spurious_features.csv
    """
    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark
    from embedx.errors import SpuriosityError
    from embedx.spuriosity import annotations
    from embedx.spuriosity.annotations import salient
    from embedx.spuriosity.annotations.automatic.by_mask import masks_in
    from embedx.store import open_cache

    manifest = opened(workspace, dataset, [backbone])
    cache = open_cache(workspace, manifest, backbone)
    folder = out or Path("results") / manifest.name / "spuriosity"
    kind, _, rest = (source or "").partition("=")
    if kind == "text":
        folder.mkdir(parents=True, exist_ok=True)
        _by_text(workspace, manifest, cache, Path(rest), model, folder)
        return
    path = folder / annotations.FILE
    known = annotations.read(path, remark) if path.is_file() else ()
    annotations.check(known, cache, manifest)
    if source is None and not known:
        raise SpuriosityError(f"{path} holds nothing yet; say what to annotate by with --from, see --help")
    fresh: Sequence[Annotation] = ()
    with progress("annotate", "blocks") as bar:
        if kind == "attributes":
            fresh = _by_attributes(manifest, cache, folder, rest, bar)
        elif kind in ("masks", "boxes"):
            mask_of = masks_in(Path(rest), cache, boxes=kind == "boxes")
            fresh = _by_masks(workspace, manifest, cache, folder, (mask_of, weights), bar)
        elif source is not None:
            fresh = _from_file(manifest, cache, Path(source), fingerprint, bar)
    said, changed = known, source is not None or rule is not None
    if changed:
        said = annotations.add(path, fresh, cache, manifest, rule=rule, notice=remark)
    _show(manifest, said)
    if changed:
        cues = annotations.spurious(said)
        pairs = sum(map(len, cues.values()))
        click.echo(f"wrote {path}: {len(said):,} pairs, {pairs:,} spurious over {len(cues):,} classes")
    if export is not None:
        click.echo(f"wrote {export}: {salient.write(export, said):,} votes")


def _by_attributes(
    manifest: Manifest, cache: FeatureCache, folder: Path, names: str, bar: Progress
) -> Sequence[Annotation]:
    from embedx.spuriosity.annotations.automatic.by_attribute import by_attribute
    from embedx.spuriosity.records.discovery import Discovery

    asked = names.split(",") if names else None
    return by_attribute(manifest, cache, Discovery.load(folder), asked, progress=bar)


def _by_masks(
    workspace: Workspace,
    manifest: Manifest,
    cache: FeatureCache,
    folder: Path,
    given: tuple[MaskOf, Path | None],
    bar: Progress,
) -> Sequence[Annotation]:
    from embedx.spuriosity.annotations.automatic.by_mask import by_mask, strongest
    from embedx.spuriosity.features.image_inspection import ImageInspector
    from embedx.spuriosity.records.discovery import Discovery

    discovery = Discovery.load(folder)
    lens = ImageInspector.open(workspace, manifest, cache, weights=given[1])
    return by_mask(discovery, strongest(lens, discovery, progress=bar), given[0])


def _from_file(
    manifest: Manifest, cache: FeatureCache, path: Path, fingerprint: str, bar: Progress
) -> Sequence[Annotation]:
    """A table of votes, recognised by its numbers where the cache has the classifier to do so; or annotations."""
    from embedx.cli._output import remark
    from embedx.errors import HeadError, UnknownName
    from embedx.evaluation.model import pretrained
    from embedx.plugins import nearest
    from embedx.spuriosity import annotations
    from embedx.spuriosity.annotations import salient
    from embedx.spuriosity.records.discovery import group_means, importance

    if path.suffix == ".jsonl":
        found = annotations.read(path, remark)
        annotations.check(found, cache, manifest)
        return found
    if path.suffix != ".csv":
        known = ("attributes", "text=PHRASES.txt", "masks=FOLDER", "boxes=FOLDER", "VOTES.csv", "ANNOTATIONS.jsonl")
        raise UnknownName(f"cannot annotate from {str(path)!r}; {nearest(str(path), known)}")
    found = salient.read(path, manifest, cache, stated=fingerprint, notice=remark)
    try:
        own = pretrained(manifest, cache)
    except HeadError as error:
        remark(f"note: whether this is the annotated network was not looked into by its numbers: {error}")
        return found
    (groups,) = group_means(manifest, cache, [(own, "predicted")], bar)
    share = salient.recognised(found, importance(own, groups))
    remark(f"note: {100 * share:.1f} % of the annotated features are among the most important ones of their classes")
    return found


def _by_text(
    workspace: Workspace, manifest: Manifest, cache: FeatureCache, file: Path, model: ModelName | None, folder: Path
) -> None:
    from embedx.cli._output import INTERVALS, progress, remark, show_table
    from embedx.cli.spuriosity._defaults import head_of, models_of
    from embedx.errors import SpuriosityError
    from embedx.evaluation.records import date, listed
    from embedx.files import locked
    from embedx.spuriosity import annotations
    from embedx.spuriosity.annotations.automatic import by_text
    from embedx.spuriosity.measures.predictions import predictions
    from embedx.spuriosity.records.ranking import place, replaced

    try:
        phrases = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpuriosityError(f"{file} cannot be read as text; expected --from text=FILE, a phrase a line") from error
    said = by_text.words(workspace, manifest, cache, phrases)
    ((name, of),) = models_of(workspace, manifest, [model] if model else [], cache.header.backbone, folder)
    judge = predictions(manifest, of, head_of(manifest, of, name, folder), "val")
    with progress("annotate", "blocks") as bar:
        values = by_text.similarity(manifest, cache, said, bar)
    cues = by_text.scan(manifest, values, said, judge)
    shown = [c for c in cues if c.verdict != "no gap"][:SHOWN]
    rows = [
        [c.class_name, c.phrase, f"{100 * c.gap.value:+.1f} ({100 * c.gap.low:+.1f} to {100 * c.gap.high:+.1f})",
         f"{c.k} of {c.n:,}", f"{c.adjusted:.2g}", f"{c.verdict}: {c.of}" if c.of else c.verdict]
        for c in shown
    ]  # fmt: skip
    columns = (("class", False), ("phrase", False), ("gap on validation, points", True), ("images a side", True),
               ("adjusted p", True), ("verdict", False))  # fmt: skip
    caption = f"{len(cues):,} tests, adjusted together (Benjamini and Hochberg); {INTERVALS}; model: {judge.model}"
    show_table(f"{manifest.name}  phrases by {cache.header.backbone}", columns, rows, caption=caption)
    found = by_text.annotated(manifest, cache, said, cues, judge)
    path = folder / by_text.FILE
    with locked(path):
        before = [a.cue for a in annotations.read(path)] if path.is_file() else []
        if lost := [cue for cue in before if cue not in phrases]:
            remark(f"note: {path} of {date(path)} had cues among other phrases, which go: {listed(lost)}")
        annotations.write(path, found)
    click.echo(f"wrote {path}: {len(found):,} cues")
    of_class: dict[int, list[str]] = {}
    for a in found:
        of_class.setdefault(a.class_index, []).append(a.cue)
    if of_class:
        ranked = by_text.ranking(manifest, cache, said, values, of_class)
        path = place(workspace, manifest.name, ranked.backbone)
        if old := replaced(path, manifest, ranked):
            remark(old)
        ranked.save(path)
        click.echo(f"wrote {path}: the images of {len(of_class):,} classes ranked")
    elif (path := place(workspace, manifest.name, by_text.NAME + cache.header.backbone)).is_file():
        remark(f"note: no cue was found, and {path} still ranks by those of {date(path)}; remove it to be rid of them")


def _show(manifest: Manifest, said: Sequence[Annotation]) -> None:
    """What is decided, the spurious first; and how far people agree."""
    from embedx.cli._output import remark, show_table
    from embedx.spuriosity.annotations import agreement

    order = sorted(said, key=lambda a: (a.label != "spurious", a.class_index, a.rank or 0))
    rows = []
    for a in order[:SHOWN]:
        votes = f"{sum(v.spurious for v in a.votes)} of {len(a.votes)}" if a.votes else "–"
        words = a.kind.replace("_", " ")
        rows.append([a.class_name, str(a.feature), "–" if a.rank is None else str(a.rank), a.label,
                     ", ".join(filter(None, (words, a.cue))) or "–", votes, _why(a), a.source])  # fmt: skip
    columns = (("class", False), ("feature", True), ("rank", True), ("label", False), ("it shows", False),
               ("votes for spurious", True), ("because", False), ("source", False))  # fmt: skip
    show_table(f"{manifest.name}: annotated features", columns, rows, spare=("rank", "source", "because"))
    if (more := len(order) - SHOWN) > 0:
        remark(f"note: {more:,} more pairs")
    three, two = agreement(said), agreement(said, binary=True)
    if three.pairs:
        figures = ("–" if x.kappa is None else f"{x.kappa:.2f}" for x in (three, two))
        words = "Fleiss' kappa {} for the three answers, {} for core or spurious".format(*figures)
        remark(f"{words}, over {three.pairs:,} pairs with two votes or more")


def _why(a: Annotation) -> str:
    """The figure that an automatic source went by."""
    mask, attribute = a.evidence.get("mask"), a.evidence.get("attribute")
    if a.source == "auto:mask" and mask and mask["share"] is not None:
        frame = 100 * sum(mask["frame"]) / len(mask["frame"])
        return f"{100 * mask['share']:.0f} % outside the object, as is {frame:.0f} % of the frame"
    if a.source == "auto:attribute" and attribute and attribute["tests"]:
        best = max(attribute["tests"], key=lambda t: (f"{t['attribute']}: {t['value']}" == a.cue, t["auroc"]))
        return f"tells {best['attribute']} {best['value']}, AUROC {best['auroc']:.2f}"
    return "–"
