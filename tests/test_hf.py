"""Hugging Face datasets: rows, labels and bytes as the library gives them, whichever way they lie on disk."""

import io
import multiprocessing
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from embedx.data.manifest import SPLITS
from embedx.data.prepare import open_prepared, prepare, source_of
from embedx.data.sources import HuggingFace
from embedx.datasets import hf
from embedx.errors import ManifestError
from embedx.extract import Settings, extract, load_backbone
from embedx.store import FeatureCache
from embedx.workspace import Workspace

datasets = pytest.importorskip("datasets")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:(datasets|multiprocess|dill)", "ignore::FutureWarning"
)
CLASSES = ["wren", "gull"]  # not in the order of the alphabet


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No network, and a cache of the library's own that nobody else uses; for spawned processes too."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "cache")


def picture(seed):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def table(n, start=0, **columns):
    features = {
        "image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES), "place": datasets.Value("string"),
        "n": datasets.Value("int64"), "ok": datasets.Value("bool"), "x": datasets.Value("float32"),
    }  # fmt: skip
    own = {
        "image": [{"bytes": picture(i), "path": None} for i in range(start, start + n)],
        "label": [i % 2 for i in range(n)], "place": [("sea", "land")[i % 3 == 0] for i in range(n)],
        "n": list(range(n)), "ok": [i % 2 == 0 for i in range(n)], "x": [0.5] * n,
    }  # fmt: skip
    return datasets.Dataset.from_dict(own | columns, features=datasets.Features(features))


def three(**columns):
    return datasets.DatasetDict(
        train=table(12, **columns), validation=table(6, 12, **columns), test=table(6, 18, **columns)
    )


def saved(path, found=None):
    (found or three()).save_to_disk(str(path))
    return str(path)


def parquet(path, found=None):
    (path / "data").mkdir(parents=True)
    for name, rows in (found or three()).items():
        rows.to_parquet(str(path / "data" / f"{name}-00000-of-00001.parquet"))
    return str(path)


def folder(path):
    for split, n, start in (("train", 12, 0), ("validation", 6, 12), ("test", 6, 18)):
        for i in range(n):
            place = path / split / CLASSES[i % 2] / f"{start + i:04d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(picture(start + i))
    return str(path)


def rows(manifest, *attributes):
    columns = [np.take(manifest.classes, manifest.labels), np.take(SPLITS, manifest.splits)]
    columns += [np.take(manifest.values[a], manifest.codes[a]) for a in attributes]
    return dict(zip(manifest.ids, zip(*(c.tolist() for c in columns), strict=True), strict=True))


@pytest.mark.parametrize("lay", [saved, parquet])
def test_rows_are_those_of_the_library(tmp_path, workspace, lay):
    root = lay(tmp_path / "birds?a=b #1")
    manifest, remarks = prepare(workspace, "hf", root, {"attributes": "place,n,ok"})
    want = {}
    for name, part in three().items():
        for i, row in enumerate(part.cast_column("image", datasets.Image(decode=False))):
            label, split = CLASSES[row["label"]], {"validation": "val"}.get(name, name)
            want[f"{name}/{i:010d}"] = (label, split, row["place"], str(row["n"]), str(row["ok"]).lower())
            assert source_of(workspace, manifest).read(f"{name}/{i:010d}") == row["image"]["bytes"]
    assert rows(manifest, "place", "n", "ok") == want
    assert (remarks, manifest.classes, manifest.values["n"][:3]) == ([], ("wren", "gull"), ("0", "1", "2"))
    assert open_prepared(workspace, manifest.name)[0].root == manifest.root
    assert manifest.root.startswith("hf-datasets:/")


def test_features_are_those_of_the_same_images_as_files(tmp_path, workspace):
    plain, _ = prepare(workspace, "f=folder", tmp_path / folder(tmp_path / "files"), {})
    want = {i[-8:-4]: i for i in plain.ids}
    features = {}
    for name, root in (("files", folder(tmp_path / "pics")), ("saved", saved(tmp_path / "s")), ("f", None)):
        manifest = plain if root is None else prepare(workspace, f"{name}=hf", root, {})[0]
        assert manifest.counts() == plain.counts()
        backbones = {"raw:8x8": load_backbone("raw:8x8")}
        extract(
            manifest, source_of(workspace, manifest), backbones, workspace, Settings(batch=8, workers=2, shard_rows=16)
        )
        cache = FeatureCache.open_complete(workspace.cache(manifest.name, "raw:8x8"))
        assert not cache.status.any()
        features[name] = {f.tobytes() for f in cache.features()}
    assert len(features["f"]) == len(want) == 24
    assert features["f"] == features["files"] == features["saved"]


def test_images_of_systems_are_no_class_and_what_the_library_does_not_find_is_said(tmp_path, workspace):
    root = tmp_path / "pics"
    folder(root)
    for place in ("train/@eaDir/1.png", "test/#recycle/1.png", "validation/@eaDir/1.png", "train/.git/x.png"):
        (root / place).parent.mkdir(parents=True)
        (root / place).write_bytes(picture(0))
    (tmp_path / "far").mkdir()
    for n in range(3):
        (tmp_path / f"far/{n}.png").write_bytes(picture(n))
    (root / "train/owl").symlink_to(tmp_path / "far")
    (root / "train/gull/0.png").symlink_to(tmp_path / "far/0.png")
    manifest, remarks = prepare(workspace, "hf", str(root), {})
    assert manifest.classes == ("gull", "wren")
    assert manifest.counts() == {
        "train/gull": 7, "train/wren": 6, "val/gull": 3, "val/wren": 3, "test/gull": 3, "test/wren": 3,
    }  # fmt: skip
    assert set(contents_of(workspace, manifest)) == {picture(i) for i in range(24)}
    assert sorted(remarks) == [
        "pics: left out 3 images that the library datasets does not find, as behind links to folders (for example "
        "train/owl/0.png)",
        "pics: left out 4 system files and folders (for example test/#recycle, train/.git, train/@eaDir)",
    ]


def contents_of(workspace, manifest):
    source = source_of(workspace, manifest)
    return [source.read(i) for i in manifest.ids]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_processes_read_what_one_reads(tmp_path, context):
    for root in (saved(tmp_path / "s"), folder(tmp_path / "pics")):
        manifest = hf.read(root)
        source = HuggingFace(manifest.root)
        want = [source.read(i) for i in manifest.ids]
        assert pickle.loads(pickle.dumps(source)) == source
        assert len(pickle.dumps(source)) < 300
        with multiprocessing.get_context(context).Pool(2) as pool:
            assert pool.map(source.read, manifest.ids, chunksize=1) == want


def test_the_version_follows_the_images_alone(tmp_path):
    version = hf.read(saved(tmp_path / "a")).version
    assert hf.read(saved(tmp_path / "b")).version == version  # written anew, with fingerprints of its own
    assert hf.read(parquet(tmp_path / "c")).version == version
    relabelled = three()
    relabelled["train"] = table(12, label=[1 - i % 2 for i in range(12)])
    assert hf.read(saved(tmp_path / "d", relabelled)).version == version
    swapped = three()
    swapped["train"] = swapped["train"].select([1, 0, *range(2, 12)])
    assert hf.read(saved(tmp_path / "e", swapped)).version != version
    shorter = three()
    shorter["test"] = shorter["test"].select(range(5))
    assert hf.read(saved(tmp_path / "f", shorter)).version != version


def test_the_version_sees_every_size_even_of_images_that_are_files(tmp_path, monkeypatch):
    monkeypatch.setattr(hf, "SAMPLE", 1)
    root = folder(tmp_path / "pics")
    version = hf.read(root).version
    assert version == hf.read(folder(tmp_path / "elsewhere")).version
    with (tmp_path / "pics/train/gull/0003.png").open("ab") as file:
        file.write(b"more")
    assert hf.read(root).version != version


def test_splits_by_name_by_option_and_by_column(tmp_path):
    odd = datasets.DatasetDict(main=table(4), Validation=table(4, 4), unlabelled=table(2, 8))
    root = saved(tmp_path / "odd", odd)
    manifest = hf.read(root)
    assert manifest.remarks == (
        "split 'main' left out; -O splits=main=train takes it in",
        "split 'unlabelled' left out; -O splits=unlabelled=train takes it in",
    )
    assert {i.partition("/")[0] for i in manifest.ids} == {"Validation"}
    manifest = hf.read(root, splits=("main=train", "Validation=test"))
    assert {i.partition("/")[0]: s for i, (_, s) in rows(manifest).items()} == {"main": "train", "Validation": "test"}
    one = saved(tmp_path / "one", table(4, place=["Train", "b", "dev", None]))
    manifest = hf.read(one, split="place", splits=("b=test",))
    assert [s for _, s in rows(manifest).values()] == ["train", "test", "val"]
    assert manifest.remarks == ("1 rows left out, without a value of label, place",)


def test_rows_without_a_label_are_left_out_and_those_without_an_image_are_missing(tmp_path):
    images = [
        {"bytes": picture(0), "path": None},
        None,
        {"bytes": None, "path": "gone.png"},
        {"bytes": None, "path": "/x.png"},
    ]
    damaged = table(5, image=[*images, images[0]], label=[0, 1, 0, 1, -1], place=["a", "b", "a", "a", "a"])
    (tmp_path / "s").mkdir()
    pq.write_table(damaged.data.table, tmp_path / "s" / "train.parquet")  # the library would look for the files
    root = str(tmp_path / "s")
    manifest = hf.read(root, attributes=("place",))
    assert [i[-1] for i in manifest.ids] == list("0123")
    source, said = HuggingFace(manifest.root), []
    for i in [*manifest.ids, "train/9", "train/-1", "nowhere/0"]:
        try:
            source.read(i)
            said.append("")
        except OSError as error:
            said.append((type(error).__name__, error.strerror))
    gone, no_row = ("FileNotFoundError", "no image in this row"), ("FileNotFoundError", "no such row in the dataset")
    assert said[:2] == ["", gone]
    assert said[2] == ("OSError", "the image is neither in the dataset nor a file on this machine")
    assert said[3] == ("FileNotFoundError", "no such file")
    assert said[4:] == [no_row] * 3


def test_columns_that_were_shuffled_or_are_plain_bytes(tmp_path):
    mixed = table(8).shuffle(seed=3)
    plain = datasets.Dataset.from_dict(
        {
            "data": [r["image"]["bytes"] for r in mixed.cast_column("image", datasets.Image(decode=False))],
            "label": mixed["label"][:],
        }
    )
    source = []
    for root, image in ((saved(tmp_path / "m", mixed), ""), (saved(tmp_path / "p", plain), "data")):
        manifest = hf.read(root, image=image)
        source.append(
            [
                (HuggingFace(manifest.root).read(i), int(manifest.labels[k] == manifest.labels[0]))
                for k, i in enumerate(manifest.ids)
            ]
        )
    assert source[0] == source[1]
    assert sorted(b for b, _ in source[0]) == sorted(picture(i) for i in range(8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "lable"}, r"has no column 'lable': did you mean 'label'"),
        ({"label": "x"}, r"column 'x' is Value\(.*float32.*\); expected one word or whole number per row"),
        ({"label": "image"}, r"column 'image' is Image.*; expected one word"),
        ({"image": "place"}, r"column 'place' is Value.*; expected images, or bytes of encoded images"),
        ({"image": "img"}, r"has no column 'img'; name one of image with -O image=COLUMN"),
        ({"attributes": ("label",)}, r"'label' cannot be the name of an attribute here"),
        ({"splits": ("train",)}, r"-O splits=train: expected NAME=train, NAME=val or NAME=test"),
        ({"splits": ("train=all",)}, r"-O splits=train=all: expected"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(tmp_path, options, message):
    with pytest.raises(ManifestError, match=message):
        hf.read(saved(tmp_path / "s"), **options)


def test_splits_that_disagree_or_are_unknown_are_refused(tmp_path):
    other = three()
    other["test"] = other["test"].cast_column("label", datasets.ClassLabel(names=CLASSES[::-1]))
    with pytest.raises(ManifestError, match=r"the splits name the classes of 'label' differently"):
        hf.read(saved(tmp_path / "s", other))
    with pytest.raises(ManifestError, match=r"has the splits a; say what they count as with -O splits=a=train"):
        hf.read(saved(tmp_path / "a", datasets.DatasetDict(a=table(2))))


def test_no_internet_no_folder_no_script_no_library(tmp_path, monkeypatch):
    with pytest.raises(
        ManifestError, match=r"^user/birds is no folder here, not in the cache .* cannot be reached .*--root$"
    ):
        hf.read("user/birds")
    with pytest.raises(
        ManifestError, match=r"/no/such/place does not exist and is no name of a dataset on the hub, like"
    ):
        hf.read("/no/such/place")
    with pytest.raises(ManifestError, match=r"/gone does not exist; say with --root where"):
        HuggingFace("hf-datasets:/gone").read("train/0")
    (tmp_path / "script").mkdir()
    (tmp_path / "script/script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(
        ManifestError, match=r"script cannot be opened as a dataset \(Dataset scripts are no longer supp"
    ):
        hf.read(str(tmp_path / "script"))
    assert not (tmp_path / "ran").exists()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ManifestError, match=r"user/birds needs the library datasets: pip install 'embedx\[hf\]'"):
        hf.read("user/birds")


def test_the_cache_serves_where_there_is_no_internet(tmp_path):
    datasets.load_dataset(parquet(tmp_path / "birds"))
    (cached,) = (tmp_path / "hf-cache").glob("birds/*/0.0.0/*/dataset_info.json")
    there = tmp_path / "hf-cache/user___birds/default/0.0.0" / ("0" * 40)
    there.mkdir(parents=True)
    for file in cached.parent.iterdir():
        (there / file.name.replace("parquet", "birds")).write_bytes(file.read_bytes())
    manifest = hf.read("user/birds")
    assert (manifest.root, manifest.name, len(manifest)) == ("hf-datasets:user/birds", "birds", 24)
    assert HuggingFace(manifest.root).read("test/0000000000") == picture(18)
