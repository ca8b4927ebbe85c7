"""Annotate: which features are spurious, said by people in a file, by known attributes, by masks, or by words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedx.errors import HeadError, SpuriosityError, UnknownName
from embedx.evaluation.model import ModelName, pretrained
from embedx.evaluation.records import date, listed
from embedx.files import locked
from embedx.plugins import nearest
from embedx.spuriosity import annotations
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotations import Annotation, Rule, salient
from embedx.spuriosity.annotations.automatic import by_text
from embedx.spuriosity.annotations.automatic.by_attribute import THRESHOLD, by_attribute, nearest_miss
from embedx.spuriosity.annotations.automatic.by_mask import by_mask, masks_in, strongest
from embedx.spuriosity.annotations.automatic.by_text import Cue
from embedx.spuriosity.annotations.automatic.directions import Control, own_directions, random_directions
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.measures.gaps import K
from embedx.spuriosity.measures.importance import group_means, importance
from embedx.spuriosity.measures.predictions import predictions
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.ranking import place, replaced

SOURCES = ("attributes", "text=PHRASES.txt", "masks=FOLDER", "boxes=FOLDER", "VOTES.csv", "ANNOTATIONS.jsonl")
"""What annotations come from, as the command line spells it."""


@dataclass(frozen=True)
class Masks:
    """Masks of the objects in a folder, by the ids of the images, or one that `masks` wrote, see `masks_in`.

    boxes    take the boxes around the masks; weights: the local file of the backbone, where it was loaded from one
    """

    folder: Path
    boxes: bool = False
    weights: Path | None = None


def annotate(
    analysis: Analysis,
    *,
    attributes: Sequence[str] | None = None,
    threshold: float = THRESHOLD,
    masks: Masks | None = None,
    file: Path | str | None = None,
    fingerprint: str = "",
    rule: Rule | None = None,
    progress: Progress = silent,
) -> tuple[Annotation, ...]:
    """Add annotations of the discovered features to annotations.jsonl; returns all that it holds then.

    attributes   of the manifest, other than what the label means: a feature that tells one is spurious
    threshold    least AUROC with which it has to
    masks        of the objects: a feature that looks elsewhere is spurious
    file         VOTES.csv, the public table of Salient ImageNet, or ANNOTATIONS.jsonl
    fingerprint  for VOTES.csv: states that a backbone from a file is the network that was annotated
    rule         the votes that call a feature spurious, for all pairs with votes, from now on
    Without any of these it only reads. Votes of people stay, and decide where there are any.

    Raises `SpuriosityError` where there is nothing to read, `UnknownName` for a file of another kind, and as
    `by_attribute`, `by_mask`, `salient.read` and `annotations.add` do.
    """
    manifest, cache, existing = analysis.manifest, analysis.cache, analysis.annotations()
    given = attributes is not None or masks is not None or file is not None
    if not given and not existing:
        raise SpuriosityError(
            f"{analysis.annotations_file} holds nothing yet; say what to annotate by with --from, see --help"
        )
    fresh: list[Annotation] = []
    if attributes is not None:
        discovery = Discovery.load(analysis.folder)
        told = by_attribute(manifest, cache, discovery, attributes, threshold=threshold, progress=progress)
        if not any(a.label == "spurious" for a in told):
            analysis.notice(nearest_miss(told, threshold))
        fresh += told
    if masks is not None:
        fresh += _by_masks(analysis, masks, progress)
    if file is not None:
        fresh += _from_file(analysis, Path(file), fingerprint, progress)
    if not given and rule is None:
        return existing
    return annotations.add(analysis.annotations_file, fresh, cache, manifest, rule=rule, notice=analysis.notice)


def _by_masks(analysis: Analysis, masks: Masks, progress: Progress) -> tuple[Annotation, ...]:
    mask_of = masks_in(masks.folder, analysis.cache, boxes=masks.boxes, dataset=analysis.manifest.name)
    discovery = Discovery.load(analysis.folder)
    lens = ImageInspector.open(analysis.workspace, analysis.manifest, analysis.cache, weights=masks.weights)
    seen = strongest(lens, discovery, progress=progress)
    ids, named = analysis.manifest.ids, analysis.manifest.subjects
    subjects = None if named is None else dict(zip(map(str, ids), named.codes.tolist(), strict=True))
    return by_mask(discovery, seen.maps, lambda row_id: mask_of(row_id, seen.sizes[row_id]), subjects=subjects)


def _from_file(analysis: Analysis, path: Path, fingerprint: str, progress: Progress) -> tuple[Annotation, ...]:
    """A table of votes, recognised by its numbers where the cache has the classifier to do so; or annotations."""
    manifest, cache = analysis.manifest, analysis.cache
    if path.suffix == ".jsonl":
        entries = annotations.read(path, analysis.notice)
        annotations.check(entries, cache, manifest)
        return entries
    if path.suffix != ".csv":
        raise UnknownName(f"cannot annotate from {str(path)!r}; {nearest(str(path), SOURCES)}")
    entries = salient.read(path, manifest, cache, stated=fingerprint, notice=analysis.notice)
    try:
        head = pretrained(manifest, cache)
    except HeadError as error:
        analysis.notice(f"note: whether this is the annotated network was not looked into by its numbers: {error}")
        return entries
    (groups,) = group_means(manifest, cache, [(head, "predicted")], progress)
    share = salient.recognised(entries, importance(head, groups))
    analysis.notice(
        f"note: {100 * share:.1f} % of the annotated features are among the most important ones of their classes"
    )
    return entries


@dataclass(frozen=True, eq=False)
class WordCues:
    """What phrases were found to be, for one model.

    tests    every phrase in every class; cues: the annotations of those that are cues
    control  random directions beside them; shared: whether the model has the features that phrases are compared with
    file     of all that was tested; ranking: the table that ranks the images by them, None where there is no cue
    """

    model: str
    tests: tuple[Cue, ...]
    cues: tuple[Annotation, ...]
    file: Path
    ranking: Path | None
    control: Control
    shared: bool

    @property
    def phrases(self) -> dict[int, list[str]]:
        """{class: its cues}, classes without any left out."""
        of_class: dict[int, list[str]] = {}
        for cue in self.cues:
            of_class.setdefault(cue.class_index, []).append(cue.cue)
        return of_class


def annotate_by_words(
    analysis: Analysis, phrases: Sequence[str], model: str | ModelName = "", *, progress: Progress = silent
) -> WordCues:
    """Find which phrases a model leans on, write all to text-cues.jsonl, and rank the images by those that are cues.

    The backbone of the analysis is an image-text one. model: as `BACKBONE[=HEAD]`, see `Analysis.model`, whose right
    and wrong predictions on validation decide; by default the backbone of the analysis.
    Raises as `by_text.words` and `by_text.scan` do.
    """
    manifest, cache = analysis.manifest, analysis.cache
    analysis.folder.mkdir(parents=True, exist_ok=True)
    (name,) = analysis.names([model] if model else [])
    words = by_text.words(analysis.workspace, manifest, cache, phrases)
    judge, seen = analysis.model(name), analysis.cache_of(name.backbone)
    predicted = predictions(manifest, seen, judge, "val")
    shared = seen.header.identity.get("weights") == cache.header.identity.get("weights")
    if shared:
        analysis.notice(
            f"note: {predicted.model} has the features that the phrases are compared with, so any direction goes along "
            "with its answers: a cue has to lie beyond random ones, and what is left of its gap without the head's own "
            "stands beside; a model on another backbone judges better (--model)"
        )
    values = by_text.similarity(manifest, cache, words, progress)
    control = random_directions(manifest, cache, words, predicted, K)
    if shared:
        bare = replace(words, head=own_directions(judge, words.projection, words.classes))
        control = replace(control, without=by_text.similarity(manifest, cache, bare, progress))
    tests = by_text.scan(manifest, values, words, predicted, control=control)
    tested = by_text.annotated(manifest, cache, words, tests, predicted, control)
    cues = tuple(a for a in tested if a.label == "spurious")
    file = analysis.folder / by_text.FILE
    with locked(file):
        before = [a.cue for a in annotations.read(file) if a.label == "spurious"] if file.is_file() else []
        if lost := [cue for cue in before if cue not in words.phrases]:
            analysis.notice(f"note: {file} of {date(file)} had cues among other phrases, which go: {listed(lost)}")
        annotations.write(file, tested)
    result = WordCues(str(predicted.model), tests, cues, file, None, control, shared)
    path = place(analysis.workspace, manifest.name, by_text.NAME + cache.header.backbone)
    if not result.phrases:
        if path.is_file():
            analysis.notice(
                f"note: no cue was found, and {path} still ranks by those of {date(path)}; remove it to be rid of them"
            )
        return result
    ranking = by_text.ranking(manifest, cache, words, values, result.phrases)
    if line := replaced(path, manifest, ranking):
        analysis.notice(line)
    ranking.save(path)
    return replace(result, ranking=path)
