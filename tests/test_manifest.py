"""The manifest: a table of words that comes back from disk as it went, and says what is wrong with itself."""

import dataclasses
import json
import string
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedx.data.manifest import RESERVED, SPLITS, amend, build, load, save, tidy
from embedx.errors import ManifestError

ODD = [
    "a,b",
    'say "hi"',
    '"',
    "'",
    " lead",
    "trail ",
    "1",
    "01",
    "-2",
    "--5",
    "NA",
    "nan",
    "null",
    "#x",
    "=1+1",
    "é",
    "鳥",
]
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
cells = st.sampled_from(ODD) | text  # as they stand in files
words = cells.map(tidy).filter(bool)
ids = st.lists(cells, min_size=1, max_size=3).map("/".join).filter(lambda i: i[0] != "/" and ".." not in i)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SMALL = {
    "id": ["d.png", "a.png", "c.png", "b.png"],
    "label": ["cat", "dog", "cat", "dog"],
    "split": ["train", "train", "val", "test"],
    "place": ["in", "out", "out", "in"],
}


@st.composite
def tables(draw, attributes=2):
    """Columns of a well-formed table with at least two classes, its rows in any order."""
    names = draw(st.lists(ids, min_size=2, max_size=12, unique=True))
    n = len(names)
    classes = draw(st.lists(words, min_size=2, max_size=4, unique=True))
    columns = {
        "id": names,
        "label": classes[:2] + draw(st.lists(st.sampled_from(classes), min_size=n - 2, max_size=n - 2)),
        "split": draw(st.lists(st.sampled_from(SPLITS), min_size=n, max_size=n)),
    }
    for attribute in draw(st.lists(words, max_size=attributes, unique=True)):
        if attribute not in RESERVED:
            values = draw(st.lists(words, min_size=1, max_size=3, unique=True))
            columns[attribute] = draw(st.lists(st.sampled_from(values), min_size=n, max_size=n))
    return columns


def rows(manifest):
    """Every row in words, in order: what a person would read in the table."""
    columns = [manifest.ids, np.take(manifest.classes, manifest.labels), np.take(SPLITS, manifest.splits)]
    columns += [np.take(manifest.values[a], manifest.codes[a]) for a in sorted(manifest.codes)]
    return list(zip(*(map(str, c) for c in columns), strict=True))


def same(one, two):
    facts = [f.name for f in dataclasses.fields(one) if f.name not in ("ids", "labels", "splits", "codes")]
    assert {f: getattr(one, f) for f in facts} == {f: getattr(two, f) for f in facts}
    assert rows(one) == rows(two)
    assert one.digest == two.digest


def edit(folder, change):
    path = folder / "manifest.csv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def edit_facts(folder, **facts):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | facts), encoding="utf-8")


@quick
@given(tables(), st.dictionaries(text, st.integers(0, 9), max_size=2), st.none() | text, words, words, words)
def test_disk_gives_back_what_was_saved(tmp_path, columns, expected, root, source, licence, version):
    manifest = build("odd", columns, expected=expected, root=root, source=source, licence=licence, version=version)
    save(manifest, tmp_path)
    back, edited = load(tmp_path)
    assert not edited
    same(manifest, back)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.csv", "manifest.json"]  # nothing half written left


@quick
@given(tables(), st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(columns, random):
    order = random.sample(range(len(columns["id"])), len(columns["id"]))
    manifest = build("t", columns)
    same(manifest, build("t", {name: [column[i] for i in order] for name, column in columns.items()}))
    attributes = sorted(set(columns) - set(RESERVED))
    assert rows(manifest) == sorted(zip(*(columns[c] for c in (*RESERVED, *attributes)), strict=True))


@quick
@given(tables(attributes=3), st.data())
def test_groups_are_label_major_in_the_order_of_grouping(columns, data):
    attributes = [c for c in columns if c not in RESERVED]
    grouping = data.draw(st.permutations(attributes)) if attributes else []
    grouping = grouping[: data.draw(st.integers(0, len(grouping)))]
    manifest = build("t", columns, grouping=grouping)
    combinations = list(product(manifest.classes, *(manifest.values[a] for a in grouping)))
    assert manifest.group_names == tuple(map("/".join, combinations))
    if not grouping:
        assert manifest.groups is None
        return
    where = {row_id: i for i, row_id in enumerate(columns["id"])}
    for row_id, group in zip(manifest.ids, manifest.groups, strict=True):
        assert combinations[group] == tuple(columns[c][where[row_id]] for c in ("label", *grouping))


def test_values_given_set_the_order_and_leave_room_for_missing_groups():
    values = {"place": ["sky", "out", "in"]}
    manifest = build("t", SMALL, classes=["dog", "emu", "cat"], values=values)
    assert manifest.group_names == tuple(map("/".join, product(["dog", "emu", "cat"], values["place"])))
    assert rows(manifest) == rows(build("t", SMALL))
    present = {f"{r[2]}/{r[1]}/{r[3]}" for r in rows(manifest)}
    assert {key for key, n in manifest.counts().items() if n} == present
    assert sum(manifest.counts().values()) == len(manifest)
    assert len(manifest.counts()) == 3 * 3 * 3


def test_values_that_are_numbers_are_sorted_as_numbers():
    columns = {**SMALL, "label": ["10", "9", "x", "-1"]}
    assert build("t", columns).classes == ("-1", "9", "10", "x")


def change(column, row, word):
    return {**SMALL, column: [word if i == row else w for i, w in enumerate(SMALL[column])]}


@pytest.mark.parametrize(
    ("columns", "facts"),
    [
        (change("label", 0, "dog"), {}),
        (change("split", 0, "test"), {}),
        (change("place", 0, "out"), {}),
        (change("id", 0, "e.png"), {}),
        ({c: w[:3] for c, w in SMALL.items()}, {}),
        ({c: w for c, w in SMALL.items() if c != "place"}, {}),
        ({**SMALL, "weather": ["fine"] * 4}, {"grouping": ["place"]}),
        (SMALL, {"grouping": []}),
        (SMALL, {"classes": ["dog", "cat"]}),
        (SMALL, {"classes": ["cat", "dog", "emu"]}),
        (SMALL, {"values": {"place": ["out", "in"]}}),
        (SMALL, {"values": {"place": ["in", "out", "sky"]}}),
        ({**SMALL, "place": ["in", "outside", "outside", "in"]}, {}),
    ],
)
def test_digest_changes_with_what_a_head_sees(columns, facts):
    assert build("t", columns, **facts).digest != build("t", SMALL).digest


def test_digest_changes_with_the_name_of_an_attribute_that_forms_no_group():
    renamed = {("where" if c == "place" else c): w for c, w in SMALL.items()}
    assert build("t", renamed, grouping=[]).digest != build("t", SMALL, grouping=[]).digest


def test_digest_does_not_change_with_anything_else():
    facts = {"root": "/x", "source": "s", "licence": "l", "version": "2", "expected": {"train/cat/in": 5}}
    columns = {**SMALL, "light": ["day", "day", "night", "day"]}
    turned = dict(reversed(columns.items()))
    grouping = ["place", "light"]
    assert build("other", turned, grouping=grouping, **facts).digest == build("t", columns, grouping=grouping).digest


def test_an_edited_table_is_read_as_it_is_and_flagged(tmp_path):
    save(build("t", SMALL), tmp_path)
    edit(tmp_path, lambda t: t.replace("a.png,dog", "a.png,cat"))
    manifest, edited = load(tmp_path)
    assert edited
    same(manifest, build("t", change("label", 1, "cat")))
    edit(tmp_path, lambda t: t.replace("a.png,cat", "a.png,dog").replace("\n", "\r\n"))  # mended, on Windows
    assert load(tmp_path)[1] is False
    edit(tmp_path, lambda t: "\ufeff" + t)  # saved by Excel
    assert load(tmp_path)[1] is False
    edit_facts(tmp_path, licence="free")
    assert load(tmp_path)[1] is False


def test_a_move_changes_the_root_and_nothing_else(tmp_path):
    save(build("t", SMALL, root="/here"), tmp_path)
    moved = amend(tmp_path, load(tmp_path)[0], root="/there")
    assert moved.root == "/there"
    same(moved, load(tmp_path)[0])
    edit(tmp_path, lambda t: t.replace("a.png,dog", "a.png,cat"))
    same(amend(tmp_path, load(tmp_path)[0], root=None), build("t", change("label", 1, "cat")))
    assert load(tmp_path)[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a.png,dog", "a.png,dig", r"row 'a.png' has label 'dig'; did you mean 'dog'\? known: cat, dog"),
        ("a.png,dog,train", "a.png,dog,trian", r"row 'a.png' has split 'trian'; did you mean 'train'"),
        ("a.png,dog,train,out", "a.png,dog,train,", r"row 'a.png' has place ''; known: in, out"),
        ("a.png", "b.png", r"id 'b.png' occurs more than once"),
        ("id,label", "id,lable", r"no column label; found id, lable, split, place"),
        ("split,place", "split,plaec", r"groups by 'place', which is no attribute; did you mean 'plaec'"),
    ],
)
def test_an_edit_that_does_not_fit_names_row_and_way_out(tmp_path, old, new, message):
    save(build("t", SMALL), tmp_path)
    edit(tmp_path, lambda t: t.replace(old, new))
    with pytest.raises(ManifestError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("bad", ["", "/etc/x", "../x", "a/../x", "a\nb", "a\rb", "a\tb", "a\0b", "\x7f", "bad\udcff"])
def test_an_id_that_is_no_relative_path_is_refused(bad):
    with pytest.raises(ManifestError, match=r"is no id: expected a path relative to the root") as caught:
        build("t", change("id", 0, bad))
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("good", ["a..b", "..a", "a/b..", "./a", "a b", "...", "é/鳥.png"])
def test_dots_that_do_not_climb_are_fine(good):
    assert good in build("t", change("id", 0, good)).ids


@pytest.mark.parametrize(
    ("columns", "facts", "message"),
    [
        (change("id", 0, "a.png"), {}, r"id 'a.png' occurs more than once \(1 such rows\); ids must be unique"),
        (change("split", 0, "dev"), {}, r"row 'd.png' has split 'dev'; .*known: test, train, val"),
        (change("label", 0, ""), {}, r"row 'd.png' has label ''"),
        (change("place", 0, "ni"), {"values": {"place": ["in", "out"]}}, r"'d.png' has place 'ni'; did you mean 'in'"),
        ({**SMALL, "label": ["cat"] * 4}, {}, r"one label only \('?cat'?\); a classifier needs at least two classes"),
        ({c: [] for c in SMALL}, {}, r"t: the table has no rows"),
        ({c: w for c, w in SMALL.items() if c != "split"}, {}, r"no column split; found id, label, place"),
        ({}, {}, r"no column id, label, split; found no column"),
        (SMALL, {"grouping": ["palce"]}, r"groups by 'palce', which is no attribute; did you mean 'place'"),
        ({**SMALL, "": ["x"] * 4}, {}, r"'' is no name of a column; give it one"),
        ({**SMALL, "a\nb": ["x"] * 4}, {}, r"is no name of a column; give it one without control characters"),
        ({**SMALL, "place": ["in"]}, {}, r"4 ids but 1 entries of place; expected one per row"),
        ({**SMALL, "place": ["in"] * 5}, {}, r"4 ids but 5 entries of place; expected one per row"),
        (change("place", 0, "a\rb"), {}, r"place 'a\\rb': expected UTF-8 text without control characters"),
        (change("label", 0, "\udcff"), {}, r"label .*expected UTF-8 text without control characters"),
    ],
)
def test_a_table_that_does_not_fit_says_what_is_wrong(columns, facts, message):
    with pytest.raises(ManifestError, match=message):
        build("t", columns, **facts)


def test_known_counts_that_differ_are_one_sentence_each():
    expected = {"train/cat/in": 1, "train/dog/out": 1200, "val/cat/out": 0, "test/emu/in": 3}
    manifest = build("t", SMALL, expected=expected)
    assert manifest.differences() == [
        "train/dog/out: found 1, the published dataset has 1,200",
        "val/cat/out: found 1, the published dataset has 0",
        "test/emu/in: found 0, the published dataset has 3",
    ]
    assert build("t", SMALL, expected=manifest.counts()).differences() == []


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '"x"', "{}", '{"format": "embedx-manifest"}', "\x00"])
def test_facts_that_are_no_manifest_are_refused(tmp_path, content):
    save(build("t", SMALL), tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ManifestError, match=r"prepare the dataset again") as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("key", ["name", "classes", "attributes", "grouping", "expected", "root", "digest"])
def test_an_absent_fact_is_named(tmp_path, key):
    save(build("t", SMALL), tmp_path)
    path = tmp_path / "manifest.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in facts.items() if k != key}))
    with pytest.raises(
        ManifestError, match=rf"manifest.json: \$ has no field '{key}', expected one; mend it, or move .* away"
    ):
        load(tmp_path)


@pytest.mark.parametrize("other", [{"format_version": 2}, {"format": "embedx-features"}])
def test_another_format_is_refused(tmp_path, other):
    save(build("t", SMALL), tmp_path)
    edit_facts(tmp_path, **other)
    with pytest.raises(
        ManifestError,
        match=r"manifest.json: \$.format\w* is .*, expected .*; mend it, or move .* away and prepare the dataset again",
    ):
        load(tmp_path)


@pytest.mark.parametrize("absent", ["manifest.csv", "manifest.json"])
def test_an_absent_file_is_named(tmp_path, absent):
    save(build("t", SMALL), tmp_path)
    (tmp_path / absent).unlink()
    with pytest.raises(
        ManifestError, match=rf"{absent} does not exist: prepare the dataset with `embedx extract --root`"
    ):
        load(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"id,label\n1,2,3,4,5\n", bytes(string.printable, "ascii")])
def test_a_damaged_table_is_an_error_of_the_manifest(tmp_path, damage):
    save(build("t", SMALL), tmp_path)
    (tmp_path / "manifest.csv").write_bytes(damage)
    with pytest.raises(ManifestError):
        load(tmp_path)


def test_groups_that_would_share_a_name_are_refused():
    columns = {"id": ["1", "2"], "label": ["a", "a/b"], "split": ["train", "test"], "place": ["b/c", "c"]}
    with pytest.raises(ManifestError, match="two groups would both be called 'a/b/c'; rename a value"):
        build("x", columns)


def test_the_arrays_cannot_be_written():
    manifest = build("x", {"id": ["1", "2"], "label": ["a", "b"], "split": ["train", "test"]})
    for array in (manifest.ids, manifest.labels, manifest.splits):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
