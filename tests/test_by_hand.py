"""manifest.csv as spreadsheets and people leave it: taken as it was meant, or refused with what to do."""

import csv
import io
import json

import numpy as np
import pytest

from embedx.data.manifest import SPLITS, build, load, save
from embedx.errors import ManifestError

ROWS = {
    "id": ["a,1.png", "b.png", "c.png", "é/d.png"],
    "label": ["cat", "dog", 'so-called "cat"', "dog"],
    "split": ["train", "train", "val", "test"],
    "place": ["in", "out", "nan", "01"],
}


@pytest.fixture
def folder(tmp_path):
    save(build("pets", ROWS), tmp_path)
    return tmp_path


def words(manifest):
    columns = [manifest.ids, np.take(manifest.classes, manifest.labels), np.take(SPLITS, manifest.splits)]
    columns += [np.take(manifest.values[a], manifest.codes[a]) for a in manifest.codes]
    return list(zip(*(map(str, c) for c in columns), strict=True))


def lines(folder):
    return list(csv.reader(io.StringIO((folder / "manifest.csv").read_text(encoding="utf-8"), newline="")))


def write(folder, table, encoding="utf-8", **style):
    text = io.StringIO(newline="")
    csv.writer(text, **{"lineterminator": "\n", **style}).writerows(table)
    (folder / "manifest.csv").write_bytes(text.getvalue().encode(encoding))


WANT = sorted(zip(*ROWS.values(), strict=True))


@pytest.mark.parametrize(
    "style",
    [
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"lineterminator": "\r\n"},
        {"lineterminator": "\r"},
        {"quoting": csv.QUOTE_ALL},
        {"encoding": "utf-8-sig", "delimiter": ";", "lineterminator": "\r\n", "quoting": csv.QUOTE_ALL},
    ],
    ids=str,
)
def test_whatever_program_saved_it_the_words_are_the_same(folder, style):
    write(folder, lines(folder), **style)
    manifest, edited = load(folder)
    assert words(manifest) == WANT and not edited and manifest.remarks == ()


def test_rows_in_another_order_empty_lines_and_empty_columns_are_no_edit(folder):
    header, *rows = lines(folder)
    empty = [[], ["", "", "", ""], ["", "", "", "", ""]]
    write(folder, [[*header, "", ""], *([*r, "", ""] for r in reversed(rows)), *empty])
    assert words(load(folder)[0]) == WANT and not load(folder)[1]
    write(folder, [header, *rows[::2], [], *rows[1::2], *empty])
    assert words(load(folder)[0]) == WANT and not load(folder)[1]


def test_columns_in_another_order_and_blanks_are_no_edit(folder):
    write(folder, [[f" {r[i]} " if i != 0 else r[i] for i in (2, 0, 3, 1)] for r in lines(folder)])
    manifest, edited = load(folder)
    assert words(manifest) == WANT and not edited


def test_words_stored_with_blanks_before_they_were_taken_off_are_read_as_they_are(folder):
    facts = json.loads((folder / "manifest.json").read_text())
    facts["classes"][1] = "dog "
    (folder / "manifest.json").write_text(json.dumps(facts))
    write(folder, [[*r[:1], r[1].replace("dog", "dog "), *r[2:]] for r in lines(folder)])
    assert load(folder)[0].classes == ("cat", "dog ", 'so-called "cat"')


def test_rows_taken_out_and_put_in_are_an_edit(folder):
    header, *rows = lines(folder)
    write(folder, [header, *rows[1:]])
    assert words(load(folder)[0]) == WANT[1:] and load(folder)[1]
    write(folder, [header, *rows, ["new.png", "cat", "test", "in"]])
    assert words(load(folder)[0]) == sorted([*WANT, ("new.png", "cat", "test", "in")]) and load(folder)[1]


def test_a_column_put_in_is_an_attribute_and_says_how_it_forms_groups(folder):
    header, *rows = lines(folder)
    write(folder, [[*header, "weather"], *([*r, w] for r, w in zip(rows, ["rain", "sun", "sun", "0"], strict=True))])
    manifest, edited = load(folder)
    assert edited and manifest.grouping == ("place",) and manifest.values["weather"] == ("0", "rain", "sun")
    (said,) = manifest.remarks
    assert "column 'weather' of manifest.csv" in said and "forms no groups" in said
    line = said.partition("manifest.json: ")[2]
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | json.loads("{" + line + "}")))  # as a person would
    manifest, edited = load(folder)
    assert edited and manifest.grouping == ("place", "weather") and manifest.remarks == ()
    assert manifest.groups is not None and len(manifest.group_names) == 3 * 4 * 3


def test_a_column_of_comments_is_left_out_and_counts_as_an_edit(folder):
    header, *rows = lines(folder)
    write(folder, [[*header, "comment"], *([*r, c] for r, c in zip(rows, ["", "blurred", "", ""], strict=True))])
    manifest, edited = load(folder)
    assert words(manifest) == WANT and edited
    assert "the column 'comment'" in manifest.remarks[0] and "3 of its cells are empty" in manifest.remarks[0]


def test_a_column_taken_out(folder):
    write(folder, [r[:3] for r in lines(folder)])
    with pytest.raises(
        ManifestError, match=r"groups by 'place', which is no attribute; .* take it out of \"grouping\""
    ):
        load(folder)
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"grouping": []}))
    manifest, edited = load(folder)
    assert edited and manifest.values == {} and manifest.groups is None
    assert manifest.remarks == ("manifest.csv no longer has the column 'place' that it was prepared with",)


@pytest.mark.parametrize(
    ("column", "new", "line"),
    [
        (1, "emu", '"classes": ["cat", "dog", "so-called \\"cat\\"", "emu"]'),
        (3, "sky", '"place": ["01", "in", "nan", "out", "sky"]'),
    ],
)
def test_a_new_word_is_refused_with_the_line_that_names_it(folder, column, new, line):
    table = lines(folder)
    table[2][column] = new
    write(folder, table)
    with pytest.raises(ManifestError, match=rf"row '.*' has .* '{new}'; .*known: .*; to make it a") as caught:
        load(folder)
    assert str(caught.value).endswith("in manifest.json" + ' under "attributes"' * (column == 3) + ": " + line)
    file = folder / "manifest.json"
    facts, named = json.loads(file.read_text()), json.loads("{" + line + "}")
    (facts if column == 1 else facts["attributes"]).update(named)
    file.write_text(json.dumps(facts))
    manifest, edited = load(folder)
    assert edited and words(manifest) == sorted(map(tuple, table[1:]))


def test_of_many_classes_a_new_one_is_added_at_the_end(tmp_path):
    labels = [f"c{i}" for i in range(30)]
    save(build("t", {"id": labels, "label": labels, "split": ["train"] * 30}), tmp_path)
    table = lines(tmp_path)
    table[1][1] = "new"
    write(tmp_path, table)
    with pytest.raises(ManifestError, match=r'to make it a class, add "new" at the end of "classes" in manifest.json'):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: [*t[:2], t[2][:2], *t[3:]], r"manifest.csv, line 3: 2 cells, expected 4; mend the line"),
        (lambda t: [*t[:2], [*t[2], "x"], *t[3:]], r"manifest.csv, line 3: 5 cells, expected 4; mend the line"),
        (lambda t: [[*t[0], "place"], *([*r, "x"] for r in t[1:])], r"has two columns 'place'; rename one of them"),
        (lambda t: [[*t[0], ""], *([*r, "x"] for r in t[1:])], r"'' is no name of a column; give it one"),
        (lambda t: [[*t[0][:3], "Place"], *t[1:]], r"groups by 'place', .*did you mean 'Place'.*name again"),
        (lambda t: t[:1], r"the table has no rows"),
        (lambda t: t[1:], r"no column id, label, split; found a,1.png"),
        (lambda t: [*t, ["", "cat", "train", "in"]], r"'' is no id"),
        (lambda t: [*t, t[1]], r"id 'a,1.png' occurs more than once"),
        (lambda t: [*t[:1], [*t[1][:3], ""], *t[2:]], r"row 'a,1.png' has place ''; known: 01, in, nan, out$"),
        (
            lambda t: [*t[:1], [*t[1][:2], "Train", "in"], *t[2:]],
            r"has split 'Train'; did you mean 'train'.*test, train",
        ),
    ],
)
def test_what_is_meant_by_nothing_is_refused(folder, change, message):
    write(folder, change(lines(folder)))
    with pytest.raises(ManifestError, match=message):
        load(folder)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_refused_with_what_to_do(folder, encoding):
    write(folder, lines(folder), encoding)
    with pytest.raises(ManifestError, match=r"manifest.csv is no UTF-8 text \(byte .*\); save it as CSV in UTF-8"):
        load(folder)


def test_a_quote_that_is_never_closed_is_refused(folder):
    with (folder / "manifest.csv").open("a") as file:
        file.write('e.png,"cat,train,in\n')
    with pytest.raises(ManifestError, match=r"line 7: cannot be read as a table|line 6: cannot be read as a table"):
        load(folder)
