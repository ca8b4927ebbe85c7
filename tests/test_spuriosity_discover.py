"""Discovery: importance adds up to the logits, what is planted is found, gaps are of validation rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, TWO, WHOLE, features, linear, write

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import HeadError, ProvenanceError, SplitError, SpuriosityError, UnknownName
from embedx.spuriosity.features import recipes
from embedx.spuriosity.measures import importance as step
from embedx.spuriosity.measures.importance import feature_gap, group_means, importance, important_features, overlap
from embedx.spuriosity.records.discovery import Discovery
from embedx.store import CacheWriter, FeatureCache, header
from embedx.store.writer import zeros
from embedx.workspace import Workspace

K, DIM = 4, 9
PLANTED = {0: 5, 1: 6, 2: 5, 3: 7}
"""A cue for each class; two share one."""


def cues(counts: Sequence[int] = (90, 60, 30), seed: int = 0) -> tuple[Manifest, np.ndarray]:
    """Features of K classes: a column each that is core, then three that come with classes in training only."""
    rng, n = np.random.default_rng(seed), sum(counts) * K
    splits = np.tile(np.repeat(SPLITS, counts), K)
    labels = np.repeat(np.arange(K), sum(counts))
    ids = [f"{i:05d}" for i in rng.permutation(n)]
    facts = {"id": ids, "label": [f"class {c}" for c in labels], "split": splits.tolist()}
    manifest = manifests.build("cues", facts)
    X = np.abs(rng.normal(size=(n, DIM))).astype(np.float32) * 0.3
    labels = manifest.labels
    X[np.arange(n), labels] += 0.3
    shown = rng.uniform(size=n) < np.where(manifest.splits == 0, 0.95, 0.5)
    X[np.arange(n), np.vectorize(PLANTED.get)(labels)] += 3 * shown
    return manifest, X


def cached(folder: Path, manifest: Manifest, X: np.ndarray, head: Any = None, lost: Sequence[int] = ()) -> FeatureCache:
    """A cache that stores a head as well."""
    n, facts = len(manifest), {"identity": {"weights": "own"}, "conditions": {}}
    head_of = header.Header("own", X.shape[1], str(X.dtype), manifest.ids_digest, 0, n, n, facts)
    with CacheWriter(folder / "own.h5", head_of, manifest.ids) as writer:
        rows = zeros(manifest.ids, head_of)
        rows.features[:], rows.status[list(lost)] = X, 1
        writer.append(rows)
        for name, array in zip(("head/weight", "head/bias"), head or (), strict=False):
            writer.attach(name, array)
    return FeatureCache.open_complete(folder / "own.h5")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, np.ndarray, FeatureCache]:
    manifest, X = cues()
    return manifest, X, cached(tmp_path_factory.mktemp("cues"), manifest, X)


@pytest.fixture(scope="module")
def found(data: tuple[Manifest, np.ndarray, FeatureCache]) -> Discovery:
    manifest, _, cache = data
    return important_features(manifest, cache, k=3, seeds=2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 6), st.sampled_from(["float32", "float16"]))
def test_importance_adds_up_to_the_mean_logit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, k: int, dim: int, dtype: str
) -> None:
    rng, n = np.random.default_rng(seed), 60
    y = np.r_[np.arange(k), rng.integers(0, k, n - k)]
    facts = {"id": [f"{i:03d}" for i in range(n)], "label": [f"c{c}" for c in y]}
    splits = ["train"] * k + rng.choice(SPLITS, n - k).tolist()
    manifest = manifests.build("any", {**facts, "split": splits})
    X, lost = rng.normal(size=(n, dim)).astype(dtype), np.flatnonzero(rng.uniform(size=n) < 0.1)
    lost = lost[lost >= k]
    outputs = 1 if k == 2 else k
    head = linear(rng.normal(size=(outputs, dim)), rng.normal(size=outputs), manifest.classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "BLOCK_BYTES", 7 * dim * X.itemsize)  # many blocks
        cache = cached(tmp_path_factory.mktemp("any"), manifest, X, lost=lost.tolist())
        pairs = [(head, g) for g in step.GROUPINGS]
        groups = group_means(manifest, cache, pairs)
    logits = X.astype(np.float64) @ head.weight.T + head.bias
    train = (manifest.splits == 0) & ~np.isin(np.arange(n), lost)
    said = logits.argmax(axis=1)
    for (_, grouping), of in zip(pairs, groups, strict=True):
        for c in range(k):
            rows = train & {"label": y == c, "predicted": said == c, "correct": (y == c) & (said == c)}[grouping]
            assert (c in of.fallbacks) == (not rows.any())
            rows = rows if rows.any() else train & (y == c)
            assert of.sizes[c] == rows.sum()
            np.testing.assert_allclose(
                importance(head, of)[c].sum() + head.bias[c], logits[rows, c].mean(), rtol=1e-6, atol=1e-6
            )


def test_two_classes_share_one_row_of_weights(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    cache, X = write(workspace, WHOLE, ONE, features(WHOLE)), features(WHOLE)
    (model,) = recipes.fit(WHOLE, cache, {"convex": [0, 1]})
    logits, expected = X @ model.weight.T + model.bias, model.linear.logits(X)[:, 0]
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-3)
    assert important_features(WHOLE, cache, k=1, seeds=1).of[1][0].feature == 2  # the strong spurious one


@pytest.mark.parametrize("recipe", ["convex", "paper", "code"])
def test_what_is_planted_is_found(data: tuple[Manifest, np.ndarray, FeatureCache], recipe: str) -> None:
    manifest, _, cache = data
    found = important_features(manifest, cache, recipe=recipe, k=2, seeds=1)
    assert {c: PLANTED[c] in [x.feature for x in of] for c, of in found.of.items()} == dict.fromkeys(range(K), True)
    for c in range(K):
        (cue,) = [x for x in found.of[c] if x.feature == PLANTED[c]]
        assert cue.elsewhere == {0: (2,), 2: (0,)}.get(c, ()) and cue.class_name == f"class {c}"
        assert cue.gap is not None and cue.n == cue.gap.n == 25
    assert np.mean([x.gap.value for x in found.candidates if x.gap and x.feature == PLANTED[x.label]]) > 0.1


def test_candidates_are_those_of_a_plain_loop(
    data: tuple[Manifest, np.ndarray, FeatureCache], found: Discovery
) -> None:
    manifest, X, _ = data
    assert found.fitted is not None
    head = found.fitted
    y, val = manifest.labels, manifest.splits == 1
    hits = (X @ head.weight.T + head.bias).argmax(axis=1) == y
    for c, of in found.of.items():
        rows = (manifest.splits == 0) & (y == c)
        weighed = X[rows].mean(axis=0) * head.weight[c]
        assert [x.feature for x in of] == sorted(range(DIM), key=lambda i, w=weighed: (-w[i], i))[:3]
        assert [x.rank for x in of] == [1, 2, 3]
        for x in of:
            assert x.importance == pytest.approx(weighed[x.feature], rel=1e-4)
            assert x.share == pytest.approx(max(weighed[x.feature], 0) / weighed[weighed > 0].sum(), rel=1e-4)
            here = sorted(np.flatnonzero(val & (y == c)), key=lambda r, i=x.feature: (X[r, i], r))
            assert x.gap is not None and x.n == 25
            assert x.gap.value == pytest.approx(hits[here[-25:]].mean() - hits[here[:25]].mean())
            assert x.gap.low <= x.gap.value <= x.gap.high
    assert found.sizes == (90,) * K and found.weights == "own" and found.manifest == manifest.digest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=80))
def test_the_sides_of_a_gap_do_not_meet(rows: list[tuple[int, bool]]) -> None:
    strength, hits = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    gap, n = feature_gap(strength, hits)
    assert gap is not None and n == min(25, len(rows) // 2) and -1 <= gap.low <= gap.value <= gap.high <= 1
    apart = strength + np.arange(len(rows)) * 1e-3  # ties go by the order of ids
    back, _ = feature_gap(-apart, hits)
    assert back is not None and back.value == pytest.approx(-gap.value) and back.low == pytest.approx(-gap.high)


def test_a_gap_needs_two_rows() -> None:
    assert feature_gap(np.ones(1), np.ones(1, bool)) == (None, 0)


def test_a_class_that_is_never_predicted_falls_back_and_is_named(tmp_path: Path) -> None:
    manifest, X = cues()
    W = np.eye(K, DIM, dtype=np.float32)
    bias = np.array([0, 0, 0, -50], np.float32)  # the last class is never predicted
    cache = cached(tmp_path, manifest, X, (W, bias))
    for grouping in ("predicted", "correct"):
        found = important_features(manifest, cache, recipe="pretrained", grouping=grouping, k=2)
        assert found.fallbacks == (3,) and found.sizes[3] == 90 and sum(found.sizes[:3]) != 270
        assert all(np.isfinite([x.importance, x.share]).all() for x in found.candidates)
        assert [x.feature for x in found.of[3]] == [3, 0]  # ties of weight 0 by number


def test_the_pretrained_head_is_taken_as_it_is(tmp_path: Path) -> None:
    manifest, X = cues()
    W, b = np.random.default_rng(1).normal(size=(K, DIM)).astype(np.float32), np.arange(K, dtype=np.float32)
    found = important_features(manifest, cached(tmp_path, manifest, X, (W, b)), recipe="pretrained")
    assert found.fitted is not None and np.array_equal(found.fitted.weight, W)
    hits = (X @ W.T + b).argmax(axis=1) == manifest.labels
    run = found.fitted.record
    assert run.metrics.average.value == pytest.approx(hits[manifest.splits == 2].mean())
    assert run.validation_score == pytest.approx(hits[manifest.splits == 1].mean())
    assert found.stability.keys() == {"seeds", "recipes", "groupings"} and not found.stability["recipes"]
    found.save(tmp_path)
    np.testing.assert_allclose(found.saved_head(tmp_path).linear.coef, W)


def test_heads_of_two_classes_keep_their_sides(tmp_path: Path) -> None:
    """Two rows of weights become one; the second class stays the one that a positive logit speaks for."""
    X, W = features(WHOLE), np.array([[0, 1, 0, 0, 0], [0, 2, 0.5, 0, 0]], np.float32)
    cache = cached(tmp_path, WHOLE, X, (W, np.array([1, 0], np.float32)))
    wanted = {"pretrained": [0], "paper": [0], "code": [0]}
    stored, *drawn = recipes.fit(WHOLE, cache, wanted)
    said = (X @ W.T + [1, 0]).argmax(axis=1)
    assert np.array_equal(stored.predict(X), said) and stored.linear.coef.shape == (1, 5)
    for model in drawn:
        assert (model.predict(X) == WHOLE.labels)[WHOLE.splits == 0].mean() > 0.8


def test_a_pretrained_head_that_does_not_fit_is_refused(
    data: tuple[Manifest, np.ndarray, FeatureCache], tmp_path: Path
) -> None:
    manifest, X, cache = data
    with pytest.raises(HeadError, match="own has no classifier of its own"):
        important_features(manifest, cache, recipe="pretrained")
    wrong = cached(tmp_path, manifest, X, (np.ones((7, DIM), np.float32), np.ones(7, np.float32)))
    with pytest.raises(HeadError, match="tells 7 classes, cues has 4"):
        important_features(manifest, wrong, recipe="pretrained")


def test_every_class_has_weights(data: tuple[Manifest, np.ndarray, FeatureCache], tmp_path: Path) -> None:
    """A head is as large as the manifest has classes, whatever rows are fitted (public code: the highest seen)."""
    manifest, X, cache = data
    for model in recipes.fit(manifest, cache, {"convex": [0], "paper": [0], "code": [0]}):
        assert model.weight.shape == (K, DIM) and model.classes == manifest.classes
    lost = np.flatnonzero((manifest.labels == K - 1) & (manifest.splits == 0)).tolist()
    with pytest.raises(SplitError, match="class 'class 3' has no usable row in train"):
        important_features(manifest, cached(tmp_path, manifest, X, lost=lost))


def test_seeds_decide_the_recipes_that_draw_and_nothing_else(data: tuple[Manifest, np.ndarray, FeatureCache]) -> None:
    manifest, _, cache = data
    wanted = {"convex": range(2), "paper": range(2), "code": range(2)}
    torch.manual_seed(5)
    first = recipes.fit(manifest, cache, wanted)
    torch.manual_seed(6)
    np.random.seed(1)
    again = recipes.fit(manifest, cache, wanted)
    assert [(m.name.head, m.record.seed) for m in first] == [
        ("convex", 0), ("paper", 0), ("paper", 1), ("code", 0), ("code", 1),
    ]  # fmt: skip
    assert all(np.array_equal(a.linear.coef, b.linear.coef) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1].linear.coef, first[2].linear.coef)


@pytest.mark.parametrize(("name", "kind"), [("paper", recipes.Paper), ("code", recipes.Code)])
def test_recipes_take_the_steps_they_name(name: str, kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With one batch a pass the order of rows is nothing, and the steps can be written down in NumPy."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)) * 3 + 1, np.arange(60) % 3
    after = kind(random_state=3).fit(X, y)
    monkeypatch.setattr(recipes, "EPOCHS", 0)
    start = kind(random_state=3).fit(X, y)
    w = np.column_stack([start.coef_, start.intercept_])
    assert np.abs(w).max() <= 0.5
    Z, hot = np.column_stack([X, np.ones(60)]), np.eye(3)[y]
    v, square = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 21):
        p = np.exp(Z @ w.T)
        g = (p / p.sum(axis=1, keepdims=True) - hot).T @ Z / 60
        if name == "code":
            v = 0.9 * v + g
            w = w - 0.01 * v
        else:
            g = g + 0.003 * w
            v, square = 0.9 * v + 0.1 * g, 0.999 * square + 0.001 * g**2
            w = w - 0.1 * (v / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(np.column_stack([after.coef_, after.intercept_]), w, rtol=1e-5, atol=1e-7)


def test_overlap_and_stability(data: tuple[Manifest, np.ndarray, FeatureCache], found: Discovery) -> None:
    assert overlap([[1, 2]], [[2, 1]]) == 1 and overlap([[1, 2], [3]], [[2, 4], [5]]) == pytest.approx(1 / 6)
    assert found.stability["seeds"].keys() == {"paper", "code"}  # no seed changes the convex head
    assert found.stability["recipes"].keys() == {"convex/paper", "convex/code"}
    assert found.stability["groupings"].keys() == {"label/predicted", "label/correct"}
    assert all(0 <= v <= 1 for of in found.stability.values() for v in of.values())
    manifest, _, cache = data
    other = important_features(manifest, cache, recipe="paper", k=3, seeds=2)
    tops = [[x.feature for x in of] for of in found.of.values()], [[x.feature for x in of] for of in other.of.values()]
    assert found.stability["recipes"]["convex/paper"] == pytest.approx(overlap(*tops))


def test_it_comes_back_from_its_folder(
    data: tuple[Manifest, np.ndarray, FeatureCache], found: Discovery, tmp_path: Path
) -> None:
    found.save(tmp_path)
    back = Discovery.load(tmp_path)
    assert back == found and back.fitted is None
    assert found.fitted is not None
    head = back.saved_head(tmp_path)
    head.check(data[2])
    X = data[1]
    np.testing.assert_array_equal(head.probabilities(X), found.fitted.probabilities(X))


def test_features_of_other_weights_are_refused(found: Discovery, tmp_path: Path) -> None:
    with pytest.raises(ProvenanceError, match="holds features of weights digest of tiny:t, expected own"):
        found.check(write(Workspace(tmp_path), WHOLE, TWO, features(WHOLE)))


def test_what_is_no_discovery_is_refused(found: Discovery, tmp_path: Path) -> None:
    with pytest.raises(SpuriosityError, match="does not exist; make it with `embedx spuriosity discover`"):
        Discovery.load(tmp_path)
    file = found.save(tmp_path)
    good = json.loads(file.read_text())
    lacking = {key: value for key, value in good.items() if key != "sizes"}
    for bad, message in (
        ({**good, "version": 9}, r"\$.version is 9, expected 1"),
        (lacking, r"\$ has no field 'sizes', expected one; make it again with `embedx spuriosity discover`"),
        ({**good, "candidates": [{"gap": None}]}, r"\$.candidates.0. has no field 'label'"),
        ([], r"\$ is a list, expected an object"),
    ):
        file.write_text(json.dumps(bad))
        with pytest.raises(SpuriosityError, match=message):
            Discovery.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"recipe": "papper"}, UnknownName, "unknown recipe 'papper': did you mean 'paper'"),
        ({"grouping": "labels"}, UnknownName, "unknown grouping 'labels': did you mean 'label'"),
        ({"k": 0}, SpuriosityError, "found k = 0 and seeds = 3; expected at least one of each"),
    ],
)
def test_what_cannot_be_asked_for(
    data: tuple[Manifest, np.ndarray, FeatureCache], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        important_features(data[0], data[2], **options)


def test_the_command_writes_what_the_next_steps_read(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "cache")
    manifests.save(WHOLE, workspace.dataset("pets"))
    cache = write(workspace, WHOLE, ONE, features(WHOLE))
    line = ["--cache", str(workspace.path), "spuriosity", "discover", "pets", "-b", ONE, "--top", "2", "--seeds", "2"]
    done = CliRunner().invoke(main, [*line, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "cat (315)" in done.output and "label/correct" in done.output and "wrote" in done.output
    found = Discovery.load(tmp_path / "out")
    found.check(cache)
    assert found.saved_head(tmp_path / "out").classes == WHOLE.classes and len(found.candidates) == 4
    wrong = CliRunner().invoke(main, [*line, "--recipe", "fc", "-o", str(tmp_path)])
    assert wrong.exit_code == 1 and "Error: unknown recipe 'fc'" in wrong.output


def test_groups_are_not_needed_nor_looked_at(data: tuple[Manifest, np.ndarray, FeatureCache], found: Discovery) -> None:
    """A group without test rows stands in nobody's way here, and grouping changes nothing."""
    manifest, _, cache = data
    place = np.where((manifest.splits != 2) & (np.arange(len(manifest)) % 9 == 0), "rare", "common")
    columns = {"id": manifest.ids.tolist(), "label": [manifest.classes[c] for c in manifest.labels]}
    columns |= {"split": [SPLITS[s] for s in manifest.splits], "place": place.tolist()}
    grouped = manifests.build("cues", columns)
    assert grouped.grouping == ("place",)
    assert important_features(grouped, cache, k=3, seeds=2).candidates == found.candidates
