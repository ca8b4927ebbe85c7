"""Targeted corruptions: what a model loses when the colour, the texture or the shape of one feature is taken away.

On the images of a class that show a feature most, the feature's region is made grey (no colour left), blurred (no
texture) or cut into patches that are turned (no shape); the sensitivity is the accuracy that is lost. The region comes
from the activation map of the ranking backbone; the model that answers is any other, which sees the same image through
its own resizing and cropping. For a spurious feature what the core features of the class see is left alone. After the
paper's appendix B, which gives no settings; ours are those of `CorruptionSettings`.

Any change to an image costs some accuracy, wherever it is made. So the same is done to a region of the same shape and
area elsewhere in the image, and what counts is what is lost beyond that. The paper has no such control.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.evaluation.model import Model, ModelName
from embedx.extractors import Backbone
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.features.activations import Progress, columns, silent, table
from embedx.spuriosity.features.corruptions import (
    KINDS,
    CorruptionSettings,
    blend,
    corrupted,
    draws,
    elsewhere,
    region,
)
from embedx.spuriosity.features.image_inspection import ImageInspector, open_backbone
from embedx.spuriosity.features.maps import nam, onto_image
from embedx.spuriosity.publishing.written_masks import WrittenMasks
from embedx.spuriosity.records.mask_set import TABLE
from embedx.spuriosity.records.sensitivity import FILE, Sensitivities, Sensitivity, lost, paired
from embedx.store import FeatureCache

Cores = Mapping[int, Sequence[int]]
"""Class code -> its core features."""


def corrupt(
    analysis: Analysis,
    models: Sequence[str | ModelName] = (),
    settings: CorruptionSettings | None = None,
    *,
    masks: Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Sensitivities:
    """Corrupt what each discovered feature sees, measure what models lose, and add them to sensitivity.json.

    models  as `BACKBONE[=HEAD]`, see `Analysis.model`; by default the backbone that ranks
    masks   a folder that `embedx spuriosity masks` wrote: regions are those of its soft masks, on the images that have
            one, and features without any are left out
    Raises `SpuriosityError` where nothing was discovered or for a sensitivity.json that cannot be added to, else as
    `Analysis.model` and `sensitivities` do.
    """
    manifest, folder = analysis.manifest, analysis.folder
    if (folder / FILE).is_file():
        Sensitivities.load(folder)  # before the work, as the result is to be added to it
    discovery, entries = analysis.discovery(), analysis.annotations()
    if not entries:
        analysis.notice(
            f"note: {analysis.annotations_file} holds nothing, so no feature counts as spurious and no core region is "
            "left alone"
        )
    pairs, cores = with_roles([(c.label, c.feature) for c in discovery.candidates], entries)
    options, written = settings or CorruptionSettings(), WrittenMasks.open(masks) if masks is not None else None
    if written is not None:
        pairs = _masked(pairs, written, analysis, options)
    lens = ImageInspector.open(analysis.workspace, manifest, analysis.cache, device)
    judges = [
        ImageModel.of(analysis.model(name), analysis.cache_of(name.backbone), device) for name in analysis.names(models)
    ]
    losses = sensitivities(lens, pairs, cores, judges, options, progress, written)
    losses.add(folder, analysis.notice)
    return losses


def _masked(
    pairs: Sequence[Pair], written: WrittenMasks, analysis: Analysis, options: CorruptionSettings
) -> list[Pair]:
    """The pairs that have masks. Raises as `WrittenMasks.check`, and `SpuriosityError` for masks of another split."""
    written.check(analysis.manifest.name, str(analysis.cache.header.identity["weights"]))
    if written.of.split != options.split:
        raise SpuriosityError(
            f"{written.folder} holds masks of {written.of.split} images, and {options.split} images are to be "
            f"corrupted; give --split {written.of.split}, or write masks of the others"
        )
    there = {(pair.class_index, pair.feature) for pair in written.of.pairs if pair.masks}
    have = [pair for pair in pairs if (pair.label, pair.feature) in there]
    if len(have) < len(pairs):
        analysis.notice(
            f"note: {len(pairs) - len(have):,} of {len(pairs):,} features have no masks in {written.folder} and are "
            "left out"
        )
    return have


@dataclass(frozen=True)
class Pair:
    """A class and a feature; role is "core", "spurious" or, where nobody has said or is sure, ""."""

    label: int
    feature: int
    role: str = ""


def with_roles(
    pairs: Sequence[tuple[int, int]], annotations: Sequence[Annotation]
) -> tuple[list[Pair], dict[int, tuple[int, ...]]]:
    """Pairs (label, feature) with the roles that annotations give them, and all core features of each class."""
    roles = {(a.class_index, a.feature): a.label for a in annotations if a.feature is not None and a.label != "unsure"}
    cores: dict[int, tuple[int, ...]] = {}
    for (label, feature), role in roles.items():
        if role == "core":
            cores[label] = (*cores.get(label, ()), feature)
    return [Pair(label, feature, roles.get((label, feature), "")) for label, feature in pairs], cores


@dataclass(frozen=True, eq=False)
class ImageModel:
    """A model with the network that makes its features, on `device`: it predicts on images."""

    model: Model
    backbone: Backbone
    device: str

    @classmethod
    def of(cls, model: Model, cache: FeatureCache, device: str, weights: Path | None = None) -> ImageModel:
        """A model on the features of a cache, with the backbone that made it. Raises as `open_backbone` does."""
        return cls(model, open_backbone(cache, device, weights), device)

    def predict(self, images: Sequence[np.ndarray], size: int) -> np.ndarray:
        """(n,) codes for images as the backbone's reader makes them, `size` to a forward pass."""
        import torch

        pixels = torch.from_numpy(np.stack(images))
        return self.model.predict(np.concatenate([self.backbone.encode(p, self.device) for p in pixels.split(size)]))


def sensitivities(
    lens: ImageInspector,
    pairs: Sequence[Pair],
    cores: Cores,
    models: Sequence[ImageModel],
    options: CorruptionSettings,
    progress: Progress = silent,
    written: WrittenMasks | None = None,
) -> Sensitivities:
    """The accuracy that each model loses on each pair by each kind of corruption.

    lens     of the backbone whose features are meant. Every image is read once, and corrupted once of each kind
    written  masks to take the regions from, on those of the images that have one; by default they are computed
    Raises as `ImageInspector.images` and `.maps` do, and `SpuriosityError` where there is no pair, or no row of its
    class.
    """
    if not pairs or not models:
        raise SpuriosityError(f"{len(pairs)} pairs and {len(models)} models, expected at least one of each")
    needs, activations = _needs(lens.manifest, lens.cache, pairs, options, written)
    classes, kinds = lens.manifest.classes, tuple(KINDS)
    seen: list[list[int]] = [[] for _ in pairs]
    right: list[list[np.ndarray]] = [[] for _ in pairs]  # of an image, by model: as it is; every kind there, elsewhere
    shares: list[list[tuple[float, float]]] = [[] for _ in pairs]
    for number, (row, views) in enumerate(_corrupted(lens, pairs, cores, models, options, needs, activations, written)):
        label = lens.manifest.labels[row]
        progress(number, len(needs), classes[label])
        hits = np.array(views.codes) == label
        for i, p in enumerate(needs[row]):
            here = 1 + 2 * i * len(kinds)
            seen[p].append(row)
            right[p].append(hits[:, [0, *range(here, here + 2 * len(kinds))]])
            shares[p].append(views.shares[i])
    progress(len(needs), len(needs), "")
    measured, subjects = [], lens.manifest.subjects
    for j, p, k in np.ndindex(len(models), len(pairs), len(kinds)):
        pair, whose = pairs[p], None if subjects is None else subjects.codes[seen[p]]
        before, after, other = np.array(right[p])[:, j, [0, 1 + k, 1 + k + len(kinds)]].T
        control = lost(before, other, whose), lost(other, after, whose)
        area, overlap = (float(x) for x in np.mean(shares[p], axis=0))
        about = (str(models[j].model.name), pair.label, classes[pair.label], pair.feature, pair.role, kinds[k])
        measured.append(Sensitivity(*about, *paired(before, after, whose), area, *control, overlap))
    settings = {key: value for key, value in asdict(options).items() if key not in ("batch", "workers")}
    header = lens.cache.header
    about = (lens.manifest.name, header.backbone, str(header.identity["weights"]), settings)
    given = [[asdict(pair) for pair in pairs], sorted((c, *map(int, of)) for c, of in cores.items())]
    given += [written.of.tables[TABLE]] if written is not None else []
    given += [] if subjects is None else [subjects.column]
    return Sensitivities(*about, tuple(measured), hashlib.sha256(json.dumps(given).encode()).hexdigest())


def _needs(
    manifest: Manifest,
    cache: FeatureCache,
    pairs: Sequence[Pair],
    options: CorruptionSettings,
    written: WrittenMasks | None,
) -> tuple[dict[int, list[int]], dict[int, float]]:
    """Rows of the manifest with the pairs that each is used for, and the cached feature of the first of these.

    The most activating rows of the class, ties by id, the last first, as in panels.
    """
    listed = [sorted({p.feature for p in pairs if p.label == k}) for k in range(len(manifest.classes))]
    chosen = manifest.splits == SPLITS.index(options.split)
    values = columns(manifest, cache, table(listed), chosen)
    needs: dict[int, list[int]] = {}
    activations: dict[int, float] = {}
    for i, p in enumerate(pairs):
        column = values[:, listed[p.label].index(p.feature)]
        rows = np.flatnonzero(chosen & (manifest.labels == p.label) & np.isfinite(column))
        if not len(rows):
            name = manifest.classes[p.label]
            raise SpuriosityError(f"{name} has no usable row in {options.split}; choose another split (--split)")
        count = min(options.images, max(1, round(options.share * len(rows))))
        top = rows[np.argsort(column[rows], kind="stable")[::-1][:count]].tolist()
        if written is not None:
            top = [row for row in top if written.shows(str(manifest.ids[row]), p.feature)]
        for row in top:
            needs.setdefault(row, []).append(i)
            activations.setdefault(row, float(column[row]))
    return needs, activations


@dataclass(frozen=True, eq=False)
class Views:
    """Of one image: per model the codes of the image and of its corruptions; per pair two shares.

    shares  of the image that was corrupted, and of the other region that lies where the feature or the core is seen
    """

    codes: list[np.ndarray]
    shares: list[tuple[float, float]]


def _corrupted(
    lens: ImageInspector,
    pairs: Sequence[Pair],
    cores: Cores,
    models: Sequence[ImageModel],
    options: CorruptionSettings,
    needs: Mapping[int, Sequence[int]],
    activations: Mapping[int, float],
    written: WrittenMasks | None = None,
) -> Iterator[tuple[int, Views]]:
    """What the models say of every image that is needed, as it is and corrupted."""
    rows, geometry = list(needs), lens.geometry
    readers: list[Any] = list(dict.fromkeys(m.backbone.reader for m in models))

    def views(row: int, pixels: np.ndarray, maps: Any) -> tuple[list[list[np.ndarray]], list[tuple[float, float]]]:
        """For every reader the image and its corruptions; and the shares."""
        from PIL import Image

        row_id = str(lens.manifest.ids[row])
        changed, out, shares = corrupted(pixels, row_id, options), [pixels], []
        for pair in (pairs[p] for p in needs[row]):
            core = cores.get(pair.label, ()) if pair.role == "spurious" else ()
            features = [pair.feature, *core]
            soft = nam(maps[features]) if written is None else written.soft(row_id, features)
            seen = region(soft, geometry.size, options.threshold)
            avoid = np.max([region(soft[[i]], geometry.size, options.threshold) for i in range(len(soft))], axis=0)
            moved, overlap = elsewhere(seen, avoid, draws(options.seed, f"{row_id} {pair.feature}"))
            masks = [onto_image(m, geometry, (pixels.shape[0], pixels.shape[1])) for m in (seen, moved)]
            shares.append((float(masks[0].mean()), overlap))
            out += [blend(pixels, other, mask) for mask in masks for other in changed.values()]
        return [[reader(Image.fromarray(view)) for view in out] for reader in readers], shares

    read = lens.images(rows, lambda image: (np.asarray(image), geometry(image)), options.workers)
    with ThreadPoolExecutor(max(1, options.workers)) as pool:
        for start in range(0, len(rows), options.batch):
            batch_rows = rows[start : start + options.batch]
            originals, seen = zip(*(next(read) for _ in batch_rows), strict=True)
            first = [pairs[needs[row][0]].feature for row in batch_rows]
            maps: Any = [None] * len(seen)
            if written is None:
                maps = lens.maps(batch_rows, np.stack(seen), np.array([activations[r] for r in batch_rows]), first)
            made = list(pool.map(views, batch_rows, originals, maps))
            ends = np.cumsum([len(of_reader[0]) for of_reader, _ in made])[:-1]
            codes = []
            for model in models:
                r = readers.index(model.backbone.reader)
                flat = [view for of_reader, _ in made for view in of_reader[r]]
                codes.append(np.split(model.predict(flat, options.batch), ends))
            for b, row in enumerate(batch_rows):
                yield row, Views([of[b] for of in codes], made[b][1])
