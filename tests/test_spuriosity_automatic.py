"""Annotations without a person: what is planted is found, what is not is left alone, and oracles give each figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pets import ONE, TWO, WHOLE, features, linear, table, write
from PIL import Image
from scipy.stats import mannwhitneyu, spearmanr
from sklearn.metrics import roc_auc_score

from embedx import journal
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import BackboneError, ProvenanceError, SpuriosityError
from embedx.evaluation.model import Model
from embedx.extract import prompts as prompting
from embedx.extractors._backbone import Geometry
from embedx.spuriosity import annotations as notes
from embedx.spuriosity.annotations.automatic.by_attribute import by_attribute, nearest_miss
from embedx.spuriosity.annotations.automatic.by_mask import averaged, by_mask, masks_in, outside, strongest
from embedx.spuriosity.annotations.automatic.by_text import Cue, annotated, ranking, scan, similarity, spoken
from embedx.spuriosity.annotations.automatic.by_text import words as worded
from embedx.spuriosity.annotations.automatic.directions import own_directions, random_directions
from embedx.spuriosity.annotations.automatic.words import Words
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.records.discovery import Candidate, Discovery
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.statistics import random_ranking
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.workspace import Workspace


def discovery(of: dict[int, Sequence[int]], manifest: Manifest = WHOLE, backbone: str = ONE) -> Discovery:
    candidates = tuple(
        Candidate(c, manifest.classes[c], f, j + 1, 1.0 / (j + 1), 0.1, None, 0, ())
        for c, listed in of.items()
        for j, f in enumerate(listed)
    )
    sizes = tuple(np.bincount(manifest.labels[manifest.splits == 0]).tolist())
    return Discovery(
        dataset=manifest.name, backbone=backbone, weights=f"digest of {backbone}", recipe="convex", grouping="label",
        classes=manifest.classes, sizes=sizes, candidates=candidates, stability={},
    )  # fmt: skip


# By attribute


def test_the_feature_that_tells_the_place_is_spurious(tmp_path: Path) -> None:
    X = features(WHOLE)
    lost = np.flatnonzero(WHOLE.codes["place"] == 0)[:40].tolist()
    cache = write(Workspace(tmp_path), WHOLE, ONE, X, lost)
    asked = {0: (1, 2, 3), 1: (4, 2)}
    found = by_attribute(WHOLE, cache, discovery(asked))
    assert [(a.class_index, a.feature) for a in found] == [(c, f) for c, fs in asked.items() for f in fs]
    assert notes.spurious(found) == {1: (2,)}  # on cats it is strong where their place is not
    assert {a.label for a in found[:-1]} == {"unsure"}
    usable = (WHOLE.splits == 0) & ~np.isin(np.arange(len(WHOLE)), lost)
    p = []
    for a in found:
        assert (a.source, a.rank, a.weights) == (
            "auto:attribute",
            asked[a.class_index].index(a.feature) + 1,
            f"digest of {ONE}",
        )
        assert a.cue == ("place: out" if a is found[-1] else "")
        rows = usable & (WHOLE.labels == a.class_index)
        for test in a.evidence["attribute"]["tests"]:
            here = WHOLE.codes["place"][rows] == WHOLE.values["place"].index(test["value"])
            x = X[rows, a.feature]
            assert test["auroc"] == pytest.approx(roc_auc_score(here, x))
            oracle = mannwhitneyu(x[here], x[~here], alternative="greater", method="asymptotic").pvalue
            assert test["p"] == pytest.approx(oracle)
            assert (test["n"], test["others"]) == (here.sum(), (~here).sum())
            rest = WHOLE.codes["place"][(WHOLE.splits == 0) & (WHOLE.labels != a.class_index)]
            assert test["elsewhere"] == np.mean(rest == WHOLE.values["place"].index(test["value"]))
            p.append((test["p"], test["adjusted"]))
    assert len(p) == 10
    for one, adjusted in p:  # Benjamini and Hochberg: the least over larger p of p m / rank
        expected = min(q * len(p) / sum(r <= q for r, _ in p) for q, _ in p if q >= one)
        assert adjusted == pytest.approx(min(1, expected))


def test_a_strong_test_of_a_weak_effect_is_not_enough(tmp_path: Path) -> None:
    """An AUROC of about 0.6 that is beyond chance: significant, and below the threshold."""
    X = features(WHOLE)
    X[:, 1] = np.random.default_rng(1).normal(size=len(X)) + 0.7 * WHOLE.codes["place"]
    cache = write(Workspace(tmp_path), WHOLE, ONE, X)
    strict = by_attribute(WHOLE, cache, discovery({0: (1,), 1: (1,)}))
    best = max((t for a in strict for t in a.evidence["attribute"]["tests"]), key=lambda t: t["auroc"])
    assert best["adjusted"] < 0.05 and 0.5 < best["auroc"] < 0.75 and notes.spurious(strict) == {}
    said = nearest_miss(strict, 0.75)
    assert "with an AUROC of 0.75 and an adjusted p of 0.05" in said and f"AUROC {best['auroc']:.3f}" in said
    assert said.count("feature 1 of ") == 2 and "--threshold takes another AUROC" in said
    lax = by_attribute(WHOLE, cache, discovery({0: (1,), 1: (1,)}), threshold=0.55)
    assert notes.spurious(lax)
    assert notes.spurious(by_attribute(WHOLE, cache, discovery({0: (1,), 1: (1,)}), threshold=0.55, alpha=1e-9)) == {}


def test_features_that_say_nothing_are_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(size=(len(WHOLE), 60)), np.ones((len(WHOLE), 1))], axis=1).astype(np.float32)
    cache = write(Workspace(tmp_path), WHOLE, ONE, X)
    found = by_attribute(WHOLE, cache, discovery({0: range(61), 1: range(61)}), threshold=0.5)
    assert notes.spurious(found) == {}
    assert {t["auroc"] for t in found[60].evidence["attribute"]["tests"]} == {0.5}  # it never varies


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    one, two = (write(Workspace(tmp_path), WHOLE, b, features(WHOLE)) for b in (ONE, TWO))
    asked = discovery({0: (1, 2)})
    with pytest.raises(SpuriosityError, match="pets has no attribute 'plaice'; did you mean 'place'"):
        by_attribute(WHOLE, one, asked, ["plaice"])
    frame = table().drop(columns="place")
    bare = manifests.build("pets", {c: frame[c].tolist() for c in frame})
    with pytest.raises(SpuriosityError, match="pets has no attribute; add a column to manifest.csv"):
        by_attribute(bare, one, asked)
    with pytest.raises(ProvenanceError, match="run `embedx spuriosity discover` on these features"):
        by_attribute(WHOLE, two, asked)
    few = table().assign(place="in")
    few.loc[few.index[few.split == "train"][:4], "place"] = "out"
    manifest = manifests.build("pets", {c: few[c].tolist() for c in few})
    with pytest.raises(
        SpuriosityError, match="no class of pets has 5 training rows with and 5 without any value of pl"
    ):
        by_attribute(manifest, one, asked)


# By text

DIM = 8
CAT, DOG, WATER, GRASS = np.eye(DIM)[:4]
VECTORS = {
    "a photo of a cat": CAT, "a photo of a dog": 3 * DOG, "a photo with water": 2 * WATER + CAT,
    "a photo with a lake": WATER + 0.1 * GRASS + 0.3 * DOG, "a photo with grass": GRASS, "a photo with a cat": 5 * CAT,
}  # fmt: skip
PHRASES = ("grass", "water", "a lake", "a cat")


def store(
    workspace: Workspace, X: np.ndarray, extras: dict[str, np.ndarray], backbone: str = "clip:one"
) -> FeatureCache:
    n, provenance = len(WHOLE), {"spec": backbone, "identity": {"weights": f"digest of {backbone}"}, "conditions": {}}
    header = Header(backbone, X.shape[1], "float32", WHOLE.ids_digest, 0, n, n, provenance)
    with CacheWriter(workspace.cache(WHOLE.name, backbone), header, WHOLE.ids) as writer:
        status = np.zeros(n, np.uint8)
        status[5] = 2
        writer.append(Rows(WHOLE.ids, X, status, np.zeros((n, 32), np.uint8), {5: "torn"}))
        for name, array in extras.items():
            writer.attach(name, array)
    return FeatureCache.open_complete(workspace.cache(WHOLE.name, backbone))


def pictures() -> np.ndarray:
    """Image features in the space of the text: the class, the water of half of them, and noise."""
    rng = np.random.default_rng(0)
    wet = 0.8 * WHOLE.codes["place"][:, None] * WATER
    return (2 * np.stack([CAT, DOG])[WHOLE.labels] + wet + 0.15 * rng.normal(size=(len(WHOLE), DIM))).astype(np.float32)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    def text(workspace: Workspace, spec: str, prompts: Sequence[str]) -> np.ndarray:
        assert spec == "clip:one"
        return np.array([VECTORS[p] for p in prompts], np.float32)

    monkeypatch.setattr(prompting, "text_features", text)
    return Workspace(tmp_path)


def judge(right: np.ndarray, split: str = "val") -> Predictions:
    """A model that is right where `right` (n,) says so."""
    rows = np.flatnonzero((WHOLE.splits == SPLITS.index(split)) & (np.arange(len(WHOLE)) != 5))
    y = WHOLE.labels[rows]
    predicted = np.where(right[rows], y, 1 - y)
    return Predictions("pets", "clip:one", "plain", split, WHOLE.classes, WHOLE.ids[rows], y, predicted)


def leaning(cue: int = 1) -> np.ndarray:
    """Right on nearly all cats in the wet and half of the others; on dogs without regard to it."""
    rng = np.random.default_rng(1)
    sure = (WHOLE.codes["place"] == cue) & (WHOLE.labels == 0)
    return rng.uniform(size=len(WHOLE)) < np.where(sure, 0.98, np.where(WHOLE.labels == 0, 0.3, 0.8))


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def test_similarity_is_to_the_phrase_without_the_class(workspace: Workspace) -> None:
    P = np.random.default_rng(2).normal(size=(DIM, DIM))
    X = pictures()
    cache = store(workspace, (X @ np.linalg.inv(P)).astype(np.float32), {"projection": P.astype(np.float32)})
    said = worded(workspace, WHOLE, cache, ["water", " grass ", "", "a cat", "water"])
    assert said.phrases == ("water", "grass", "a cat")
    found = similarity(WHOLE, cache, said)
    assert found.shape == (len(WHOLE), 3) and np.isnan(found[5]).all()
    names, cues = np.stack([CAT, DOG])[WHOLE.labels], unit(np.stack([2 * WATER + CAT, GRASS, CAT]))
    ok = np.arange(len(WHOLE)) != 5
    for j, cue in enumerate(cues):
        left = cue - (names @ cue)[:, None] * names
        expected = (unit(X.astype(float)) * left).sum(axis=1)
        own = (j == 2) & (WHOLE.labels == 0)  # nothing is left of the class's own name
        assert np.isnan(found[own, j]).all()
        np.testing.assert_allclose(found[ok & ~own, j], expected[ok & ~own], atol=1e-4)


def test_the_class_name_in_a_phrase_changes_no_order(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = store(workspace, pictures(), {})
    cats = np.flatnonzero((WHOLE.labels == 0) & (np.arange(len(WHOLE)) != 5))
    orders = []
    for more in (0, 0.5, 4):
        monkeypatch.setitem(VECTORS, "a photo with water", WATER + more * CAT)
        values = similarity(WHOLE, cache, worded(workspace, WHOLE, cache, ["water"]))[cats, 0]
        orders.append((values / np.abs(values).max()).round(5))
    np.testing.assert_allclose(orders[0], orders[1], atol=2e-4)
    np.testing.assert_allclose(orders[0], orders[2], atol=2e-4)


def test_the_cue_that_a_model_leans_on_is_found(workspace: Workspace) -> None:
    cache = store(workspace, pictures(), {})
    said = worded(workspace, WHOLE, cache, PHRASES)
    values, right = similarity(WHOLE, cache, said), leaning()
    cues = scan(WHOLE, values, said, judge(right))
    of = {(c.label, c.phrase): c for c in cues}
    assert len(cues) == 7  # "a cat" is no phrase for cats
    verdicts = {(c.phrase, c.verdict) for c in cues if c.label == 0}
    assert ("grass", "no gap") in verdicts and {v for p, v in verdicts if p != "grass"} == {"cue", "same as another"}
    assert {c.verdict for c in cues if c.label == 1} == {"no gap"}
    (first,) = (c for c in cues if c.verdict == "cue")
    (other,) = (c for c in cues if c.of)
    assert first.merged == (other.phrase,) and other.of == first.phrase and first.gap.value >= other.gap.value
    val = np.flatnonzero((WHOLE.splits == 1) & (np.arange(len(WHOLE)) != 5))
    p = {key: c.p for key, c in of.items()}
    for (label, phrase), c in of.items():
        rows = val[WHOLE.labels[val] == label]
        order = rows[np.argsort(values[rows, said.phrases.index(phrase)], kind="stable")]
        hits = right[order]
        assert (c.n, c.k) == (len(rows), len(rows) // 5)
        difference = int(hits[-c.k :].sum()) - int(hits[: c.k].sum())
        assert c.gap.value == pytest.approx(difference / c.k) and c.gap.low <= c.gap.value <= c.gap.high
        assert c.p == pytest.approx(random_ranking(c.n, int(hits.sum()), c.k).p_value(difference))
        expected = min(q * len(p) / sum(r <= q for r in p.values()) for q in p.values() if q >= c.p)
        assert c.adjusted == pytest.approx(min(1, expected))
    rho = spearmanr(values[np.ix_((WHOLE.labels == 0) & (np.arange(len(WHOLE)) != 5), [1, 2])]).statistic
    assert rho > 0.9
    apart = scan(WHOLE, values, said, judge(right), alike=min(1.0, rho + 1e-3))
    assert [c.phrase for c in apart if c.verdict == "cue"].__len__() == 2


def test_a_cue_that_misleads_is_kept_apart(workspace: Workspace) -> None:
    cache = store(workspace, pictures(), {})
    said = worded(workspace, WHOLE, cache, ["water", "grass"])
    cues = scan(WHOLE, similarity(WHOLE, cache, said), said, judge(leaning(cue=0)))
    of = {(c.label, c.phrase): c for c in cues}
    assert of[0, "water"].verdict == "reversed" and of[0, "water"].gap.value < 0
    kept = annotated(WHOLE, cache, said, cues, judge(leaning(cue=0)))
    assert {a.label for a in kept} == {"unsure"} and len(kept) == 4
    assert [a.evidence["text"]["verdict"] for a in kept if a.cue == "water"][:1] == ["reversed"]


def test_phrases_without_meaning_are_dropped() -> None:
    rng = np.random.default_rng(5)
    said = Words(tuple(f"w{j}" for j in range(100)), np.zeros((100, 2)), np.zeros((2, 2)), None, (), ())
    found = []
    for seed in range(4):
        right = np.random.default_rng(seed).uniform(size=len(WHOLE)) < 0.7
        found += scan(WHOLE, rng.normal(size=(len(WHOLE), 100)), said, judge(right))
    assert len(found) == 800 and sum(c.p <= 0.05 for c in found) > 10  # many by chance alone
    assert [c.phrase for c in found if c.verdict != "no gap"] == []


def test_cues_in_words_are_annotations_and_rank(workspace: Workspace, tmp_path: Path) -> None:
    cache = store(workspace, pictures(), {})
    said = worded(workspace, WHOLE, cache, PHRASES, templates=("a photo with {}",))
    values, model = similarity(WHOLE, cache, said), judge(leaning())
    tested = annotated(WHOLE, cache, said, scan(WHOLE, values, said, model), model)
    (a,) = (a for a in tested if a.label == "spurious")
    assert len(tested) == 7 and {(t.feature, t.source) for t in tested} == {(None, "auto:text")}
    assert (a.feature, a.label, a.source, a.class_name) == (None, "spurious", "auto:text", "cat")
    assert (a.backbone, a.weights) == ("clip:one", "digest of clip:one")
    text = a.evidence["text"]
    assert text["prompts"] == [f"a photo with {a.cue}"] and text["class_prompts"] == ["a photo of a cat"]
    assert (text["model"], text["split"], text["tests"]) == ("clip:one=plain", "val", 7)
    notes.write(tmp_path / "t.jsonl", [a])
    assert notes.read(tmp_path / "t.jsonl") == (a,)
    assert notes.spurious([a]) == {}  # it is no feature
    found = ranking(WHOLE, cache, said, values, {0: (a.cue, "grass")})
    assert found.backbone == "text:clip:one" and found.cues == {0: (a.cue, "grass")}
    cats = np.flatnonzero((WHOLE.labels == 0) & (np.arange(len(WHOLE)) != 5))
    train = cats[WHOLE.splits[cats] == 0]
    columns = values[:, [said.phrases.index(a.cue), 0]].astype(float)
    z = (columns[cats] - columns[train].mean(0)) / columns[train].std(0)
    np.testing.assert_allclose(found.scores[cats], z.mean(axis=1), rtol=1e-6)
    assert np.isnan(np.delete(found.scores, cats)).all()
    alone = ranking(WHOLE, cache, said, values, {0: (a.cue,)})
    assert roc_auc_score(WHOLE.codes["place"][cats], alone.scores[cats]) > 0.95
    with pytest.raises(SpuriosityError, match="no class has a cue in words, so there is nothing to rank by"):
        ranking(WHOLE, cache, said, values, {})


def test_words_that_cannot_be_used(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = store(workspace, pictures(), {})
    with pytest.raises(SpuriosityError, match="there are no cue phrases; write some, one a line"):
        worded(workspace, WHOLE, cache, ["", " "])
    with pytest.raises(SpuriosityError, match="the template 'a photo' has no single {}"):
        worded(workspace, WHOLE, cache, ["water"], ["a photo"])
    said = worded(workspace, WHOLE, cache, ["water"])
    with pytest.raises(SpuriosityError, match="no phrase is anything but the name of a class"):
        scan(WHOLE, np.full((len(WHOLE), 1), np.nan), said, judge(leaning()))
    monkeypatch.setitem(VECTORS, "a photo with water", 0 * CAT)
    with pytest.raises(BackboneError, match="gives a vector of zeros"):
        worded(workspace, WHOLE, cache, ["water"])
    assert [spoken(c) for c in ("n02281406 sulphur butterfly", "fire_truck", "n02281406", "cat")] == [
        "sulphur butterfly", "fire truck", "n02281406", "cat",
    ]  # fmt: skip


def spaced(workspace: Workspace, projected: bool) -> tuple[FeatureCache, Model, Words]:
    """Features of 24 dimensions, the last a cue of cats that a head leans on; its space is that of the phrases."""
    rng, dim = np.random.default_rng(3), 24
    shown = np.where(WHOLE.labels == 0, rng.random(len(WHOLE)) < 0.6, rng.random(len(WHOLE)) < 0.3)
    X = rng.normal(size=(len(WHOLE), dim)) + 0.5 * np.eye(dim)[WHOLE.labels]
    X[:, -1] = 2.5 * shown + 0.5 * rng.normal(size=len(WHOLE))
    P = rng.normal(size=(dim, dim)) if projected else np.eye(dim)
    cache = store(workspace, (X @ np.linalg.inv(P)).astype(np.float32), {"projection": P.astype(np.float32)})
    W = np.stack([np.r_[1, -1, np.zeros(dim - 3), 0.7], np.r_[-1, 1, np.zeros(dim - 3), -0.7]])
    model = linear(W @ P.T, np.array([-0.9, 0.9]), WHOLE.classes)
    words = Words(("cue",), np.eye(dim)[[-1]], np.eye(dim)[:2], P, ("{}",), ("{}",))
    return cache, model, words


@pytest.mark.parametrize("projected", [False, True])
def test_the_direction_of_the_head_is_that_of_its_weights_without_the_class(tmp_path: Path, projected: bool) -> None:
    cache, model, words = spaced(Workspace(tmp_path), projected)
    found = own_directions(model, words.projection, words.classes)
    expected = np.stack([np.r_[0, -1, np.zeros(21), 0.7], np.r_[-1, 0, np.zeros(21), -0.7]])
    np.testing.assert_allclose(found, unit(expected), atol=1e-6)
    words = replace(words, head=found)
    s = similarity(WHOLE, cache, words)
    for out in (words.classes, found):  # what lies along either is told from no phrase
        along = replace(words, phrases=("a", "b"), cues=out)
        assert np.isnan(similarity(WHOLE, cache, along)[WHOLE.labels == 0, 0]).all()
    assert np.isfinite(s[np.arange(len(WHOLE)) != 5]).all()


def test_a_model_on_the_same_features_makes_random_phrases_significant_and_none_of_them_a_cue(tmp_path: Path) -> None:
    cache, model, words = spaced(Workspace(tmp_path), False)
    rows = np.flatnonzero((WHOLE.splits == 1) & (np.arange(len(WHOLE)) != 5))
    said = Predictions("pets", "clip:one", "plain", "val", WHOLE.classes, WHOLE.ids[rows], WHOLE.labels[rows],
                       model.predict(cache.features()[rows]))  # fmt: skip
    random = replace(words, phrases=tuple(f"w{i}" for i in range(200)),
                     cues=unit(np.random.default_rng(5).normal(size=(200, 24))))  # fmt: skip
    before = scan(WHOLE, similarity(WHOLE, cache, random), random, said)
    assert np.mean([c.p <= 0.05 for c in before]) > 0.1  # twice what chance gives, and more
    head = own_directions(model, words.projection, words.classes)
    control = random_directions(WHOLE, cache, random, said, 0.2)

    def judged(words: Words) -> tuple[Cue, ...]:
        values, without = (similarity(WHOLE, cache, w) for w in (words, replace(words, head=head)))
        return scan(WHOLE, values, words, said, control=replace(control, without=without))

    after = judged(random)
    assert np.mean([c.among is not None and c.among <= 0.05 for c in after]) == pytest.approx(0.05, abs=0.03)
    assert sum(c.verdict == "cue" for c in before) >= 5 and sum(c.verdict == "cue" for c in after) <= 1
    assert {c.verdict for c in after} >= {"no gap", "as random directions"}
    assert control.tests == 1_000 and control.beyond == pytest.approx(np.mean([c.p <= 0.05 for c in before]), abs=0.05)
    (cat,) = (c for c in judged(words) if c.label == 0)
    assert cat.verdict == "cue" and cat.gap.value > 0.5 and cat.among is not None and cat.among < 0.05
    assert cat.without is not None and cat.without.value < cat.gap.value / 2  # most of it goes by way of the head's


# By mask

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(st.data(), sizes, sizes)
def test_a_mask_is_averaged_over_even_cells(data: st.DataObject, size: tuple[int, int], cells: tuple[int, int]) -> None:
    mask = data.draw(arrays(np.uint8, size, elements=st.integers(0, 1)))
    found = averaged(mask, cells)
    times = [c * s for c, s in zip(cells, size, strict=True)]  # a grid that both divide
    fine = mask.repeat(times[0] // size[0], 0).repeat(times[1] // size[1], 1)
    expected = fine.reshape(cells[0], times[0] // cells[0], cells[1], times[1] // cells[1]).mean(axis=(1, 3))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(max_examples=40)
@given(
    arrays(np.float32, (3, 4), elements=st.floats(0, 9, width=32)), arrays(np.uint8, (7, 5), elements=st.integers(0, 1))
)
def test_what_lies_outside_one_lies_inside_the_other(activation: np.ndarray, mask: np.ndarray) -> None:
    if not activation.sum() > 0 or mask.min() == mask.max():
        assert outside([(activation, mask)]).outside == ()
        return
    (a,), (b,) = (outside([(activation, m)]).outside for m in (mask, 1 - mask))
    assert a + b == pytest.approx(1) and -1e-9 <= a <= 1 + 1e-9
    np.testing.assert_allclose(outside([(3 * activation, mask)]).outside, [a], atol=1e-12)
    even = outside([(np.ones((3, 4)), mask)])
    np.testing.assert_allclose([even.outside, even.frame], 1 - mask.mean(), atol=1e-12)


def test_a_feature_that_looks_beside_the_object_is_spurious() -> None:
    left, right = np.zeros((8, 4, 4)), np.zeros((8, 4, 4))
    left[:, :, 0], right[:, :, 3], right[:, 0, 0] = 1, 1, 0.4
    mask = np.zeros((64, 64))
    mask[:, :32] = 1
    ids, others = [*"abcdefgh"], [*"stuvwxyz"]
    maps = {(0, 1): (ids, left), (0, 2): (ids, right), (1, 2): (others, left), (1, 3): (ids, 0 * left)}
    masks = dict.fromkeys(ids, mask)
    asked = discovery({0: (1, 2, 4), 1: (2, 3)})
    found = by_mask(asked, maps, masks.get)
    assert [(a.class_index, a.feature, a.label, a.kind) for a in found] == [
        (0, 1, "core", "main_object"), (0, 2, "spurious", ""), (1, 2, "unsure", ""), (1, 3, "unsure", ""),
    ]  # fmt: skip
    evidence = found[1].evidence["mask"]
    assert evidence["share"] == pytest.approx(4 / 4.4) and evidence["frame"] == [0.5] * 8
    assert evidence["difference"]["value"] == pytest.approx(4 / 4.4 - 0.5) and evidence["difference"]["n"] == 8
    assert (evidence["images"], evidence["masked"]) == (8, 8) and found[2].evidence["mask"]["masked"] == 0
    below = right - 2 * left  # what is below zero speaks for nothing
    assert by_mask(asked, {(0, 2): (ids, below)}, masks.get)[0].evidence["mask"]["share"] == 1
    four = {i: mask if i in "abcd" else None for i in ids}  # too few that have a mask
    assert by_mask(asked, maps, four.get)[1].label == "unsure" and by_mask(asked, maps, four.get, least=4)[1].label
    whole = by_mask(asked, maps, dict.fromkeys(ids, np.ones((64, 64))).get)[1].evidence["mask"]
    assert whole["masked"] == 8 and whole["difference"] is None  # which says nothing
    with pytest.raises(SpuriosityError, match="none of the images that 4 pairs were looked at in has a mask"):
        by_mask(asked, maps, {}.get)
    with pytest.raises(ValueError, match="a mask is .4, 4. with values 0 to 7, expected"):
        averaged(np.eye(4) * 7, (2, 2))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_maps_that_look_at_random_are_called_nothing_however_large_the_object(share: float) -> None:
    """By most of the activation alone, an object over more than half of the frame makes every feature core."""
    rng, labels, pairs = np.random.default_rng(0), [], 150
    ids = [f"{i}" for i in range(10)]
    for _ in range(pairs):
        masks = {}
        for i in ids:
            side = round(32 * np.sqrt(share))
            top, left = rng.integers(0, 32 - side + 1, 2)
            masks[i] = np.zeros((32, 32))
            masks[i][top : top + side, left : left + side] = 1
        maps = {(0, 1): (ids, rng.gamma(0.5, size=(10, 4, 4)))}
        labels.append(by_mask(discovery({0: (1,)}), maps, masks.get)[0].label)
    assert labels.count("unsure") >= 0.97 * pairs


def test_masks_of_another_shape_are_refused_and_those_with_transparency_understood(tmp_path: Path) -> None:
    identity = {
        "weights": "w", "reader": {"size": [8, 8], "resize": None, "interpolation": "bilinear", "reads": "image"},
    }  # fmt: skip
    header = Header("own", 2, "float32", WHOLE.ids_digest, 0, len(WHOLE), len(WHOLE), {"identity": identity})
    mask_of = masks_in(tmp_path, FeatureCache(tmp_path / "own.h5", header))
    left = np.zeros((8, 8), bool)
    left[:, :3] = True
    white, clear = np.full((8, 8, 3), 255, np.uint8), np.where(left, 255, 0).astype(np.uint8)
    black = np.zeros((8, 8, 3), np.uint8)
    shown = np.where(left[..., None], white, black)
    for name, colour, alpha in (
        ("white", white, clear), ("black", black, clear), ("opaque", shown, np.full((8, 8), 255, np.uint8)),
        ("both", shown, clear), ("within", shown, np.where(np.arange(8) < 5, 255, 0) * np.ones((8, 1))),
    ):  # fmt: skip
        Image.fromarray(np.dstack([colour, np.asarray(alpha, np.uint8)])).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(mask_of(f"{name}.jpg", (8, 8)), left.astype(np.uint8))
    Image.fromarray(np.dstack([shown, 255 - clear])).save(tmp_path / "against.png")
    with pytest.raises(SpuriosityError, match="names one object by its colours and another by its transparency"):
        mask_of("against.jpg", (8, 8))
    Image.fromarray(np.ones((200, 400), bool)).save(tmp_path / "wide.png")
    with pytest.raises(SpuriosityError, match="wide.png is 400 x 200 and its image wide.jpg is 200 x 200: of another"):
        mask_of("wide.jpg", (200, 200))
    for size in ((400, 200), (200, 100), (133, 67), (801, 400)):  # a half, a third, twice: to a pixel the same shape
        assert mask_of("wide.jpg", size) is not None


def test_masks_go_the_way_of_their_images(tmp_path: Path) -> None:
    """A mask in the frame of the network is the mask of the image that the network sees, whatever the format."""
    rng = np.random.default_rng(0)
    geometry = Geometry(size=(24, 24), resize=32)
    identity = {
        "weights": "w",
        "reader": {"size": [24, 24], "resize": 32, "interpolation": "bilinear", "reads": "image"},
    }
    header = Header("own", 2, "float32", WHOLE.ids_digest, 0, len(WHOLE), len(WHOLE), {"identity": identity})
    mask_of = masks_in(tmp_path, FeatureCache(tmp_path / "own.h5", header))
    mask = np.zeros((64, 96), bool)
    mask[8:40, 16:80] = True
    picture = Image.fromarray(np.where(mask[:, :, None], 250, rng.integers(0, 20, (64, 96, 3))).astype(np.uint8))
    (tmp_path / "a" / "b.jpg").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "a" / "b.jpg" / "object.png")
    Image.fromarray((mask * 3).astype(np.uint8)).save(tmp_path / "a" / "c.png")  # numbers of classes, nearly black
    two = [mask_of("a/b.jpg"), mask_of("a/c.jpg")]
    assert all(m is not None and m.shape == (24, 24) and set(np.unique(m)) <= {0, 1} for m in two)
    np.testing.assert_array_equal(*two)
    seen = geometry(picture).mean(axis=2) > 130
    assert np.mean(seen != two[0]) < 0.02 and 0.2 < seen.mean() < 0.9
    assert mask_of("a/d.jpg") is None
    hollow = mask.copy()
    hollow[12:36, 20:76] = False
    Image.fromarray(hollow).save(tmp_path / "a" / "f.png")
    boxed = masks_in(tmp_path, FeatureCache(tmp_path / "own.h5", header), boxes=True)
    np.testing.assert_array_equal(boxed("a/f.jpg"), two[0])
    assert boxed("a/d.jpg") is None
    (tmp_path / "e.png").write_bytes(b"no image")
    with pytest.raises(SpuriosityError, match="e.png is no readable image; save masks as PNG files"):
        mask_of("e.jpg")
    with pytest.raises(SpuriosityError, match="nowhere is no folder; name the one that holds the masks"):
        masks_in(tmp_path / "nowhere", FeatureCache(tmp_path / "own.h5", header))
    identity["reader"] = {"length": 5, "reads": "vector"}
    with pytest.raises(SpuriosityError, match="own reads no images, so its features have no place in one"):
        masks_in(tmp_path, FeatureCache(tmp_path / "own.h5", header))


# The command


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs and squares in the upper half, blue below in one place and red in the other; extracted, and discovered."""
    folder = tmp_path_factory.mktemp("flags")
    (folder / "img").mkdir()
    (folder / "masks" / "img").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["file,shape,fold,place"]
    y, x = np.mgrid[:64, :64]
    for i in range(120):
        label, split = i % 2, ("train", "train", "val", "test")[i // 2 % 4]
        place = label if rng.uniform() < 0.75 else 1 - label
        at, size = rng.integers(14, 50), rng.integers(6, 11)
        across, down = np.abs(x - at), np.abs(y - 16)
        mask = (across**2 + down**2 <= size**2) if label else (np.maximum(across, down) <= size)
        pixels = rng.integers(0, 40, (64, 64, 3)) + 60
        pixels[mask] = 230
        pixels[40:, :, (0, 2)[place]] += np.where(x[40:] // 3 % 2, 140, 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "img" / f"{i:03d}.png")
        Image.fromarray(mask).save(folder / "masks" / "img" / f"{i:03d}.png")
        lines.append(f"img/{i:03d}.png,{('square', 'disc')[label]},{split},{('sea', 'sand')[place]}")
    (folder / "flags.csv").write_text("\n".join(lines) + "\n")
    options = ["-O", "path=file", "-O", "label=shape", "-O", "split=fold", "-O", "attributes=place", "--workers", "0"]
    csv = str(folder / "flags.csv")
    for words in (
        ["extract", "csv", "-r", csv, *options, "-b", "tiny:broad", "-b", "tiny:untrained"],
        ["spuriosity", "discover", "flags", "-b", "tiny:broad", "--seeds", "1", "-o", str(folder / "out")],
    ):
        run(folder, words)
    return folder


def run(folder: Path, words: Sequence[str], code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["--cache", str(folder / "cache"), *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def annotate(folder: Path, out: Path, *words: str, code: int = 0) -> Result:
    out.mkdir(exist_ok=True)
    for file in ("discovery.json",):
        (out / file).write_bytes((folder / "out" / file).read_bytes())
    return run(folder, ["spuriosity", "annotate", "flags", "-b", "tiny:broad", "-o", str(out), *words], code)


def test_annotate_by_attributes_and_by_masks_and_by_hand(flags: Path, tmp_path: Path) -> None:
    said = annotate(flags, tmp_path, "--from", "attributes=place")
    path = tmp_path / "annotations.jsonl"
    first = notes.read(path)
    assert len(first) == 10 and {a.source for a in first} == {"auto:attribute"}
    s = sum(a.label == "spurious" for a in first)
    assert f"wrote {path}: 10 pairs, {s} spurious over" in said.stdout and "tells place" in said.stdout
    none = annotate(flags, tmp_path / "none", "--from", "attributes=place", "--threshold", "1")
    assert "none is called spurious; nearest: feature " in none.stderr and "with an AUROC of 1 " in none.stderr
    said = annotate(flags, tmp_path, "--from", f"masks={flags / 'masks'}")
    second = notes.read(path)
    assert [a.pair for a in second] == [a.pair for a in first] and {a.source for a in second} == {"auto:mask"}
    assert all({"mask", "attribute"} == set(a.evidence) and a.evidence["mask"]["masked"] == 10 for a in second)
    assert "% outside the object" in said.stdout
    shares = np.array([a.evidence["mask"]["share"] for a in second])
    assert ((shares > 0) & (shares < 1)).all() and np.ptp(shares) > 0.1
    for name, answer in (("ann", "background"), ("bob", "background"), ("cy", "main_object")):
        journal.append(path, notes.KIND, second[0].voted([notes.Vote(name, answer)]))
    said = annotate(flags, tmp_path, "--min-votes", "unanimous", "--export", str(tmp_path / "votes.csv"))
    third = notes.read(path)
    assert third[0].label == "unsure" and third[1:] == second[1:]
    assert "2 of 3" in said.stdout and "Fleiss' kappa" in said.stderr
    assert f"wrote {tmp_path / 'votes.csv'}: 3 votes" in said.stdout
    annotate(flags, tmp_path, "--min-votes", "2")
    assert notes.read(path)[0].label == "spurious"
    before = path.read_bytes()
    assert "annotated features" in annotate(flags, tmp_path).stdout  # shown, and nothing else
    assert path.read_bytes() == before
    other = tmp_path / "other"
    annotate(flags, other, "--from", str(path))
    assert notes.read(other / "annotations.jsonl") == notes.read(path)


def test_annotate_refuses_what_it_cannot_use(flags: Path, tmp_path: Path) -> None:
    for words, message in (
        ((), "holds nothing yet; say what to annotate by with --from"),
        (("--from", "atributes"), "cannot annotate from 'atributes'; did you mean 'attributes'"),
        (("--from", "text=none.txt"), "none.txt cannot be read as text; expected --from text=FILE, a phrase a line"),
        (("--from", "masks=nowhere"), "nowhere is no folder"),
        (
            ("--from", "votes.csv"),
            "the votes are on the features of robust:madry-l2-eps3, and tiny:broad is tiny:broad",
        ),
        (("--from", "none.jsonl"), "none.jsonl does not exist"),
    ):
        error = annotate(flags, tmp_path, *words, code=1).stderr
        assert message in error and error.count("\n") == 1
    annotate(flags, tmp_path, "--min-votes", "0", code=2)
    annotate(flags, tmp_path, "--from", "masks=nowhere", "--threshold", "0.8", code=2)
    annotate(flags, tmp_path, "--from", "attributes")
    words = ["spuriosity", "annotate", "flags", "-b", "tiny:untrained", "-o", str(tmp_path)]
    error = run(flags, words, code=1).stderr
    assert "was annotated in tiny:broad with weights" in error and "the cache of tiny:untrained comes from" in error


def test_maps_are_those_of_the_images_that_show_the_feature_most(flags: Path) -> None:
    workspace = Workspace(flags / "cache")
    manifest = manifests.load(workspace.dataset("flags"))[0]
    cache = FeatureCache.open_complete(workspace.cache("flags", "tiny:broad"))
    found = strongest(ImageInspector.open(workspace, manifest, cache), Discovery.load(flags / "out"), images=4, batch=3)
    assert set(found.sizes.values()) == {(64, 64)}
    X = cache.features()
    assert len(found.maps) == 10
    for (label, feature), (ids, maps) in found.maps.items():
        rows = np.flatnonzero((manifest.labels == label) & (manifest.splits == 0))
        top = rows[np.argsort(-X[rows, feature], kind="stable")[:4]]
        assert list(ids) == manifest.ids[top].tolist()
        np.testing.assert_allclose(maps.mean(axis=(1, 2)), X[top, feature], rtol=1e-3, atol=1e-5)


def test_annotate_by_text_ranks_at_once(workspace: Workspace, tmp_path: Path) -> None:
    """A model that leans on the place, on features of another backbone, and a text tower that knows its name."""
    manifests.save(WHOLE, workspace.dataset("pets"))
    cache = store(workspace, pictures(), {})
    write(workspace, WHOLE, TWO, features(WHOLE))
    (tmp_path / "cues.txt").write_text("water\na lake\ngrass\n", encoding="utf-8")
    asked = ["--model", TWO, "--from", f"text={tmp_path / 'cues.txt'}", "-o", str(tmp_path / "out")]
    said = CliRunner().invoke(
        main, ["--cache", str(tmp_path), "spuriosity", "annotate", "pets", "-b", "clip:one", *asked]
    )
    assert said.exit_code == 0, (said.output, said.exception)
    assert "6 tests, adjusted together" in said.stdout and f"model: {TWO}=plain" in said.stdout
    assert "reversed" in said.stdout and "same as another: " in said.stdout
    tested = notes.read(tmp_path / "out" / "text-cues.jsonl")
    (found,) = (a for a in tested if a.label == "spurious")
    assert len(tested) == 6 and "control: " in said.stderr and "1 cues of 6 tests" in said.stdout
    assert "has the features that the phrases are compared with" not in said.stderr
    assert found.class_name == "dog" and found.cue in ("water", "a lake")
    assert not (tmp_path / "out" / "annotations.jsonl").exists()
    by = Ranking.load(place(workspace, "pets", "text:clip:one"), WHOLE, cache)
    dogs = (WHOLE.labels == 1) & (np.arange(len(WHOLE)) != 5)
    assert roc_auc_score(WHOLE.codes["place"][dogs], by.scores[dogs]) > 0.95
    assert (by.positions >= 0).sum() == dogs.sum() and by.cues == {1: (found.cue,)}
    (tmp_path / "cues.txt").write_text("grass\n", encoding="utf-8")
    said = CliRunner().invoke(
        main, ["--cache", str(tmp_path), "spuriosity", "annotate", "pets", "-b", "clip:one", *asked]
    )
    assert said.exit_code == 0, (said.output, said.exception)
    assert f"had cues among other phrases, which go: {found.cue}" in said.stderr
    assert [a.cue for a in notes.read(tmp_path / "out" / "text-cues.jsonl")] == ["grass", "grass"]  # cue or not
    assert ("still ranks by those of" in said.stderr) != ("ranked otherwise and is replaced" in said.stderr)
    said = CliRunner().invoke(
        main, ["--cache", str(tmp_path), "spuriosity", "annotate", "pets", "-b", "clip:one", *asked[2:]]
    )
    assert said.exit_code == 0, (said.output, said.exception)
    assert "note: clip:one=plain has the features that the phrases are compared with" in " ".join(said.stderr.split())
