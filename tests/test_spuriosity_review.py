"""The review queue: the right rows in the right order, what was mislabelled stands first, and crops lie on the core."""

from __future__ import annotations

import csv
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cards import BROAD, cache_of, candidates, lens_of, prepare
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import linear, write
from PIL import Image

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.evaluation.model import Model, ModelName
from embedx.extractors._backbone import Geometry
from embedx.spuriosity import annotations, review
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.features.maps import nam
from embedx.spuriosity.measures.collisions import Collision, Evidence, collisions
from embedx.spuriosity.measures.gaps import Gaps, gaps
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.scores import rank_by_scores
from embedx.spuriosity.pages.previews import FOLDER, SIZE, _box, draw, tidy
from embedx.spuriosity.records import flags as flags_file
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.findings import core_features
from embedx.spuriosity.records.flags import NEGATIVE, SURE, Flag, counts
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.gaps import save as save_gaps
from embedx.spuriosity.records.ranking import Ranking
from embedx.spuriosity.review import ReviewSettings
from embedx.workspace import Workspace

CLASSES = ("lamp", "otter", "shore")
CUE = 3


def made(folder: Path, seed: int = 0, wrong: int = 0) -> tuple[Manifest, Any, Model, Ranking, Gaps, list[Collision]]:
    """Otters on a shore are taken for shores: the shore feature is the otter's cue. `wrong` lamps are called otters."""
    rng = np.random.default_rng(seed)
    split = np.repeat([0, 1, 2], (120, 60, 90))
    label = np.arange(len(split)) % 3
    there = (label == 2) | ((label == 1) & (rng.random(len(label)) < 0.5))
    X = np.column_stack([4.0 * (label == 0), 4.0 * (label == 1), 0 * label, 5.0 * there]) + rng.normal(0, 0.4, (270, 4))
    labels = label.copy()
    labels[np.flatnonzero((label == 0) & (split == 0))[:wrong]] = 1
    ids = [f"{SPLITS[s]}/{i:04d}.jpg" for i, s in enumerate(split)]
    columns = {"id": ids, "label": [CLASSES[c] for c in labels], "split": [SPLITS[s] for s in split]}
    manifest = manifests.build("made", columns, classes=CLASSES)
    at = [ids.index(row) for row in manifest.ids]
    cache = write(Workspace(folder), manifest, "tiny:made", X[at].astype(np.float32))
    weight = np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 0.3], [0, 0, 2.0, 2.4]])
    head = linear(weight, np.zeros(3), CLASSES)
    cues = {1: ["the shore"]}
    ranking = rank_by_scores(manifest, X[at][:, CUE].copy(), backbone="tiny:made", weights="digest of tiny:made",
                                cues=cues)  # fmt: skip
    ranking = replace(ranking, features={1: (CUE,)})
    rows = np.flatnonzero(manifest.splits == 2)
    said = Predictions("made", "tiny:made", "plain", "test", CLASSES, manifest.ids[rows], manifest.labels[rows],
                   head.predict(X[at][rows]))  # fmt: skip
    found = gaps(ranking, said)
    return manifest, cache, head, ranking, found, collisions(found, ranking, said, Evidence(manifest, cache, head))


@pytest.fixture(scope="module")
def otters(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made(tmp_path_factory.mktemp("otters"), wrong=4)


def listed(otters: Any, *options: Any) -> list[Flag]:
    return review.queue(*otters, *options)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.floats(0.51, 0.99), st.sampled_from([("train",), ("val", "test"), SPLITS]))
def test_the_queue_is_what_a_plain_loop_finds(
    tmp_path_factory: pytest.TempPathFactory, seed: int, confident: float, splits: tuple[str, ...]
) -> None:
    manifest, cache, head, ranking, found, pulls = made(tmp_path_factory.mktemp("loop"), seed, wrong=seed % 3)
    assert [c.gap.high < 0 for c in found.classes] == [True]  # the shore takes the otters away
    p, m = head.probabilities(cache.features()), manifest
    high, sure = [], []
    for i in range(len(m)):
        mine = [j for j in range(len(m)) if m.labels[j] == m.labels[i] and m.splits[j] == m.splits[i]]
        above = sum(ranking.scores[j] > ranking.scores[i] for j in mine)
        key = (p[i, m.labels[i]], -np.nan_to_num(ranking.scores[i], nan=-np.inf), m.ids[i])
        if SPLITS[m.splits[i]] not in splits:
            continue
        if m.labels[i] == 1 and above < max(1, int(0.2 * len(mine) + 1e-9)):
            high.append((*key, i))
        elif p[i].argmax() != m.labels[i] and p[i].max() >= confident:
            sure.append((*key, i))
    flags = review.queue(manifest, cache, head, ranking, found, pulls, ReviewSettings(splits, confident))
    assert [f.id for f in flags] == [m.ids[i] for *_, i in sorted(high) + sorted(sure)]
    assert counts(flags) == {NEGATIVE: len(high), SURE: len(sure)}
    assert [f.place for f in flags] == list(range(1, len(flags) + 1))
    for f, (*_, i) in zip(flags, sorted(high) + sorted(sure), strict=True):
        order = np.argsort(-p[i], kind="stable")
        assert (f.class_name, f.split) == (CLASSES[m.labels[i]], SPLITS[m.splits[i]])
        assert [f.predicted_name, f.second_name, f.third_name] == [CLASSES[c] for c in order]
        assert [f.probability, f.second_probability, f.third_probability] == pytest.approx(p[i, order], rel=1e-9)
        assert f.label_probability == pytest.approx(p[i, f.label], rel=1e-9)
        assert (f.position is None) == (f.label != 1) and (f.gap is None) == (f.label != 1)
        if f.position is not None and f.ranked is not None:
            assert f.position == ranking.positions[i] and f.ranked == sum(
                (m.labels == 1) & (m.splits == m.splits[i]) & (ranking.positions >= 0)
            )


def test_where_the_head_cannot_tell_the_more_spurious_comes_first(otters: Any) -> None:
    manifest, cache, head, ranking, found, pulls = otters
    blank = linear(np.zeros_like(head.weight), head.bias, CLASSES)
    flags = review.queue(manifest, cache, blank, ranking, found, pulls)
    scores = [f.spuriosity for f in flags]
    assert len(scores) > 5 and scores == sorted(scores, reverse=True)
    assert all(f.label_probability == pytest.approx(1 / 3) for f in flags)


def test_probabilities_of_two_classes_are_those_of_one_logit() -> None:
    x = np.linspace(-5, 5, 11)[:, None]
    half = linear(np.array([[-0.5], [0.5]]), np.array([-0.1, 0.1]))
    assert half.probabilities(x)[:, 1] == pytest.approx(1 / (1 + np.exp(-(x[:, 0] + 0.2))))


def test_mislabelled_rows_stand_first_among_the_confident(otters: Any) -> None:
    manifest = otters[0]
    flags = [f for f in listed(otters) if f.reason == SURE and f.split == "train" and f.class_name == "otter"]
    wrong = {i for i in manifest.ids if i.startswith("train") and int(i[6:10]) % 3 == 0 and int(i[6:10]) < 12}
    first = [f for f in flags if f.predicted_name == "lamp"]
    assert {f.id for f in first} == wrong and all(f.other is None for f in first)  # no lamp collides with an otter


def test_the_colliding_class_and_its_feature_stand_beside_the_row(otters: Any) -> None:
    flags = [f for f in listed(otters) if f.reason == NEGATIVE]
    assert flags and all((f.other_name, f.feature) == ("shore", CUE) for f in flags)
    assert all(f.towards is not None and f.own is not None and f.towards > 5 > f.own for f in flags)


def test_a_class_whose_interval_includes_0_is_left_out_unless_asked_for(otters: Any) -> None:
    manifest, cache, head, ranking, found, pulls = otters
    one = found.classes[0]
    near = replace(found, classes=(replace(one, gap=replace(one.gap, value=-0.1, high=0.0)),))
    above = replace(found, classes=(replace(one, gap=replace(one.gap, value=0.1, low=-0.1, high=0.3)),))
    for changed, every, there in ((near, False, False), (near, True, True), (above, True, False), (found, False, True)):
        flags = review.queue(manifest, cache, head, ranking, changed, pulls, ReviewSettings(every=every))
        assert (counts(flags)[NEGATIVE] > 0) == there
        sure = {f.id for f in flags if f.reason == SURE}
        assert not there or not sure & {f.id for f in flags if f.reason == NEGATIVE}


@pytest.mark.parametrize("confident", [0.5, 1.01, float("nan")])
def test_a_probability_that_is_none_is_refused(confident: float) -> None:
    with pytest.raises(SpuriosityError, match="expected a probability above 0.5, up to 1"):
        ReviewSettings(confident=confident)


words = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(words, words, st.floats(0, 1), st.none() | st.floats(-9, 9), st.none() | st.integers(0, 9))))
def test_the_table_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]) -> None:
    folder = tmp_path_factory.mktemp("table")
    flags = [
        Flag(n, SURE, row_id, "test", 0, name, p, 1, name, 1 - p, name, p, spuriosity=score, feature=place)
        for n, (row_id, name, p, score, place) in enumerate(rows, 1)
    ]
    file = flags_file.save(folder, flags)
    assert flags_file.load(folder) == flags
    with file.open(encoding="utf-8", newline="") as text:
        assert next(csv.reader(text)) == [f.name for f in fields(Flag)]


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpuriosityError, match="does not exist: make it with `embedx spuriosity review`"):
        flags_file.load(tmp_path)
    for text in ("place,reason\n1,confident\n", ",".join(f.name for f in fields(Flag)) + "\nfirst,confident\n"):
        (tmp_path / flags_file.FILE).write_text(text)
        with pytest.raises(SpuriosityError, match=r"is no such table .*; run `embedx spuriosity review` again"):
            flags_file.load(tmp_path)


def test_core_features_are_those_nobody_calls_spurious(tmp_path: Path, cards: tuple[Workspace, Manifest]) -> None:
    found = important_features(cards[1], cache_of(cards[0]), k=3, seeds=1)
    a, b, c = (x.feature for x in found.of[0])
    common = ("cards", BROAD, found.weights, 0, found.classes[0])
    said = [Annotation(*common, b, "spurious", "local"), Annotation(*common, c, "unsure", "local")]
    cores = core_features(found, said)
    assert cores[0] == (a, c) and cores[1] == tuple(x.feature for x in found.of[1])


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    return prepare(tmp_path_factory.mktemp("cards"))


@pytest.fixture(scope="module")
def lens(cards: tuple[Workspace, Manifest]) -> ImageInspector:
    return lens_of(*cards)


def flag(manifest: Manifest, row: int, place: int = 1, reason: str = NEGATIVE) -> Flag:
    label = int(manifest.labels[row])
    name, other = manifest.classes[label], manifest.classes[1 - label]
    return Flag(place, reason, str(manifest.ids[row]), "train", label, name, 0.1, 1 - label, other, 0.9, name, 0.1)


def test_pictures_of_the_first_of_either_kind_and_none_that_are_left_over(lens: ImageInspector, tmp_path: Path) -> None:
    m, head = lens.manifest, linear(np.random.default_rng(0).normal(size=(2, 128)), np.zeros(2))
    flags = [flag(m, row, row + 1, SURE if row > 4 else NEGATIVE) for row in range(8)]
    cores = {c: tuple(x.feature for x in candidates(m, lens.cache) if x.label == c) for c in (0, 1)}
    bare = dict(cores) | {int(m.labels[0]): ()}
    (tmp_path / FOLDER).mkdir()
    for name in ("00099.jpg", "00099-core.jpg", "mine.jpg"):
        (tmp_path / FOLDER / name).write_bytes(b"")
    drawn = draw(lens, flags, cores, tmp_path, images=2, model=head)
    assert (tmp_path / FOLDER / "00099.jpg").exists()  # a table that names it may still be there
    tidy(tmp_path, drawn)
    shown = [f for f in drawn if f.image]
    assert [f.place for f in shown] == [1, 2, 6, 7] and [replace(f, image="", crop="") for f in drawn][2] == flags[2]
    expected = {f for x in shown for f in (x.image, x.crop)} | {f"{FOLDER}/mine.jpg"}
    assert {p.relative_to(tmp_path).as_posix() for p in (tmp_path / FOLDER).iterdir()} == expected
    usual = np.stack([lens.cache.features()[(m.splits == 0) & (m.labels == c)].mean(axis=0) for c in (0, 1)])
    for f in shown:
        with Image.open(tmp_path / f.image) as image, Image.open(tmp_path / f.crop) as crop:
            assert max(image.size) == max(crop.size) == SIZE
        core, row = list(cores[f.label]), int(np.searchsorted(m.ids, f.id))
        ratio = (lens.cache.features()[row, core] / usual[f.label, core]).mean()
        assert f.core_activation == pytest.approx(ratio, rel=1e-3)
        assert f.core_predicted in m.classes and f.core_probability is not None and 0 <= f.core_probability <= 1
        assert (f.core_predicted == f.class_name) == (f.core_probability > 0.5)
    before = {f: (tmp_path / f).read_bytes() for f in expected}
    again = draw(lens, flags, bare, tmp_path, images=1)
    assert {f: (tmp_path / f).read_bytes() for f in expected} == before  # the table still shows what it showed
    assert again[0].image and not again[0].crop and again[0].core_activation is None and not again[0].core_predicted


@pytest.mark.parametrize("resize", [(64, 64), 64, None])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (7, 0), (5, 4)])
def test_the_box_lies_in_the_image_where_the_core_is_seen(resize: Any, row: int, column: int) -> None:
    geometry = Geometry((64, 64), resize, "bilinear")
    image = Image.new("RGB", (192, 96))
    maps = np.zeros((3, 8, 8), np.float32)
    maps[1, row, column], maps[2] = 2.0, 1.0
    box = _box(maps, [1], geometry, image)
    assert box is not None and box.top >= 0 and box.top + box.height <= 96 and box.left + box.width <= 192
    # the middle of the cell, followed back by hand through crop and resizing
    y, x = 8 * row + 4, 8 * column + 4
    if resize == (64, 64):
        there = (y * 96 / 64, x * 192 / 64)
    elif resize == 64:
        there = (y * 1.5, (x + 32) * 1.5)
    else:
        there = (y + 16.0, x + 64.0)
    assert box.top <= there[0] <= box.top + box.height and box.left <= there[1] <= box.left + box.width
    assert box.height * box.width < 96 * 192 / 4
    assert _box(maps, [0], geometry, image) is None and _box(maps, [], geometry, image) is None
    assert nam(maps[[0]]).max() == 0


def test_the_command(cards: tuple[Workspace, Manifest], tmp_path: Path) -> None:
    workspace, manifest = cards
    words = ["--cache", str(workspace.path), "spuriosity", "STEP", "cards", "-b", BROAD, "-o", str(tmp_path)]

    def run(step: str, *more: str, code: int = 0) -> str:
        words[3] = step
        result = CliRunner().invoke(main, [*words, *more])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    assert "gaps.json does not exist; make it with `embedx spuriosity gap`" in run("review", code=1)
    important_features(manifest, cache_of(workspace), k=3, seeds=1).save(tmp_path)
    first = [Discovery.load(tmp_path).of[c][0] for c in (0, 1)]
    common = ("cards", BROAD, Discovery.load(tmp_path).weights)
    said = [Annotation(*common, c.label, c.class_name, c.feature, "spurious", "local") for c in first]
    annotations.write(tmp_path / annotations.FILE, said)
    run("rank")
    run("gap", "-k", "2")
    text = run("review", "--all-negative", "--confident", "0.6", "--images", "2")
    flags = flags_file.load(tmp_path)
    assert f"review.csv: {len(flags):,} images" in text and flags
    page = (tmp_path / review.PAGE).read_text()
    assert all(f'src="{f.image}"' in page for f in flags if f.image)
    assert len(re.findall(r"<li ", page)) == sum(bool(f.image) for f in flags) <= 4
    assert "has the gaps of tiny:broad=convex, not of tiny:broad=plain" in run("review", "--model", f"{BROAD}=plain",
                                                                              code=1)  # fmt: skip
    run("review", "--images", "0", "--split", "val")
    assert {f.split for f in flags_file.load(tmp_path)} <= {"val"}
    assert not any(f.image for f in flags_file.load(tmp_path))


def test_what_was_measured_is_read_as_it_was_written(otters: Any, tmp_path: Path) -> None:
    *_, ranking, found, pulls = otters
    save_gaps(tmp_path, ranking, [found], collisions=[pulls])
    read = Measured.load(tmp_path)
    assert read.of(ModelName("tiny:made", "plain")) == (found, tuple(pulls))
    assert read.ranking and read.ranking.features == {1: (CUE,)}
    with pytest.raises(SpuriosityError, match="has the gaps of tiny:made=plain, not of x=y; measure it with"):
        read.of(ModelName("x", "y"))
    (tmp_path / "gaps.json").write_text('{"format": "embedx-gaps", "version": 1, "models": []}')
    with pytest.raises(
        SpuriosityError, match=r"gaps.json: \$ has no field 'ranking', expected one; make it again with"
    ):
        Measured.load(tmp_path)
