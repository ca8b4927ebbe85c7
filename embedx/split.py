"""Labels joined to features by id: what heads are fitted, chosen and judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedx.errors import CacheError, SplitError
from embedx.manifest import SPLITS, Manifest
from embedx.status import Status
from embedx.store import FeatureCache


@dataclass(frozen=True, eq=False)
class Part:
    """One split: ids (n,), features X (n, d) float32, labels y (n,), groups (n,), the labels where there are none."""

    ids: np.ndarray
    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts of one dataset in the features of one backbone.

    has_groups  whether any attribute forms groups
    left_out    rows of each split that are not in it because they could not be extracted
    facts       digests of what was joined, for the record
    """

    dataset: str
    backbone: str
    train: Part
    val: Part
    test: Part
    classes: tuple[str, ...]
    group_names: tuple[str, ...]
    group_labels: np.ndarray
    has_groups: bool
    left_out: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)


def join(manifest: Manifest, cache: FeatureCache, *, features: bool = True) -> Split:
    """Join a manifest and a complete cache by id; rows that are not ok are left out and counted.

    features  read them; without, X has no columns, which is enough to learn what would be refused

    The manifest may be a subset of the cache (rows removed since), never the other way round: `CacheError`.
    Raises `SplitError` when a split is empty, a class has no training row, or a group in use has no test row.
    """
    rows = _rows(manifest, cache)
    ok = cache.status[rows] == Status.OK
    groups = manifest.labels if manifest.groups is None else manifest.groups
    stored = cache.features() if features else np.empty((cache.header.rows, 0), dtype=np.float32)
    parts, left_out = {}, {}
    for s, split in enumerate(SPLITS):
        here = np.flatnonzero((manifest.splits == s) & ok)
        left_out[split] = int(np.count_nonzero((manifest.splits == s) & ~ok))
        if not len(here):
            lost = f" ({left_out[split]} could not be extracted)" if left_out[split] else ""
            raise SplitError(
                f"{manifest.name}: the {split} split has no usable row{lost}; fit, choice and report need one each"
            )
        X = stored[rows[here]].astype(np.float32, copy=False)
        parts[split] = Part(manifest.ids[here], X, manifest.labels[here], groups[here])
    _check(manifest, parts)
    return Split(
        dataset=manifest.name, backbone=cache.header.backbone, **parts, classes=manifest.classes,
        group_names=manifest.group_names, has_groups=manifest.groups is not None, left_out=left_out,
        group_labels=np.repeat(np.arange(len(manifest.classes)), len(manifest.group_names) // len(manifest.classes)),
        facts={"manifest": manifest.digest, "weights": cache.header.identity.get("weights", "")},
    )  # fmt: skip


def _rows(manifest: Manifest, cache: FeatureCache) -> np.ndarray:
    if manifest.ids_digest == cache.header.ids_digest:
        return np.arange(len(manifest))
    at = np.minimum(np.searchsorted(cache.ids, manifest.ids), len(cache.ids) - 1)
    absent = np.flatnonzero(cache.ids[at] != manifest.ids)
    if len(absent):
        raise CacheError(
            f"{cache.path} was made from another manifest: {len(absent):,} of the {len(manifest):,} rows of "
            f"{manifest.name} are not in it (for example {manifest.ids[absent[0]]}); "
            "mend the ids in manifest.csv, or delete the file and run `embedx extract` again"
        )
    return at


def _check(manifest: Manifest, parts: Mapping[str, Part]) -> None:
    k, g = len(manifest.classes), len(manifest.group_names)
    for split in ("train", "test"):
        counts = np.bincount(parts[split].y, minlength=k)
        if not counts.all():
            raise SplitError(
                f"{manifest.name}: class {manifest.classes[int(np.argmin(counts))]!r} has no usable row in {split}; "
                "add some, or drop the class from the manifest"
            )
    trained = np.bincount(np.concatenate([parts["train"].groups, parts["val"].groups]), minlength=g)
    empty = np.flatnonzero((trained > 0) & (np.bincount(parts["test"].groups, minlength=g) == 0))
    if len(empty):
        names = ", ".join(f"{manifest.group_names[i]} ({trained[i]})" for i in empty)
        raise SplitError(
            f"{manifest.name}: {names} has rows to fit or choose on and none in test, so no worst group can be "
            "reported; add test rows, or drop the group's rows or its attribute from the manifest"
        )
