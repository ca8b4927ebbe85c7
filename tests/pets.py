"""A small dataset with a shortcut and features made to order, for the tests that fit heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.evaluation.model import Model, ModelName
from embedx.evaluation.split import Part
from embedx.probes import Affine
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.workspace import Workspace

COUNTS = {"train": (300, 15, 15, 300), "val": (40,) * 4, "test": (150,) * 4}  # cat/in, cat/out, dog/in, dog/out
ONE, TWO = "tiny:one", "tiny:two"


def table() -> pd.DataFrame:
    """The rows, their ids shuffled: a class and a place each."""
    kinds = [(label, place) for label in ("cat", "dog") for place in ("in", "out")]
    rows = [(*kind, split) for split in SPLITS for kind, n in zip(kinds, COUNTS[split], strict=True) for _ in range(n)]
    frame = pd.DataFrame(rows, columns=["label", "place", "split"])
    return frame.assign(id=[f"{i:05d}.png" for i in np.random.default_rng(0).permutation(len(frame))])


def build(frame: pd.DataFrame, **facts: Any) -> Manifest:
    return manifests.build("pets", {column: frame[column].tolist() for column in frame}, **facts)


def features(manifest: Manifest) -> np.ndarray:
    """The number in the id, a weak core feature, a strong spurious one, and noise."""
    number = [int(i[:5]) / 1000 for i in manifest.ids]
    noise = np.random.default_rng(0).normal(size=(len(number), 4))
    core, spurious = 1.5 * manifest.labels, 5 * manifest.codes["place"]
    return np.column_stack([number, core + noise[:, 0], spurious + noise[:, 1], noise[:, 2:]]).astype(np.float32)


def write(
    workspace: Workspace,
    manifest: Manifest,
    backbone: str,
    X: np.ndarray,
    lost: Sequence[int] = (),
    hashes: np.ndarray | None = None,
) -> FeatureCache:
    hashes = np.zeros((len(manifest), 32), np.uint8) if hashes is None else hashes
    n, provenance = len(manifest), {"identity": {"weights": f"digest of {backbone}"}, "conditions": {}}
    header = Header(backbone, X.shape[1], str(X.dtype), manifest.ids_digest, 0, n, n, provenance)
    status = np.isin(np.arange(n), lost).astype(np.uint8)
    with CacheWriter(workspace.cache(manifest.name, backbone), header, manifest.ids) as writer:
        writer.append(Rows(manifest.ids, X, status, hashes, dict.fromkeys(lost, "no such file")))
    return FeatureCache.open_complete(workspace.cache(manifest.name, backbone))


WHOLE = build(table())
BARE = build(table(), grouping=())  # without attributes


def part(y: Sequence[int], groups: Sequence[int], name: str = "val", subjects: np.ndarray | None = None) -> Part:
    """Rows without features, in the order of their spuriosity."""
    ids, scores = np.array([f"{name}{i}" for i in range(len(y))]), np.arange(len(y), dtype=float)
    return Part(ids, np.zeros((len(y), 1)), np.array(y), np.array(groups), spuriosity=scores, subjects=subjects)


def linear(weight: np.ndarray, bias: np.ndarray | float = 0.0, classes: Sequence[str] = WHOLE.classes) -> Model:
    """A model of `ONE` with the logits weight @ x + bias, that was fitted nowhere; one row for two classes will do."""
    if len(weight) == 2:
        weight, bias = weight[1:] - weight[:1], np.diff(np.broadcast_to(bias, 2))
    names = tuple(classes)
    numbers, identity = Affine.plain(weight, bias), {"weights": f"digest of {ONE}"}
    return Model(ModelName(ONE, "made"), "pets", names, names, identity, numbers)
