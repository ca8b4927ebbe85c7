"""WILDS: which dataset a folder is, its file names and labels, and which of up to five splits become three."""

import csv
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedx.data.manifest import SPLITS
from embedx.data.prepare import prepare
from embedx.datasets import waterbirds, wilds
from embedx.errors import ManifestError
from embedx.plugins import DATASETS, summary
from embedx.workspace import Workspace


def table(path, lines, columns=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns or lines[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    return path.parent


def camelyon17():
    """Three hospitals to train on, with id_val among their rows; the column of splits knows nothing of 1 and 2."""
    return [
        {
            "": n, "patient": f"{20 * center:03d}", "node": slide % 5, "x_coord": 3328 + n, "y_coord": 21792,
            "tumor": tumor, "slide": 10 * center + slide, "center": center, "split": split,
        }
        for n, (center, slide, tumor, split) in enumerate(itertools.product(range(5), range(2), range(2), range(2)))
    ]  # fmt: skip


def iwildcam():
    """Species 3 is nowhere in test, species 4 nowhere in train; numbers and places run together."""
    lines = []
    for n, (split, y) in enumerate(itertools.product(("train", "val", "test", "id_val", "id_test"), range(12))):
        if (split, y) not in (("test", 3), ("train", 4)):
            place = {"val": 5, "test": 6}.get(split, n % 3)
            line = {"split": split, "location_remapped": place, "location": 100 + place, "y": y, "category_id": 7 * y}
            lines.append(line | {"filename": f"{n:08x}.jpg", "datetime": "2013-06-02 10:25:57.000", "seq_id": n})
    return lines


YEARS = ("2002", "2012", "2013", "2015", "2016", "2017")


def fmow():
    return [
        {
            "split": split, "img_filename": f"{c}.jpg", "category": c, "country_code": code,
            "timestamp": f"{year}-01-01T00:00:00Z",
        }
        for year, split, (c, code) in itertools.product(
            YEARS, ("seq", "train", "val", "test"), (("zoo", "FRA"), ("airport", "KEN"), ("dam", "XKX"))
        )
    ]  # fmt: skip


def rxrx1():
    return [
        {
            "site_id": f"{e}_1_B02_{site}", "well_id": "x", "cell_type": e.partition("-")[0], "dataset": dataset,
            "experiment": e, "plate": 1, "well": f"B{2 + y:02d}", "site": site, "well_type": "treatment", "sirna": "s1",
            "sirna_id": y,
        }
        for e, dataset in (("HEPG2-01", "train"), ("RPE-07", "train"), ("U2OS-04", "val"), ("HEPG2-08", "test"))
        for y in range(11)
        for site in (1, 2)
    ]  # fmt: skip


LINES = {"camelyon17": camelyon17(), "iwildcam": iwildcam(), "fmow": fmow(), "rxrx1": rxrx1()}


def folder(path, name, lines=None):
    table(path / wilds.KNOWN[name].table, LINES[name] if lines is None else lines)
    if name == "fmow":
        countries = [{"name": "France", "alpha-3": "FRA", "region": "Europe"}]
        countries.append({"name": "Kenya", "alpha-3": "KEN", "region": "Africa"})
        table(path / "country_code_mapping.csv", countries)
    return path


def rows(manifest):
    """{id: everything known of the row, in words}."""
    columns = {"label": np.take(manifest.classes, manifest.labels), "split": np.take(SPLITS, manifest.splits)}
    columns |= {a: np.take(manifest.values[a], manifest.codes[a]) for a in manifest.codes}
    return {i: {c: str(w[n]) for c, w in columns.items()} for n, i in enumerate(manifest.ids)}


def read(tmp_path, name, **options):
    return wilds.read(folder(tmp_path / "data", name), **options)


def test_camelyon17(tmp_path):
    manifest = read(tmp_path, "camelyon17", val="both")
    got = rows(manifest)
    assert len(got) == len(LINES["camelyon17"]) and manifest.classes == ("normal", "tumor")
    for r in LINES["camelyon17"]:
        node = f"patient_{r['patient']}_node_{r['node']}"
        row = got[f"patches/{node}/patch_{node}_x_{r['x_coord']}_y_{r['y_coord']}.png"]
        split = {1: "val", 2: "test"}.get(r["center"], ("train", "id_val")[r["split"]])
        assert row == {
            "label": ("normal", "tumor")[r["tumor"]], "wilds_split": split, "split": split.removeprefix("id_"),
            "hospital": f"hospital {r['center']}", "slide": f"slide {r['slide']}",
        }  # fmt: skip
    assert any(i.startswith("patches/patient_020_node_") for i in got), "zeros before a number stay"


def test_iwildcam(tmp_path):
    manifest = read(tmp_path, "iwildcam", val="both", test="both", classes="all")
    got = rows(manifest)
    assert manifest.classes == tuple(str(y) for y in range(12)), "in the order of the numbers, so the index is y"
    for r in LINES["iwildcam"]:
        assert got.pop(f"train/{r['filename']}") == {
            "label": str(r["y"]), "wilds_split": r["split"], "split": r["split"].removeprefix("id_"),
            "location": f"location {r['location_remapped']}",
        }  # fmt: skip
    assert not got


def test_fmow(tmp_path):
    manifest = read(tmp_path, "fmow", val="both", test="both")
    got = rows(manifest)
    assert manifest.classes == ("airport", "dam", "zoo")
    for n, r in enumerate(LINES["fmow"]):
        year, split = int(r["timestamp"][:4]), r["split"]
        era = "in" if year < 2013 else "val" if year < 2016 else "test"
        want = {
            ("in", "train"): "train", ("in", "val"): "id_val", ("in", "test"): "id_test", ("val", "val"): "val",
            ("test", "test"): "test",
        }.get((era, split))  # fmt: skip
        row = got.pop(f"images/rgb_img_{n}.png", None)
        assert (row and row["wilds_split"]) == want
        if row:
            region = {"FRA": "Europe", "KEN": "Africa"}.get(r["country_code"], "Other")
            assert (row["label"], row["region"], row["year"]) == (r["category"], region, str(year))
    assert not got
    unused = len(LINES["fmow"]) - len(manifest)
    assert f"{unused} images left out that are in no split of WILDS" in manifest.remarks


def test_rxrx1(tmp_path):
    manifest = read(tmp_path, "rxrx1", test="both")
    got = rows(manifest)
    assert manifest.classes == tuple(str(y) for y in range(11))
    for r in LINES["rxrx1"]:
        split = "id_test" if r["dataset"] == "train" and r["site"] == 2 else r["dataset"]
        assert got.pop(f"images/{r['experiment']}/Plate1/{r['well']}_s{r['site']}.png") == {
            "label": str(r["sirna_id"]), "wilds_split": split, "split": split.removeprefix("id_"),
            "cell_type": r["cell_type"], "experiment": r["experiment"],
        }  # fmt: skip
    assert not got


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("val", wilds.CHOICES)
@pytest.mark.parametrize("test", wilds.CHOICES)
def test_of_five_splits_those_asked_for_are_kept_and_the_others_counted(tmp_path, name, val, test):
    lacks = {("camelyon17", "test"): "in", ("rxrx1", "val"): "in"}
    for split, choice in (("val", val), ("test", test)):
        if lacks.get((name, split)) == choice:
            with pytest.raises(ManifestError, match=rf"no rows of id_{split} \(found .*train.*; choose .* -O {split}="):
                read(tmp_path, name, val=val, test=test)
            return
    manifest = read(tmp_path, name, val=val, test=test, classes="all")
    wanted = {"out": ["{}"], "in": ["id_{}"], "both": ["{}", "id_{}"]}
    map_ = {"train": "train"} | {w.format(s): s for s, c in (("val", val), ("test", test)) for w in wanted[c]}
    got = rows(manifest)
    assert all(map_[r["wilds_split"]] == r["split"] for r in got.values())
    assert manifest.grouping == () and manifest.groups is None
    everything = rows(read(tmp_path, name, val="both", test="both", classes="all"))
    assert {i: r["wilds_split"] for i, r in got.items()} == {
        i: r["wilds_split"] for i, r in everything.items() if r["wilds_split"] in map_
    }
    said = sum(int(r.split()[0]) for r in manifest.remarks if "images of" in r and r.endswith("left out"))
    assert said == len(everything) - len(got)


def test_classes_that_cannot_be_fitted_or_judged_are_left_out_unless_all_are_asked_for(tmp_path):
    manifest, remarks = prepare(Workspace(tmp_path / "cache"), "wilds", folder(tmp_path / "data", "iwildcam"), {})
    assert manifest.name == "iwildcam"
    assert set(manifest.classes) == {str(y) for y in range(12)} - {"3", "4"}
    for split in (0, 2):
        assert np.bincount(manifest.labels[manifest.splits == split], minlength=10).all()
    assert any("4 images of 2 classes without any in train or in test left out; -O classes=all" in r for r in remarks)
    assert len(read(tmp_path, "iwildcam", classes="all").classes) == 12
    assert summary(DATASETS, "wilds").startswith("Image datasets of the WILDS benchmark")


def test_attributes_form_groups_when_asked_to(tmp_path):
    manifest = read(tmp_path, "rxrx1", attributes=("cell_type",))
    assert manifest.grouping == ("cell_type",) and "0/HEPG2" in manifest.group_names
    plain = read(tmp_path, "rxrx1")
    assert (plain.version, plain.ids_digest) == (manifest.version, manifest.ids_digest)
    with pytest.raises(ManifestError, match="rxrx1 has no attribute 'cell': did you mean 'cell_type'"):
        read(tmp_path, "rxrx1", attributes=("cell",))


def birds(count=40, seed=0):
    codes = np.random.default_rng(seed).integers(0, (2, 2, 3), (count, 3))
    return [
        {"img_id": i, "img_filename": f"{i:03d}.Bird/{i}.jpg", "y": y, "split": s, "place": p, "place_filename": "/x"}
        for i, (y, p, s) in enumerate(codes.tolist(), 1)
    ]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_group_numbers_of_wilds_are_ours(tmp_path_factory, seed):
    lines = birds(seed=seed)
    root = table(tmp_path_factory.mktemp("data") / "waterbirds_v1.0" / "metadata.csv", lines)
    manifest = wilds.read(root)
    line = {r["img_filename"]: r for r in lines}
    # WILDS numbers the groups of the fields (background, y) with the first field running fastest.
    fields = np.array([[line[i]["place"], line[i]["y"]] for i in manifest.ids])
    assert (manifest.groups == fields @ np.cumprod([1, 2])).all()
    assert manifest.digest == waterbirds.read(root).digest and manifest.name == "waterbirds"


def test_celeba_goes_through_its_own_reader(tmp_path):
    root = tmp_path / "celebA_v1.0"
    lines = [{"image_id": f"{i:06d}.jpg", "Blond_Hair": 1 - 2 * (i % 2), "Male": 1 - 2 * (i % 3 > 0)} for i in range(6)]
    table(root / "list_attr_celeba.csv", lines)
    table(
        root / "list_eval_partition.csv", [{"image_id": r["image_id"], "partition": i % 3} for i, r in enumerate(lines)]
    )
    manifest = wilds.read(root)
    y, male = (np.array([(r[c] + 1) // 2 for r in lines]) for c in ("Blond_Hair", "Male"))
    assert (manifest.groups == male + 2 * y).all() and manifest.name == "celeba"
    with pytest.raises(ManifestError, match="celebA takes no option here; use the dataset 'celeba' itself"):
        wilds.read(root, val="in")


@pytest.mark.parametrize("name", LINES)
def test_the_table_tells_the_dataset_whatever_the_folder_is_called(tmp_path, name):
    other = next(n for n in LINES if n != name)
    root = folder(tmp_path / f"{other}_v1.0", name)
    assert wilds.read(root).name == name
    file = root / wilds.KNOWN[name].table
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert wilds.read(root).name == name, "a mark of the byte order is no part of a column"
    shuffled = table(tmp_path / "x" / file.name, LINES[name], columns=sorted(LINES[name][0], reverse=True))
    assert rows(wilds.read(folder(shuffled, name))) == rows(wilds.read(root))


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("camelyon17", "tumor", "2"), ("camelyon17", "split", "x"), ("camelyon17", "x_coord", ""),
        ("iwildcam", "split", "valid"), ("iwildcam", "y", "cat"), ("fmow", "timestamp", "soon"), ("fmow", "split", ""),
        ("fmow", "category", ""), ("rxrx1", "site", "3"), ("rxrx1", "dataset", "dev"), ("rxrx1", "sirna_id", "s7"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_as_published_is_named(tmp_path, name, column, value):
    lines = [dict(r) for r in LINES[name]]
    lines[2][column] = value
    with pytest.raises(ManifestError, match=rf"metadata.csv, line 4: not as published \(.*{column} '{value}'"):
        wilds.read(folder(tmp_path, name, lines))


def test_a_file_cut_off_within_a_line(tmp_path):
    root = folder(tmp_path, "camelyon17")
    text = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(text[: text.rindex(",")])
    with pytest.raises(ManifestError, match=rf"line {len(LINES['camelyon17']) + 1}: not as published .*split ''"):
        wilds.read(root)


def test_folders_that_are_none_of_them(tmp_path):
    (tmp_path / "empty").mkdir()
    known = "camelyon17, iwildcam, fmow, rxrx1, waterbirds, celebA"
    with pytest.raises(
        ManifestError, match=rf"empty is no dataset of WILDS known here: {known}, told by the columns of"
    ):
        wilds.read(tmp_path / "empty")
    folder(tmp_path / "data" / "rxrx1_v1.0", "rxrx1")
    with pytest.raises(ManifestError, match=r"did you mean .*data/rxrx1_v1.0\?"):
        wilds.read(tmp_path / "data")
    cut = table(tmp_path / "camelyon17_v1.0" / "metadata.csv", [{"patient": "1", "node": 1, "tumor": 0}])
    with pytest.raises(ManifestError, match="has no column x_coord, y_coord, slide, center, split; is it camelyon17"):
        wilds.read(cut)
    (folder(tmp_path / "fmow_v1.1", "fmow") / "country_code_mapping.csv").unlink()
    with pytest.raises(ManifestError, match="country_code_mapping.csv does not exist; it is part of the dataset"):
        wilds.read(tmp_path / "fmow_v1.1")
    table(tmp_path / "fmow_v1.1" / "country_code_mapping.csv", [{"alpha-3": "FRA", "continent": "Europe"}])
    with pytest.raises(ManifestError, match="country_code_mapping.csv has no column region; found alpha-3, continent"):
        wilds.read(tmp_path / "fmow_v1.1")


def test_tables_and_options_that_make_no_sense(tmp_path):
    for option in ("val", "test", "classes"):
        with pytest.raises(ManifestError, match=f"-O {option}=x: expected (out or in or both|judged or all)"):
            read(tmp_path, "rxrx1", **{option: "x"})
    lines = LINES["rxrx1"]
    with pytest.raises(ManifestError, match=r"no rows of train \(found test, val\)"):
        wilds.read(folder(tmp_path / "a", "rxrx1", [r for r in lines if r["dataset"] != "train"]))
    apart = [r for r in lines if (r["dataset"] == "train") == (r["sirna_id"] < 5)]
    with pytest.raises(ManifestError, match="no class has images both in train and in test; is the table whole"):
        wilds.read(folder(tmp_path / "b", "rxrx1", apart))
    with pytest.raises(ManifestError, match="occurs more than once"):
        wilds.read(folder(tmp_path / "c", "rxrx1", [*lines, lines[0]]))
