"""Targeted corruptions: each takes away one thing, only where it should, and what models lose is counted right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cards import BROAD, cache_of, candidates, lens_of, prepare
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from embedx.cli import main
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.evaluation.model import Model, ModelName
from embedx.evaluation.probe import fit
from embedx.extract import load_backbone
from embedx.probes import Head
from embedx.spuriosity import annotations
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.corrupt import ImageModel, Pair, sensitivities, with_roles
from embedx.spuriosity.features.corruptions import (
    KINDS,
    CorruptionSettings,
    blend,
    blur,
    corrupted,
    elsewhere,
    grey,
    region,
    rotate,
)
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.features.maps import enlarge
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.measures.predictions import predictions
from embedx.spuriosity.records.sensitivity import Sensitivities, Sensitivity, lost, paired
from embedx.statistics import Interval, paired_difference
from embedx.workspace import Workspace

PIXELS = np.random.default_rng(0).integers(0, 256, (35, 50, 3)).astype(np.uint8)
ALL = CorruptionSettings(split="train", share=1.0, batch=8)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    return prepare(tmp_path_factory.mktemp("cards"), "tiny:narrow")


@pytest.fixture(scope="module")
def lens(cards: tuple[Workspace, Manifest]) -> ImageInspector:
    return lens_of(*cards)


@pytest.fixture(scope="module")
def pairs(lens: ImageInspector) -> list[Pair]:
    return [Pair(c.label, c.feature) for c in candidates(lens.manifest, lens.cache)]


@pytest.fixture(scope="module")
def judge(cards: tuple[Workspace, Manifest]) -> ImageModel:
    return ImageModel.of(fit(cards[1], cache_of(cards[0]), "plain"), cache_of(cards[0]), "cpu")


def watching(what: str) -> ImageModel:
    """A model on four by four pixels that says class 1 where an image has any colour, or says so of every image."""

    class Watching(Head):
        def _fits(self, data: Any, variants: Any) -> list[Any]:
            raise NotImplementedError

        def decision_function(self, X: Any) -> np.ndarray:
            colour = np.ptp(X.reshape(len(X), 3, 4, 4), axis=1)
            colour = (colour[:, :1, :1] if what == "corner" else colour).reshape(len(X), -1).max(axis=1)
            return np.ones(len(X)) if what == "nothing" else colour - 1e-6

        def predict(self, X: Any) -> np.ndarray:
            return (self.decision_function(X) > 0).astype(int)

    model = Model(ModelName(what), "cards", ("0", "1"), ("0", "1"), {}, None, Watching())
    return ImageModel(model, load_backbone("raw:4x4").placed("cpu"), "cpu")


def test_grey_is_the_luma_of_each_pixel() -> None:
    found = grey(PIXELS)
    assert (found[..., 0] == found[..., 1]).all() and (found[..., 1] == found[..., 2]).all()
    assert np.abs(found[..., 0] - np.asarray(Image.fromarray(PIXELS).convert("L"))).max() <= 1


def test_blur_keeps_what_is_smooth_and_the_mean_and_takes_texture() -> None:
    flat = np.full((20, 30, 3), (10, 100, 200), np.uint8)
    np.testing.assert_allclose(blur(flat, 2.0), flat, atol=1e-3)
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[15, 15] = 255
    spread = blur(dot, 2.0)[..., 0]
    y, x = np.indices(spread.shape)
    assert spread.sum() == pytest.approx(255, rel=1e-3)
    assert (spread * (y - 15) ** 2).sum() / spread.sum() == pytest.approx(4.0, rel=0.02)
    assert (spread * (x - 15) ** 2).sum() / spread.sum() == pytest.approx(4.0, rel=0.02)
    assert blur(PIXELS, 3.0).std() < 0.3 * PIXELS.std()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(0, 5))
def test_turned_patches_hold_their_own_pixels_in_another_order(patch: int, seed: int) -> None:
    found = rotate(PIXELS, patch, np.random.default_rng(seed))
    h, w = (side // patch for side in PIXELS.shape[:2])
    top, left = (side % patch // 2 for side in PIXELS.shape[:2])
    rest = np.ones(PIXELS.shape[:2], dtype=bool)
    for i, j in np.ndindex(h, w):
        at = np.s_[top + i * patch : top + (i + 1) * patch, left + j * patch : left + (j + 1) * patch]
        turned = [np.array_equal(found[at], np.rot90(PIXELS[at], k)) for k in range(4)]
        assert any(turned[1:]) and not turned[0]  # noise: no patch looks the same when turned
        rest[at] = False
    np.testing.assert_array_equal(found[rest], PIXELS[rest])


def test_the_turns_follow_from_the_seed_and_the_id_alone() -> None:
    one = corrupted(PIXELS, "a.png", CorruptionSettings())
    assert list(one) == list(KINDS) == ["grey", "blur", "rotate"]
    again, other, seeded = (
        corrupted(PIXELS, i, CorruptionSettings(seed=s))["rotate"]
        for i, s in (("a.png", 0), ("b.png", 0), ("a.png", 1))
    )
    np.testing.assert_array_equal(one["rotate"], again)
    assert (one["rotate"] != other).any() and (one["rotate"] != seeded).any()


def test_only_the_region_changes() -> None:
    mask = np.zeros(PIXELS.shape[:2], np.float32)
    mask[5:20, 10:30] = 1
    for other in corrupted(PIXELS, "a", CorruptionSettings()).values():
        found = blend(PIXELS, other, mask)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[mask == 0], PIXELS[mask == 0])
        np.testing.assert_array_equal(found[mask == 1], other[mask == 1].round())
        half = blend(PIXELS, other, mask / 2).astype(float)
        assert np.abs(half - (PIXELS + (other - PIXELS) * mask[..., None] / 2)).max() <= 0.5 + 1e-3


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (3, 2, 3), elements=st.floats(0, 1, width=32)), st.sampled_from([None, 0.3, 0.5, 1.0]),
)  # fmt: skip
def test_a_region_leaves_out_what_the_core_features_see(nams: np.ndarray, threshold: float | None) -> None:
    whole, less = region(nams[:1], (8, 12), threshold), region(nams, (8, 12), threshold)
    wide = enlarge(nams, (8, 12))
    core = wide[1:].max(axis=0) if threshold is None else (wide[1:] >= threshold).any(axis=0)
    own = wide[0] if threshold is None else wide[0] >= threshold
    np.testing.assert_allclose(whole, own, atol=1e-6)
    np.testing.assert_allclose(less, np.maximum(own.astype(float) - core, 0), atol=1e-6)
    assert less.min() >= 0 and region(nams[[1, 1]], (8, 12), threshold).max() == 0


def answers(tally: np.ndarray) -> tuple[np.ndarray, ...]:
    """Right or wrong of so many images of each kind."""
    return tuple(np.repeat(at, tally.ravel()).astype(bool) for at in np.indices(tally.shape).reshape(tally.ndim, -1))


@given(st.integers(1, 12), st.integers(2, 9), st.integers(0, 99))
def test_images_of_one_cluster_tell_no_more_than_one_where_they_are_alike(n: int, copies: int, seed: int) -> None:
    before, after = np.random.default_rng(seed).random((2, n)) < 0.6
    once = lost(before, after)
    again = lost(np.repeat(before, copies), np.repeat(after, copies), np.repeat(np.arange(n), copies))
    assert lost(before, after, np.arange(n)) == once and again.value == pytest.approx(once.value)
    assert again.high - again.low >= 0.99 * (once.high - once.low)


@given(arrays(np.int64, (2, 2), elements=st.integers(0, 40)).filter(lambda t: t.sum() > 0))
def test_a_table_of_answers_gives_both_accuracies_and_what_lies_between(tally: np.ndarray) -> None:
    before, after, drop, relative = paired(*answers(tally))
    assert (before, after) == (tally[1].sum() / tally.sum(), tally[:, 1].sum() / tally.sum())
    assert drop == paired_difference(int(tally[1, 0]), int(tally[0, 1]), int(tally.sum()))
    assert drop.value == pytest.approx(before - after)
    assert relative is None if before == 0 else relative == pytest.approx(drop.value / before)


@given(arrays(np.int64, (2, 2, 2), elements=st.integers(0, 20)).filter(lambda t: t.sum() > 0))
def test_what_is_lost_beyond_is_what_is_lost_there_minus_what_is_lost_elsewhere(tally: np.ndarray) -> None:
    before, after, other = answers(tally)
    there, beyond = lost(before, other), lost(other, after)
    drop, n = paired(before, after)[2], tally.sum()
    assert there.value == pytest.approx(tally[1].sum() / n - tally[:, :, 1].sum() / n)
    assert beyond.value == pytest.approx(drop.value - there.value) and there.n == beyond.n == n


@given(arrays(bool, (12, 18)), arrays(bool, (12, 18)), st.integers(0, 9))
def test_the_other_region_has_the_same_shape_and_meets_as_little_as_it_can(
    seen: np.ndarray, core: np.ndarray, seed: int
) -> None:
    own, avoid = seen.astype(np.float32), (seen | core).astype(np.float32)
    moved, overlap = elsewhere(own, avoid, np.random.default_rng(seed))
    if not own.any():
        assert not moved.any() and overlap == 0
        return
    rolled = [np.roll(own, (2 * i, 3 * j), (0, 1)) for i in range(6) for j in range(6) if i or j]
    assert any(np.array_equal(moved, r) for r in rolled) and moved.sum() == own.sum()
    least = min(float((r * avoid).sum()) for r in rolled)
    assert (moved * avoid).sum() == pytest.approx(least) and overlap == pytest.approx(least / own.sum())


def test_a_model_that_looks_at_one_place_loses_beyond_the_control_and_one_that_looks_at_all_does_not(
    lens: ImageInspector, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upper left quarter is the feature's; one model sees colour there only, the other anywhere but there."""

    def corner(nams: np.ndarray, size: tuple[int, int], threshold: float | None) -> np.ndarray:
        mask = np.zeros(size, np.float32)
        mask[: size[0] // 2, : size[1] // 2] = 1
        return mask

    monkeypatch.setattr("embedx.spuriosity.corrupt.region", corner)
    high = [p for p in pairs if p.label == 1]
    found = sensitivities(lens, high, {}, [watching("corner"), watching("colour")], ALL)
    grey = {s.model: s for s in found.found if s.kind == "grey"}
    here, both = grey["corner"], grey["colour"]
    assert here.elsewhere is not None and here.beyond is not None and both.beyond is not None
    assert (here.drop.value, here.elsewhere.value, here.beyond.value, here.overlap) == (1.0, 0.0, 1.0, 0.0)
    assert here.beyond.low > 0 and both.drop.value == both.beyond.value == 0  # colour is left elsewhere


def test_what_a_model_says_of_the_whole_images_is_what_it_says_of_its_cache(
    cards: tuple[Workspace, Manifest], lens: ImageInspector, pairs: list[Pair], judge: ImageModel
) -> None:
    found = sensitivities(lens, pairs, {}, [judge], replace(ALL, split="val"))
    said = predictions(cards[1], cache_of(cards[0]), judge.model, "val")
    for s in found.found:
        here = said.y == s.label
        assert s.before == said.correct[here].mean() and s.drop.n == here.sum()
    assert found.models == (f"{BROAD}=plain",)


def test_a_model_loses_by_the_corruption_of_what_it_looks_at_and_by_no_other(
    lens: ImageInspector, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere: Any = lambda nams, size, threshold: np.ones(size, np.float32)  # noqa: E731
    monkeypatch.setattr("embedx.spuriosity.corrupt.region", everywhere)
    high = [p for p in pairs if p.label == 1]
    found = sensitivities(lens, high, {}, [watching("colour"), watching("nothing")], ALL)
    for s in found.found:
        lost = 1.0 if (s.model, s.kind) == ("colour", "grey") else 0.0
        assert (s.before, s.after, s.drop.value, s.relative, s.area) == (1.0, 1.0 - lost, lost, lost, 1.0)
        assert s.elsewhere is not None and s.beyond is not None
        assert (s.elsewhere.value, s.beyond.value, s.overlap) == (lost, 0.0, 1.0)


def test_the_images_are_the_most_activating_of_the_split(lens: ImageInspector, pairs: list[Pair]) -> None:
    asked: list[str] = []

    class Recorded:
        place = lens.source.place

        def read(self, row_id: str) -> bytes:
            asked.append(row_id)
            return lens.source.read(row_id)

    m, pair = lens.manifest, pairs[0]
    options = CorruptionSettings(split="test", images=4, share=0.5)
    found = sensitivities(replace(lens, source=Recorded()), [pair], {}, [watching("nothing")], options)
    rows = np.flatnonzero((m.splits == SPLITS.index("test")) & (m.labels == pair.label))
    values = lens.cache.features()[rows, pair.feature]
    expected = sorted(rows, key=lambda r: (-values[list(rows).index(r)], -r))[:4]
    assert asked == [m.ids[r] for r in expected]
    assert {s.drop.n for s in found.found} == {4}
    fewer = sensitivities(lens, [pair], {}, [watching("nothing")], replace(options, share=0.25))
    assert {s.drop.n for s in fewer.found} == {round(0.25 * len(rows))}


def test_batches_threads_and_company_change_nothing(lens: ImageInspector, pairs: list[Pair], judge: ImageModel) -> None:
    one = sensitivities(lens, pairs, {}, [judge], ALL)
    assert len(one.found) == len(pairs) * len(KINDS)
    both = sensitivities(lens, pairs, {}, [watching("colour"), judge], replace(ALL, batch=5, workers=2))
    assert tuple(s for s in both.found if s.model == str(judge.model.name)) == one.found
    alone = sensitivities(lens, pairs[1:2], {}, [judge], ALL)
    assert alone.found == one.found[len(KINDS) : 2 * len(KINDS)]


def test_what_core_features_see_is_left_alone_for_spurious_ones_only(lens: ImageInspector, pairs: list[Pair]) -> None:
    a, b = pairs[:2]
    cores = {a.label: (b.feature,)}
    area = {}
    for role in ("", "spurious", "core"):
        found = sensitivities(lens, [replace(a, role=role)], cores, [watching("nothing")], ALL)
        (area[role],) = {s.area for s in found.found}
    assert area["spurious"] < area[""] == area["core"]
    itself = sensitivities(
        lens, [replace(a, role="spurious")], {a.label: (a.feature,)}, [watching("colour")], replace(ALL, split="val")
    )
    assert {(s.area, s.drop.value) for s in itself.found} == {(0.0, 0.0)}


def said(label: str, class_index: int, feature: int | None, cue: str = "") -> Annotation:
    return Annotation("cards", BROAD, "w", class_index, "low", feature, label, "local", cue=cue)


def test_roles_come_from_the_annotations() -> None:
    lines = [said("core", 0, 3), said("core", 0, 4), said("spurious", 0, 5), said("spurious", 1, 3),
             said("unsure", 1, 5), said("spurious", 0, None, "water")]  # fmt: skip
    pairs, cores = with_roles([(0, 3), (0, 5), (1, 3), (1, 5), (1, 9)], lines)
    assert [p.role for p in pairs] == ["core", "spurious", "spurious", "", ""]
    assert cores == {0: (3, 4)}


def made(drops: dict[str, list[float]]) -> Sensitivities:
    rows = [
        Sensitivity(model, 0, "low", i // 3, "", list(KINDS)[i % 3], 1.0, 1 - d, Interval(d, -1, 1, 9), d, 0.5)
        for model, of in drops.items()
        for i, d in enumerate(of)
    ]
    return Sensitivities("cards", BROAD, "w", {"split": "test"}, tuple(rows))


def test_the_agreement_of_two_models_is_pearsons(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random(30)
    y = x + 0.3 * rng.random(30)
    found = made({"a": x.tolist(), "b": y.tolist(), "c": [0.0] * 30})
    r = found.agreement("a", "b")
    assert r is not None and r.n == 30
    assert r.value == pytest.approx(np.corrcoef(x, y)[0, 1]) and -1 < r.low < r.value < r.high < 1
    grey_only = found.agreement("a", "b", "grey")
    assert grey_only is not None and grey_only.n == 10
    assert grey_only.value == pytest.approx(np.corrcoef(x[::3], y[::3])[0, 1])
    same = found.agreement("a", "a")
    assert same is not None and same.value == pytest.approx(1.0)
    assert found.agreement("a", "c") is None and made({"a": [0.1, 0.2], "b": [0.1, 0.3]}).agreement("a", "b") is None
    found.save(tmp_path)
    assert Sensitivities.load(tmp_path) == found


def test_the_interval_of_the_agreement_covers() -> None:
    rng, rho, hits = np.random.default_rng(0), 0.7, 0
    for _ in range(400):
        x = rng.normal(size=24)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=24)
        r = made({"a": x.tolist(), "b": y.tolist()}).agreement("a", "b")
        assert r is not None
        hits += r.low <= rho <= r.high
    assert hits / 400 > 0.92


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split is 'dev', expected train, val, test"),
        ({"images": 0}, "images is 0, expected at least 1"),
        ({"share": 0.0}, "share is 0.0, expected more than 0 and at most 1"),
        ({"threshold": 1.5}, "threshold is 1.5, expected more than 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuriosityError, match=message):
        CorruptionSettings(**options)


def test_nothing_to_measure_is_refused(lens: ImageInspector, pairs: list[Pair], tmp_path: Path) -> None:
    with pytest.raises(SpuriosityError, match="0 pairs and 1 models, expected at least one of each"):
        sensitivities(lens, [], {}, [watching("colour")], ALL)
    with pytest.raises(SpuriosityError, match="does not exist; make it with `embedx spuriosity corrupt`"):
        Sensitivities.load(tmp_path)
    (tmp_path / "sensitivity.json").write_text('{"format": "embedx-panels", "version": 1}')
    with pytest.raises(SpuriosityError, match=r'\$.format is "embedx-panels", expected "embedx-sensitivity"'):
        Sensitivities.load(tmp_path)


def test_the_command(cards: tuple[Workspace, Manifest], tmp_path: Path) -> None:
    workspace, manifest = cards
    words = ["--cache", str(workspace.path), "spuriosity", "corrupt", "cards", "-b", BROAD, "-o", str(tmp_path)]

    def run(*more: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, [*words, "--device", "cpu", *more])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    assert "make it with `embedx spuriosity discover`" in run(code=1)
    found = important_features(manifest, cache_of(workspace), k=2, seeds=1)
    found.save(tmp_path)
    shown = run("--model", BROAD, "--model", "tiny:narrow=plain", "--split", "val")
    assert "annotations.jsonl holds nothing" in shown and "Do models lose the same?" in shown
    assert len(Sensitivities.load(tmp_path).found) == 2 * 4 * 3
    weights = str(cache_of(workspace).header.identity["weights"])
    lines = [
        replace(
            said("spurious" if c.rank == 1 else "core", c.label, c.feature), weights=weights, class_name=c.class_name
        )
        for c in found.candidates
    ]
    annotations.write(tmp_path / annotations.FILE, lines)
    shown = run("--soft")
    assert "this goes from it: tiny:broad=convex, tiny:narrow=plain" in shown  # other roles leave other regions alone
    assert "spurious" in shown and shown.count("note") == 1 and f"wrote {tmp_path / 'sensitivity.json'}" in shown
    assert Sensitivities.load(tmp_path).settings["threshold"] is None
