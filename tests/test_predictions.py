"""What models predict: as their heads would, row for row, whatever the blocks, and only on data they are made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, TWO, WHOLE, build, features, table, write

from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS
from embedx.errors import CacheError, HeadError, ProvenanceError, SplitError
from embedx.evaluation import saved
from embedx.evaluation.model import pretrained
from embedx.evaluation.probe import fit
from embedx.spuriosity.measures.predictions import predictions
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.workspace import Workspace

LOST = [3, 700]
X = features(WHOLE)
THREE = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)  # a classifier for two classes, two logits


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Features in blocks of a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedx.store.header.BLOCK_BYTES", 7 * 5 * 4)
        workspace = Workspace(tmp_path_factory.mktemp("cache"))
        manifests.save(WHOLE, workspace.dataset("pets"))
        write(workspace, WHOLE, ONE, X, LOST)
        yield workspace


@pytest.fixture(scope="module")
def cache(workspace: Workspace) -> FeatureCache:
    return FeatureCache.open_complete(workspace.cache("pets", ONE))


def with_classifier(workspace: Workspace, weight: np.ndarray, bias: np.ndarray | None) -> FeatureCache:
    n, path = len(WHOLE), workspace.cache("pets", TWO)
    header = Header(TWO, 5, "float32", WHOLE.ids_digest, 0, n, n, {"identity": {"weights": "w"}, "conditions": {}})
    with CacheWriter(path, header, WHOLE.ids) as writer:
        writer.append(Rows(WHOLE.ids, X, np.zeros(n, np.uint8), np.zeros((n, 32), np.uint8), {}))
        writer.attach("head/weight", weight)
        if bias is not None:
            writer.attach("head/bias", bias)
    return FeatureCache.open_complete(path)


def of(split: str, lost: list[int] = LOST) -> np.ndarray:
    return np.setdiff1d(np.flatnonzero(WHOLE.splits == SPLITS.index(split)), lost)


@pytest.mark.parametrize(("head", "splits"), [("plain", SPLITS[1:]), ("nearest-neighbours", ["test"])])
def test_a_model_predicts_as_the_head_that_embedx_probe_fits(
    cache: FeatureCache, head: str, splits: Sequence[str]
) -> None:
    model = fit(WHOLE, cache, head)
    fitted = model.fitted
    assert fitted is not None
    for split in splits:
        found, rows = predictions(WHOLE, cache, model, split), of(split)
        assert (found.head, found.backbone, found.split, found.classes) == (head, ONE, split, WHOLE.classes)
        assert list(found.ids) == list(WHOLE.ids[rows]) and found.left_out + len(found) == sum(
            WHOLE.splits == SPLITS.index(split)
        )
        assert (found.y == WHOLE.labels[rows]).all()
        assert (found.predicted == fitted.predict(X[rows])).all()
        assert (found.correct == (fitted.predict(X[rows]) == WHOLE.labels[rows])).all()


def test_a_saved_model_predicts_in_the_classes_of_the_manifest(cache: FeatureCache, tmp_path: Path) -> None:
    kept, rows = saved.load_model(saved.save_model(fit(WHOLE, cache, "plain"), tmp_path)), of("test")
    expected = kept.probabilities(X[rows]).argmax(axis=1)
    assert 0 < expected.mean() < 1
    assert (predictions(WHOLE, cache, kept).predicted == expected).all()
    turned = replace(kept, outputs=WHOLE.classes[::-1])
    assert (predictions(WHOLE, cache, turned).predicted == 1 - expected).all()
    odd = replace(kept, outputs=("cat", "cow"), classes=("cat", "cow"))
    with pytest.raises(HeadError, match="tells 2 classes of pets, pets has 2 .'cow' is in one only"):
        predictions(WHOLE, cache, odd)


def test_the_classifier_of_the_backbone(workspace: Workspace, tmp_path: Path) -> None:
    bias = np.array([0.5, -0.25], np.float32)
    for b in (bias, None):
        cache = with_classifier(Workspace(tmp_path), THREE, b)
        logits = X[of("test", [])] @ THREE.T + (0 if b is None else b)
        assert (predictions(WHOLE, cache, pretrained(WHOLE, cache)).predicted == logits.argmax(axis=1)).all()
    cache = with_classifier(Workspace(tmp_path), np.vstack([THREE, THREE]), None)
    with pytest.raises(HeadError, match="tells 4 classes, pets has 2; .* name a head"):
        predictions(WHOLE, cache, pretrained(WHOLE, cache))
    with pytest.raises(HeadError, match="tiny:one has no classifier of its own"):
        pretrained(WHOLE, FeatureCache.open_complete(workspace.cache("pets", ONE)))


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(WHOLE) - 1), min_size=1, max_size=60, unique=True))
def test_a_cache_yields_the_blocks_that_hold_wanted_rows(cache: FeatureCache, wanted: list[int]) -> None:
    assert cache.header.block_rows == 7
    blocks, whole = sorted({row // 7 for row in wanted}), list(cache.chunks())
    for b, part in zip(blocks, cache.chunks(np.array(wanted)), strict=True):
        np.testing.assert_array_equal(part.features, whole[b].features)
        assert (list(part.ids), part.reasons) == (list(whole[b].ids), whole[b].reasons)


def test_a_damaged_block_stops_only_those_who_read_it(cache: FeatureCache, tmp_path: Path) -> None:
    damaged = bytearray(cache.path.read_bytes())
    with cache._blocks() as blocks:
        damaged[blocks.offset + 70 * 5 * 4] ^= 1  # row 70, in block 10
    (tmp_path / "damaged.h5").write_bytes(bytes(damaged))
    found = FeatureCache.open_complete(tmp_path / "damaged.h5")
    assert len(list(found.chunks(np.array([0, 69, 77])))) == 3
    with pytest.raises(CacheError, match="rows 70 to 77 are damaged"):
        list(found.chunks(np.array([0, 76])))


def test_a_saved_or_stored_head_never_reads_the_whole_cache(
    workspace: Workspace, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = saved.load_model(saved.save_model(fit(WHOLE, cache, "plain"), tmp_path))
    stored = with_classifier(Workspace(tmp_path), THREE, None)

    def never(self: FeatureCache) -> np.ndarray:
        raise AssertionError("all features were read")

    monkeypatch.setattr(FeatureCache, "features", never)
    assert len(predictions(WHOLE, cache, kept)) == len(of("test"))
    assert len(predictions(WHOLE, stored, pretrained(WHOLE, stored))) == len(of("test", []))


def test_a_manifest_that_lost_rows_is_predicted_by_id(cache: FeatureCache) -> None:
    frame = table()
    fewer = build(frame[frame.index % 3 > 0])
    whole, found = (predictions(m, cache, fit(m, cache, "plain"), "val") for m in (WHOLE, fewer))
    assert set(found.ids) < set(whole.ids)
    index = {row: i for i, row in enumerate(WHOLE.ids)}
    assert (found.y == [WHOLE.labels[index[i]] for i in found.ids]).all()


def test_other_features_and_empty_splits_are_refused(workspace: Workspace, cache: FeatureCache, tmp_path: Path) -> None:
    kept = saved.load_model(saved.save_model(fit(WHOLE, cache, "plain"), tmp_path))
    other = write(Workspace(tmp_path), WHOLE, TWO, X)
    with pytest.raises(ProvenanceError, match='weights is "digest of tiny:two", expected "digest of tiny:one"'):
        predictions(WHOLE, other, kept)
    none = write(Workspace(tmp_path / "none"), WHOLE, ONE, X, np.flatnonzero(WHOLE.splits == 2).tolist())
    with pytest.raises(SplitError, match="the test split has no usable row"):
        predictions(WHOLE, none, kept)
