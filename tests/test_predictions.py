"""What models answer: as their heads would, row for row, whatever the blocks, and only on data they are made for."""

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
from embedx.evaluation.compare import probe_cache
from embedx.probes._logits import Affine
from embedx.spuriosity.measures.predictions import PRETRAINED, Linear, answers, linear
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
def test_a_head_answers_as_embedx_probe_fits_it(
    workspace: Workspace, cache: FeatureCache, head: str, splits: Sequence[str]
) -> None:
    ((_, fitted),) = probe_cache(workspace, WHOLE, cache, head)
    for split in splits:
        found, rows = answers(WHOLE, cache, head, split), of(split)
        assert (found.head, found.backbone, found.split, found.classes) == (head, ONE, split, WHOLE.classes)
        assert list(found.ids) == list(WHOLE.ids[rows]) and found.left_out + len(found) == sum(
            WHOLE.splits == SPLITS.index(split)
        )
        assert (found.y == WHOLE.labels[rows]).all()
        assert (found.predicted == fitted.predict(X[rows])).all()
        assert (found.correct == (fitted.predict(X[rows]) == WHOLE.labels[rows])).all()


def test_a_saved_head_answers_in_the_classes_of_the_manifest(
    workspace: Workspace, cache: FeatureCache, tmp_path: Path
) -> None:
    ((run, head),) = probe_cache(workspace, WHOLE, cache, "plain")
    kept, rows = saved.load(saved.save(head, run, cache, WHOLE.classes, tmp_path)), of("test")
    expected = kept.probabilities(X[rows]).argmax(axis=1)
    assert 0 < expected.mean() < 1
    assert (answers(WHOLE, cache, kept).predicted == expected).all()
    turned = replace(kept, classes=WHOLE.classes[::-1])
    assert (answers(WHOLE, cache, turned).predicted == 1 - expected).all()
    odd = replace(kept, classes=("cat", "cow"))
    with pytest.raises(HeadError, match="tells 2 classes of pets, pets has 2 .'cow' is in one only"):
        answers(WHOLE, cache, odd)


def test_the_classifier_of_the_backbone(workspace: Workspace, tmp_path: Path) -> None:
    bias = np.array([0.5, -0.25], np.float32)
    for b in (bias, None):
        cache = with_classifier(Workspace(tmp_path), THREE, b)
        logits = X[of("test", [])] @ THREE.T + (0 if b is None else b)
        assert (answers(WHOLE, cache, PRETRAINED).predicted == logits.argmax(axis=1)).all()
    cache = with_classifier(Workspace(tmp_path), np.vstack([THREE, THREE]), None)
    with pytest.raises(HeadError, match="tells 4 classes, pets has 2; .* name a head"):
        answers(WHOLE, cache, PRETRAINED)
    with pytest.raises(HeadError, match="tiny:one has no classifier of its own"):
        answers(WHOLE, FeatureCache.open_complete(workspace.cache("pets", ONE)), PRETRAINED)


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_one_logit_for_two_classes_is_two_halves(d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, b, x = rng.normal(size=(1, d)), rng.normal(size=1), rng.normal(size=(9, d))
    whole = Linear.of(Affine.plain(w, b))
    logits = x @ whole.weight.T + whole.bias
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], (x @ w.T + b)[:, 0])
    np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-12)
    assert (whole.predict(x.astype(np.float32)) == (x @ w.T + b > 0)[:, 0]).all()


def test_the_weights_of_a_head(cache: FeatureCache) -> None:
    found, rows = linear(WHOLE, cache, "plain"), of("test")
    assert (answers(WHOLE, cache, "plain").predicted == (X[rows] @ found.weight.T + found.bias).argmax(axis=1)).all()
    with pytest.raises(HeadError, match="'nearest-neighbours' is not linear, so it has no weight for each feature"):
        linear(WHOLE, cache, "nearest-neighbours")


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
    ((run, head),) = probe_cache(workspace, WHOLE, cache, "plain")
    kept = saved.load(saved.save(head, run, cache, WHOLE.classes, tmp_path))
    stored = with_classifier(Workspace(tmp_path), THREE, None)

    def never(self: FeatureCache) -> np.ndarray:
        raise AssertionError("all features were read")

    monkeypatch.setattr(FeatureCache, "features", never)
    assert len(answers(WHOLE, cache, kept)) == len(of("test"))
    assert len(answers(WHOLE, stored, PRETRAINED)) == len(of("test", []))


def test_a_manifest_that_lost_rows_is_answered_by_id(cache: FeatureCache) -> None:
    frame = table()
    fewer = build(frame[frame.index % 3 > 0])
    whole, found = answers(WHOLE, cache, "plain", "val"), answers(fewer, cache, "plain", "val")
    assert set(found.ids) < set(whole.ids)
    index = {row: i for i, row in enumerate(WHOLE.ids)}
    assert (found.y == [WHOLE.labels[index[i]] for i in found.ids]).all()


def test_other_features_and_empty_splits_are_refused(workspace: Workspace, cache: FeatureCache, tmp_path: Path) -> None:
    ((run, head),) = probe_cache(workspace, WHOLE, cache, "plain")
    kept = saved.load(saved.save(head, run, cache, WHOLE.classes, tmp_path))
    other = write(Workspace(tmp_path), WHOLE, TWO, X)
    with pytest.raises(ProvenanceError, match="weights is digest of tiny:two, expected digest of tiny:one"):
        answers(WHOLE, other, kept)
    none = write(Workspace(tmp_path / "none"), WHOLE, ONE, X, np.flatnonzero(WHOLE.splits == 2).tolist())
    with pytest.raises(SplitError, match="the test split has no usable row"):
        answers(WHOLE, none, kept)
