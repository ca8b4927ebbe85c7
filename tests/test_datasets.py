"""Datasets: folders and tables become manifests, the demo draws itself, and `prepare` finds its way among them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedx.data import trees
from embedx.data.digits import CLASSES, deck, paint, scan_split
from embedx.data.manifest import SPLITS
from embedx.data.prepare import EDITED, open_prepared, prepare, source_of
from embedx.data.sources import Folder
from embedx.datasets import demo, folder, waterbirds
from embedx.errors import ManifestError, UnknownName
from embedx.workspace import Workspace

ANIMALS = ["train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "test/dog/2.png"]


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def table(path, header, *lines, sep=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=sep).writerows([header, *lines])
    return path


def rows(manifest, *attributes):
    """{id: (label, split, attributes...)} in words."""
    columns = [np.take(manifest.classes, manifest.labels), np.take(SPLITS, manifest.splits)]
    columns += [np.take(manifest.values[a], manifest.codes[a]) for a in attributes]
    return dict(zip(manifest.ids, zip(*(c.tolist() for c in columns), strict=True), strict=True))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "cache")


def edit(workspace, name, old, new):
    path = workspace.dataset(name) / "manifest.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("training", "valid", "testing"), ("Train", "validation", "TEST"), ("train", "dev", "")],
)
def test_folder_reads_every_spelling_of_the_splits(tmp_path, train, val, test):
    names = {"train": train, "val": val, "test": test}
    want = {f"{names[s]}/{rest}": (rest[:3], s) for s, _, rest in (a.partition("/") for a in ANIMALS) if names[s]}
    manifest = folder.read(touch(tmp_path, *want, "readme.txt", "other/cat/1.png"))
    assert rows(manifest) == want
    assert all((Path(manifest.root) / i).is_file() for i in manifest.ids)


def test_folder_goes_deep_and_leaves_hidden_files_out(tmp_path):
    hidden = [".DS_Store", "train/.git/a.png", "train/cat/.b.png", "train/cat/.thumbs/c.png", "train/loose.png"]
    deep = ["train/cat/a/b/c.PNG", "train/cat/a.txt", "train/dog/é 鳥.jpg"]
    manifest = folder.read(touch(tmp_path, *deep, *hidden))
    assert list(manifest.ids) == sorted(deep)
    assert manifest.classes == ("cat", "dog")


def test_folder_says_what_it_lacks(tmp_path):
    with pytest.raises(ManifestError, match=r"holds no train folder \(found nothing\); expected train/, val/, test/"):
        folder.read(tmp_path)
    touch(tmp_path, "cats/a.png", "test/cat/b.png", "valid")
    with pytest.raises(ManifestError, match=r"no train folder \(found cats, test, valid\); expected train/"):
        folder.read(tmp_path)
    with pytest.raises(ManifestError, match=r"valid is no folder; expected one that holds train/CLASS/IMAGE"):
        folder.read(tmp_path / "valid")
    touch(tmp_path, "train/cat/a.png", "train/dog/a.png", "testing/cat/b.png")
    with pytest.raises(ManifestError, match=r"two folders for one split: test, testing, train; keep one of each"):
        folder.read(tmp_path)


def test_folder_that_cannot_be_listed_is_an_error_and_no_missing_rows(tmp_path, workspace, monkeypatch):
    real = trees.os.scandir

    def scandir(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    touch(tmp_path / "pets", *ANIMALS)
    monkeypatch.setattr(trees.os, "scandir", scandir)
    with pytest.raises(ManifestError, match=r"folder: .*pets cannot be read \(.*Permission denied.*cat"):
        prepare(workspace, "folder", tmp_path / "pets", {})


LINES = [["a.png", "cat", "train", "in"], ["b/c.png", "dog", "val", "out"], ["d,e.png", "dog", "test", "in"]]
WANT = {"a.png": ("cat", "train", "in"), "b/c.png": ("dog", "val", "out"), "d,e.png": ("dog", "test", "in")}


@pytest.mark.parametrize(("name", "sep"), [("pets.csv", ","), ("pets.tsv", "\t")])
def test_csv_columns_are_named_by_options(tmp_path, workspace, name, sep):
    path = table(tmp_path / name, ["file", "kind", "fold", "place", "x"], *([*r, "9"] for r in LINES), sep=sep)
    options = {"path": "file", "label": "kind", "split": "fold", "attributes": "place,x,", "images": "pics"}
    manifest, remarks = prepare(workspace, "csv", path, options)
    assert (manifest.name, remarks, list(manifest.values)) == ("pets", [], ["place", "x"])
    assert rows(manifest, "place", "x") == {i: (*r, "9") for i, r in WANT.items()}
    assert Path(manifest.root) == (tmp_path / "pics").resolve()
    assert source_of(workspace, manifest) == Folder(Path(manifest.root))


def test_csv_splits_may_be_numbers_or_long_words(tmp_path, workspace):
    spelled = {"train": ["0", "train", "Training"], "val": ["1", " val ", "validation"], "test": ["2", "TESTING"]}
    lines = [(f"{s}/{i}.png", f"c{i % 2}", w) for s, words in spelled.items() for i, w in enumerate(words)]
    manifest, _ = prepare(workspace, "csv", table(tmp_path / "t.csv", ["path", "label", "split"], *lines), {})
    assert {i: split for i, (_, split) in rows(manifest).items()} == {i: i.partition("/")[0] for i, *_ in lines}


def test_csv_absolute_paths_lie_below_the_images(tmp_path, workspace):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    where = {"a.png": "real", "b/c.png": "link", "d,e.png": "link"}
    lines = [(str(tmp_path / where[i] / i), *r[:2]) for i, r in WANT.items()]
    path = table(tmp_path / "t.csv", ["path", "label", "split"], *lines)
    assert rows(prepare(workspace, "csv", path, {"images": "link"})[0]) == {i: r[:2] for i, r in WANT.items()}
    with pytest.raises(ManifestError, match=r"/a.png lies outside .*/other; name the folder .* -O images=FOLDER"):
        prepare(workspace, "csv", path, {"images": "other"})
    table(path, ["path", "label", "split"], (f"{tmp_path}/../x.png", "cat", "train"))
    with pytest.raises(ManifestError, match=r"'../x.png' is no id: expected a path relative to the root"):
        prepare(workspace, "csv", path, {})


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        ({"label": "lable"}, LINES[0], r"has no column 'lable': did you mean 'label'.*; name it with -O label=COLUMN"),
        ({"attributes": "place,light"}, LINES[0], r"has no column 'light': .*place.*with -O attributes=COLUMN"),
        ({"label": "place", "attributes": "label"}, LINES[0], r"'label' cannot be the name of an attribute; rename"),
        ({}, ["", "cat", "train", "in"], r"'' is no id: expected a path"),
        ({}, ["a.png", "cat", "3", "in"], r"row 'a.png' has split '3'; .*known: test, train, val"),
        ({"lable": "x"}, LINES[0], r"dataset 'csv' has no option 'lable': did you mean 'label'"),
    ],
)
def test_csv_says_what_does_not_fit(tmp_path, workspace, options, line, message):
    path = table(tmp_path / "t.csv", ["path", "label", "split", "place"], line)
    with pytest.raises((ManifestError, UnknownName), match=message):
        prepare(workspace, "csv", path, options)
    assert workspace.datasets() == ()


def test_csv_says_where_rows_may_be_missing(tmp_path, workspace):
    path = table(tmp_path / "t.csv", ["path", "note", "label", "split"], *([i, "x", *r[:2]] for i, r in WANT.items()))
    whole = path.read_bytes()
    assert prepare(workspace, "csv", path, {})[1] == []
    path.write_bytes(whole.removesuffix(b"\r\n"))
    assert prepare(workspace, "csv", path, {})[1] == [
        "t: the last line of t.csv has no end ('d,e.png', 'x', 'dog', 'test'); if the table was cut off, fetch it again"
    ]
    path.write_bytes(whole + b'e.png,"a\r\nf.png,b,dog,train\r\ng.png,c",dog,val\r\n')
    manifest, remarks = prepare(workspace, "csv", path, {})
    assert "f.png" not in manifest.ids
    assert remarks == [
        "t: 1 cells of column 'note' hold line breaks, the first in the row of 'e.png'; if a quote there was never "
        "closed, the lines up to the next quote are no rows"
    ]


def test_csv_needs_a_table(tmp_path, workspace):
    with pytest.raises(ManifestError, match=r"is no file; the csv dataset needs the table itself"):
        prepare(workspace, "csv", tmp_path, {})
    for damage in (b"", b"\xff\xfe\xfa,\n", b'a,b\n1,2,3\n"'):
        (tmp_path / "t.csv").write_bytes(damage)
        with pytest.raises(ManifestError, match=r"t.csv cannot be read as a table \("):
            prepare(workspace, "csv", tmp_path / "t.csv", {})


HEADER = ["img_id", "img_filename", "y", "split", "place", "place_filename"]


def birds(counts):
    """Lines of metadata.csv with so many rows of every (split, y, place)."""
    keys = [key for key, n in counts.items() for _ in range(n)]
    return [[i, f"{i:05d}.jpg", y, split, place, "/p.jpg"] for i, (split, y, place) in enumerate(keys)]


def test_waterbirds_reads_codes_as_words(tmp_path):
    codes = {(s, y, p): 1 + s for s in range(3) for y in range(2) for p in range(2)}
    lines = birds(codes)
    table(tmp_path / "metadata.csv", HEADER, *lines)
    manifest = waterbirds.read(tmp_path)
    words = {"y": ["landbird", "waterbird"], "split": ["train", "val", "test"], "place": ["land", "water"]}
    want = {r[1]: (words["y"][r[2]], words["split"][r[3]], words["place"][r[4]]) for r in lines}
    assert rows(manifest, "place") == want
    assert manifest.group_names == ("landbird/land", "landbird/water", "waterbird/land", "waterbird/water")
    assert len(manifest.differences()) == 12


def test_waterbirds_as_published_has_no_differences_and_one_changed_row_has_two(tmp_path, workspace):
    counts = {
        (split, y, place): waterbirds.COUNTS[SPLITS[split]][2 * y + place]
        for split in range(3) for y in range(2) for place in range(2)
    }  # fmt: skip
    lines = birds(counts)
    assert len(lines) == 11_788  # the birds of CUB, every one of them once
    table(tmp_path / "metadata.csv", HEADER, *lines)
    assert prepare(workspace, "waterbirds", tmp_path, {})[1] == []
    changed = next(r for r in lines if r[2:5] == [1, 0, 0])
    changed[4] = 1
    table(tmp_path / "metadata.csv", HEADER, *lines)
    assert prepare(workspace, "waterbirds", tmp_path, {})[1] == [
        "waterbirds: train/waterbird/land: found 55, the published dataset has 56",
        "waterbirds: train/waterbird/water: found 1,058, the published dataset has 1,057",
    ]


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        (HEADER[:4], [0, "a", 0, 0], r"metadata.csv has no column place; found img_id, img_filename, y, split"),
        (HEADER, [0, "a", 0, 3, 0, ""], r"metadata.csv: split is '3' somewhere; expected 0, 1, 2"),
        (HEADER, [0, "a", "", 0, 0, ""], r"metadata.csv: y is '' somewhere; expected 0, 1"),
    ],
)
def test_waterbirds_says_what_is_not_as_published(tmp_path, header, line, message):
    with pytest.raises(ManifestError, match=r"metadata.csv does not exist; --root must be the unpacked folder water"):
        waterbirds.read(tmp_path)
    table(tmp_path / "metadata.csv", header, line)
    with pytest.raises(ManifestError, match=message):
        waterbirds.read(tmp_path)


def test_demo_never_shares_a_scan_between_splits():
    used = {s: {c.scan for c in deck() if c.split == s} for s in SPLITS}
    used["pretrain"] = set(scan_split()["pretrain"].tolist())
    assert sum(map(len, used.values())) == len(set().union(*used.values())) == 1797


def test_demo_breaks_in_test_the_link_that_train_has():
    usual = dict(zip(CLASSES, demo.BACKGROUNDS, strict=True))
    train = [c for c in deck() if c.split == "train"]
    assert sum(c.background == usual[c.label] for c in train) == 0.95 * len(train)
    for split in ("val", "test"):
        cards = [c for c in deck() if c.split == split]
        pairs = {(c.scan, c.background) for c in cards}
        assert len(cards) == len(pairs) == 2 * len({scan for scan, _ in pairs})
    assert all(c.label == ("low" if c.digit < 5 else "high") for c in deck())
    manifest = demo.read(Path("/x"))
    assert [manifest.counts()[f"test/{g}"] for g in manifest.group_names] == [320] * 4
    assert manifest.differences() == []


@pytest.fixture
def small(monkeypatch):
    """A demo of few cards, and the list of those that were drawn."""
    cards, drawn = deck()[::97], []
    monkeypatch.setattr(demo, "deck", lambda *of: cards)
    monkeypatch.setattr(demo, "paint", lambda card: (drawn.append(card.id), paint(card))[1])
    return cards, drawn


def test_demo_draws_what_is_missing_and_always_the_same(tmp_path, small):
    cards, drawn = small
    demo.make(tmp_path)
    assert sorted(drawn) == sorted(c.id for c in cards)
    for card in cards[:3]:
        assert np.array_equal(np.asarray(Image.open(tmp_path / card.id)), paint(card))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*")}
    drawn.clear()
    demo.make(tmp_path)
    assert drawn == []
    (tmp_path / cards[5].id).unlink()
    demo.make(tmp_path)
    assert drawn == [cards[5].id]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize("accident", ["killed", "older recipe"])
def test_demo_trusts_no_half_finished_or_older_drawing(tmp_path, small, monkeypatch, accident):
    def half(image, path, *args, **options):
        path.write_bytes(b"half a drawing")
        raise KeyboardInterrupt

    demo.make(tmp_path)
    first = tmp_path / small[0][0].id
    good = first.read_bytes()
    first.unlink()
    if accident == "killed":
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Image.Image, "save", half)
            demo.make(tmp_path)
    else:
        (tmp_path / "recipe.txt").write_text("1")
        first.write_bytes(b"drawn otherwise")
    demo.make(tmp_path)
    assert first.read_bytes() == good


def test_prepare_gives_a_dataset_another_name(tmp_path, workspace):
    touch(tmp_path / "pets", *ANIMALS)
    manifest, remarks = prepare(workspace, "my pets=folder", tmp_path / "pets", {})
    assert (manifest.name, remarks, workspace.datasets()) == ("my-pets", [], ("my-pets",))
    again, remarks = prepare(workspace, "my-pets", None, {})
    assert (again.digest, again.root, remarks) == (manifest.digest, str((tmp_path / "pets").resolve()), [])


def test_prepare_draws_a_generated_dataset_into_the_cache(workspace, small):
    manifest, _ = prepare(workspace, "toy=demo", None, {})
    images = workspace.dataset("toy") / "images"
    assert source_of(workspace, manifest) == Folder(images)
    assert manifest.root is None  # so that the cache folder may be moved as a whole
    assert all((images / i).is_file() for i in manifest.ids)
    small[1].clear()
    assert prepare(workspace, "toy", None, {})[0].digest == manifest.digest
    assert small[1] == []


@pytest.mark.parametrize(
    ("dataset", "root", "options", "message"),
    [
        (
            "waterbrids",
            None,
            {},
            r"unknown dataset 'waterbrids': did you mean 'waterbirds'.*\? known: .*csv, demo",
        ),
        ("x=foldr", None, {}, r"unknown dataset 'foldr': did you mean 'folder'"),
        ("folder", None, {}, r"dataset 'folder' needs its files: say where they lie with --root"),
        ("folder", "nowhere", {}, r"--root nowhere does not exist; say where the dataset's files lie"),
        (
            "demo",
            None,
            {"size": "9"},
            r"dataset 'demo' has no option 'size': did you mean .seed.|did you mean .draw.|known: correlation, draw",
        ),
        ("py:no_such_module", "/", {}, r"no Python module 'no_such_module' for dataset 'py:no_such_module': put it on"),
        ("py:json", "/", {}, r"py:json is no dataset: it has no function read\(root, ...\) that returns a Manifest"),
    ],
)
def test_prepare_refuses_before_any_work(workspace, small, dataset, root, options, message):
    with pytest.raises((ManifestError, UnknownName), match=message):
        prepare(workspace, dataset, root and Path(root), options)
    assert not workspace.path.exists()


def test_prepared_dataset_is_reused_moved_and_read_again(tmp_path, workspace):
    old, new = touch(tmp_path / "pets", *ANIMALS), tmp_path / "moved"
    manifest, _ = prepare(workspace, "p=folder", old, {})
    old.rename(new)
    assert prepare(workspace, "p", None, {})[0].root == str(old)  # nothing is looked at
    moved, _ = prepare(workspace, "p", new, {})
    assert (moved.root, moved.digest) == (str(new), manifest.digest)
    assert prepare(workspace, "p", None, {})[0].root == str(new)
    touch(new, "val/dog/9.png")
    assert len(prepare(workspace, "p", new, {})[0]) == len(manifest)  # a name alone does not know how to read
    assert len(prepare(workspace, "p=folder", new, {})[0]) == len(manifest) + 1
    for root, options, message in [
        (old, {}, r"--root .*pets does not exist"),
        (new / "val/dog/9.png", {}, r"9.png is no folder; name the folder that the files of 'p' lie in"),
        (None, {"label": "x"}, r"'p' is prepared already and label was an option of its making; leave it out, or read"),
    ]:
        with pytest.raises(ManifestError, match=message):
            prepare(workspace, "p", root, options)


def test_edits_outlive_preparing_again_and_moving(tmp_path, workspace):
    root = touch(tmp_path / "pets", *ANIMALS)
    prepare(workspace, "p=folder", root, {})
    edit(workspace, "p", "train/cat/1.png,cat", "train/cat/1.png,dog")
    want = open_prepared(workspace, "p")[0].digest
    moved = root.rename(tmp_path / "moved")
    copied = touch(tmp_path / "copied", *ANIMALS)
    for dataset, where, now in [("p", None, root), ("p=folder", moved, moved), ("p", copied, copied)]:
        manifest, remarks = prepare(workspace, dataset, where, {})
        assert (manifest.digest, manifest.root, remarks) == (want, str(now), [EDITED.format("p")])
        kept, edited = open_prepared(workspace, "p")
        assert (kept.digest, kept.root, edited) == (want, str(now), remarks)
    touch(moved, "val/dog/9.png")
    with pytest.raises(ManifestError, match=r"manifest.csv was edited by hand and the files have changed too; move"):
        prepare(workspace, "p=folder", moved, {})
    assert open_prepared(workspace, "p")[0].digest == want


def test_a_lost_table_is_read_again(tmp_path, workspace):
    root = touch(tmp_path / "pets", *ANIMALS)
    manifest, _ = prepare(workspace, "p=folder", root, {})
    (workspace.dataset("p") / "manifest.csv").unlink()
    with pytest.raises(ManifestError, match=r"manifest.csv does not exist: prepare .* with `embedx extract --root`"):
        prepare(workspace, "p", None, {})
    assert prepare(workspace, "p=folder", root, {})[0].digest == manifest.digest


def test_open_prepared_tells_unknown_from_not_yet_prepared(tmp_path, workspace):
    prepare(workspace, "pets=folder", touch(tmp_path / "pets", *ANIMALS), {})
    with pytest.raises(ManifestError, match=r"'waterbirds' is not prepared in .*: run `embedx extract waterbirds`"):
        open_prepared(workspace, "waterbirds")
    with pytest.raises(UnknownName, match=r"unknown dataset 'pest': did you mean 'pets'"):
        open_prepared(workspace, "pest")
    touch(workspace.path, ".trash/manifest.json", "pets/raw.h5", "pets/._raw.h5", "pets/.raw.h5.1.part")
    assert (workspace.datasets(), workspace.backbones("pets")) == (
        ("pets",),
        ("raw",),
    )  # names that begin with a dot are none


def test_a_dataset_may_be_any_module(tmp_path, workspace, monkeypatch):
    (tmp_path / "zoo_reader.py").write_text(
        "from embedx.data.manifest import build\n"
        "def read(root, kinds=('a', 'b'), note=''):\n"
        "    ids = [f'{k}{n}' for k in kinds for n in range(2)]\n"
        "    columns = {'id': ids, 'label': [i[0] for i in ids], 'split': ['train', 'test'] * len(kinds)}\n"
        "    return build('zoo', columns, root=str(root), source=note)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    manifest, _ = prepare(workspace, "my=py:zoo_reader", tmp_path, {"kinds": "x,y,z", "note": "a,b"})
    assert (manifest.name, manifest.classes, manifest.source) == ("my", ("x", "y", "z"), "a,b")
    assert prepare(workspace, "py:zoo_reader", tmp_path, {})[0].classes == ("a", "b")
    assert workspace.datasets() == ("my", "zoo")


def test_another_folder_of_the_same_name_does_not_replace_a_dataset(tmp_path):
    for parent, image in (("a", "1.png"), ("b", "2.png")):
        for label in ("cat", "dog"):
            (tmp_path / parent / "pets" / "train" / label).mkdir(parents=True)
            (tmp_path / parent / "pets" / "train" / label / image).touch()
    workspace = Workspace(tmp_path / "cache")
    prepare(workspace, "folder", tmp_path / "a" / "pets", {})
    with pytest.raises(ManifestError, match=r"name 'pets' is taken by other rows, from .*NAME=folder, or delete"):
        prepare(workspace, "folder", tmp_path / "b" / "pets", {})
    assert prepare(workspace, "more pets=folder", tmp_path / "b" / "pets", {})[0].name == "more-pets"
    assert open_prepared(workspace, "more pets")[0].ids.tolist() == ["train/cat/2.png", "train/dog/2.png"]


@pytest.mark.parametrize(("correlation", "against"), [("0.5", 100), ("0.985", 3), ("1", 0), ("0", 200)])
def test_the_demos_correlation_is_the_share_over_the_usual_background(workspace, correlation, against):
    cards = deck(against, 3)
    manifest = demo.read(workspace.path, correlation, "3")
    train = [card for card in cards if card.split == "train"]
    usual = {"low": "land", "high": "water"}
    turned = [card for card in train if card.background != usual[card.label]]
    assert [sum(card.label == c for card in turned) for c in CLASSES] == [against, against]
    of_digit = np.bincount([card.digit for card in turned], minlength=10).reshape(2, 5)
    assert np.ptp(of_digit, axis=1).max() <= 1
    assert sorted(manifest.ids) == sorted(card.id for card in cards)
    assert manifest.differences() == []
    assert {card.scan for card in train} == set(scan_split()["train"].tolist())
    assert [card for card in cards if card.split != "train"] == [card for card in deck() if card.split != "train"]


def test_the_demos_draw_turns_other_cards():
    turned = [{card.id for card in deck(10, draw) if card.split == "train"} for draw in range(3)]
    assert deck() == deck(10, 0)
    assert len(turned[0] & turned[1]) < 400 and len(turned[1] & turned[2]) < 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correlation": "1.2"}, r"correlation=1.2: expected a share of the 200 .* from 0 to 1 in steps of 0.005"),
        ({"correlation": "0.997"}, "correlation=0.997: expected a share"),
        ({"correlation": "nan"}, "correlation=nan: expected a share"),
        ({"correlation": "most"}, "correlation=most: expected a share"),
        ({"draw": "-1"}, "draw=-1: expected a whole number"),
        ({"strength": "1"}, "dataset 'demo' has no option 'strength'"),
    ],
)
def test_the_demo_refuses_what_it_cannot_draw(workspace, options, message):
    with pytest.raises((ManifestError, UnknownName), match=message):
        prepare(workspace, "demo", None, options)
    assert not workspace.dataset("demo").joinpath("images").exists()
