"""ImageNet: every layout gives the same labels, the splits are drawn within classes, and clutter is counted."""

from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from embedx.data import trees
from embedx.data.manifest import SPLITS
from embedx.data.prepare import prepare
from embedx.datasets import imagenet
from embedx.errors import ManifestError
from embedx.plugins import DATASETS, summary
from embedx.workspace import Workspace

SYNSETS = ("n01440764", "n01443537", "n02085620", "n15075141")
SIZES = dict(zip(SYNSETS, (40, 25, 33, 10), strict=True))
# The validation images are numbered across the classes.
VAL = {i: SYNSETS[(i * i) % 4] for i in range(1, 25)} | {25: SYNSETS[2], 26: SYNSETS[2], 27: SYNSETS[3], 28: SYNSETS[3]}


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def numbered(i):
    return f"ILSVRC2012_val_{i:08d}.JPEG"


def train(sizes=SIZES):
    return [f"train/{c}/{c}_{i}.JPEG" for c, n in sizes.items() for i in range(n)]


def foldered():
    return [f"val/{c}/{numbered(i)}" for i, c in VAL.items()]


def flat():
    return [f"val/{numbered(i)}" for i in VAL]


def kaggle(folder):
    lines = [f"{numbered(i)[:-5]},{c} 85 1 499 272 {c} 3 4 5 6" for i, c in VAL.items()]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(lines), ""]))


def synset_list(folder):
    text = "\ufeff" + "\r\n".join(VAL[i] for i in sorted(VAL)) + "\n"
    (folder / "imagenet_2012_validation_synset_labels.txt").write_text(text, encoding="utf-8")


def ground_truth(folder):
    """The development kit: numbers of its own, in no order of the synsets, and inner nodes beside the leaves."""
    number = {"n00000001": 1001} | {c: n for n, c in enumerate(SYNSETS[::-1], 1)}
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array([(float(n), c, "a name", 0.0) for c, n in number.items()], dtype=kind)
    savemat(folder / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number[VAL[i]]}\n" for i in sorted(VAL)))


@pytest.fixture
def root(tmp_path):
    return touch(tmp_path / "imagenet", *train(), *foldered())


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return touch(tmp_path_factory.mktemp("imagenet"), *train(), *foldered())


def labels(manifest):
    """{file name: (class, was it in train)}, whatever the layout."""
    names = [i.rpartition("/")[2] for i in manifest.ids]
    tops = [i.partition("/")[0] for i in manifest.ids]
    return dict(zip(names, zip(np.take(manifest.classes, manifest.labels).tolist(), tops, strict=True), strict=True))


def splits(manifest):
    return dict(zip(manifest.ids, np.take(SPLITS, manifest.splits).tolist(), strict=True))


WANT = {p.rpartition("/")[2]: (p.split("/")[1], p.split("/")[0]) for p in [*train(), *foldered()]}


@pytest.mark.parametrize("listed", [None, kaggle, synset_list, ground_truth])
@pytest.mark.parametrize("tree", [".", "ILSVRC/Data/CLS-LOC"])
@pytest.mark.parametrize("place", ["above", "base", "kit"])
def test_every_layout_gives_the_same_labels_and_ids_that_exist(tmp_path, listed, tree, place):
    base = touch(tmp_path / tree, *train(), *(flat() if listed else foldered()))
    kit = {"above": tmp_path, "base": base, "kit": base / "ILSVRC2012_devkit_t12" / "data"}[place]
    kit.mkdir(parents=True, exist_ok=True)
    if listed:
        listed(kit)
    manifest = imagenet.read(tmp_path)
    assert labels(manifest) == WANT and manifest.classes == SYNSETS and manifest.groups is None
    assert all((Path(manifest.root) / i).is_file() for i in manifest.ids)
    assert not any("left out" in r for r in manifest.remarks)


def test_the_labels_of_kaggle_are_found_from_within_its_tree(tmp_path):
    base = touch(tmp_path / "ILSVRC/Data/CLS-LOC", *train(), *flat())
    kaggle(tmp_path)
    assert labels(imagenet.read(base)) == WANT


@pytest.mark.parametrize("listed", [kaggle, synset_list, ground_truth])
def test_the_labels_may_lie_anywhere(tmp_path, listed):
    touch(tmp_path / "images", *train(), *flat())
    (tmp_path / "lists").mkdir()
    listed(tmp_path / "lists")
    file = next(tmp_path / "lists" / n for n in imagenet.LABELS if (tmp_path / "lists" / n).exists())
    renamed = file.rename(file.with_name("anything"))
    assert labels(imagenet.read(tmp_path / "images", labels=str(renamed))) == WANT


def test_classes_are_numbered_as_sorted_folders(tmp_path):
    touch(tmp_path, *(f"train/{c}/1.JPEG" for c in ("n02085620", "n01440764", "n15075141")))
    manifest = imagenet.read(tmp_path)
    assert list(manifest.classes) == sorted(p.name for p in (tmp_path / "train").iterdir())
    for i, row_id in enumerate(manifest.ids):
        assert manifest.classes[manifest.labels[i]] == row_id.split("/")[1]


@settings(max_examples=15, deadline=None)
@given(share=st.sampled_from(["0.05", "0.1", "0.5", "0.9", "0.99"]), seed=st.integers(0, 5))
def test_a_share_of_every_class_is_held_out_and_the_validation_images_are_the_test(tree, share, seed):
    manifest = imagenet.read(tree, holdout=share, seed=str(seed))
    split = splits(manifest)
    assert {i for i, s in split.items() if s == "test"} == set(foldered())
    held = Counter(i.split("/")[1] for i, s in split.items() if s == "val")
    assert held == {c: min(max(1, round(float(share) * n)), n - 1) for c, n in SIZES.items()}
    assert splits(imagenet.read(tree, holdout=share, seed=str(seed))) == split
    assert splits(imagenet.read(tree, holdout=share, seed=str(seed + 1))) != split


def test_what_is_drawn_depends_on_no_other_class_and_costs_no_extraction(root, tmp_path):
    whole = imagenet.read(root)
    assert (whole.splits == 1).sum() == 2 + 1 + 2 + 1, "5 % by default"
    other = imagenet.read(root, seed="1", val="halves")
    assert (whole.version, whole.ids_digest) == (other.version, other.ids_digest) and whole.digest != other.digest
    part = touch(tmp_path / "part", *(p for p in [*train(), *foldered()] if SYNSETS[1] not in p))
    everything = splits(whole)
    assert splits(imagenet.read(part)) == {i: everything[i] for i in everything if SYNSETS[1] not in i}


def test_every_class_is_drawn_for_itself_whatever_the_order_of_the_listing(tmp_path, monkeypatch):
    root = touch(tmp_path, *train(dict.fromkeys(SYNSETS, 40)))
    split = splits(imagenet.read(root, holdout="0.2"))
    real = trees.os.scandir

    @contextmanager
    def backwards(path):
        with real(path) as entries:
            yield sorted(entries, key=lambda e: e.name, reverse=True)

    monkeypatch.setattr(trees.os, "scandir", backwards)
    assert splits(imagenet.read(root, holdout="0.2")) == split
    held = {c: tuple(i.rpartition("_")[2] for i, s in split.items() if s == "val" and c in i) for c in SYNSETS}
    assert len(set(held.values())) == len(SYNSETS) and {len(h) for h in held.values()} == {8}


def test_halves_choose_and_report_on_disjoint_validation_images(root):
    split = splits(imagenet.read(root, val="halves"))
    assert all(s == "train" for i, s in split.items() if i.startswith("train/"))
    by = Counter((i.split("/")[1], s) for i, s in split.items() if i.startswith("val/"))
    for c in SYNSETS:
        n = sum(v == c for v in VAL.values())
        assert by[c, "val"] == max(1, round(n / 2)) and by[c, "val"] + by[c, "test"] == n
    assert {"train", "val"} == set(splits(imagenet.read(root, val="halves", holdout="0.1")).values()) - {"test"}


def test_either_folder_is_enough(tmp_path):
    only = touch(tmp_path / "val only", *flat())
    synset_list(only)
    (only / "train/n01440764").mkdir(parents=True)
    assert {s: set(splits(imagenet.read(only, val=s)).values()) for s in ("test", "halves")} == {
        "test": {"test"}, "halves": {"val", "test"},
    }  # fmt: skip
    assert imagenet.read(only).classes == tuple(sorted(set(VAL.values())))
    assert set(splits(imagenet.read(touch(tmp_path / "train only", *train()))).values()) == {"train", "val"}
    one = touch(tmp_path / "one", *train(dict.fromkeys(SYNSETS, 1)))
    assert set(splits(imagenet.read(one, holdout="0.5")).values()) == {"train"}, "the last image of a class stays"


def test_clutter_hidden_files_and_empty_classes(root):
    touch(
        root, "train/n01440764/.DS_Store", "train/.x.JPEG", "train/.hidden/x.JPEG", "train/n01440764/readme.txt",
        "train/list.txt",
        "train/n01440764/x.png", "train/loose.JPEG", "train/cats/a.JPEG", "val/notes.md", "train/n02085620/X.jpg",
        "train/n02085620/y.JPG",
    )  # fmt: skip
    (root / "train/n09999999").mkdir()
    (root / "val/n08888888").mkdir()
    manifest = imagenet.read(root)
    got = labels(manifest)
    assert got.keys() - WANT.keys() == {"X.jpg", "y.JPG"} and manifest.classes == SYNSETS
    assert {
        "left out 2 hidden files and folders (for example train/.hidden)",
        "left out 1 system files and folders (for example train/n01440764/.DS_Store)",
        "left out 1 folders that are no synsets (for example train/cats)",
        "left out 5 files that are no JPEG images of a synset (for example train/n01440764/readme.txt)",
    } < {*manifest.remarks}
    assert "2 class folders without an image left out: n08888888, n09999999" in manifest.remarks


def test_a_part_of_the_classes_is_said_and_their_validation_images_are_kept(tmp_path):
    some = {c: SIZES[c] for c in SYNSETS[:3]}
    touch(tmp_path / "part", *train(some), *flat())
    synset_list(tmp_path / "part")
    manifest, remarks = prepare(Workspace(tmp_path / "cache"), "imagenet", tmp_path / "part", {})
    assert manifest.classes == SYNSETS[:3]
    gone = sum(c == SYNSETS[3] for c in VAL.values())
    assert gone and f"imagenet: {gone} validation images of classes without training images left out" in remarks
    assert (
        f"imagenet: found 3 classes, 98 training and {28 - gone} validation images; "
        "the published set has 1,000, 1,281,167 and 50,000"
    ) in remarks
    assert summary(DATASETS, "imagenet").startswith("ImageNet (ILSVRC2012)")


@pytest.mark.parametrize("file", imagenet.NAMES)
def test_names_are_added_where_a_list_is_there(root, file):
    lines = ["n01440764 tench, Tinca tinca", "n02085620 Chihuahua", "n01443537 ", "", "rubbish"]
    (root / file).write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    manifest = imagenet.read(root)
    assert manifest.classes == ("n01440764 tench", "n01443537", "n02085620 Chihuahua", "n15075141")
    assert f"names of the classes from {file}" in manifest.remarks
    plain = imagenet.read(root, names="none")
    assert plain.classes == SYNSETS and (plain.labels == manifest.labels).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": "val"}, "val=val: expected test, or halves"),
        ({"holdout": "1"}, "holdout=1: expected a share of the training images, from 0 to below 1"),
        ({"holdout": "-0.1"}, "holdout=-0.1: expected a share"),
        ({"holdout": "nan"}, "holdout=nan: expected a share"),
        ({"holdout": "many"}, "holdout=many: expected a share"),
        ({"seed": "x"}, "seed 'x' is no whole number"),
        ({"names": "all"}, "names=all: expected none, or leave it out"),
    ],
)
def test_options_that_make_no_sense(root, options, message):
    with pytest.raises(ManifestError, match=message):
        imagenet.read(root, **options)


def test_folders_that_are_not_imagenet(tmp_path, root):
    with pytest.raises(
        ManifestError, match=r"imagenet/train holds no train and no val folder .*must be the folder above"
    ):
        imagenet.read(root / "train")
    (tmp_path / "other").mkdir()
    with pytest.raises(ManifestError, match=r"\(found nothing\); expected train/nXXXXXXXX"):
        imagenet.read(tmp_path / "other")
    touch(tmp_path / "tars", "train/n01440764.tar", "train/n01443537.tar")
    with pytest.raises(ManifestError, match="holds no image like .*; unpack the archives"):
        imagenet.read(tmp_path / "tars")
    touch(root, f"val/{numbered(99)}")
    with pytest.raises(
        ManifestError, match=r"holds 'ILSVRC2012_val_00000099.JPEG' beside folders of synsets; keep one"
    ):
        imagenet.read(root)


def test_labels_of_a_flat_folder_that_are_missing_or_wrong(tmp_path):
    root = touch(tmp_path / "imagenet", *train(), *flat())
    with pytest.raises(ManifestError, match="is flat and its labels do not exist; put one of LOC_val_solution.csv"):
        imagenet.read(root)
    with pytest.raises(ManifestError, match="its labels in nowhere do not exist"):
        imagenet.read(root, labels="nowhere")
    file = root / "imagenet_2012_validation_synset_labels.txt"
    for text, message in (
        ("cat\ndog\n", "holds 'cat'; expected synsets like n01440764"),
        ("", "holds 'nothing'; expected synsets"),
        (
            "n01440764\n" * 27,
            "ILSVRC2012_val_00000028.JPEG has no label among the 27 known; fetch the labels file again",
        ),
    ):
        file.write_text(text)
        with pytest.raises(ManifestError, match=message):
            imagenet.read(root)
    file.unlink()
    ground_truth(root)
    (root / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(ManifestError, match=r"meta.mat is no meta.mat \("):
        imagenet.read(root)
    (root / "meta.mat").unlink()
    with pytest.raises(ManifestError, match="is no meta.mat .*need the one of ILSVRC2012_devkit_t12/data"):
        imagenet.read(root)
    ground_truth(root)
    with (root / "ILSVRC2012_validation_ground_truth.txt").open("a") as truth:
        truth.write("7\n")
    with pytest.raises(ManifestError, match="ground_truth.txt holds '7'; expected synsets"):
        imagenet.read(root)


def test_one_image_twice_and_a_name_without_a_number(tmp_path):
    root = touch(tmp_path, *train(), *flat(), "val/cat.JPEG")
    synset_list(root)
    said = "left out 1 files that are no JPEG images of a synset (for example val/cat.JPEG)"
    assert said in imagenet.read(root).remarks
    touch(root, "val/ILSVRC2012_val_00000003.jpg")
    with pytest.raises(ManifestError, match=r"val holds '.*3.JPEG' and '.*3.jpg', which are one image; keep one"):
        imagenet.read(root)
