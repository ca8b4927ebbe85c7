"""A few dozen cards of the demo with their cache of tiny:broad, for the tests that look at images again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from embedx.data import manifest as manifests
from embedx.data.digits import BACKGROUNDS, CLASSES, deck, paint
from embedx.data.manifest import SPLITS, Manifest
from embedx.data.prepare import source_of
from embedx.extract import Settings, extract, load_backbone
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.store import FeatureCache
from embedx.workspace import Workspace

EACH = 4  # cards of every split and group
BROAD = "tiny:broad"


def prepare(folder: Path, *backbones: str) -> tuple[Workspace, Manifest]:
    """Paint the cards, write their manifest, and extract them."""
    by_group: dict[tuple[str, str, str], list[Any]] = {}
    for card in deck():
        by_group.setdefault((card.split, card.label, card.background), []).append(card)
    cards = [c for split in SPLITS for label in CLASSES for b in BACKGROUNDS for c in by_group[split, label, b][:EACH]]
    workspace = Workspace(folder / "cache")
    root = workspace.dataset("cards") / "images"
    for card in cards:
        (root / card.id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint(card)).save(root / card.id)
    columns = {key: [getattr(c, key) for c in cards] for key in ("id", "label", "split", "background")}
    manifest = manifests.build("cards", columns, classes=CLASSES, values={"background": BACKGROUNDS})
    manifests.save(manifest, workspace.dataset("cards"))
    loaded = {name: load_backbone(name).placed("cpu") for name in (BROAD, *backbones)}
    extract(manifest, source_of(workspace, manifest), loaded, workspace, Settings(), lambda *a: None)
    return workspace, manifest


def cache_of(workspace: Workspace, backbone: str = BROAD) -> FeatureCache:
    return FeatureCache.open_complete(workspace.cache("cards", backbone))


def lens_of(workspace: Workspace, manifest: Manifest) -> ImageInspector:
    return ImageInspector.open(workspace, manifest, cache_of(workspace))


def candidate(manifest: Manifest, label: int, feature: int, rank: int = 1) -> Any:
    """What discovery says of a pair."""
    return SimpleNamespace(
        label=label, class_name=manifest.classes[label], feature=feature, rank=rank, importance=1 / rank, share=0.1,
        gap=None, n=2, elsewhere=(1 - label,),
    )  # fmt: skip


def candidates(manifest: Manifest, cache: FeatureCache, k: int = 2) -> list[Any]:
    """The k features of each class that tell it best, by the difference of means."""
    X = cache.features()
    means = [X[manifest.labels == c].mean(axis=0) for c in (0, 1)]
    order = [np.argsort(means[1 - c] - means[c], kind="stable")[:k] for c in (0, 1)]
    return [candidate(manifest, c, int(f), r + 1) for c in (0, 1) for r, f in enumerate(order[c])]
