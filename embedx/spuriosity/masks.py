"""Masks: the result as a dataset: a soft mask of every labelled feature on the images that show it most.

The soft mask of a feature is its activation map, divided by its own largest value and enlarged (`maps.nam`, `enlarge`),
in the frame of the image as the backbone saw it, resized and cut. As in Salient ImageNet there is one for each of the
most activating training images of the class. So that the core region of an image is known wherever another feature is
looked at, the images of every pair that is not core also get the masks of the core features of their class.

`masks/` below the folder of the analysis then holds

    masks.json      the record, written last: it vouches for the rest
    pairs.csv       a row for every class and feature: label, kind, cue, votes, importance and rank, how many masks
    masks.csv       a row for every mask: its file, the id of its image, class, feature, activation, size of the image
    ranking.csv     the ranking of all images, where there is one
    CLASS/FEATURE/NAME.png, or masks.h5   the masks, see `publishing/mask_files.py`
    croissant.json, README.md             what it is and how it was made, for programs and for people

A pass that was killed goes on where it was: every mask lands whole, under a name that says what it is of. The names and
notes of annotators stay out; how often each answer was given goes in, also to whether the maps of a pair show one
thing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import embedx
from embedx.data.manifest import SPLITS
from embedx.errors import SpuriosityError
from embedx.evaluation.records import Notice, alone
from embedx.files import write_bytes
from embedx.spuriosity.analysis import Analysis, unheard
from embedx.spuriosity.annotations import Annotation, validations
from embedx.spuriosity.annotations.validations import Validated, validated
from embedx.spuriosity.features.activations import Progress, columns, silent, table
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.features.maps import enlarge, nam
from embedx.spuriosity.publishing.card import write_card
from embedx.spuriosity.publishing.croissant import write_croissant
from embedx.spuriosity.publishing.mask_files import Mask, MaskFiles, Packed, named, quantised
from embedx.spuriosity.publishing.tables import digest, write_masks, write_pairs
from embedx.spuriosity.records.discovery import FILE as DISCOVERY
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.mask_set import (
    FILE,
    FOLDER,
    FORMATS,
    PACKED,
    PAIRS,
    RANKING,
    TABLE,
    MaskedPair,
    MaskSet,
)
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.workspace import slug

SAMPLE = 32
"""Images that the size on the disk is estimated by."""
LONGEST = 40
"""Characters of the name of a class in that of its folder."""
PER_ROW = 200
"""Bytes of a mask in tables, about."""


@dataclass(frozen=True)
class MaskSettings:
    """Which masks, and how they are kept.

    most     images of each pair, the most activating ones of the class: a share of the class below 1, or a number; the
             paper takes one in twenty
    split    whose images
    format   "png": a file for each mask; "h5": all in one file
    batch    images per forward pass; another one may change the last bit of a mask
    workers  threads that decode ahead, and that write; 0: none
    """

    most: float = 0.05
    split: str = "train"
    format: str = "png"
    batch: int = 32
    workers: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("split", SPLITS), ("format", FORMATS)):
            if (value := getattr(self, name)) not in choices:
                raise SpuriosityError(f"{name} is {value!r}, expected {' or '.join(choices)}")
        for name, least in (("batch", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise SpuriosityError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if not (self.most >= 1 and self.most == int(self.most)) and not 0 < self.most < 1:
            raise SpuriosityError(f"most is {self.most}, expected a share below 1 or a whole number")


def masks(
    analysis: Analysis,
    settings: MaskSettings = MaskSettings(),
    *,
    device: str = "cpu",
    weights: Path | None = None,
    progress: Progress = silent,
) -> MaskSet:
    """Write the soft masks of all annotated features, and what is known of them, to masks/.

    What is written already is not computed again. device, weights: as for `ImageInspector.open`
    Raises `SpuriosityError` where nothing is annotated, else as `ImageInspector` and `publish` do.
    """
    entries = [a for a in analysis.annotations() if a.feature is not None]
    if not entries:
        name = f"{analysis.manifest.name} -b {analysis.backbone}"
        raise SpuriosityError(
            f"{analysis.annotations_file} holds no feature, so there is nothing to write masks of; run `embedx "
            f"spuriosity annotate {name}` or `embedx annotate {name}` first"
        )
    discovery = analysis.discovery() if (analysis.folder / DISCOVERY).is_file() else None
    file = place(analysis.workspace, analysis.manifest.name, analysis.backbone)
    ranking = (file, analysis.ranking()) if file.is_file() else None
    lens = ImageInspector.open(analysis.workspace, analysis.manifest, analysis.cache, device, weights)
    weights_of = str(analysis.cache.header.identity["weights"])
    answers = validations.read(analysis.folder / validations.FILE, weights_of, analysis.notice)
    pairs = pairs_of(entries, discovery, validated(answers))
    return publish(lens, pairs, analysis.folder / FOLDER, settings, ranking, progress, analysis.notice)


def pairs_of(
    entries: Sequence[Annotation],
    discovery: Discovery | None = None,
    judged: Mapping[tuple[int, int], Validated] | None = None,
) -> list[MaskedPair]:
    """What is said of features, by class and rank; what annotations leave open of these is that of the discovery.

    judged  whether the maps of a pair show the same thing, where people were asked
    """
    known = {(c.label, c.feature): c for c in discovery.candidates} if discovery else {}
    pairs: dict[tuple[int, int], MaskedPair] = {}
    for a in entries:
        if a.feature is None:
            continue
        key = (a.class_index, a.feature)
        found = known.get(key)
        rank = found.rank if a.rank is None and found else a.rank
        importance = found.importance if a.importance is None and found else a.importance
        folder = f"{a.class_index:04d}-{slug(a.class_name)[:LONGEST]}/{a.feature:04d}"
        votes = Counter(vote.answer for vote in a.votes)
        pairs[key] = MaskedPair(
            a.class_index, a.class_name, a.class_id, a.feature, rank, importance, a.label, a.kind, a.cue, a.source,
            a.rule, dict(sorted(votes.items())), folder,
        )  # fmt: skip
        if (verdict := (judged or {}).get(key)) is not None:
            counts = (dict(sorted(of.items())) for of in (verdict.answers, verdict.elsewhere))
            pairs[key] = replace(pairs[key], maps=next(counts), elsewhere=next(counts), valid=verdict.valid)
    last = 1 + max((pair.rank or 0 for pair in pairs.values()), default=0)
    return sorted(pairs.values(), key=lambda p: (p.class_index, p.rank or last, p.feature))


def plan(lens: ImageInspector, pairs: Sequence[MaskedPair], options: MaskSettings) -> list[Mask]:
    """The masks of all pairs, by the cached features alone: for each pair its images in the order of activation.

    The most activating rows of the class, ties by id, the last first, as in panels. A pair without any usable row has
    none. After them those that a core feature has on the images of pairs that are not core.
    """
    manifest, cache = lens.manifest, lens.cache
    listed = [sorted({p.feature for p in pairs if p.class_index == k}) for k in range(len(manifest.classes))]
    chosen = manifest.splits == SPLITS.index(options.split)
    values = columns(manifest, cache, table(listed), chosen)
    facts = json.dumps([cache.header.identity, lens.mapper.layer], sort_keys=True, default=str)
    common = hashlib.sha256(facts.encode()).hexdigest()
    column = [values[:, listed[p.class_index].index(p.feature)] for p in pairs]
    most: list[list[int]] = []
    for p, of in zip(pairs, column, strict=True):
        rows = np.flatnonzero(chosen & (manifest.labels == p.class_index) & np.isfinite(of))
        count = options.most if options.most >= 1 else max(1, round(options.most * len(rows)))
        most.append(rows[np.argsort(of[rows], kind="stable")[::-1][: int(count)]].tolist())
    others: dict[int, dict[int, None]] = {}
    for p, rows in zip(pairs, most, strict=True):
        if p.label != "core":
            others.setdefault(p.class_index, {}).update(dict.fromkeys(rows))
    masks = []
    for i, (p, rows) in enumerate(zip(pairs, most, strict=True)):
        beside = others.get(p.class_index, {}) if p.label == "core" else {}
        places = dict.fromkeys(rows, 0) | dict.fromkeys(beside, 0) | {row: j for j, row in enumerate(rows, 1)}
        for row, j in places.items():
            row_id, content = str(manifest.ids[row]), cache.content_hash[lens.at[row]].tobytes()
            name = named(common, p.feature, row_id, content)
            activation = float(column[i][row])
            masks.append(Mask(i, p.folder, row, row_id, p.class_index, p.feature, j, activation, name))
    return masks


def publish(
    lens: ImageInspector,
    pairs: Sequence[MaskedPair],
    folder: Path,
    options: MaskSettings,
    ranking: tuple[Path, Ranking] | None = None,
    progress: Progress = silent,
    notice: Notice = unheard,
) -> MaskSet:
    """Write the masks that are not there yet below `folder`, the tables and cards, and `masks.json`.

    One process at a time does. ranking: the table and what it is of. notice: is told of the size before the work
    Raises as `ImageInspector.images` and `.maps` do, `SpuriosityError` where the disk has not room enough or no row of
    the split is usable, and `OSError` where it fills up.
    """
    planned = plan(lens, pairs, options)
    if not planned:
        raise SpuriosityError(
            f"{lens.cache.path} has no usable row in {options.split} of any annotated class; choose another split, or "
            f"extract {lens.manifest.name} again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / FILE, notice):
        files = MaskFiles(folder, lens.geometry.size, _packed(folder, lens.geometry.size, notice))
        try:
            _complete(lens, planned, files, options, progress, notice)
            if options.format == "png":
                files.unpack(planned)
            elif files.packed is None or [*files.packed.at] != [m.name for m in planned]:
                files.pack(planned)
            os.sync()  # one for all: a power cut must not leave a finished set of empty files
            result = _record(lens, pairs, planned, files, options, ranking)
        finally:
            if files.packed is not None:
                files.packed.close()
        write_card(folder, result)
        write_croissant(folder, result)
        result.save(folder)
        files.tidy(planned, options.format)
    return result


def _packed(folder: Path, size: tuple[int, int], notice: Notice) -> Packed | None:
    """The masks of an earlier `masks.h5`."""
    if not (folder / PACKED).is_file():
        return None
    try:
        return Packed.open(folder / PACKED, size)
    except SpuriosityError as error:
        notice(f"note: {error}; its masks are computed again")
        return None


def _complete(
    lens: ImageInspector,
    planned: Sequence[Mask],
    files: MaskFiles,
    options: MaskSettings,
    progress: Progress,
    notice: Notice,
) -> None:
    """Compute what is not there; the first few images tell how much room all take, which is said before the rest."""
    missing: dict[int, list[Mask]] = {}
    for mask in planned:
        if not files.has(mask):
            missing.setdefault(mask.row, []).append(mask)
    if not missing:
        return
    first = list(missing)[:: -(-len(missing) // SAMPLE)]
    taken = {*first}
    rest = [row for row in missing if row not in taken]
    _compute(lens, {row: missing[row] for row in first}, files, options, silent)
    sample = [mask for row in first for mask in missing[row]]
    _tell(planned, sample, sum(len(missing[row]) for row in rest), files, options, notice)
    _compute(lens, {row: missing[row] for row in rest}, files, options, progress)


def _tell(
    planned: Sequence[Mask], sample: Sequence[Mask], left: int, files: MaskFiles, options: MaskSettings, notice: Notice
) -> None:
    """How many masks there will be and what room they take on the disk. Raises `SpuriosityError` for too little."""
    block = os.statvfs(files.folder).f_frsize
    each = {form: [files.bytes_of(m, form) for m in sample] for form in {"png", options.format}}
    occupied = {"png": float(np.mean([-(-n // block) * block for n in each["png"]]))}
    if options.format == "h5":
        occupied["h5"] = float(np.mean(each["h5"])) + PER_ROW
    total = round(len(planned) * occupied[options.format])
    more = round(left * occupied["png"] + (total if options.format == "h5" else 0))
    free = shutil.disk_usage(files.folder).free
    images, (height, width) = len({mask.row for mask in planned}), files.size
    there = len(planned) - left
    until = f", and {left * occupied['png'] / 1e6:,.1f} MB more of PNG files until it is written" * (
        options.format == "h5" and left > 0
    )
    notice(
        f"note: {len(planned):,} masks of {images:,} images, {height} x {width} pixels each, take about "
        f"{total / 1e6:,.1f} MB on the disk as {options.format}{until}; {there:,} masks are there, "
        f"{free / 1e6:,.1f} MB are free"
    )
    if more > free:
        raise SpuriosityError(
            f"{files.folder} has {free / 1e6:,.1f} MB free, and the masks still to write take about {more / 1e6:,.1f} "
            "MB; make room, or write fewer (-k). What is written stays, and is not computed again"
        )


def _compute(
    lens: ImageInspector, missing: Mapping[int, Sequence[Mask]], files: MaskFiles, options: MaskSettings,
    progress: Progress,
) -> None:  # fmt: skip
    """One pass over the images of missing masks, each opened once."""
    rows = list(missing)
    geometry = lens.geometry
    read = lens.images(rows, lambda image: ((image.height, image.width), geometry(image)), options.workers)

    def write(row: int, of_image: np.ndarray, size: tuple[int, int]) -> None:
        wide = enlarge(nam(of_image[[m.feature for m in missing[row]]]), geometry.size)
        for mask, soft in zip(missing[row], quantised(wide), strict=True):
            files.write(mask, soft, size)

    with ThreadPoolExecutor(max(1, options.workers)) as pool:
        for start in range(0, len(rows), options.batch):
            batch = rows[start : start + options.batch]
            first = [missing[row][0] for row in batch]
            progress(start, len(rows), lens.manifest.classes[first[0].class_index])
            sizes, pixels = zip(*(next(read) for _ in batch), strict=True)
            full = [*range(len(batch)), *[0] * (options.batch - len(batch))]  # the last bits go by the size of a batch
            stacked, activations = np.stack([pixels[b] for b in full]), np.array([first[b].activation for b in full])
            maps = lens.maps([batch[b] for b in full], stacked, activations, [first[b].feature for b in full])
            list(pool.map(write, batch, maps[: len(batch)], sizes))
    progress(len(rows), len(rows), "")


def _record(
    lens: ImageInspector,
    pairs: Sequence[MaskedPair],
    planned: Sequence[Mask],
    files: MaskFiles,
    options: MaskSettings,
    ranking: tuple[Path, Ranking] | None,
) -> MaskSet:
    """Write the tables; the record of all."""
    folder, manifest, header = files.folder, lens.manifest, lens.cache.header
    counts = Counter((mask.pair, mask.place > 0) for mask in planned)
    pairs = [replace(p, masks=counts[i, True], beside=counts[i, False]) for i, p in enumerate(pairs)]
    tables = {PAIRS: write_pairs(folder, pairs), TABLE: write_masks(files, pairs, planned, options.format)}
    (folder / RANKING).unlink(missing_ok=True)
    if ranking is not None:
        write_bytes(folder / RANKING, ranking[0].read_bytes())
        tables[RANKING] = digest(folder / RANKING)
    if options.format == "h5":
        tables[PACKED] = digest(folder / PACKED)
        size = (folder / PACKED).stat().st_size
    else:
        size = sum((folder / mask.file).stat().st_size for mask in planned)
    resize = lens.geometry.resize
    return MaskSet(
        manifest.name, header.backbone, str(header.identity["weights"]), lens.mapper.layer, options.split,
        options.most, options.format, lens.geometry.size, resize, len(planned),
        len({mask.row for mask in planned}), size, tables, ranking[1].statistics if ranking else "",
        manifest.licence, manifest.source, str(header.provenance.get("licence", "")),
        datetime.now(UTC).strftime("%Y-%m-%d"), embedx.__version__, tuple(pairs),
    )  # fmt: skip
