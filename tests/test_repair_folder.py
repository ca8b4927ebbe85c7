"""A concept that is a folder of images: read by the backbone of the cache, copies and unreadable files told apart."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cards
import numpy as np
import pytest
from PIL import Image

from embedx.data.digits import BACKGROUNDS, deck, paint
from embedx.data.manifest import Manifest
from embedx.data.status import Status
from embedx.errors import EmbedxError, HeadError
from embedx.evaluation.model import Model, ModelName, identity_of
from embedx.probes import Affine
from embedx.repair import RepairSettings, repair_head
from embedx.repair.concept import concept_of
from embedx.repair.rows import Kept
from embedx.store import FeatureCache
from embedx.workspace import Workspace

Prepared = tuple[Workspace, Manifest, FeatureCache]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    workspace, manifest = cards.prepare(tmp_path_factory.mktemp("folder"))
    return workspace, manifest, cards.cache_of(workspace)


def model(manifest: Manifest, cache: FeatureCache) -> Model:
    X = cache.features()
    means = np.stack([X[manifest.labels == c].mean(0) for c in (0, 1)])
    names = manifest.classes
    return Model(
        ModelName(cards.BROAD, "made"), "cards", names, names, identity_of(cache), Affine.plain(means, np.zeros(2))
    )


def folder_of(place: Path, workspace: Workspace, ids: list[str], new: int = 0) -> Path:
    """Copies of images of the dataset under other names, and images that it does not have."""
    place.mkdir()
    for i, one in enumerate(ids):
        shutil.copy(workspace.dataset("cards") / "images" / one, place / f"copy{i}.png")
    others = [c for c in deck() if c.background == BACKGROUNDS[0]][-new:] if new else []
    for i, card in enumerate(others):
        Image.fromarray(paint(card)).save(place / f"new{i}.png")
    return place


def test_images_of_a_folder_have_the_features_of_the_cache_and_their_copies_are_not_kept(
    prepared: Prepared, tmp_path: Path
) -> None:
    workspace, manifest, cache = prepared
    usable = np.ones(len(manifest), bool)
    rows = np.sort(np.random.default_rng(0).permutation(len(manifest))[:5])
    place = folder_of(tmp_path / "odd", workspace, [str(manifest.ids[i]) for i in rows], new=12)
    shutil.copy(place / "new0.png", place / "twice.png")
    (place / "broken.png").write_bytes(b"no image")
    said: list[str] = []
    concept = concept_of(str(place), manifest, cache, usable, 0, said.append)
    assert concept.X is not None and len(concept) == 17 and not len(concept.rows)
    assert np.array_equal(concept.copies, rows)
    assert np.abs(concept.X[:5] - cache.take(rows)).max() < 1e-4
    kept = Kept.of(manifest, usable, concept.copies)
    assert not set(np.concatenate([*kept.train.values(), kept.val, kept.test])) & set(rows)
    assert len(kept.val) + len(kept.test) + sum(map(len, kept.train.values())) == len(manifest) - 5
    for words in ("left out: 1 of 19 files: broken.png", "there twice: 1 of its images", "as well: 5 images of"):
        assert any(words in text for text in said), (words, said)
    done = repair_head(
        manifest, cache, model(manifest, cache), str(place), manifest.classes[0],
        RepairSettings(shots=(4,), rates=(0.01,), seeds=2, steps=50),
    )  # fmt: skip
    assert done.record.rows["concept, to fit"] == 4 and done.record.before.concept.n == 13


def test_what_a_folder_cannot_be_used_for_is_told(prepared: Prepared, tmp_path: Path) -> None:
    workspace, manifest, cache = prepared
    head, target = model(manifest, cache), manifest.classes[0]
    (tmp_path / "broken").mkdir()
    for i in range(3):
        (tmp_path / "broken" / f"{i}.jpg").write_bytes(b"no image")
    few = folder_of(tmp_path / "few", workspace, [], new=5)
    for place, message in (
        (tmp_path / "broken", "none of 3 files is an image that can be read: 0.jpg"),
        (few, "has 5 images, and 10 of them would be fitted on: 3 more have to stop the descent and to report; ask for "
              "at most 2 shots"),
    ):  # fmt: skip
        with pytest.raises(HeadError, match=message):
            repair_head(manifest, cache, head, str(place), target)


@pytest.mark.parametrize(("split", "message"), [
    ("val", "has no val row beside the concept"), ("test", "has no test row beside the concept"),
    ("train", "one image of each of 2 classes: only 0 of 2 have a train row beside the concept; ask for up to 0"),
])  # fmt: skip
def test_a_split_without_rows_is_told(prepared: Prepared, tmp_path: Path, split: str, message: str) -> None:
    workspace, manifest, cache = prepared
    place = folder_of(tmp_path / "odd", workspace, [], new=12)
    splits = np.where(
        manifest.splits == ("train", "val", "test").index(split), (0, 1, 2)[split == "train"], manifest.splits
    )
    with pytest.raises(EmbedxError, match=message):
        repair_head(
            replace(manifest, splits=splits), cache, model(manifest, cache), str(place), manifest.classes[0],
            RepairSettings(shots=(2,), classes=(2,)),
        )  # fmt: skip


def test_rows_without_features_are_told_and_left_out(prepared: Prepared) -> None:
    _, manifest, cache = prepared
    usable = cache.status[:] == Status.OK
    mine = np.flatnonzero((manifest.codes["background"] == 0) & (manifest.labels == 0))
    usable[mine[:2]] = False
    said: list[str] = []
    concept = concept_of(f"background={BACKGROUNDS[0]}", manifest, cache, usable, 0, said.append)
    assert np.array_equal(concept.rows, mine[2:]) and said[0].startswith(
        "note: without features and left out: 2 images of background="
    )
