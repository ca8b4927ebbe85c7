"""The images that the head gets wrong: by an attribute's value, by a list of ids, or in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedx.data.images import decode
from embedx.data.manifest import Manifest
from embedx.data.sources import Folder
from embedx.data.status import Status
from embedx.data.trees import Tree
from embedx.errors import HeadError, UnknownName
from embedx.plugins import nearest
from embedx.spuriosity.features.image_inspection import open_backbone
from embedx.store import FeatureCache

Notice = Callable[[str], None]
SHOWN, BATCH = 5, 32


@dataclass(frozen=True, eq=False)
class Concept:
    """Images of the concept.

    spec    as it was given
    rows    (m,) rows of the manifest that are of the concept; none for a folder
    X       (f, d) features of images of a folder, which are no rows of the manifest; None otherwise
    copies  rows of the manifest with the bytes of an image of the folder: neither kept nor reported
    """

    spec: str
    rows: np.ndarray
    X: np.ndarray | None
    copies: np.ndarray

    def __len__(self) -> int:
        return len(self.rows) if self.X is None else len(self.X)


def concept_of(spec: str, manifest: Manifest, cache: FeatureCache, usable: np.ndarray, target: int,
               notice: Notice) -> Concept:  # fmt: skip
    """The concept that a text spells: a folder of images, a file with an id on each line, or ATTRIBUTE=VALUE.

    usable  (n,) bool, rows of the manifest that have features
    With ATTRIBUTE=VALUE it is the rows of the target's class that have the value. Raises `UnknownName` for a name that
    is none, `HeadError` for a concept without images.
    """
    nothing, path = np.empty(0, np.int64), Path(spec)
    if path.is_dir():
        X, copies = _of_folder(path, manifest, cache, notice)
        return Concept(spec, nothing, X, copies)
    rows = _listed(path, manifest) if path.is_file() else _of_attribute(spec, manifest, target)
    lost = rows[~usable[rows]]
    if len(lost):
        notice(f"note: without features and left out: {len(lost):,} images of {spec}, such as {manifest.ids[lost[0]]}")
    if not len(rows := rows[usable[rows]]):
        raise HeadError(f"{spec} has no image of {manifest.classes[target]!r} with features; name another concept")
    return Concept(spec, rows, None, nothing)


def _of_attribute(spec: str, manifest: Manifest, target: int) -> np.ndarray:
    attribute, equals, value = spec.partition("=")
    if not equals:
        raise UnknownName(
            f"{spec!r} is no concept: no folder and no file of that name, and no ATTRIBUTE=VALUE; attributes of "
            f"{manifest.name}: {', '.join(manifest.values) or 'none'}"
        )
    if attribute not in manifest.values:
        raise UnknownName(f"{manifest.name} has no attribute {attribute!r}: {nearest(attribute, manifest.values)}")
    values = manifest.values[attribute]
    if value not in values:
        raise UnknownName(f"{attribute} is never {value!r}: {nearest(value, values)}")
    return np.flatnonzero((manifest.codes[attribute] == values.index(value)) & (manifest.labels == target))


def _listed(path: Path, manifest: Manifest) -> np.ndarray:
    try:
        ids = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise HeadError(f"{path} is no UTF-8 text; expected a file with an id on each line") from error
    if not ids:
        raise HeadError(f"{path} is empty, expected a file with an id of {manifest.name} on each line")
    place = {row_id: i for i, row_id in enumerate(manifest.ids)}
    if unknown := [row_id for row_id in ids if row_id not in place]:
        raise UnknownName(
            f"{path} names {len(unknown):,} ids that {manifest.name} does not have, such as {unknown[0]!r}: "
            f"{nearest(unknown[0], place)}"
        )
    return np.unique([place[row_id] for row_id in ids])


def _of_folder(path: Path, manifest: Manifest, cache: FeatureCache, notice: Notice) -> tuple[np.ndarray, np.ndarray]:
    """Features of the images in a folder by the very backbone of the cache, and rows that have their bytes."""
    import torch

    if not (names := sorted(Tree(path).walk())):
        raise HeadError(f"{path} holds no image; name a folder with images of the concept")
    backbone, source = open_backbone(cache), Folder(path.resolve())
    read = [decode(source, name, backbone.reader.reads) for name in names]
    fine = {d.content_hash: d.value for d in read if d.status == Status.OK}
    failed = [f"{name} ({d.reason})" for name, d in zip(names, read, strict=True) if d.status != Status.OK]
    if not fine:
        raise HeadError(f"{path}: none of {len(names):,} files is an image that can be read: {failed[0]}")
    if failed:
        notice(f"note: {path}: left out: {len(failed):,} of {len(names):,} files: {', '.join(failed[:SHOWN])}")
    if len(fine) + len(failed) < len(names):
        notice(f"note: {path}: there twice: {len(names) - len(failed) - len(fine):,} of its images, which count once")
    values = [backbone.reader(value) for value in fine.values()]
    X = np.concatenate(
        [
            backbone.encode(torch.from_numpy(np.stack(values[i : i + BATCH])), "cpu")
            for i in range(0, len(values), BATCH)
        ]
    )
    hashes = {h.tobytes(): str(i) for h, i in zip(cache.content_hash, cache.ids, strict=True)}
    copies = {hashes[h] for h in fine if h in hashes}
    if copies:
        notice(f"note: in {manifest.name} as well: {len(copies):,} images of {path}, whose rows there are left out")
    return X, np.flatnonzero(np.isin(manifest.ids, list(copies)))
