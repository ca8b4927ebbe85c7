"""Panels: the right images, each opened once, every file whole, and what is drawn already is not drawn again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cards import BROAD, cache_of, candidate, candidates, lens_of, prepare
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, WHOLE, write
from PIL import Image

from embedx.cli import main
from embedx.data.manifest import Manifest
from embedx.data.sources import Source
from embedx.errors import BackboneError, ExtractionError, ProvenanceError, SpuriosityError
from embedx.spuriosity.features.image_inspection import ImageInspector, open_backbone
from embedx.spuriosity.features.maps import mapper
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.panels import FOLDER, Panels, PanelSettings, choose, draw, ends_of
from embedx.spuriosity.records.panel import PANEL
from embedx.statistics import Interval
from embedx.workspace import Workspace

SMALL = PanelSettings(images=2, size=32, batch=4)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    return prepare(tmp_path_factory.mktemp("cards"), "tiny:narrow")


@pytest.fixture(scope="module")
def lens(cards: tuple[Workspace, Manifest]) -> ImageInspector:
    return lens_of(*cards)


@pytest.fixture(scope="module")
def found(lens: ImageInspector) -> list[Any]:
    """Two features of each class, one of which both classes are listed with."""
    listed = candidates(lens.manifest, lens.cache)
    return [*listed, candidate(lens.manifest, 1, listed[0].feature, 3)]


@dataclass(frozen=True)
class Counted:
    """A source that counts what it is asked for, and ends the program after so many images."""

    inner: Source
    most: float = float("inf")
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def place(self) -> str:
        return self.inner.place

    def read(self, row_id: str) -> bytes:
        if self.asked.total() >= self.most:
            raise KeyboardInterrupt
        self.asked[row_id] += 1
        return self.inner.read(row_id)


def counted(lens: ImageInspector, most: float = float("inf")) -> tuple[ImageInspector, Counter[str]]:
    source = Counted(lens.source, most)
    return replace(lens, source=source), source.asked


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_images_are_the_ends_of_the_class_by_the_cached_features(lens: ImageInspector, found: list[Any]) -> None:
    X, m = lens.cache.features(), lens.manifest
    for panel, c in zip(choose(lens, found, SMALL), found, strict=True):
        rows = np.flatnonzero((m.splits == 0) & (m.labels == c.label))
        ordered = [str(m.ids[r]) for r in sorted(rows, key=lambda r: (X[r, c.feature], m.ids[r]))]
        assert [s.id for s in panel.shots] == [*ordered[:-3:-1], *ordered[:2]]
        assert [s.end for s in panel.shots] == ["most"] * 2 + ["least"] * 2
        values = dict(zip(m.ids, X[:, c.feature], strict=True))
        assert [s.activation for s in panel.shots] == [values[s.id] for s in panel.shots]
        assert panel.n == len(rows) == sum(panel.counts) and panel.mean == pytest.approx(X[rows, c.feature].mean())
        assert panel.elsewhere == (m.classes[1 - c.label],)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.sampled_from([0.0, 1.0]))
def test_no_image_is_at_both_ends(tmp_path_factory: pytest.TempPathFactory, n: int, images: int, spread: float) -> None:
    workspace = Workspace(tmp_path_factory.mktemp("pets"))
    X = spread * np.random.default_rng(n).integers(0, 3, (len(WHOLE), 2)).astype(np.float32)  # ties, or zeros alone
    cats = np.flatnonzero((WHOLE.splits == 0) & (WHOLE.labels == 0))
    cache = write(workspace, WHOLE, ONE, X, cats[n:].tolist())
    fake: Any = SimpleNamespace(manifest=WHOLE, cache=cache, at=np.arange(len(WHOLE)), mapper=SimpleNamespace(layer=""))
    (panel,) = choose(fake, [candidate(WHOLE, 0, 1)], PanelSettings(images=images))
    shown = [s.id for s in panel.shots]
    assert len(set(shown)) == len(shown) == min(2 * images, n) and panel.n == n
    ends = [[s.activation for s in panel.shots if s.end == end] for end in ("most", "least")]
    assert not ends[1] or min(ends[0]) >= max(ends[1])
    assert sum(panel.counts) == n and len(panel.edges) == len(panel.counts) + 1


@given(st.integers(1, 40), st.integers(1, 9), st.floats(0.01, 0.5))
def test_further_images_lie_between_the_ends_in_the_upper_share(n: int, images: int, upper: float) -> None:
    order = np.arange(n)  # a place is its own rank, the strongest the last
    ends = ends_of(order, PanelSettings(images, upper=upper))
    plain = ends_of(order, PanelSettings(images))
    assert {k: v.tolist() for k, v in plain.items()} == {k: ends[k].tolist() for k in ("most", "least")}
    every = [int(i) for of in ends.values() for i in of]
    assert len(set(every)) == len(every)
    following, border = ends["following"].tolist(), ends["border"].tolist()
    top = round(upper * n)
    assert all(n - top <= i for i in (*following, *border))
    k = len(ends["most"])
    if top >= 3 * k:  # room for three rows of pictures: the next ones, and the last ones of the share
        assert following == list(range(n - k - 1, n - 2 * k - 1, -1)) and border == list(range(n - top, n - top + k))


def test_some_classes_are_drawn_and_the_others_stay(lens: ImageInspector, found: list[Any], tmp_path: Path) -> None:
    every = draw(lens, found, tmp_path, PanelSettings(2))
    marks = {p: (tmp_path / p.record).stat().st_mtime_ns for p in every.panels}
    some = [c for c in found if c.label == 1]
    after = draw(lens, some, tmp_path, PanelSettings(2, upper=0.5), keep=found)
    assert [(p.label, p.feature) for p in after.panels] == [(p.label, p.feature) for p in every.panels]
    assert after == Panels.load(tmp_path)
    for p in after.panels:
        ends = {shot.end for shot in p.shots}
        assert ("following" in ends) == (p.label == 1)
        if p.label == 0:
            assert (tmp_path / p.record).stat().st_mtime_ns == marks[p]
    alone = draw(lens, some, tmp_path / "alone", PanelSettings(2), keep=found)
    assert {p.label for p in alone.panels} == {1}


def test_a_class_without_rows_is_refused(lens: ImageInspector, tmp_path: Path) -> None:
    X = np.zeros((len(WHOLE), 2), np.float32)
    cache = write(Workspace(tmp_path), WHOLE, ONE, X, np.flatnonzero(WHOLE.labels == 0).tolist())
    fake: Any = SimpleNamespace(manifest=WHOLE, cache=cache, at=np.arange(len(WHOLE)), mapper=lens.mapper)
    with pytest.raises(SpuriosityError, match="cat has no usable training row in .*; discover again"):
        choose(fake, [candidate(WHOLE, 0, 1)], PanelSettings())


def test_everything_is_drawn_once_and_comes_back(lens: ImageInspector, found: list[Any], tmp_path: Path) -> None:
    seen, asked = counted(lens)
    told: list[tuple[int, int, str]] = []
    drawn = draw(seen, found, tmp_path, replace(SMALL, attacks=True, steps=3), lambda *a: told.append(a))
    assert Panels.load(tmp_path) == drawn and len(drawn.panels) == len(found)
    shots = [s for p in drawn.panels for s in p.shots]
    assert asked == Counter({s.id for s in shots}) and len(asked) < len(shots)  # shared images are opened once
    assert told[0][:2] == (0, len(asked)) and told[-1] == (len(asked), len(asked), "")
    named = [p for s in shots for p in (s.image, s.overlay, s.attack) if p]
    named += [
        p for panel in drawn.panels for p in (panel.histogram, panel.sheet, f"{Path(panel.sheet).parent}/{PANEL}")
    ]
    assert set(files(tmp_path)) - {".panels.json.lock"} == {*named, "panels.json"} and len(set(named)) == len(named)
    for shot in shots:
        with Image.open(tmp_path / shot.image) as a, Image.open(tmp_path / shot.overlay) as b:
            assert a.size == b.size == (32, 32)
        assert (shot.attacked is None) == (shot.attack is None) == (shot.end == "least")
        assert shot.attacked is None or shot.attacked > shot.activation
    svg = (tmp_path / drawn.panels[0].histogram).read_text()
    assert svg.count("<path") == 1 + 4 and svg.startswith("<svg") and "training images" in svg


def test_a_pass_that_was_killed_goes_on_where_it_was(lens: ImageInspector, found: list[Any], tmp_path: Path) -> None:
    draw(lens, found, tmp_path / "whole", SMALL)
    killed, before = counted(lens, most=9)
    with pytest.raises(KeyboardInterrupt):
        draw(killed, found, tmp_path / "parts", SMALL)
    half = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").rglob(PANEL)}
    assert 0 < len(half) < len(found) and not (tmp_path / "parts" / "panels.json").exists()
    resumed, after = counted(lens)
    result = draw(resumed, found, tmp_path / "parts", SMALL)
    assert {p: p.stat().st_mtime_ns for p in half} == half
    finished = {json.loads(p.read_text())["identity"] for p in half}
    needed = {s.id for p in result.panels if p.identity not in finished for s in p.shots}
    assert set(after) == needed and after.total() < len({s.id for p in result.panels for s in p.shots})
    assert before.total() == 9
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    again, none = counted(lens)
    assert draw(again, found, tmp_path / "parts", SMALL) == result and not none


def test_an_index_is_not_read_beside_pictures_of_another_pass(
    lens: ImageInspector, found: list[Any], tmp_path: Path
) -> None:
    """A pass with other options that was killed has drawn over some pictures, and the index is of the pass before."""
    draw(lens, found, tmp_path, SMALL)
    killed, _ = counted(lens, most=9)
    other = replace(SMALL, size=SMALL.size + 8)
    with pytest.raises(KeyboardInterrupt):
        draw(killed, found, tmp_path, other)
    with pytest.raises(SpuriosityError, match=f"drawn anew, or begun.*spuriosity panels cards -b {BROAD}` again"):
        Panels.load(tmp_path)
    assert draw(lens, found, tmp_path, other) == Panels.load(tmp_path)


def test_threads_and_batches_change_nothing(lens: ImageInspector, found: list[Any], tmp_path: Path) -> None:
    for name, options in {"a": SMALL, "b": replace(SMALL, workers=2, batch=3)}.items():
        draw(lens, found, tmp_path / name, options)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("change", ["option", "damage", "lost"])
def test_panels_of_other_options_or_without_their_files_are_drawn_again(
    lens: ImageInspector, found: list[Any], tmp_path: Path, change: str
) -> None:
    first = draw(lens, found[:2], tmp_path, SMALL)
    untouched = files(tmp_path)
    options = replace(SMALL, size=40) if change == "option" else SMALL
    if change == "damage":
        (tmp_path / first.panels[0].sheet).with_name(PANEL).write_text("{")
    if change == "lost":
        (tmp_path / first.panels[0].shots[0].overlay).unlink()
    seen, asked = counted(lens)
    draw(seen, found[:2], tmp_path, options)
    panels = first.panels if change == "option" else first.panels[:1]
    assert set(asked) == {s.id for p in panels for s in p.shots}
    assert (files(tmp_path) == untouched) == (change != "option")


def test_an_image_that_changed_or_went_is_an_error(
    cards: tuple[Workspace, Manifest], found: list[Any], tmp_path: Path
) -> None:
    lens = lens_of(*cards)
    shot = choose(lens, found, SMALL)[0].shots[0]
    file = cards[0].dataset("cards") / "images" / shot.id
    data = file.read_bytes()
    try:
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file)
        with pytest.raises(ProvenanceError, match=f"{shot.id} in .* has changed since .*tiny-broad.h5 was extracted"):
            draw(lens, found, tmp_path, SMALL)
        file.unlink()
        for workers in (0, 2):
            with pytest.raises(ExtractionError, match=f"{shot.id} in .*: no such file; .* --root"):
                draw(lens, found, tmp_path, replace(SMALL, workers=workers))
    finally:
        file.write_bytes(data)
    assert not (tmp_path / "panels.json").exists()


def test_another_backbone_or_other_numbers_are_refused(
    cards: tuple[Workspace, Manifest], lens: ImageInspector, found: list[Any], tmp_path: Path
) -> None:
    workspace, manifest = cards
    narrow = mapper(open_backbone(cache_of(workspace, "tiny:narrow")))
    with pytest.raises(ProvenanceError, match="tiny-broad.h5 was made by another network: model is broad, that of"):
        ImageInspector(manifest, cache_of(workspace), lens.source, narrow)
    shot = choose(lens, found, SMALL)[0].shots[0]
    row = int(np.searchsorted(manifest.ids, shot.id))
    pixels = np.stack(list(lens.images([row], lens.geometry)))
    lens.maps([row], pixels, np.array([1.001 * shot.activation]), [found[0].feature])
    with pytest.raises(ProvenanceError, match=f"features of {shot.id} computed again are off by .*extract again"):
        lens.maps([row], pixels, np.array([1.2 * shot.activation]), [found[0].feature])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images is 0, expected at least 1"),
        ({"workers": -1}, "workers is -1, expected at least 0"),
        ({"radius": 0.0}, "radius of the attack is 0.0, expected more than 0"),
        ({"step": -1.0}, "step of the attack is -1.0, expected more than 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuriosityError, match=message):
        PanelSettings(**options)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpuriosityError, match="does not exist; make it with `embedx spuriosity panels`"):
        Panels.load(tmp_path)
    for text, message in {
        "{": "is no JSON", '{"format": "embedx-panels", "version": 9}': r"\$.version is 9, expected 1",
        '{"format": "embedx-panels", "version": 1}': r"\$ has no field 'dataset', expected one",
    }.items():  # fmt: skip
        (tmp_path / "panels.json").write_text(text)
        with pytest.raises(SpuriosityError, match=message):
            Panels.load(tmp_path)


def test_the_gap_of_a_candidate_is_kept(lens: ImageInspector, found: list[Any], tmp_path: Path) -> None:
    one = SimpleNamespace(**vars(found[0]) | {"gap": Interval(0.1, -0.1, 0.3, 25)})
    listed: list[Any] = [one]
    assert draw(lens, listed, tmp_path, SMALL).panels[0].gap == Interval(0.1, -0.1, 0.3, 25)
    assert Panels.load(tmp_path).panels[0].gap == Interval(0.1, -0.1, 0.3, 25)


def test_the_command(cards: tuple[Workspace, Manifest], tmp_path: Path) -> None:
    workspace, manifest = cards
    words = ["--cache", str(workspace.path), "spuriosity", "panels", "cards", "-b", BROAD, "-o", str(tmp_path)]

    def run(*more: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, [*words, "--device", "cpu", *more])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    assert "make it with `embedx spuriosity discover`" in run(code=1)
    assert "--radius limits --attack; give both" in run("--radius", "3", code=2)
    important_features(manifest, cache_of(workspace), k=1, seeds=1).save(tmp_path)
    said = run("--images", "1")
    assert f"wrote panels.json and {tmp_path / FOLDER}: 2 panels of" in said
    assert len(Panels.load(tmp_path).panels) == 2
    words[words.index(BROAD)] = "tiny:narrow"
    assert "whose features were discovered" in run(code=1)


def test_local_weights_that_cannot_be_had_are_told(cards: tuple[Workspace, Manifest], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="nothing.safetensors"):
        open_backbone(cache_of(cards[0]), "cpu", tmp_path / "nothing.safetensors")
