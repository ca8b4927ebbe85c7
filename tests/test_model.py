"""Models predict what the heads that they came from predict, to the last bit; and their names can be typed back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pets import ONE, WHOLE, features, linear, write

from embedx.errors import HeadError, UnknownName
from embedx.evaluation import saved
from embedx.evaluation.heads import load_head
from embedx.evaluation.model import Model, ModelName
from embedx.evaluation.probe import fit, probe_cache
from embedx.store import FeatureCache, header
from embedx.workspace import Workspace

X = features(WHOLE)
LOST = [3, 700]
WORDS = st.text(min_size=1, max_size=12)
BACKBONES = WORDS.filter(lambda text: "=" not in text and bool(text.strip()))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return write(Workspace(tmp_path_factory.mktemp("cache")), WHOLE, ONE, X, LOST)


@given(BACKBONES, st.just("") | WORDS)
def test_a_name_is_read_back_as_it_was_written(backbone: str, head: str) -> None:
    name = ModelName(backbone, head)
    assert ModelName.parse(str(name)) == name


@pytest.mark.parametrize(
    ("text", "backbone", "head", "file", "short"),
    [
        ("tiny:broad", "tiny:broad", "", None, ""),
        ("tiny:broad=", "tiny:broad", "", None, ""),
        ("tiny:broad=plain", "tiny:broad", "plain", None, "plain"),
        ("mine=py:heads.mine", "mine", "py:heads.mine", None, "py:heads.mine"),
        ("mine=a=b/c=d.0.safetensors", "mine", "a=b/c=d.0.safetensors", Path("a=b/c=d.0.safetensors"), "c=d.0"),
    ],
)
def test_what_stands_before_the_first_equals_sign_is_the_backbone(
    text: str, backbone: str, head: str, file: Path | None, short: str
) -> None:
    name = ModelName.parse(text)
    assert (name.backbone, name.head, name.file, name.short) == (backbone, head, file, short)


@pytest.mark.parametrize("text", ["", "=plain", " =plain"])
def test_a_name_without_a_backbone_is_refused(text: str) -> None:
    with pytest.raises(UnknownName, match="is no backbone of a model; expected BACKBONE or BACKBONE=HEAD, such as"):
        ModelName.parse(text)


@pytest.mark.parametrize("head", ["plain", "group-balanced", "dfr", "nearest-neighbours"])
def test_a_model_predicts_the_bits_of_its_head_in_any_blocks_and_order(
    cache: FeatureCache, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fit(WHOLE, cache, head)
    assert model.fitted is not None and model.dim == 5 and str(model.name) == f"{ONE}={head}"
    expected, codes = model.fitted.predict_proba(X), model.fitted.predict(X)
    turned = replace(model, classes=WHOLE.classes[::-1])
    versions = [(model, 1), (turned, -1)]
    if model.numbers is not None:
        back = saved.load_model(saved.save_model(model, tmp_path))
        versions += [(back, 1), (replace(back, classes=WHOLE.classes[::-1]), -1)]
        versions.append((saved.load_model(saved.save_model(turned, tmp_path / "turned")), 1))
    usable = np.setdiff1d(np.arange(len(X)), LOST)
    for one, order in versions:
        assert np.array_equal(one.probabilities(X)[:, ::order], expected)
        assert np.array_equal(one.predict(X), codes if order == 1 else 1 - codes)
        for rows in (7, 1000):
            monkeypatch.setattr(header, "BLOCK_BYTES", rows * 5 * 4)
            stored = write(Workspace(tmp_path / f"{rows}"), WHOLE, ONE, X, LOST)
            ids, status, proba = (np.concatenate(part) for part in zip(*one.apply(stored), strict=True))
            assert list(ids) == list(WHOLE.ids) and list(np.flatnonzero(status)) == LOST
            assert np.isnan(proba[LOST]).all()
            if one.numbers is not None:
                assert np.array_equal(proba[usable][:, ::order], expected[usable])
            else:  # of these rows alone, all at once
                assert np.array_equal(proba[usable][:, ::order], model.fitted.predict_proba(X[usable]))


def test_rows_of_one_block_are_taken_apart_only_by_linear_models(cache: FeatureCache) -> None:
    blocks = [(np.arange(3), X[:3]), (np.arange(3, 8), X[3:8])]
    assert [len(rows) for rows, _ in fit(WHOLE, cache, "plain").blocks(blocks)] == [3, 5]
    crooked = fit(WHOLE, cache, "nearest-neighbours")
    ((rows, together),) = crooked.blocks(blocks)
    assert list(rows) == list(range(8)) and np.array_equal(together, X[:8]) and list(crooked.blocks([])) == []


def test_classes_in_another_order_are_predicted_the_same_in_ties_too() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-2, 3, (60, 4)).astype(float)
    for k in (2, 3):
        names = tuple("abc"[:k])
        mine = linear(rng.integers(-1, 2, (1 if k == 2 else k, 4)).astype(float), 0.0, names)
        order = np.random.default_rng(1).permutation(k)[::-1]
        turned = replace(mine, classes=tuple(np.take(names, np.argsort(order))))
        assert [turned.classes[c] for c in turned.predict(rows)] == [names[c] for c in mine.predict(rows)]
        assert np.array_equal(turned.probabilities(rows)[:, order], mine.probabilities(rows))
        assert np.array_equal(turned.weight[order], mine.weight) and np.array_equal(turned.bias[order], mine.bias)


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_one_logit_for_two_classes_is_two_halves(d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, b, x = rng.normal(size=(1, d)), rng.normal(size=1), rng.normal(size=(9, d))
    whole = linear(w, b)
    logits = x @ whole.weight.T + whole.bias
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], (x @ w.T + b)[:, 0])
    np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-12)
    assert (whole.predict(x.astype(np.float32)) == (x @ w.T + b > 0)[:, 0]).all()


def test_weights_are_of_features_as_they_are_cached(cache: FeatureCache) -> None:
    model = fit(WHOLE, cache, "plain")
    assert (model.predict(X) == (X @ model.weight.T + model.bias).argmax(axis=1)).all()
    with pytest.raises(HeadError, match="'nearest-neighbours' is not linear, so it has no weight for each feature"):
        _ = fit(WHOLE, cache, "nearest-neighbours").weight


def test_weights_in_another_order_of_four_classes(cache: FeatureCache) -> None:
    head = load_head("plain")(C=0.1).fit(X, WHOLE.groups)
    model = Model.of(head, fit(WHOLE, cache, "plain").record, cache, WHOLE.group_names)
    turned = replace(model, classes=(*WHOLE.group_names[2:], *WHOLE.group_names[:2]))
    assert np.array_equal(turned.weight, np.roll(model.weight, 2, axis=0))
    assert np.array_equal(turned.affine.logits(X).argmax(axis=1), turned.predict(X))


def test_every_seed_is_a_model_with_its_record(cache: FeatureCache) -> None:
    models = probe_cache(Workspace(cache.path.parents[1]), WHOLE, cache, "group-balanced", seeds=2)
    assert [m.record.seed for m in models] == [0, 1] and {m.name for m in models} == {ModelName(ONE, "group-balanced")}
    assert np.array_equal(models[0].probabilities(X), fit(WHOLE, cache, "group-balanced").probabilities(X))
