"""Splits that are drawn: by subject and by content, in the shares asked for, whatever the order of the files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedx.data.manifest import SPLITS
from embedx.data.units import coded, units
from embedx.datasets import imagenet, spuco_mnist, utkface
from embedx.datasets._drawn_split import contents, drawn

SHARES = {"train": 0.7, "val": 0.8, "test": 1.0}
KEYS = st.one_of(st.none(), st.integers(0, 5))
ROWS = st.lists(st.tuples(st.sampled_from("abc"), KEYS, KEYS), min_size=1, max_size=40)


def linked(columns: list[list[int | None]], n: int) -> list[frozenset[int]]:
    """The unit of every row, by going from row to row until nothing is added."""
    found = []
    for row in range(n):
        mine, before = {row}, set[int]()
        while mine != before:
            before = set(mine)
            mine |= {j for c in columns for i in before for j in range(n) if c[i] is not None and c[i] == c[j]}
        found.append(frozenset(mine))
    return found


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_what_shares_a_subject_or_a_content_is_in_one_split_in_any_order(rows, seed, random) -> None:
    strata, *same = (list(column) for column in zip(*rows, strict=True))
    ids = [f"{i:03d}" for i in range(len(rows))]
    split = drawn(ids, strata, SHARES, str(seed), same)
    expected = linked(same, len(rows))
    unit = units([coded(c) for c in same], len(rows))
    assert [frozenset(np.flatnonzero(unit == u).tolist()) for u in unit] == expected
    assert list(dict.fromkeys(unit.tolist())) == list(range(unit.max() + 1)), "numbered by their first rows"
    assert all(len({split[i] for i in rows}) == 1 for rows in expected)
    order = random.sample(range(len(rows)), len(rows))
    again = drawn([ids[i] for i in order], [strata[i] for i in order], SHARES, str(seed),
                  [[c[i] for i in order] for c in same])  # fmt: skip
    assert again == [split[i] for i in order]
    for stratum in set(strata):  # a share is missed by no more than a unit, and no split by all where there is a choice
        homes = {rows for rows in expected if _home(rows, strata) == stratum}
        sizes = [len(rows) for rows in homes]
        held = {s: [len(rows) for rows in homes if split[min(rows)] == s] for s in SPLITS}
        if len(homes) >= len(SPLITS):
            assert all(held.values())
        for s, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
            assert abs(sum(held[s]) - share * sum(sizes)) <= 2 * max(sizes, default=0) + 1


def _home(rows: frozenset[int], strata: list[str]) -> str:
    words = [strata[i] for i in rows]
    return min(set(words), key=lambda s: (-words.count(s), s))


@settings(deadline=None)
@given(st.integers(3, 300), st.integers(0, 9))
def test_rows_of_their_own_are_cut_at_the_shares_exactly(n: int, seed: int) -> None:
    split = drawn([f"{i:03d}" for i in range(n)], ["x"] * n, SHARES, str(seed))
    stream = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed} x".encode()).digest()[:8], "little"))
    train, val = round(0.7 * n), round(0.8 * n)
    train, val = min(train, n - 2), min(max(val, train + 1), n - 1)
    order = stream.permutation(n)
    assert [split[i] for i in order] == ["train"] * train + ["val"] * (val - train) + ["test"] * (n - val)


def test_contents_tell_equal_files_and_read_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"a": b"xy", "b": b"xz", "c": b"xy", "long": b"alone in its length", "void": b"", "nothing": b""}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    opened, real = [], Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: (opened.append(path.name), real(path, *a, **k))[1])
    found = dict(zip([*data, "gone"], contents([tmp_path / name for name in [*data, "gone"]]), strict=True))
    assert found["a"] == found["c"] == hashlib.sha256(b"xy").hexdigest() != found["b"]
    assert [found[k] for k in ("long", "void", "nothing", "gone")] == [None] * 4 and sorted(opened) == ["a", "b", "c"]


def test_files_that_cannot_be_read_for_another_reason_are_no_silent_guess(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").mkdir()  # reading a folder is an error that is neither absence nor a closed door
    with pytest.raises(OSError):
        contents([tmp_path / "a.jpg", tmp_path / "b.jpg"])


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """300 faces; every tenth photograph has three faces, and every seventh face is there again under another name."""
    rng = np.random.default_rng(0)

    def name(time: int) -> str:
        return f"{rng.integers(1, 117)}_{rng.integers(2)}_{rng.integers(5)}_{time}.jpg.chip.jpg"

    for i in range(300):
        for k in range(1 if i % 10 else 3):
            (tmp_path / name(20170101000000000 + i)).write_bytes(b"face %03d %d" % (i, k))
            if i % 7 == 0 and not k:
                (tmp_path / name(20180101000000000 + i)).write_bytes(b"face %03d %d" % (i, k))
    return tmp_path


def test_copies_and_faces_of_one_photograph_are_in_one_split_of_utkface(faces: Path) -> None:
    manifest = utkface.read(faces)
    assert len(manifest) > 350
    by: dict[tuple[str, object], set[int]] = {}
    photos: dict[tuple[str, object], set[int]] = {}
    assert manifest.subjects is not None and manifest.subjects.column == "photo"
    for row, name in enumerate(manifest.ids):
        stamp = name.rpartition("_")[2].partition(".")[0]
        for key in (("time", stamp), ("bytes", (faces / name).read_bytes())):
            by.setdefault(key, set()).add(int(manifest.splits[row]))
            photos.setdefault(key, set()).add(int(manifest.subjects.codes[row]))
    assert {len(found) for found in by.values()} == {1} == {len(found) for found in photos.values()}
    assert np.bincount(manifest.splits) / len(manifest) == pytest.approx([0.7, 0.1, 0.2], abs=0.05)
    assert "photo" not in manifest.values and manifest.grouping == ("race",)


def test_copies_within_a_class_are_drawn_together_in_imagenet(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        for synset in ("n01440764", "n01443537"):
            (tmp_path / folder / synset).mkdir(parents=True)
            for i in range(40):
                (tmp_path / folder / synset / f"{folder}_{i}.JPEG").write_bytes(b"%s %02d" % (synset.encode(), i // 4))
    drawn_from = {"train": imagenet.read(tmp_path, holdout="0.3"), "val": imagenet.read(tmp_path, val="halves")}
    for folder, manifest in drawn_from.items():
        by: dict[bytes, set[str]] = {}
        for name, split in zip(manifest.ids, manifest.splits, strict=True):
            if name.startswith(folder):
                by.setdefault((tmp_path / name).read_bytes(), set()).add(SPLITS[split])
        assert len(by) == 20 and {len(found) for found in by.values()} == {1}
        assert set().union(*by.values()) == ({"train", "val"} if folder == "train" else {"val", "test"})


def test_equal_digits_are_drawn_together_in_spuco_mnist() -> None:
    digits = np.repeat(np.arange(100, dtype=np.uint8), 5)[:, None, None] * np.ones((28, 28), dtype=np.uint8)
    held = np.isin(np.arange(500), spuco_mnist._held_out("", digits, "0"))
    assert set(held.reshape(100, 5).sum(axis=1).tolist()) == {0, 5} and held.sum() == 100
