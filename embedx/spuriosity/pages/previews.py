"""The pictures of a review: each image with the box around what its class's core features see, and what is in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from embedx.evaluation.model import Model
from embedx.extractors import Geometry
from embedx.files import landing
from embedx.spuriosity.features.activations import Progress, class_means, columns, silent, table
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.features.maps import Box, core_crop, nam, onto_image
from embedx.spuriosity.pages.drawing import encoded, picture
from embedx.spuriosity.records.flags import NEGATIVE, SURE, Flag

FOLDER = "review"
LONGEST = 768
"""Pixels along the longer side of an image from which previews are cut."""
SIZE, BATCH, WORKERS = 240, 16, 2


def draw(
    lens: ImageInspector,
    flags: Sequence[Flag],
    cores: Mapping[int, tuple[int, ...]],
    folder: Path,
    *,
    images: int = 60,
    model: Model | None = None,
    progress: Progress = silent,
) -> list[Flag]:
    """The same flags, the first `images` of either kind with pictures in `folder`/review, which are added there.

    A picture is called by a digest of its bytes: whatever an earlier table names still is what it was. `tidy` removes
    what is named no more.

    lens   of the backbone whose features are meant
    cores  {class: its core features}; without any there is no crop
    model  on the features of that backbone, to say what it takes the crop for; None: not said
    Raises as `ImageInspector.images` and `ImageInspector.maps` do.
    """
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    chosen = [f for reason in (NEGATIVE, SURE) for f in [f for f in flags if f.reason == reason][:images]]
    rows = np.searchsorted(lens.manifest.ids, [f.id for f in chosen]).tolist()
    first = [of[0] if (of := cores.get(c)) else 0 for c in range(len(lens.manifest.classes))]
    wanted = np.zeros(len(lens.manifest), dtype=bool)
    wanted[rows] = True
    activations = columns(lens.manifest, lens.cache, table([[f] for f in first]), wanted)[:, 0] if rows else np.empty(0)
    usual = _usual(lens)
    geometry, drawn = lens.geometry, {}
    read = lens.images(rows, lambda image: (_shrunk(image), geometry(image)), WORKERS)
    for start in range(0, len(rows), BATCH):
        batch_rows, part = rows[start : start + BATCH], chosen[start : start + BATCH]
        progress(start, len(rows), part[0].class_name)
        shown, seen = zip(*(next(read) for _ in batch_rows), strict=True)
        features = [first[f.label] for f in part]
        maps = lens.maps(batch_rows, np.stack(seen), activations[batch_rows], features)
        boxes = [_box(maps[i], cores.get(f.label, ()), geometry, shown[i]) for i, f in enumerate(part)]
        crops = _on_crops(lens, part, shown, boxes, model)
        for i, (flag, image, box) in enumerate(zip(part, shown, boxes, strict=True)):
            core = list(cores.get(flag.label, ()))
            facts = crops[i] | ({"core_activation": _strength(maps[i, core], usual[flag.label, core])} if box else {})
            drawn[flag.id] = replace(flag, **facts, **_pictures(place, image, box))
    progress(len(rows), len(rows), "")
    return [drawn.get(f.id, f) for f in flags]


def _usual(lens: ImageInspector) -> np.ndarray:
    """(k, dim) mean features of the training rows of each class."""
    labels = lens.manifest.labels
    return class_means(lens.manifest, lens.cache, lens.manifest.splits == 0, lambda rows, X: [labels[rows]]).means[0]


def _strength(maps: np.ndarray, usual: np.ndarray) -> float:
    """Mean over core features of how active they are, of maps (c, h, w), over what is usual (c,); 0 where that is 0."""
    strengths = maps.mean(axis=(1, 2))
    return float(np.divide(strengths, usual, out=np.zeros_like(usual), where=usual > 0).mean())


def _shrunk(image: Image.Image) -> Image.Image:
    out = image.convert("RGB")
    out.thumbnail((LONGEST, LONGEST))
    return out


def _box(maps: np.ndarray, core: Sequence[int], geometry: Geometry, image: Image.Image) -> Box | None:
    """Where in the image the core crop lies; None for a class without core features, or that see nothing here."""
    nams = nam(maps[list(core)])
    if not nams.any():
        return None
    mask = np.zeros(geometry.size, dtype=np.float32)
    core_crop(nams, geometry.size).cut(mask)[:] = 1
    inside = onto_image(mask, geometry, (image.height, image.width)) >= 0.5
    kept = [np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0)]
    if not all(map(len, kept)):
        return None
    top, left = (int(k[0]) for k in kept)
    return Box(top, left, int(kept[0][-1]) + 1 - top, int(kept[1][-1]) + 1 - left)


def _on_crops(
    lens: ImageInspector,
    part: Sequence[Flag],
    shown: Sequence[Image.Image],
    boxes: Sequence[Box | None],
    model: Model | None,
) -> list[dict[str, Any]]:
    """What the model says of each crop."""
    facts: list[dict[str, Any]] = [{} for _ in shown]
    cropped = [i for i, box in enumerate(boxes) if box is not None]
    if model is None or not cropped:
        return facts
    import torch

    cut = [_cut(shown[i], boxes[i]) for i in cropped]
    features, _ = lens.mapper.maps(torch.from_numpy(np.stack([lens.geometry(image) for image in cut])))
    for i, p in zip(cropped, model.probabilities(features), strict=True):
        predicted = lens.manifest.classes[int(p.argmax())]
        facts[i] = {"core_predicted": predicted, "core_probability": float(p[part[i].label])}
    return facts


def _cut(image: Image.Image, box: Any) -> Image.Image:
    return image.crop((box.left, box.top, box.left + box.width, box.top + box.height))


def tidy(folder: Path, flags: Sequence[Flag]) -> None:
    """Remove our pictures in `folder`/review that these flags, now the ones in the table, do not name."""
    named = {file for f in flags for file in (f.image, f.crop)}
    for old in (folder / FOLDER).glob("*.jpg"):
        if re.fullmatch(r"[0-9a-f]{16}|\d{5,}(-core)?", old.stem) and f"{FOLDER}/{old.name}" not in named:
            old.unlink()


def _pictures(place: Path, image: Image.Image, box: Box | None) -> dict[str, str]:
    """Write the image with the box, and what is in the box; the files."""
    scale = SIZE / max(image.size)
    shown = Image.fromarray(picture(np.asarray(image), SIZE))
    files = {}
    if box is not None:
        pen = ImageDraw.Draw(shown)
        left, top, right, bottom = (
            round(scale * v) for v in (box.left, box.top, box.left + box.width - 1, box.top + box.height - 1)
        )
        pen.rectangle((left, top, right, bottom), outline="#000000", width=3)  # seen on any ground
        pen.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline="#ffffff", width=1)
        files["crop"] = _put(place, picture(np.asarray(_cut(image, box)), SIZE))
    return files | {"image": _put(place, np.asarray(shown))}


def _put(place: Path, pixels: np.ndarray) -> str:
    """Write a picture under the digest of its bytes; its file."""
    data = encoded(pixels)
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.jpg"
    with landing(place / name, synced=False) as temporary:
        temporary.write_bytes(data)
    return f"{FOLDER}/{name}"
