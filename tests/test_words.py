"""Blanks are no part of a word, and values that look alike are told of, folded on request, or kept as meant."""

import unicodedata

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from embedx.cli import main
from embedx.data.manifest import alike, build, folded, load, save, tidy
from embedx.data.manifest.words import look
from embedx.data.prepare import open_prepared, prepare
from embedx.errors import ManifestError
from embedx.workspace import Workspace

CLEAN = {
    "id": [f"{i:02d}.png" for i in range(12)],
    "label": ["cat", "dog"] * 6,
    "split": ["train"] * 4 + ["val"] * 4 + ["test"] * 4,
    "place": ["Land", "Land", "Café", "Café"] * 3,
    "code": ["0", "1", "1", "0"] * 3,
}
BLANKS = [
    " ",
    "\t",
    "\n",
    "\r",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u2028",
    "\u200b",
    "\ufeff",
    "\u2060",
    "\u00ad",
    "\u3164",
]


def changed(column, row, word):
    return {**CLEAN, column: [word if i == row else w for i, w in enumerate(CLEAN[column])]}


@pytest.mark.parametrize("column", ["label", "place", "code", "split"])
@pytest.mark.parametrize("blank", BLANKS)
def test_blanks_around_a_word_are_no_part_of_it(column, blank):
    word = CLEAN[column][5]
    for spelled in (word + blank, blank + word, blank + " " + word + blank):
        manifest = build("t", changed(column, 5, spelled))
        assert manifest.digest == build("t", CLEAN).digest
        assert manifest.remarks == (f"{column}: blanks around the words of 1 row taken off, as in {spelled!r}",)
        assert alike(manifest) == []


def test_blanks_around_names_of_columns_and_known_words_are_no_part_of_them():
    columns = {f" {c}\u00a0" if c != "id" else c: w for c, w in CLEAN.items()}
    facts = {"classes": ["cat", "dog ", "dog"], "values": {"place ": ["Land", " Café"]}, "grouping": [" place"]}
    plain = {"classes": ["cat", "dog"], "values": {"place": ["Land", "Café"]}, "grouping": ["place"]}
    assert build("t", columns, **facts).digest == build("t", CLEAN, **plain).digest
    with pytest.raises(ManifestError, match="two columns would be called 'place'; rename one"):
        build("t", {**CLEAN, "place ": CLEAN["place"]})


def test_ids_are_names_of_files_and_stay_as_they_are():
    assert " 00.png " in build("t", changed("id", 0, " 00.png ")).ids


@pytest.mark.parametrize("nothing", [None, float("nan"), " ", "\u200b", ""])
def test_no_value_is_no_word(nothing):
    with pytest.raises(ManifestError, match=r"row '03.png' has place ''; known: "):
        build("t", changed("place", 3, nothing))


LIKE = [
    ("place", "land"), ("place", "LAND"), ("place", "Ｌａｎｄ"), ("place", "La\u200bnd"), ("place", "Lаnd"),  # а
    ("place", unicodedata.normalize("NFD", "Café")), ("place", "CAFÉ"), ("code", "0.0"), ("code", "00"), ("code", "-0"),
    ("code", "0e5"), ("code", "１"), ("code", "1.00"), ("label", "Cat"), ("label", "DOG"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "word"), LIKE)
def test_a_word_that_looks_like_another_is_told_of_and_folded_on_request(tmp_path, column, word):
    row = next(i for i, w in enumerate(CLEAN[column]) if look(w) == look(word))
    manifest = build("t", changed(column, row, word))
    assert manifest.digest != build("t", CLEAN).digest
    (found,) = alike(manifest)
    assert (found.column, found.words, found.rows) == (column, (CLEAN[column][row], word), (5, 1))
    assert str(found).startswith(f"{column} ") and "(5 rows) and " in str(found) and "look alike" in str(found)
    whole = folded(manifest)
    assert whole.digest == build("t", CLEAN).digest and alike(whole) == []
    assert len(whole.remarks) == 1 and f"(1 row) taken for {CLEAN[column][row]!r}"[:20] in whole.remarks[0]
    save(manifest, tmp_path)
    assert alike(load(tmp_path)[0]) == [found]


def test_words_that_the_eye_cannot_tell_apart_are_spelled_out():
    (found,) = alike(build("t", changed("place", 2, "Cafe\u0301")))
    assert str(found) == r"place 'Caf\xe9' (5 rows) and 'Cafe\u0301' (1 row) look alike, and are told apart"


@pytest.mark.parametrize(
    "words",
    [
        ["Water bird", "water_bird", "water-bird", "water  bird", "water\u00a0bird", "WATER–BIRD", "water‑bird"],
        ["x-ray", "X Ray", "x_ray"],
        ["bird's", "bird’s"],
        ["1", "1.0", "01", "+1", "1e0", "10e-1", "١"],
        ["-5", "−5", "-5.0"],
        ["Straße", "STRASSE"],
    ],
)
def test_these_look_alike(words):
    assert len({look(w) for w in words}) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["-1", "1", "--1"],
        ["A", "A-", "A+", "-A"],
        ["lag 1", "lag -1", "lag 11"],
        ["1.0", "10", "1.00001", "0.1"],
        ["12345678901234567890", "12345678901234567891"],
        ["a/b", "a b", "ab", "a.b"],
        ["cafe", "café", "cafés"],
        ["1e9999999999999999999", "1e9999999999999999998"],
        ["鳥", "烏"],
    ],
)
def test_these_do_not(words):
    assert len({look(w) for w in words}) == len(words)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_word_looks_like_itself_however_it_is_tidied_or_written(word):
    assert tidy(tidy(word)) == tidy(word)
    assert look(tidy(word)) == look(word) or not tidy(word).strip("_")
    assert look(unicodedata.normalize("NFD", word)) == look(unicodedata.normalize("NFC", word))


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "NA", "na", "N/A", "n/a", "null", "None", "-", "–", "?", "<NA>", "#N/A"]
)
def test_a_word_for_a_missing_value_is_told_of(word):
    (found,) = alike(build("t", changed("place", 3, word)))
    assert str(found) == f"place {word!r} (1 row) reads like a missing value, and is taken as a value like any other"


@pytest.mark.parametrize("word", ["Na", "Nancy", "nano", "nothing", "unknown", "0", "-1", "no"])
def test_other_words_are_not(word):
    assert alike(build("t", changed("place", 3, word))) == []


def test_ids_in_two_encodings_and_names_of_attributes_that_look_alike_are_told_of():
    columns = {**changed("id", 0, "é.png"), "Place": CLEAN["place"]}
    columns["id"][1] = "e\u0301.png"
    found = [str(f) for f in alike(build("t", columns, grouping=["place"]))]
    assert found == [
        "the names of the attributes 'place' and 'Place' look alike",
        r"ids 'e\u0301.png' and '\xe9.png' are the same name in two encodings; are they two images?",
    ]


def test_words_of_no_row_look_like_nothing():
    assert alike(build("t", CLEAN, classes=["cat", "Cat", "dog"])) == []


def test_folding_takes_the_commonest_spelling_and_leaves_the_rows():
    place = ["land", "Land", "LAND", "land", "sea", "Sea", "land", "sky", "sea", "sea", "sky", "x"]
    manifest = build("t", {**CLEAN, "place": place})
    whole = folded(manifest)
    assert whole.values["place"] == ("land", "sea", "sky", "x")
    assert [whole.values["place"][c] for c in whole.codes["place"]] == [p.lower() for p in place]
    assert (whole.ids == manifest.ids).all() and whole.classes == manifest.classes
    assert whole.remarks == (
        "place 'LAND' (1 row), 'Land' (1 row) taken for 'land' (3 rows)",
        "place 'Sea' (1 row) taken for 'sea' (3 rows)",
    )
    with pytest.raises(ManifestError, match=r"all labels look alike, and alike=fold leaves one class \(Cat\)"):
        folded(build("t", {**CLEAN, "label": ["cat", "Cat"] * 6}))


# How messy tables reach the manifest, by every door, and what the commands say.

MESSY = [
    ("00", "cat", "train", "Land"), ("01", "dog ", "train", "Land"), ("02", "cat", "val", "land"),
    ("03", "dog", "val", "sea"), ("04", "Cat", "test", "Land"), ("05", "dog", " test", "nan"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    lines = [",".join([f"{i}.png", *words]) for i, *words in MESSY]
    (tmp_path / "t.csv").write_text("\n".join([" path,label ,split,place", *lines]) + "\n", encoding="utf-8")
    for i, label, split, _ in MESSY:
        for file in (tmp_path / f"{i}.png", tmp_path / "tree" / split.strip() / label / f"{i}.png"):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (int(i), 9, 9)).save(file)
    return tmp_path


def embedx(*words, code=0):
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return result


TABLE = ("t=csv", "--root", "t.csv", "-O", "attributes=place")


def test_extract_says_what_looks_alike_and_check_does_not_say_sound(folder):
    said = embedx("extract", *TABLE, "-b", "raw:4x4", "--workers", "0").stderr
    assert "note: t: label 'cat' (2 rows) and 'Cat' (1 row) look alike, and are told apart" in said
    assert "note: t: place 'Land' (3 rows) and 'land' (1 row) look alike" in said
    assert "note: t: place 'nan' (1 row) reads like a missing value" in said
    assert "note: t: label: blanks around the words of 1 row taken off, as in 'dog '" in said
    assert "-O alike=fold, when the dataset is prepared" in said and "-O alike=keep" in said
    found = embedx("data", "check", "t", "--csv", "found.csv", "--workers", "0", code=1)
    assert found.stdout.count("  alike  ") == 3 and "words          3 times values look alike" in found.stdout
    assert "something is wrong" in found.stdout and "look alike" not in found.stderr
    assert (folder / "found.csv").read_text().count(",alike,") == 3
    for command in (("probe", "t", "-b", "raw:4x4"), ("compare", "t", "--head", "nearest-mean")):
        assert (
            "note: t: place 'Land' (3 rows) and 'land' (1 row) look alike" in CliRunner().invoke(main, command).stderr
        )


def test_fold_and_keep_are_carried_out_and_remembered(folder):
    said = embedx("extract", *TABLE, "-O", "alike=fold", "-b", "raw:4x4", "--workers", "0").stderr
    assert "note: t: label 'Cat' (1 row) taken for 'cat' (2 rows)" in said
    manifest, remarks = open_prepared(Workspace(folder / "cache"), "t")
    assert manifest.group_names == ("cat/Land", "cat/nan", "cat/sea", "dog/Land", "dog/nan", "dog/sea")
    assert len(remarks) == 2 and "reads like a missing value" in remarks[0]
    kept = embedx("data", "check", *TABLE, "-O", "alike=keep", "--workers", "0")
    assert "prepared anew, with -O alike=keep where it was -O alike=fold" in kept.stderr
    assert "t: sound" in kept.stdout and "words          none look alike" in kept.stdout
    manifest, remarks = open_prepared(Workspace(folder / "cache"), "t")
    assert manifest.classes == ("Cat", "cat", "dog") and remarks == []
    refused = embedx("data", "check", *TABLE, "-O", "alike=yes", code=1).stderr
    assert "-O alike=yes: expected fold, for one spelling, or keep, when they are meant" in refused


def test_folders_of_classes_are_words_like_others(folder):
    manifest, remarks = prepare(Workspace(folder / "cache"), "p=folder", folder / "tree", {"alike": "fold"})
    assert manifest.classes == ("cat", "dog")
    assert [manifest.classes[c] for c in manifest.labels] == ["cat", "dog", "cat", "dog", "cat", "dog"]
    assert sorted(i.split("/")[1] for i in manifest.ids) == ["Cat", "cat", "cat", "dog", "dog", "dog "]
    assert len(remarks) == 2


def test_columns_of_hand_made_tables_are_found_with_blanks_around_their_names(folder):
    manifest, _ = prepare(Workspace(folder / "cache"), "t=csv", folder / "t.csv", {"attributes": "place"})
    assert manifest.counts()["train/dog/Land"] == 1
    (folder / "u.csv").write_text("path,label,split,place\na.png,cat,train,x\nb.png,dog\n")
    with pytest.raises(ManifestError, match=r"row 'b.png' has label|row 'b.png' has split ''"):
        prepare(Workspace(folder / "cache"), "u=csv", folder / "u.csv", {"attributes": "place"})
