"""Images and subjects in two splits: told by every command, and left out where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, WHOLE, build, features, table, write

from embedx import report
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.documents import built, plain
from embedx.errors import SplitError
from embedx.evaluation import runs
from embedx.evaluation.compare import ComparisonSettings, compare
from embedx.evaluation.leaks import leaking, leaks
from embedx.evaluation.probe import probe_cache
from embedx.evaluation.split import join
from embedx.store import FeatureCache
from embedx.workspace import Workspace

RNG = np.random.default_rng(0)
HASHES = RNG.integers(0, 256, (len(WHOLE), 32), dtype=np.uint8)
ROWS = {split: np.flatnonzero(WHOLE.splits == s) for s, split in enumerate(SPLITS)}


def copies() -> np.ndarray:
    """Hashes: rows 0 and 1 of train are in test, 2 in val and in test, 3 in val; 1 of val is in test."""
    hashes = HASHES.copy()
    for a, i, b, j in (("train", 0, "test", 0), ("train", 1, "test", 0), ("train", 2, "val", 2), ("test", 2, "val", 2),
                       ("train", 3, "val", 3), ("val", 1, "test", 1)):  # fmt: skip
        hashes[ROWS[a][i]] = hashes[ROWS[b][j]]
    return hashes


GONE = {"train": [0, 1, 2, 3], "val": [1, 2]}


def herd() -> Manifest:
    """The pets with their owners, who have four each in the order of ids, and so in several splits."""
    frame = table().sort_values("id")
    return build(frame.assign(owner=[f"o{i // 4}" for i in range(len(frame))]), cluster="owner")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=6))
def test_what_is_dropped_is_what_a_later_split_is_linked_to(tmp_path_factory, rows) -> None:
    splits, subjects, contents, lost = zip(*rows, strict=True)
    n = len(rows)
    columns = {
        "id": [f"{i:03d}" for i in range(n)], "label": ["a", "b"] * (n // 2) + ["a"] * (n % 2),
        "split": [SPLITS[s] for s in splits], "who": [f"w{s}" for s in subjects],
    }  # fmt: skip
    manifest = manifests.build("pets", columns, cluster="who")
    hashes = np.array([[c] * 32 for c in contents], dtype=np.uint8)  # a content of zeros is none on record
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    cache = write(workspace, manifest, ONE, np.zeros((n, 2), np.float32), np.flatnonzero(lost).tolist(), hashes)
    linked = [{i} for i in range(n)]
    for _ in range(n):
        linked = [
            {k for k in range(n) if not lost[k] and any(
                k == i or subjects[k] == subjects[i] or (contents[k] == contents[i] != 0) for i in mine)}
            for mine in linked
        ]  # fmt: skip
    expected = [not lost[i] and any(splits[j] > splits[i] for j in linked[i]) for i in range(n)]
    assert leaking(manifest, cache).tolist() == expected


def test_dropping_copies_is_a_manifest_without_them(tmp_path: Path) -> None:
    cache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE), hashes=copies())
    gone = np.concatenate([ROWS[split][rows] for split, rows in GONE.items()])
    assert np.flatnonzero(leaking(WHOLE, cache)).tolist() == sorted(gone.tolist())
    said: list[str] = []
    (run,) = compare(
        Workspace(tmp_path), WHOLE, [ONE], ["plain"], ComparisonSettings(drop_leaks=True), notice=said.append
    )
    rest = build(table()[~table().id.isin(WHOLE.ids[gone])])
    (clean,) = compare(Workspace(tmp_path), rest, [ONE], ["plain"])
    assert run.metrics == clean.metrics and run.parameters == clean.parameters
    assert run.rows == {"train": 626, "val": 158, "test": 600} == clean.rows
    assert run.dropped == {"train": 4, "val": 2} and not run.shared_images
    assert said[-1] == "note: rows left out by --drop-leaks: 4 of train, 2 of val"
    (kept,) = compare(Workspace(tmp_path), WHOLE, [ONE], ["plain"])
    assert kept.shared_images == {"train/val": 2, "train/test": 2, "val/test": 2} and kept.rows["train"] == 630
    (model,) = probe_cache(Workspace(tmp_path), WHOLE, cache, "plain", drop_leaks=True)
    assert (model.record.metrics, model.record.dropped) == (run.metrics, run.dropped)
    page = report.write([run], tmp_path / "out").read_text()
    assert "4 rows of train left out" in page and "occur in" not in page
    assert built(json.loads(json.dumps(plain(run))), runs.Run) == run


def test_subjects_in_two_splits_are_told_and_dropped(tmp_path: Path) -> None:
    manifest = herd()
    assert manifest.subjects is not None
    cache = write(Workspace(tmp_path), manifest, ONE, features(manifest), hashes=HASHES)
    owner = manifest.subjects.codes
    at = {s: set(owner[manifest.splits == i].tolist()) for i, s in enumerate(SPLITS)}
    expected = {
        f"{a}/{b}": int(np.isin(owner[manifest.splits == SPLITS.index(b)], list(at[a])).sum())
        for a, b in (("train", "val"), ("train", "test"), ("val", "test"))
    }
    found = leaks(manifest, cache)
    assert found.facts() == {"shared_images": {}, "shared_subjects": expected}
    assert (
        len(found.remarks()) == 3
        and f"{expected['val/test']:,} images of test are of subjects (owner) in val" in found.remarks()[2]
    )
    assert "--drop-leaks" in found.remarks()[0]
    split = join(manifest, cache, without=leaks(manifest, cache, drop=True).without)
    assert split.test.subjects is not None and len(split.test) == 600
    parts = [set(part.subjects.tolist()) for part in (split.train, split.val, split.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert len(split.train) == np.sum([o not in at["val"] | at["test"] for o in owner[manifest.splits == 0]])
    (run,) = compare(Workspace(tmp_path), manifest, [ONE], ["plain"])
    assert run.shared_subjects == expected and (run.cluster, run.subjects["test"]) == ("owner", len(at["test"]))


def test_a_run_with_the_leaks_is_no_answer_for_one_without(tmp_path: Path) -> None:
    workspace, out = Workspace(tmp_path), tmp_path / "out"
    write(workspace, WHOLE, ONE, features(WHOLE), hashes=copies())
    rows = [
        compare(workspace, WHOLE, [ONE], ["plain"], ComparisonSettings(folder=out, drop_leaks=drop))[0].rows["train"]
        for drop in (False, True, False, True)
    ]
    assert rows == [630, 626, 630, 626]
    assert len((out / "finished.jsonl").read_text().splitlines()) == 2, "each is fitted once"


def test_a_class_that_is_lost_by_dropping_is_refused(tmp_path: Path) -> None:
    hashes = HASHES.copy()
    dogs = [r for r in ROWS["train"] if WHOLE.labels[r] == 1]
    hashes[dogs] = hashes[ROWS["test"][-1]]
    cache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE), hashes=hashes)
    with pytest.raises(SplitError, match="class 'dog' has no usable row in train once 315 rows in another split too"):
        join(WHOLE, cache, without=leaks(WHOLE, cache, drop=True).without)
    hashes[ROWS["train"]] = hashes[ROWS["test"][-1]]
    write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE), hashes=hashes)
    with pytest.raises(SplitError, match="the train split has no usable row .630 left out, as they are in another"):
        compare(Workspace(tmp_path), WHOLE, [ONE], ["plain"], ComparisonSettings(drop_leaks=True))


def embedx(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`scans.csv`: 48 images, four of each patient; patient p0 has two in train and two in test, p1 two in val."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "img").mkdir()
    lines = []
    for i in range(48):
        label, split = i % 2, ("train", "val", "test")[i // 4 % 3]
        pixels = RNG.integers(0, 100, (8, 8, 3)) + 100 * np.array([label, 0, 0])
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "img" / f"{i:02d}.png")
        lines.append((f"img/{i:02d}.png", ("ill", "well")[label], split, f"p{i // 4}"))
    frame = pd.DataFrame(lines, columns=["path", "label", "split", "patient"])
    frame.loc[[2, 3], "split"] = "test"
    frame.to_csv("scans.csv", index=False)
    embedx("extract", "csv", "-r", "scans.csv", "-O", "cluster=patient", "-b", "raw:2x2", "--workers", "0")
    return tmp_path


def test_the_commands_tell_and_drop(patients: Path) -> None:
    told = embedx("probe", "scans", "-b", "raw:2x2", "-o", "kept")
    assert (
        "note: 2 images of test are of subjects (patient) in train as well (for example img/02.png: p0)" in told.stderr
    )
    assert "test holds 18 rows of 5 subjects (patient)" in told.stderr
    assert "95 % intervals, subjects (patient) taken as independent" in told.stdout
    dropped = embedx("compare", "scans", "--head", "plain", "--drop-leaks", "-o", "out")
    assert "note: rows left out by --drop-leaks: 2 of train" in dropped.stderr
    (run,) = runs.load(patients / "out" / "runs.json")
    assert run.dropped == {"train": 2, "val": 0} and run.rows == {"train": 12, "val": 16, "test": 18}
    page = (patients / "out" / "report.html").read_text()
    assert "2 rows of train left out" in page and "Test holds 18 rows of 5 subjects (patient)" in page
    assert "subjects (patient) taken as independent" in (patients / "out" / "table.md").read_text()
    embedx("probe", "scans", "-b", "raw:2x2", "--drop-leaks", "-o", "probed")
    assert runs.load(patients / "probed" / "runs.json")[0].dropped == {"train": 2, "val": 0}


def test_data_check_tells_of_subjects_in_two_splits(patients: Path) -> None:
    found = embedx("data", "check", "scans", "--csv", "findings.csv", "--workers", "0", code=1)
    assert "subjects       1 of 12 (patient) lie in more than one split: a leak" in found.stdout
    frame = pd.read_csv("findings.csv")
    assert sorted(frame.id) == [f"img/0{i}.png" for i in range(4)] and set(frame.finding) == {"subject"}
    assert frame.detail[0] == "train, ill; same patient p0 as img/02.png (test, ill), img/03.png (test, well)"
    table = pd.read_csv("cache/scans/manifest.csv", dtype=str)
    table.loc[table.patient == "p0", "split"] = "test"
    table.to_csv("cache/scans/manifest.csv", index=False)
    assert "12 (patient), each in one split" in embedx("data", "check", "scans", "--workers", "0").stdout


def test_without_leaks_nothing_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    cache: FeatureCache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE), hashes=HASHES)
    found = leaks(WHOLE, cache, drop=True)
    assert found.remarks() == ["note: rows left out by --drop-leaks: none, as there are no leaks"]
    assert found.facts() == {"dropped": {"train": 0, "val": 0}}
