"""Preparing a dataset again, by several processes, with edits by hand and with kills: done or refused, nothing lost."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

from embedx import documents
from embedx.data import digits as _digits
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Lost, build, disk, load, save
from embedx.data.prepare import EDITED, open_prepared, prepare, source_of
from embedx.datasets import demo
from embedx.errors import ManifestError
from embedx.store import FeatureCache
from embedx.workspace import Workspace

LINES = [
    "path,species,genus,split,place,camera", "a.png,cat,felis,train,in,one", "b.png,dog,canis,train,out,two",
    "c.png,cat,felis,val,out,one", "d.png,dog,canis,test,in,two",
]  # fmt: skip
BY_SPECIES = {"label": "species", "attributes": "place"}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "cache")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(LINES) + "\n")
    return path


def edit(workspace, old, new, name="t"):
    path = workspace.dataset(name) / "manifest.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def words(manifest):
    columns = [manifest.ids, np.take(manifest.classes, manifest.labels), np.take(SPLITS, manifest.splits)]
    columns += [np.take(manifest.values[a], manifest.codes[a]) for a in sorted(manifest.codes)]
    return list(zip(*(c.tolist() for c in columns), strict=True))


def older(workspace, name="t"):
    """Take from manifest.json what versions before did not write."""
    file = workspace.dataset(name) / "manifest.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in facts.items() if k not in ("table", "members", "origin")}))


# What is asked for is done or refused: (edited or not) x (root) x (options) x (source changed or not) x (how named)

CASES = {
    "the same": ("t=csv", "t.csv", BY_SPECIES, None),
    "by name": ("t", None, {}, None),
    "by name with its options": ("t", None, BY_SPECIES, None),
    "by name and root": ("t", ".", {}, None),
    "another label": ("t=csv", "t.csv", {**BY_SPECIES, "label": "genus"}, None),
    "another attribute": ("t=csv", "t.csv", {**BY_SPECIES, "attributes": "place,camera"}, None),
    "an option less": ("t=csv", "t.csv", {"label": "species"}, None),
    "source corrected": ("t=csv", "t.csv", BY_SPECIES, ("b.png,dog", "b.png,cat")),
    "source with a row more": ("t=csv", "t.csv", BY_SPECIES, ("d.png,", "e.png,dog,canis,train,in,two\nd.png,")),
    "source with a row less": ("t=csv", "t.csv", BY_SPECIES, ("c.png,cat,felis,val,out,one\n", "")),
    "source with another column": ("t=csv", "t.csv", BY_SPECIES, (",camera", ",lens")),
    "a copy elsewhere": ("t=csv", "copy/t.csv", BY_SPECIES, None),
    "by name with another option": ("t", None, {"label": "genus"}, None),
    "another plug-in": ("t=folder", "tree", {}, None),
}
DONE = {"the same", "by name", "by name with its options", "by name and root", "a copy elsewhere",
        "source with another column"}  # fmt: skip
REFUSED = {
    "another label": r"manifest.csv was edited by hand, and what is asked for is not what it was prepared with "
    r"\(-O label=genus where it was -O label=species\); both cannot hold: `embedx extract t` uses",
    "another attribute": r"\(-O attributes=place,camera where it was -O attributes=place\); both cannot hold",
    "an option less": r"\(no -O attributes where it was -O attributes=place\); both cannot hold",
    "source corrected": r"edited by hand, and the labels, splits or attributes read from .* are not those it was",
    "source with a row more": r"edited by hand and the files have changed too; move .*\(1 rows are new and 0 are gone",
    "source with a row less": r"edited by hand and the files have changed too; move .*\(0 rows are new and 1 are gone",
    "by name with another option": r"'t' is prepared already and label was an option of its making; .*"
    r"\(before: embedx extract t=csv --root .*t.csv'? -O label=species -O attributes=place\)",
    "another plug-in": r"\(dataset folder where it was csv; .*\); both cannot hold",
}


def ask(tmp_path, workspace, table, case):
    dataset, root, options, change = CASES[case]
    for copy in ("a.png", "b.png", "c.png", "d.png"):
        (tmp_path / copy).touch()
    if root == "copy/t.csv":
        shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    for split, label, file in (("train", "cat", "a"), ("train", "dog", "b"), ("test", "dog", "d")):
        if root == "tree":
            (tmp_path / "tree" / split / label).mkdir(parents=True)
            (tmp_path / "tree" / split / label / f"{file}.png").touch()
    if change:
        assert change[0] in table.read_text()
        table.write_text(table.read_text().replace(*change))
    return prepare(workspace, dataset, root and tmp_path / root, options)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("was", ["as written now", "as written before"])
def test_a_table_edited_by_hand_is_kept_or_the_request_is_refused(tmp_path, workspace, table, case, was):
    prepare(workspace, "t=csv", table, BY_SPECIES)
    if was == "as written before":
        older(workspace)
    edit(workspace, "a.png,cat", "a.png,dog")
    lies = (workspace.dataset("t") / "manifest.csv").read_bytes()
    want = [("a.png", "dog", "train", "in"), *words(open_prepared(workspace, "t")[0])[1:]]
    if case in DONE and not (was == "as written before" and case == "by name with its options"):
        manifest, remarks = ask(tmp_path, workspace, table, case)
        assert words(manifest) == words(open_prepared(workspace, "t")[0]) == want
        assert remarks == [EDITED.format("t")] == open_prepared(workspace, "t")[1]
        elsewhere = tmp_path / "copy" if case == "a copy elsewhere" else tmp_path
        assert manifest.root == open_prepared(workspace, "t")[0].root == str(elsewhere)
    else:
        message = REFUSED.get(case, "is prepared already") if was == "as written now" else "edited|is prepared already"
        with pytest.raises(ManifestError, match=message):
            ask(tmp_path, workspace, table, case)
    assert (workspace.dataset("t") / "manifest.csv").read_bytes() == lies


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("was", ["as written now", "as written before"])
def test_a_table_that_nobody_edited_follows_the_request(tmp_path, workspace, table, case, was):
    first, _ = prepare(workspace, "t=csv", table, BY_SPECIES)
    if was == "as written before":
        older(workspace)
    if case.startswith("by name with") and (was == "as written before" or case == "by name with another option"):
        with pytest.raises(ManifestError, match="'t' is prepared already and label"):
            ask(tmp_path, workspace, table, case)
        return
    if case == "another plug-in":
        with pytest.raises(ManifestError, match=r"the name 't' is taken by other rows, from .*NAME=folder"):
            ask(tmp_path, workspace, table, case)
        return
    manifest, remarks = ask(tmp_path, workspace, table, case)
    dataset, root, options, _ = CASES[case]
    fresh = first
    if dataset != "t":
        fresh, _ = prepare(Workspace(tmp_path / "fresh"), dataset, tmp_path / root, options)
    assert words(manifest) == words(open_prepared(workspace, "t")[0]) == words(fresh)
    assert manifest.digest == open_prepared(workspace, "t")[0].digest == fresh.digest
    told = [line for line in remarks if "prepared anew, with" in line]
    assert len(told) == (was == "as written now" and case in ("another label", "another attribute", "an option less"))


def test_the_same_correction_by_hand_and_in_the_source_is_no_conflict(tmp_path, workspace, table):
    prepare(workspace, "t=csv", table, BY_SPECIES)
    edit(workspace, "a.png,cat", "a.png,dog")
    table.write_text(table.read_text().replace("a.png,cat", "a.png,dog"))
    manifest, remarks = prepare(workspace, "t=csv", table, BY_SPECIES)
    assert words(manifest)[0][1] == "dog" and remarks == [EDITED.format("t")]


def test_rows_taken_out_by_hand_stay_out_when_the_files_are_as_they_were(tmp_path, workspace, table):
    prepare(workspace, "t=csv", table, BY_SPECIES)
    edit(workspace, "c.png,cat,val,out\n", "")
    manifest, remarks = prepare(workspace, "t=csv", table, BY_SPECIES)
    assert manifest.ids.tolist() == ["a.png", "b.png", "d.png"] and remarks == [EDITED.format("t")]


def test_comments_in_a_column_of_their_own_outlive_preparing_again(tmp_path, workspace, table):
    prepare(workspace, "t=csv", table, BY_SPECIES)
    file = workspace.dataset("t") / "manifest.csv"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([f"{first},comment", f"{rest[0]},blurred", *(f"{line}," for line in rest[1:])]))
    lies = file.read_bytes()
    _, remarks = prepare(workspace, "t=csv", table, BY_SPECIES)
    assert file.read_bytes() == lies and EDITED.format("t") in remarks and "'comment'" in remarks[1]


def test_what_else_a_manifest_says_follows_the_files_though_the_table_was_edited(workspace, tmp_path, monkeypatch):
    (tmp_path / "zoo_of_versions.py").write_text(
        "from embedx.data.manifest import build\n"
        "def read(root):\n"
        "    c = {'id': ['a', 'b'], 'label': ['x', 'y'], 'split': ['train', 'test']}\n"
        "    return build('zoo', c, root=str(root), version=(root / 'v').read_text(), remarks=('seen',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "v").write_text("1")
    prepare(workspace, "py:zoo_of_versions", tmp_path, {})
    edit(workspace, "a,x", "a,y", "zoo")
    (tmp_path / "v").write_text("2")  # other content behind the same ids: a cache of version 1 must not be taken for it
    manifest, remarks = prepare(workspace, "py:zoo_of_versions", tmp_path, {})
    assert manifest.version == open_prepared(workspace, "zoo")[0].version == "2"
    assert remarks == [EDITED.format("zoo"), "zoo: seen"]


def test_a_table_without_its_other_file_is_not_written_over(workspace, table):
    manifest, _ = prepare(workspace, "t=csv", table, BY_SPECIES)
    (workspace.dataset("t") / "manifest.json").unlink()
    assert prepare(workspace, "t=csv", table, BY_SPECIES)[0].digest == manifest.digest  # the very table
    edit(workspace, "a.png,cat", "a.png,dog")
    (workspace.dataset("t") / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"manifest.csv is there without manifest.json, .*; move it away, or put"):
        prepare(workspace, "t=csv", table, BY_SPECIES)


def test_an_edit_of_this_very_moment_is_not_written_over(workspace, table):
    prepare(workspace, "t=csv", table, BY_SPECIES)
    kept = manifests.read(workspace.dataset("t"))
    edit(workspace, "a.png,cat", "a.png,dog")
    with pytest.raises(ManifestError, match=r"manifest.csv was edited this very moment; give the same command again"):
        save(replace(kept.manifest, source="new"), workspace.dataset("t"), over=kept.table)
    assert load(workspace.dataset("t"))[1] and load(workspace.dataset("t"))[0].source != "new"


def test_nothing_is_written_where_nothing_changed(workspace, table):
    prepare(workspace, "t=csv", table, BY_SPECIES)
    files = [workspace.dataset("t") / f for f in ("manifest.csv", "manifest.json")]
    before = [f.stat().st_ino for f in files]
    prepare(workspace, "t=csv", table, BY_SPECIES)
    prepare(workspace, "t", table.parent, {})
    assert [f.stat().st_ino for f in files] == before


# A kill at any moment: what is there is what was, or what is new, or says that it is neither.


def members(ids, offset):
    table = np.zeros(len(ids), dtype=[("id", "S9"), ("offset", "<i8"), ("size", "<i8")])
    table["id"], table["offset"] = sorted(i.encode() for i in ids), offset
    return table


def manifest_of(ids, label="cat", version="1", offset=None):
    columns = {"id": ids, "label": [label, *["dog"] * (len(ids) - 1)], "split": ["train"] * len(ids)}
    index = None if offset is None else members(ids, offset)
    return build("t", columns, version=version, members=index, root="/r")


FIRST = manifest_of(["a", "b"], offset=1)
PAIRS = {
    "nothing before": (None, manifest_of(["a", "b"])),
    "nothing before, archives": (None, FIRST),
    "other labels": (FIRST, manifest_of(["a", "b"], "emu", offset=1)),
    "more rows": (FIRST, manifest_of(["a", "b", "c"], offset=7)),
    "archives packed anew": (FIRST, manifest_of(["a", "b"], offset=7)),
    "files, no archives": (FIRST, manifest_of(["a", "b", "c"])),
    "another version": (FIRST, manifest_of(["a", "b"], version="2", offset=1)),
}


def seen(folder):
    """(digest, version, index) that a reader is given, or None where it is refused."""
    try:
        manifest, edited = load(folder)
        disk.check_members(folder)
    except ManifestError as error:
        assert "--root" in str(error), error
        return None
    assert not edited
    index = folder / "members.npy"
    return manifest.digest, manifest.version, np.load(index).tobytes() if index.exists() else None


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(4))
def test_a_kill_leaves_the_old_the_new_or_a_message(tmp_path, monkeypatch, pair, when, step):
    old, new = PAIRS[pair]
    states = {}
    for key, manifest in (("old", old), ("new", new)):
        if manifest is not None:
            save(manifest, tmp_path / key)
            states[key] = seen(tmp_path / key)
            assert states[key] is not None
    folder = tmp_path / "t"
    if old is not None:
        save(old, folder)
    calls = []

    def dying(write):
        def call(*args):
            calls.append(args[0].name)
            if len(calls) == step + 1 and when == "before":
                raise KeyboardInterrupt
            write(*args)
            if len(calls) == step + 1:
                raise KeyboardInterrupt

        return call

    with monkeypatch.context() as patch:
        for module, name in ((documents, "write_text"), (disk, "write_bytes"), (disk, "write_array")):
            patch.setattr(module, name, dying(getattr(module, name)))
        try:
            save(new, folder)
        except KeyboardInterrupt:
            killed = True
        else:
            killed = False
    assert killed == (len(calls) > step)
    assert seen(folder) in ([None] if old is None else [None, states["old"]]) + [states["new"]]
    if not killed:
        assert seen(folder) == states["new"]
    save(new, folder)
    assert seen(folder) == states["new"]


def test_a_preparation_cut_short_is_told_and_made_good_by_the_same_command(workspace, table, monkeypatch):
    prepare(workspace, "t=csv", table, BY_SPECIES)
    table.write_text(table.read_text().replace("b.png,dog", "b.png,cat"))

    def never(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(disk, "write_bytes", never)
        prepare(workspace, "t=csv", table, BY_SPECIES)
    again = re.escape(f"embedx extract t=csv --root {shlex.quote(str(table))} -O label=species")
    told = rf"preparation was cut short; give the same command .*: {again}"
    for ask in (
        lambda: open_prepared(workspace, "t"),
        lambda: prepare(workspace, "t", None, {}),
        lambda: load(workspace.dataset("t")),
    ):
        with pytest.raises(Lost, match=told):
            ask()
    other = table.with_name("other.csv")
    other.write_text("path,label,split\nx,1,train\ny,2,test\n")
    (table.parent / "away").mkdir()
    other = other.rename(table.parent / "away" / "other.csv")
    with pytest.raises(ManifestError, match="the name 't' is taken by other rows"):
        prepare(workspace, "t=csv", other, {})
    assert words(prepare(workspace, "t=csv", table, BY_SPECIES)[0])[1][1] == "cat"
    assert open_prepared(workspace, "t")[1] == []


def test_another_index_than_the_manifests_is_refused(tmp_path, workspace):
    pack(tmp_path / "train.tar", 4)
    manifest, _ = prepare(workspace, "w=webdataset", tmp_path / "train.tar", {})
    index = workspace.dataset("w") / "members.npy"
    changed = np.load(index)
    changed["offset"] = changed["offset"][::-1].copy()
    np.save(index, changed)
    with pytest.raises(
        ManifestError, match=r"members.npy is not the index .*again: embedx extract w=webdataset --root"
    ):
        source_of(workspace, manifest)
    older(workspace, "w")
    source_of(workspace, manifest)  # nothing is known of it
    prepare(workspace, "w=webdataset", tmp_path / "train.tar", {})
    source = source_of(workspace, manifest)
    assert all(source.read(i) for i in manifest.ids)


# Several at once.


def pack(path, n):
    with tarfile.open(path, "w") as tar:
        for i in range(n):
            picture = path.with_name("p.png")
            Image.new("RGB", (4, 4), (i, 0, 0)).save(picture)
            tar.add(picture, f"{i}.png")
            label = path.with_name("p.cls")
            label.write_text(f"c{i % 2}")
            tar.add(label, f"{i}.cls")


def at_once(n, call):
    """Results of n calls that begin at the same moment. A lock is held by an open file, of a thread or a process."""
    ready = Barrier(n)

    def one(i):
        ready.wait(60)
        return call(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(one, range(n)))


def test_six_that_prepare_at_once_all_succeed(tmp_path, workspace, table):
    pack(tmp_path / "train.tar", 6)
    for dataset, root, options in (("t=csv", table, BY_SPECIES), ("w=webdataset", tmp_path / "train.tar", {})):
        found = at_once(6, lambda _, d=dataset, r=root, o=options: prepare(workspace, d, r, o))
        assert len({m.digest for m, _ in found}) == 1 and all(remarks == [] for _, remarks in found)
        manifest, remarks = open_prepared(workspace, dataset[0])
        assert remarks == [] and manifest.digest == found[0][0].digest


def test_some_read_while_others_write_and_nobody_sees_a_mixture(tmp_path, workspace, table):
    genus = {**BY_SPECIES, "label": "genus"}
    want = {words(prepare(workspace, "t=csv", table, o)[0])[0][1] for o in (genus, BY_SPECIES)}

    def work(i):
        for turn in range(8):
            if i % 2:
                manifest, remarks = open_prepared(workspace, "t")
                assert not any(EDITED.format("t") in line for line in remarks)
            else:
                manifest, _ = prepare(workspace, "t=csv", table, (genus, BY_SPECIES)[turn % 2])
            assert words(manifest)[0][1] in want and len(manifest) == 4

    at_once(4, work)


def test_of_six_that_generate_one_draws(workspace, monkeypatch):
    cards, drawn = _digits.deck()[::97], []
    monkeypatch.setattr(demo, "deck", lambda *_: cards)
    monkeypatch.setattr(demo, "paint", lambda card: (drawn.append(card.id), _digits.paint(card))[1])
    found = at_once(6, lambda _: prepare(workspace, "toy=demo", None, {})[0])
    assert sorted(drawn) == sorted(c.id for c in cards)
    assert len({m.digest for m in found}) == 1
    assert all((workspace.dataset("toy") / "images" / i).is_file() for i in found[0].ids)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dataset", ["pets=folder", "demo"])
def test_six_tasks_of_containers_extract_their_shards_at_once(tmp_path, dataset):
    """Each believes that it has the number 1; all end well, and the cache is that of one process."""
    for i in range(36):
        place = tmp_path / "pets" / SPLITS[i % 3] / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 99, 7)).save(place / f"{i}.png")
    start = "import os, sys; os.getpid = lambda: 1; from embedx.cli import main; main()"
    root = ["--root", str(tmp_path / "pets")] if "=" in dataset else []

    def line(cache, *more):
        words = ["--cache", str(tmp_path / cache), "extract", dataset, *root, "-b", "raw:4x4", "--workers", "0"]
        return [sys.executable, "-c", start, *words, "--shard-rows", "6" if root else "64", *more]

    tasks = [subprocess.Popen(line("many", "--shard", f"{i}/6"), stderr=subprocess.PIPE, text=True) for i in range(6)]
    said = [t.communicate(timeout=600)[1] for t in tasks]
    assert [t.returncode for t in tasks] == [0] * 6, said
    for words in (line("many", "--merge"), line("one")):
        subprocess.run(words, check=True, capture_output=True, timeout=600)
    name = dataset.partition("=")[0]
    many, one = (
        FeatureCache.open_complete(Path(tmp_path / c / name / "raw-4x4.h5")).features() for c in ("many", "one")
    )
    assert np.array_equal(many, one)
