"""Planted faults and doubles are found, exactly those, however the rows are cut into chunks."""

import csv
import hashlib
import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedx.data import audit as audits
from embedx.data.audit import audit, same_bytes, write
from embedx.data.manifest import SPLITS
from embedx.data.prepare import prepare, source_of
from embedx.errors import ManifestError
from embedx.workspace import Workspace


def png(number):
    """A picture like no other."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def dataset(folder, files):
    """(manifest, source) of {`train/cat/1.png`: bytes}, prepared in `folder / cache`."""
    for name, data in files.items():
        (folder / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pets" / name).write_bytes(data)
    workspace = Workspace(folder / "cache")
    manifest, _ = prepare(workspace, "folder", folder / "pets", {})
    return manifest, source_of(workspace, manifest)


def plain(n=3):
    names = [f"{split}/{label}/{i}.png" for split in SPLITS for label in ("cat", "dog") for i in range(n)]
    return {name: png(i) for i, name in enumerate(names)}


def test_a_sound_dataset(tmp_path):
    found = audit(*dataset(tmp_path, plain()), workers=0)
    assert found.sound and list(found.findings()) == [] and found.same == []
    assert found.repetitions == {"train": 0, "val": 0, "test": 0}


def planted():
    """A dataset and {id: kinds of its findings}."""
    files = plain()
    files["val/cat/leak.png"] = files["train/cat/0.png"]
    files["test/dog/both.png"] = files["train/cat/1.png"]
    files["train/dog/again.png"] = files["train/dog/again too.png"] = files["train/dog/2.png"]
    files["test/dog/wrong.png"] = files["test/cat/2.png"]
    files["train/cat/text.png"] = b"no image"
    files["val/cat/text.png"] = b"no image"
    files["train/cat/empty.png"] = files["test/cat/empty.png"] = b""
    files["test/cat/cut.png"] = png(1000)[:-30]
    repeated = {"repetition"}
    wanted = {
        "val/cat/leak.png": {"leak"}, "train/cat/0.png": {"leak"}, "test/dog/both.png": {"leak", "contradiction"},
        "train/cat/1.png": {"leak", "contradiction"}, "train/dog/again.png": repeated,
        "train/dog/again too.png": repeated, "train/dog/2.png": repeated,
        "test/dog/wrong.png": {"contradiction", "repetition"}, "test/cat/2.png": {"contradiction", "repetition"},
        **{n: {"unreadable"} for n, d in files.items() if d in (b"", b"no image", png(1000)[:-30])},
    }  # fmt: skip
    return files, wanted


@pytest.mark.parametrize("chunk", [1, 7, 128])
def test_planted_faults_are_found_and_nothing_else(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(audits, "CHUNK", chunk)
    files, wanted = planted()
    manifest, source = dataset(tmp_path, files)
    (tmp_path / "pets/val/dog/0.png").unlink()
    wanted["val/dog/0.png"] = {"missing"}
    told = []
    found = audit(manifest, source, workers=0, progress=lambda done, total: told.append((done, total)))
    kinds: dict[str, set[str]] = {}
    for f in found.findings():
        kinds.setdefault(f.id, set()).add(f.kind)
    assert kinds == wanted
    assert not found.sound
    assert (len(found.leaks), len(found.contradictions)) == (2, 2)
    assert found.repetitions == {"train": 2, "val": 0, "test": 1}
    assert told[-1] == (len(files), len(files)) and len(told) == -(-len(files) // chunk)
    details = {(f.id, f.kind): f.detail for f in found.findings()}
    assert details["val/cat/leak.png", "leak"] == "val, cat; same bytes as train/cat/0.png (train, cat)"
    assert details["train/cat/empty.png", "unreadable"] == "empty file"
    assert details["val/dog/0.png", "missing"] == "no such file"
    assert details["train/dog/2.png", "repetition"].count("(train, dog)") == 2
    write(found, tmp_path / "f.csv")
    with (tmp_path / "f.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table == [["id", "finding", "detail"], *([f.id, f.kind, f.detail] for f in found.findings())]
    assert not list(tmp_path.glob(".*part"))


def test_processes_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(audits, "CHUNK", 4)
    manifest, source = dataset(tmp_path, planted()[0])
    here, there = (audit(manifest, source, workers=w) for w in (0, 2))
    assert list(here.findings()) == list(there.findings()) and len(list(here.findings())) > 10
    assert here.reasons == there.reasons and (here.status == there.status).all()


class Deadly:
    """A source that ends the process that reads it."""

    place = ""

    def read(self, row_id):
        os._exit(3)


def test_a_process_that_dies_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(audits, "CHUNK", 4)
    manifest, _ = dataset(tmp_path, plain())
    with pytest.raises(ManifestError, match="a process died while it decoded images"):
        audit(manifest, Deadly(), workers=1)


def test_repetitions_alone_are_no_error_and_counts_are(tmp_path):
    from dataclasses import replace

    files = plain()
    files["train/cat/again.png"] = files["train/cat/0.png"]
    manifest, source = dataset(tmp_path, files)
    assert audit(manifest, source, workers=0).sound
    counted = audit(replace(manifest, expected={"train/cat": 4, "val/dog": 9}), source, workers=0)
    assert not counted.sound
    assert [(f.kind, f.detail) for f in counted.findings() if f.kind == "count"] == [
        ("count", "val/dog: found 3, the published dataset has 9")
    ]


@pytest.mark.parametrize(
    ("twin", "original", "sound"),
    [
        ("val/cat/x.png", "train/cat/0.png", False),
        ("train/dog/x.png", "train/cat/0.png", False),
        ("train/cat/x.png", "train/cat/0.png", True),
    ],
)
def test_a_leak_or_a_contradiction_alone_is_an_error(tmp_path, twin, original, sound):
    files = plain()
    assert audit(*dataset(tmp_path, files | {twin: files[original]}), workers=0).sound == sound


def test_vectors_are_read_as_such(tmp_path):
    files = plain()
    file = io.BytesIO()
    np.save(file, np.arange(3.0))
    files["train/cat/v.npy"], files["train/cat/w.npy"] = file.getvalue(), b"no array"
    found = list(audit(*dataset(tmp_path, files), workers=0).findings())
    assert [(f.id, f.kind) for f in found] == [("train/cat/w.npy", "unreadable")]


def test_many_equal_images_are_not_all_named_everywhere(tmp_path):
    files = plain() | {f"train/cat/x{i}.png": png(999) for i in range(30)} | {"test/cat/x.png": png(999)}
    found = list(audit(*dataset(tmp_path, files), workers=0).findings())
    leaks = {f.id: f.detail for f in found if f.kind == "leak"}
    assert len(leaks) == 31 and leaks["test/cat/x.png"].endswith("(train, cat) and 27 more")
    assert leaks["train/cat/x0.png"].endswith("same bytes as test/cat/x.png (test, cat)")
    repeated = [f.detail for f in found if f.kind == "repetition"]
    assert len(repeated) == 30 and all(d.endswith("and 26 more") for d in repeated)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=40))
def test_same_bytes_agrees_with_a_dictionary(rows):
    # Digests that share most of their bytes, and all zeros among them.
    digests = [
        bytes(32),
        b"\0" * 31 + b"\1",
        b"\1" + b"\0" * 31,
        *(hashlib.sha256(bytes([i])).digest() for i in range(4)),
    ]
    hashes = np.array([list(digests[i]) for i, _ in rows], dtype=np.uint8).reshape(-1, 32)
    usable = np.array([u for _, u in rows], dtype=bool)
    by_hash: dict[int, list[int]] = {}
    for row, (i, use) in enumerate(rows):
        if use:
            by_hash.setdefault(i, []).append(row)
    expected = sorted(v for v in by_hash.values() if len(v) > 1)
    assert [f.tolist() for f in same_bytes(hashes, usable)] == expected
