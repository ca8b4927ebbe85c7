"""Soft masks as a dataset: they are the maps, lie where the cue is, land whole and once, and can be read back."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from cards import BROAD, cache_of, candidates, lens_of, prepare
from click.testing import CliRunner
from PIL import Image

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.data.prepare import source_of
from embedx.data.sources import Source
from embedx.datasets._planted import CLASSES, CUE_OF, deck, paint
from embedx.errors import ExtractionError, ProvenanceError, SpuriosityError
from embedx.evaluation.probe import fit
from embedx.extract import Settings, extract, load_backbone
from embedx.extractors import Geometry
from embedx.spuriosity import annotations
from embedx.spuriosity import masks as step
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.annotations.automatic.by_mask import masks_in
from embedx.spuriosity.annotations.validations import Validation, validated
from embedx.spuriosity.annotations.votes import Vote
from embedx.spuriosity.corrupt import ImageModel, Pair, sensitivities
from embedx.spuriosity.features.corruptions import CorruptionSettings
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.features.maps import enlarge, nam, onto_image
from embedx.spuriosity.masks import MaskSettings, pairs_of, plan, publish
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.publishing import mask_files
from embedx.spuriosity.publishing.licences import identified
from embedx.spuriosity.publishing.written_masks import WrittenMasks
from embedx.spuriosity.records.mask_set import MaskedPair, MaskSet
from embedx.store import FeatureCache
from embedx.workspace import Workspace

HALF = MaskSettings(most=0.5, batch=4)
CSV = {"newline": "", "encoding": "utf-8"}


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    return prepare(tmp_path_factory.mktemp("cards"))


@pytest.fixture(scope="module")
def lens(cards: tuple[Workspace, Manifest]) -> ImageInspector:
    return lens_of(*cards)


def extracted(workspace: Workspace, manifest: Manifest) -> ImageInspector:
    """The images of a dataset, which are there, extracted by tiny:broad."""
    manifests.save(manifest, workspace.dataset(manifest.name))
    loaded = {BROAD: load_backbone(BROAD).placed("cpu")}
    extract(manifest, source_of(workspace, manifest), loaded, workspace, Settings(), lambda *a: None)
    cache = FeatureCache.open_complete(workspace.cache(manifest.name, BROAD))
    return ImageInspector.open(workspace, manifest, cache)


def noted(lens: ImageInspector, label: str, class_index: int, feature: int, **facts: Any) -> Annotation:
    weights, name = str(lens.cache.header.identity["weights"]), lens.manifest.classes[class_index]
    cache = lens.cache.header.backbone
    return Annotation(lens.manifest.name, cache, weights, class_index, name, feature, label, "local", **facts)


@pytest.fixture(scope="module")
def entries(lens: ImageInspector) -> list[Annotation]:
    """A core and a spurious feature of each class; votes and words with one."""
    found = candidates(lens.manifest, lens.cache)
    lines = [noted(lens, ("spurious", "core")[c.rank == 1], c.label, c.feature, rank=c.rank) for c in found]
    votes = [Vote("ann", "background", 4, "a note"), Vote("bob", "background"), Vote("cy", "main_object")]
    return [*lines[:-1], replace(lines[-1], cue='a, "cue"\u00fc').voted(votes)]


@pytest.fixture(scope="module")
def pairs(entries: list[Annotation]) -> list[MaskedPair]:
    return pairs_of(entries)


@pytest.fixture(scope="module")
def made(lens: ImageInspector, pairs: list[MaskedPair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written set, not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "masks"
    publish(lens, pairs, folder, HALF)
    return folder


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
    names = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(".lock")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in names}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(**CSV) as file:
        return list(csv.DictReader(file))


def maps_of(lens: ImageInspector, row_id: str) -> np.ndarray:
    import torch

    row = int(np.flatnonzero(lens.manifest.ids == row_id)[0])
    (pixels,) = lens.images([row], lens.geometry)
    return lens.mapper.maps(torch.from_numpy(pixels[None].copy()))[1][0]


def test_a_mask_is_the_map_in_eight_bits(lens: ImageInspector, pairs: list[MaskedPair], made: Path) -> None:
    written = WrittenMasks.open(made)
    assert len(written.entries) == written.of.masks == len(rows(made, "masks.csv"))
    for (row_id, feature), entry in written.entries.items():
        expected = enlarge(nam(maps_of(lens, row_id)[[feature]]), lens.geometry.size)
        found = written.soft(row_id, [feature])
        assert found.shape == expected.shape and np.abs(found - expected).max() <= 0.5 / 255 + 1e-6
        assert ((written.mask(row_id, feature) >= 128) == (expected[0] >= 0.5)).all()  # half is half, rounded or not
        assert entry.size == (64, 64)


def test_the_images_are_the_most_activating_ones_of_the_class(
    lens: ImageInspector, pairs: list[MaskedPair], made: Path
) -> None:
    X, m, table = lens.cache.features(), lens.manifest, rows(made, "masks.csv")
    of = MaskSet.load(made)
    for p in of.pairs:
        train = np.flatnonzero((m.splits == 0) & (m.labels == p.class_index))
        ordered = sorted(train, key=lambda r: (X[r, p.feature], m.ids[r]))[::-1]
        mine = [r for r in table if (int(r["class_index"]), int(r["feature"])) == (p.class_index, p.feature)]
        shown = sorted((r for r in mine if r["place"] != "0"), key=lambda r: int(r["place"]))
        assert [r["id"] for r in shown] == [m.ids[r] for r in ordered[: round(0.5 * len(train))]]
        assert (p.masks, p.beside) == (len(shown), len(mine) - len(shown))
        for r in mine:
            assert float(r["activation"]) == X[list(m.ids).index(r["id"]), p.feature]
    # Every image of a spurious feature has a mask of each core feature of its class.
    written = WrittenMasks.open(made)
    for p in of.pairs:
        for row_id, feature in [key for key in written.entries if written.shows(*key) and p.label == "spurious"]:
            if feature == p.feature and written.entries[row_id, feature].class_index == p.class_index:
                assert {f for c, f in written.core if c == p.class_index} <= {*written.of_image[row_id]}
    numbered = plan(lens, pairs, replace(HALF, most=3))
    assert Counter(mask.pair for mask in numbered if mask.place) == dict.fromkeys(range(len(pairs)), 3)


def test_each_image_is_opened_once_and_threads_change_nothing(
    lens: ImageInspector, pairs: list[MaskedPair], made: Path, tmp_path: Path
) -> None:
    seen, asked = counted(lens)
    told: list[tuple[int, int, str]] = []
    of = publish(seen, pairs, tmp_path, replace(HALF, workers=2), progress=lambda *a: told.append(a))
    assert set(asked.values()) == {1} and {*asked} == {row["id"] for row in rows(tmp_path, "masks.csv")}
    assert of.masks > of.images == len(asked) and told[-1][0] == told[-1][1]
    assert files(tmp_path) == files(made)


@pytest.mark.parametrize("form", ["png", "h5"])
def test_a_pass_that_was_killed_goes_on_where_it_was(
    lens: ImageInspector, pairs: list[MaskedPair], tmp_path: Path, form: str
) -> None:
    options = replace(HALF, format=form, batch=2)
    whole = publish(lens, pairs, tmp_path / "whole", options)
    killed, before = counted(lens, most=5)
    with pytest.raises(KeyboardInterrupt):
        publish(killed, pairs, tmp_path / "parts", options)
    finished = {p.stem for p in (tmp_path / "parts").rglob("*.png")}
    assert finished and not (tmp_path / "parts" / "masks.json").exists()
    with pytest.raises(SpuriosityError, match="masks.json does not exist; make it with `embedx spuriosity masks`"):
        WrittenMasks.open(tmp_path / "parts")
    torn = next((tmp_path / "parts").rglob("*.png"))
    torn.write_bytes(torn.read_bytes()[:-1])  # what a power cut leaves counts for nothing
    (tmp_path / "parts" / ".left.0123.part").write_bytes(b"")
    resumed, after = counted(lens)
    assert publish(resumed, pairs, tmp_path / "parts", options) == whole
    done = {m.id for m in plan(lens, pairs, options)} - {
        m.id for m in plan(lens, pairs, options) if m.name not in finished - {torn.stem}
    }
    assert before.total() == 5 and not done & {*after} and len(done) == 3 and after.total() == whole.images - 3
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    again, none = counted(lens)
    assert publish(again, pairs, tmp_path / "parts", options) == whole and not none


def test_both_formats_hold_the_same_and_become_each_other(
    lens: ImageInspector, pairs: list[MaskedPair], made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, folder := tmp_path / "masks")
    nothing, asked = counted(lens)
    packed = publish(nothing, pairs, folder, replace(HALF, format="h5"))
    assert not asked and not [*folder.rglob("*.png")] and {p.name for p in folder.iterdir() if p.is_dir()} == set()
    assert packed.bytes == (folder / "masks.h5").stat().st_size
    one, two = WrittenMasks.open(made), WrittenMasks.open(folder)
    assert one.entries.keys() == two.entries.keys()
    for key in one.entries:
        np.testing.assert_array_equal(one.mask(*key), two.mask(*key))
    with h5py.File(folder / "masks.h5") as file:
        stored: Any = file
        assert [i.decode() for i in stored["ids"][:]] == [r["id"] for r in rows(folder, "masks.csv")]
        assert stored["feature"][:].tolist() == [int(r["feature"]) for r in rows(folder, "masks.csv")]
        assert stored["masks"].chunks == (1, 64, 64)
    more = [*pairs, *pairs_of([noted(lens, "unsure", 0, 100)])]
    grown = publish(nothing, more, folder, replace(HALF, format="h5"))  # what is packed is not computed again
    fresh = {m.id for m in plan(lens, more, HALF) if (m.id, m.feature) not in one.entries}
    assert {*asked} == fresh and grown.masks > packed.masks
    asked.clear()
    publish(nothing, pairs, folder, HALF)
    assert not asked and files(folder) == files(made)


def test_a_pack_that_failed_costs_no_mask(
    lens: ImageInspector, pairs: list[MaskedPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **more: Any) -> Any:
        raise OSError("Can't synchronously write data (file write failed: errno = 28, 'No space left on device')")

    options = replace(HALF, format="h5")
    with monkeypatch.context() as patched:
        patched.setattr(h5py.Group, "create_dataset", full)
        with pytest.raises(OSError, match=r"the device is full .*make room and run the same command again.*masks.h5"):
            publish(lens, pairs, tmp_path, options)
    assert not [*tmp_path.glob("masks.*")] and not [*tmp_path.glob(".*.part")]
    seen, asked = counted(lens)
    assert publish(seen, pairs, tmp_path, options).masks == len(WrittenMasks.open(tmp_path).entries) and not asked


@pytest.mark.parametrize("form", ["png", "h5"])
def test_the_room_on_the_disk_is_told_before(
    lens: ImageInspector, pairs: list[MaskedPair], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "SAMPLE", 4)
    seen, asked = counted(lens)
    said: list[tuple[str, int]] = []
    of = publish(seen, pairs, tmp_path, replace(HALF, format=form), notice=lambda t: said.append((t, asked.total())))
    ((text, opened),) = said
    assert opened <= 4 < of.images
    found = re.search(r"([\d,]+) masks of ([\d,]+) images, 64 x 64 pixels each, take about ([\d,.]+) MB", text)
    assert found and (int(found[1]), int(found[2])) == (of.masks, of.images)
    block = (shutil.os.statvfs(tmp_path)).f_frsize  # type: ignore[attr-defined]
    sizes = [p.stat().st_size for p in tmp_path.rglob("*.png")] or [of.bytes]
    real = sum(-(-n // block) * block for n in sizes) / 1e6
    assert float(found[3]) == pytest.approx(real, rel=0.25, abs=0.06)


def test_a_disk_without_room_is_refused_before_the_work_and_told_in_it(
    lens: ImageInspector, pairs: list[MaskedPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "SAMPLE", 2)
    seen, asked = counted(lens)
    with monkeypatch.context() as patched:
        patched.setattr(step.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
        with pytest.raises(
            SpuriosityError, match=r"has 0.0 MB free, and the masks still to write take .*; make room, or"
        ):
            publish(seen, pairs, tmp_path, HALF)
    assert asked.total() == 2

    def full(*args: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(mask_files, "encoded", full)
        with pytest.raises(OSError, match="the device is full .*what is finished stays: make room and run the same"):
            publish(seen, pairs, tmp_path, HALF)
    assert not [*tmp_path.rglob(".*.part")] and not (tmp_path / "masks.json").exists()
    publish(lens, pairs, tmp_path, HALF)


def test_an_image_that_changed_or_went_is_an_error(
    cards: tuple[Workspace, Manifest], pairs: list[MaskedPair], tmp_path: Path
) -> None:
    lens = lens_of(*cards)
    row_id = plan(lens, pairs, HALF)[0].id
    file = cards[0].dataset("cards") / "images" / row_id
    data = file.read_bytes()
    try:
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file)
        with pytest.raises(ProvenanceError, match=f"{row_id} in .* has changed since .*tiny-broad.h5 was extracted"):
            publish(lens, pairs, tmp_path, HALF)
        file.unlink()
        with pytest.raises(ExtractionError, match=f"{row_id} in .*: no such file; .* --root"):
            publish(lens, pairs, tmp_path, HALF)
    finally:
        file.write_bytes(data)
    assert not (tmp_path / "masks.json").exists()


HOSTILE = (
    "..x/..y.png", "NA.png", "a#b?c%2F 'q\" & ,;`.png", "=1+1.png", "\u00fc\u4e2d/\u202e gnp.png",
    f"{'l' * 250}.png", "-rf.png", "con:aux|<i>.png",
)  # fmt: skip


def test_ids_may_look_like_anything(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "cache")
    root = workspace.dataset("odd") / "images"
    rng = np.random.default_rng(0)
    ids = [f"{label}/{name}" for label in ("one", "two") for name in HOSTILE]
    for row_id in ids:
        (root / row_id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(root / row_id)
    table = {"id": ids, "label": [i[:3] for i in ids], "split": ["train"] * len(ids)}
    manifest = manifests.build("odd", table, classes=("one", "two"), licence="my own: <b>`x`\nsecond line", source="me")
    lens = extracted(workspace, manifest)
    odd = replace(noted(lens, "core", 0, 3), class_name="one")
    pairs = [replace(p, folder=p.folder) for p in pairs_of([odd, noted(lens, "spurious", 1, 5)])]
    of = publish(lens, pairs, tmp_path / "masks", replace(HALF, most=len(HOSTILE)))
    assert of.masks == len(ids) and {r["id"] for r in rows(tmp_path / "masks", "masks.csv")} == {*ids}
    names = [p.relative_to(tmp_path / "masks").as_posix() for p in (tmp_path / "masks").rglob("*.png")]
    assert len(names) == len(ids) and all(re.fullmatch(r"000[01]-(one|two)/\d{4}/[0-9a-f]{20}\.png", n) for n in names)
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "masks"}
    written = WrittenMasks.open(tmp_path / "masks")
    assert all(written.mask(*key).shape == (64, 64) for key in written.entries)
    assert {entry.size for entry in written.entries.values()} == {(30, 50)}
    row_id = next(key[0] for key, entry in written.entries.items() if entry.class_index == 0)
    whole = written.object_mask(row_id, Geometry((30, 50), None, "nearest"))  # in the frame of the image itself
    laid = onto_image(written.soft(row_id, [3])[0], lens.geometry, (30, 50))
    assert whole is not None and whole.shape == laid.shape and np.mean(whole != (laid >= 0.5)) < 0.01
    front, text = (tmp_path / "masks" / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1:]
    assert yaml.safe_load(front)["license"] == "other" and yaml.safe_load(front)["license_name"] == of.licence
    assert "my own: &lt;b>'x' second line" in text
    json.loads((tmp_path / "masks" / "croissant.json").read_text(encoding="utf-8"))
    publish(lens, pairs, tmp_path / "masks", replace(HALF, most=len(HOSTILE), format="h5"))
    assert WrittenMasks.open(tmp_path / "masks").entries.keys() == written.entries.keys()


def test_the_folder_of_a_class_has_a_safe_name(lens: ImageInspector) -> None:
    odd = [
        replace(noted(lens, "core", 0, 3), class_index=k, class_name=name)
        for k, name in enumerate(["../../x", "\u4e2d" * 200, "a/b\\c"])
    ]
    folders = [p.folder for p in pairs_of(odd)]
    assert folders == ["0000-x/0003", "0001-" + "\u4e2d" * 40 + "/0003", "0002-a-b-c/0003"]
    assert all(len(f.partition("/")[0].encode()) < 255 for f in folders)


def test_labels_cues_and_votes_stand_beside_the_masks(made: Path, entries: list[Annotation], cards: Any) -> None:
    table = {(int(r["class_index"]), int(r["feature"])): r for r in rows(made, "pairs.csv")}
    for a in entries:
        row = table[a.class_index, a.feature or 0]
        assert (row["class_name"], row["label"], row["kind"], row["cue"], row["rank"]) == (
            a.class_name, a.label, a.kind, a.cue, str(a.rank),
        )  # fmt: skip
    voted = table[entries[-1].class_index, entries[-1].feature or 0]
    assert [voted[f"votes_{n}"] for n in ("main_object", "separate_object", "background", "unsure")] == [
        "1",
        "0",
        "2",
        "0",
    ]
    of = MaskSet.load(made)
    assert of.pairs[-1].votes == {"background": 2, "main_object": 1}
    everything = b"".join(files(made).values())
    assert b"a note" not in everything and b'"ann"' not in everything and b"bob" not in everything
    assert of.ranking == "" and "ranking.csv" not in of.tables


def test_whether_people_found_the_maps_to_show_one_thing_stands_beside_the_pair(
    lens: ImageInspector, entries: list[Annotation], tmp_path: Path
) -> None:
    found: dict[tuple[int, int], str] = {}
    answers = []
    first = plan(lens, pairs_of(entries), HALF)[0]
    for a, said in zip(entries, (["same"] * 5, ["same", "different", "unclear"], []), strict=False):
        facts = (a.dataset, a.backbone, a.weights, a.class_index, a.class_name, a.feature or 0)
        elsewhere = (first.id,) if a.feature == first.feature else ()
        answers += [Validation(*facts, f"a{i}", answer, elsewhere if i == 0 else ()) for i, answer in enumerate(said)]
        found[a.class_index, a.feature or 0] = {0: "", 5: "yes", 3: "no"}[len(said)]
    made = publish(lens, pairs_of(entries, judged=validated(answers)), tmp_path, HALF)
    for row in rows(tmp_path, "pairs.csv"):
        verdict = found.get((int(row["class_index"]), int(row["feature"])), "")
        counts = {"yes": ["5", "0", "0"], "no": ["1", "1", "1"], "": ["", "", ""]}[verdict]
        assert row["validated"] == verdict and [row[f"maps_{n}"] for n in ("same", "different", "unclear")] == counts
    assert Counter(p.valid for p in made.pairs) == {True: 1, False: 1, None: 2}
    odd = {(r["id"], r["feature"]): r["elsewhere"] for r in rows(tmp_path, "masks.csv") if r["elsewhere"]}
    assert odd == {(first.id, str(first.feature)): "1"}
    assert "asked about 2 of 4 pairs and found it of 1" in (tmp_path / "README.md").read_text(encoding="utf-8")
    check_croissant(tmp_path)


def test_the_importance_is_that_of_the_discovery_where_no_line_says_it(
    cards: tuple[Workspace, Manifest], lens: ImageInspector
) -> None:
    found = important_features(cards[1], cache_of(cards[0]), k=2, seeds=1)
    one = found.candidates[0]
    lines = [noted(lens, "core", one.label, one.feature), noted(lens, "core", 1, 127, rank=7, importance=0.5)]
    both = pairs_of(lines, found)
    assert [(p.rank, p.importance) for p in both] == [(one.rank, one.importance), (7, 0.5)]


def check_croissant(folder: Path) -> dict[str, Any]:
    """What the specification demands, version 1.0."""
    document = json.loads((folder / "croissant.json").read_text(encoding="utf-8"))
    assert document["@type"] == "sc:Dataset" and document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    for name in ("@context", "description", "license", "name", "url", "creator", "datePublished", "distribution"):
        assert document[name], name
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", document["datePublished"]) and document["url"].startswith("http")
    parts = {part["@id"]: part for part in document["distribution"]}
    fields = [f for records in document["recordSet"] for f in records["field"]]
    ids = [*parts, *(r["@id"] for r in document["recordSet"]), *(f["@id"] for f in fields)]
    assert len(ids) == len({*ids})
    for part in parts.values():
        assert part["encodingFormat"] and part["@type"] in ("cr:FileObject", "cr:FileSet")
        if part["@type"] == "cr:FileSet":
            assert len([*folder.glob(part["includes"])]) == len(rows(folder, "masks.csv"))
            continue
        data = (folder / part["contentUrl"]).read_bytes()
        assert part["sha256"] == hashlib.sha256(data).hexdigest() and part["contentSize"] == f"{len(data)} B"
    for records in document["recordSet"]:
        keys = records["key"] if isinstance(records["key"], list) else [records["key"]]
        assert {key["@id"] for key in keys} <= {f["@id"] for f in records["field"]}
        for f in records["field"]:
            assert f["dataType"] in ("sc:Integer", "sc:Float", "sc:Text", "sc:ImageObject") and f["description"]
            assert f["@id"].startswith(f"{records['@id']}/")
            (where,) = [f["source"][kind]["@id"] for kind in ("fileObject", "fileSet") if kind in f["source"]]
            assert where in parts
            if column := f["source"]["extract"].get("column"):
                cells = [row[column] for row in rows(folder, where)]
                kind = {"sc:Integer": int, "sc:Float": float, "sc:Text": str}[f["dataType"]]
                assert all(kind(cell) is not None for cell in cells if cell)
        tables = [where for f in records["field"] if (where := f["source"].get("fileObject", {}).get("@id"))]
        if tables:
            assert [f["source"]["extract"]["column"] for f in records["field"]] == [*rows(folder, tables[0])[0]]
    return document


def test_croissant_and_card_are_what_others_read(
    lens: ImageInspector, pairs: list[MaskedPair], made: Path, tmp_path: Path
) -> None:
    assert {r["@id"] for r in check_croissant(made)["recordSet"]} == {"pairs", "masks", "images"}
    shutil.copytree(made, folder := tmp_path / "masks")
    publish(replace(lens, manifest=replace(lens.manifest, licence="CC BY 4.0", source="https://example.org/x")), pairs,
            folder, replace(HALF, format="h5"))  # fmt: skip
    document = check_croissant(folder)
    assert document["license"] == "https://creativecommons.org/licenses/by/4.0/"
    assert document["url"] == "https://example.org/x" and {p["@id"] for p in document["distribution"]} >= {"masks.h5"}
    for one in (made, folder):
        front, text = (one / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1:]
        facts = yaml.safe_load(front)
        assert facts["license"] == ("cc-by-4.0" if one == folder else "other")
        assert all((one / c["data_files"]).is_file() for c in facts["configs"]) and facts["size_categories"] == ["n<1K"]
        assert MaskSet.load(one).weights in text and "## How it was made" in text
    assert [identified(w) for w in ("CC BY 4.0", "mit", "CC0 1.0", "see the site", "")] == [
        "cc-by-4.0",
        "mit",
        "cc0-1.0",
        "",
        "",
    ]


def with_table(folder: Path, change: Any) -> None:
    """Change `masks.csv` and make the record vouch for it."""
    path = folder / "masks.csv"
    path.write_bytes(change(path.read_bytes()))
    of = MaskSet.load(folder)
    replace(of, tables={**of.tables, "masks.csv": hashlib.sha256(path.read_bytes()).hexdigest()}).save(folder)


def test_what_was_changed_or_leads_elsewhere_is_not_read(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, folder := tmp_path / "masks")
    first = rows(folder, "masks.csv")[0]
    key = first["id"], int(first["feature"])
    with (folder / "masks.csv").open("a") as file:
        file.write("x\n")
    with pytest.raises(SpuriosityError, match=r"masks.csv was edited or replaced, expected the table that masks.json"):
        WrittenMasks.open(folder)
    shutil.copy(made / "masks.csv", folder)
    outside = tmp_path / "elsewhere.png"
    shutil.copy(folder / first["file"], outside)
    for name in ("../elsewhere.png", str(outside), "a/../../elsewhere.png"):
        with_table(folder, lambda data, name=name: data.replace(first["file"].encode(), name.encode()))
        with pytest.raises(SpuriosityError, match="names .*elsewhere.png', which is not in .*; expected a file in it"):
            WrittenMasks.open(folder)
        with_table(folder, lambda data: (made / "masks.csv").read_bytes())
    (folder / first["file"]).unlink()
    (folder / first["file"]).symlink_to(outside)
    with pytest.raises(SpuriosityError, match="which is not in"):
        WrittenMasks.open(folder)
    (folder / first["file"]).unlink()
    for picture in (np.zeros((63, 64), np.uint8), np.zeros((64, 64, 3), np.uint8)):
        Image.fromarray(picture).save(folder / first["file"])
        with pytest.raises(SpuriosityError, match="is no mask of 64 x 64 grey pixels"):
            WrittenMasks.open(folder).mask(*key)
    with pytest.raises(
        SpuriosityError, match=f"has no mask of feature 9999 on {first['id']}; annotations changed since"
    ):
        WrittenMasks.open(folder).mask(first["id"], 9999)
    with pytest.raises(SpuriosityError, match="holds masks of cards, expected other"):
        WrittenMasks.open(folder).check("other")
    with pytest.raises(ProvenanceError, match="numbers of features mean nothing in another network"):
        WrittenMasks.open(folder).check("cards", "other weights")


def test_an_hdf5_file_that_leads_elsewhere_is_not_read(
    lens: ImageInspector, pairs: list[MaskedPair], made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, folder := tmp_path / "masks")
    publish(lens, pairs, folder, replace(HALF, format="h5"))
    key = next(iter(WrittenMasks.open(folder).entries))
    whole = (folder / "masks.h5").read_bytes()
    shutil.copy(folder / "masks.h5", tmp_path / "other.h5")
    with h5py.File(folder / "masks.h5", "a") as file:
        shape: Any = file["masks"].shape  # type: ignore[union-attr]
        del file["masks"]
        file["masks"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "masks")
    for change in ("link", "external", "text"):
        if change == "external":
            with h5py.File(folder / "masks.h5", "a") as file:
                del file["masks"]
                file.create_dataset(
                    "masks", shape, np.uint8, external=[(str(tmp_path / "other.h5"), 0, h5py.h5f.UNLIMITED)]
                )
        if change == "text":
            (folder / "masks.h5").write_text("no HDF5")
        with pytest.raises(
            SpuriosityError, match=r"masks.h5 is no file of masks of 64 x 64 pixels .*; remove it and run"
        ):
            WrittenMasks.open(folder).mask(*key)
    said: list[str] = []
    seen, asked = counted(lens)
    publish(seen, pairs, folder, replace(HALF, format="h5"), notice=said.append)  # a damaged one is made anew
    assert asked and "computed again" in said[0] and (folder / "masks.h5").read_bytes() == whole


def judge(cards: tuple[Workspace, Manifest]) -> ImageModel:
    return ImageModel.of(fit(cards[1], cache_of(cards[0]), "plain"), cache_of(cards[0]), "cpu")


def test_corruptions_by_written_masks_are_those_by_maps(
    cards: tuple[Workspace, Manifest], lens: ImageInspector, pairs: list[MaskedPair], made: Path
) -> None:
    asked = [Pair(p.class_index, p.feature, p.label) for p in pairs]
    cores: dict[int, Sequence[int]] = {p.class_index: (p.feature,) for p in pairs if p.label == "core"}
    options, model = CorruptionSettings(split="train", share=0.5), judge(cards)
    by_maps = sensitivities(lens, asked, cores, [model], options)
    by_masks = sensitivities(lens, asked, cores, [model], options, written=WrittenMasks.open(made))
    assert by_masks.found == by_maps.found  # by threshold, to the last bit
    assert by_masks.pairs != by_maps.pairs and any(s.role == "spurious" and 0 < s.area < 1 for s in by_masks.found)
    soft = replace(options, threshold=None)
    one = sensitivities(lens, asked, cores, [model], soft)
    two = sensitivities(lens, asked, cores, [model], soft, written=WrittenMasks.open(made))
    assert [s.area for s in two.found] == pytest.approx([s.area for s in one.found], abs=1 / 255)
    fewer = sensitivities(lens, asked, cores, [model], replace(options, share=1.0), written=WrittenMasks.open(made))
    assert [s.drop.n for s in fewer.found] == [s.drop.n for s in by_maps.found]  # the images that have masks


def test_core_masks_together_are_the_object(lens: ImageInspector, made: Path) -> None:
    written, mask_of = WrittenMasks.open(made), masks_in(made, lens.cache, dataset="cards")
    for row_id in written.of_image:
        core = [f for f in written.of_image[row_id] if (written.entries[row_id, f].class_index, f) in written.core]
        found = mask_of(row_id)
        if not core:
            assert found is None
            continue
        expected = enlarge(nam(maps_of(lens, row_id)[core]), lens.geometry.size).max(axis=0) >= 0.5
        np.testing.assert_array_equal(found, expected)
    assert mask_of("no/such.png") is None
    row_id = next(r for r in written.of_image if mask_of(r) is not None)
    other = written.object_mask(row_id, Geometry((32, 32), 32, "nearest"))
    assert other is not None and other.shape == (32, 32) and abs(other.mean() - np.mean(mask_of(row_id))) < 0.03
    replace(written.of, pairs=()).save(made.parent)
    (made.parent / "masks.csv").write_bytes((made / "masks.csv").read_bytes().partition(b"\n")[0] + b"\n")
    with_table(made.parent, lambda data: data)
    with pytest.raises(SpuriosityError, match="none of them core, and those of core features together are the object"):
        masks_in(made.parent, lens.cache)
    with pytest.raises(SpuriosityError, match="holds masks of cards, expected pets"):
        masks_in(made, lens.cache, dataset="pets")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": 0}, "most is 0, expected a share below 1 or a whole number"),
        ({"most": 1.5}, "most is 1.5, expected"),
        ({"split": "dev"}, "split is 'dev', expected train or val or test"),
        ({"format": "zip"}, "format is 'zip', expected png or h5"),
        ({"batch": 0}, "batch is 0, expected at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuriosityError, match=message):
        MaskSettings(**options)


def test_the_command_and_what_reads_its_folder(cards: tuple[Workspace, Manifest], tmp_path: Path) -> None:
    workspace, manifest = cards

    def run(step: str, *more: str, code: int = 0) -> str:
        words = ["--cache", str(workspace.path), "spuriosity", step, "cards", "-b", BROAD, "-o", str(tmp_path), *more]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    assert "holds no feature, so there is nothing to write masks of; run `embedx" in run("masks", code=1)
    found = important_features(manifest, cache_of(workspace), k=2, seeds=1)
    found.save(tmp_path)
    weights = str(cache_of(workspace).header.identity["weights"])
    lines = [
        Annotation(
            "cards", BROAD, weights, c.label, c.class_name, c.feature, ("spurious", "core")[c.rank == 1], "local"
        )
        for c in found.candidates
    ]
    annotations.write(tmp_path / annotations.FILE, lines)
    run("rank")
    try:
        shown = run("masks", "-k", "0.5", "--device", "cpu")
        of = MaskSet.load(folder := tmp_path / "masks")
        assert f"wrote {folder}: {of.masks:,} masks of 4 features on {of.images:,} images" in shown
        assert "take about" in shown and "are free" in shown
        assert of.ranking == "train" and len(rows(folder, "ranking.csv")) == len(manifest)
        assert {r["@id"] for r in check_croissant(folder)["recordSet"]} == {"pairs", "masks", "ranking", "images"}
        shown = run("corrupt", "--masks", str(folder), "--device", "cpu")
        assert "cards (train)" in shown
        assert "to be corrupted; give --split train" in run("corrupt", "--masks", str(folder), "--split", "val", code=1)
        shown = run("annotate", "--from", f"masks={folder}")
        assert "outside the object" in shown
        by_core = {a.pair: a for a in annotations.read(tmp_path / annotations.FILE)}
        cores = [a for a in by_core.values() if a.evidence["mask"]["masked"] and a.label == "core"]
        assert cores and all(a.evidence["mask"]["difference"]["high"] < 0 for a in cores)
    finally:
        for left in workspace.dataset("cards").glob("*.spuriosity.*"):
            left.unlink()


def test_the_masks_of_a_planted_cue_lie_where_it_was_planted(tmp_path: Path) -> None:
    """The share of a mask's mass inside the planted region, against the region's share of the image."""
    shown = [c for c in deck() if c.split == "train" and c.label in CUE_OF]
    shown = [
        c
        for label in CUE_OF
        for cue in (True, False)
        for c in [c for c in shown if c.label == label and bool(c.cue) == cue][:20]
    ]
    workspace = Workspace(tmp_path / "cache")
    root = workspace.dataset("dealt") / "images"
    regions = {}
    for card in shown:
        picture, regions[card.id] = paint(card)
        (root / card.id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / card.id)
    table = {"id": [c.id for c in shown], "label": [c.label for c in shown], "split": ["train"] * len(shown)}
    manifest = manifests.build("dealt", table, classes=[c for c in CLASSES if c in CUE_OF])
    lens = extracted(workspace, manifest)
    X = lens.cache.features()
    cued = np.array([bool(CUE_OF[i.split("/")[1]] in regions[i]) for i in manifest.ids])
    lines = []
    for k in range(len(manifest.classes)):
        here = manifest.labels == k
        a, b = X[here & cued], X[here & ~cued]
        tell = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) + b.var(0) + 1e-6)
        lines += [noted(lens, "spurious", k, int(f)) for f in np.argsort(-tell, kind="stable")[:3]]
    publish(lens, pairs_of(lines), tmp_path / "masks", MaskSettings(most=10))
    written = WrittenMasks.open(tmp_path / "masks")
    inside: dict[str, list[tuple[float, float]]] = {}
    for (row_id, feature), entry in written.entries.items():
        cue = CUE_OF[manifest.classes[entry.class_index]]
        assert cue in regions[row_id]  # the images that show the feature most are those with the cue
        (soft,), region = written.soft(row_id, [feature]), regions[row_id][cue]
        inside.setdefault(cue, []).append((soft[region].sum() / soft.sum(), region.mean()))
    means = {cue: np.mean(of, axis=0) for cue, of in inside.items()}
    assert means.keys() == {"companion", "mark", "ground"}
    for cue, (mass, share) in means.items():
        assert mass > 1.5 * share, f"{cue}: {mass:.3f} of the mass in {share:.3f} of the image"
        assert np.mean([m > s for m, s in inside[cue]]) > 0.9, cue
