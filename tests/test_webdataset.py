"""WebDataset: the same keys and bytes as the library itself gives, and the same features as from files."""

import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
import webdataset as library
from PIL import Image

from embedx.data.manifest import SPLITS
from embedx.data.prepare import open_prepared, prepare, source_of
from embedx.datasets import folder, webdataset
from embedx.errors import ManifestError
from embedx.extract import Settings, extract, load_backbone
from embedx.store import FeatureCache
from embedx.workspace import Workspace

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def picture(seed, form="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(stream, form)
    return stream.getvalue()


def pack(path, members, form="gnu"):
    """An archive of members: pairs of name and bytes or text, or whole headers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=FORMATS[form]) as tar:
        for name, data in members:
            if isinstance(name, tarfile.TarInfo):
                tar.addfile(name)
                continue
            info, content = tarfile.TarInfo(name), data.encode() if isinstance(data, str) else data
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(n, start=0, label=lambda i: f"c{i % 2}"):
    for i in range(start, start + n):
        yield from ((f"{i:04d}.cls", label(i)), (f"{i:04d}.png", picture(i)))


def rows(manifest, *attributes):
    """{id: (label, split, attributes...)} in words."""
    columns = [np.take(manifest.classes, manifest.labels), np.take(SPLITS, manifest.splits)]
    columns += [np.take(manifest.values[a], manifest.codes[a]) for a in attributes]
    return dict(zip(manifest.ids, zip(*(c.tolist() for c in columns), strict=True), strict=True))


def contents(workspace, manifest):
    source = source_of(workspace, manifest)
    return {i: source.read(i) for i in manifest.ids}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "cache")


@pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", [*FORMATS, "TarWriter"])
def test_keys_and_bytes_are_those_of_the_library(tmp_path, workspace, form):
    path = tmp_path / "train-0.tar"
    keys = ["0001", "a/0001", "a.b/c d", "é/鳥", "n" * 60 + "/" + "m" * 60 + "/x", "x" * 98]
    if form == "ustar":
        keys = keys[:4]  # it has no room for longer names
    if form == "TarWriter":
        with library.TarWriter(str(path)) as writer:
            for i, key in enumerate(keys):
                writer.write({"__key__": key, "jpg": picture(i, "JPEG"), "cls": i, "seg.png": b"mask"})
    else:
        members = [
            (f"{k}.{e}", d)
            for i, k in enumerate(keys)
            for e, d in (("JPG", picture(i, "JPEG")), ("cls", str(i)), ("seg.png", b"mask"))
        ]
        junk = [("__meta__/x.jpg", b"?"), ("noextension", b"?"), (".hidden.jpg", b"?"), ("d/._0001.jpg", b"?")]
        pack(path, junk + members, form)
    manifest, remarks = prepare(workspace, "webdataset", str(path), {})
    left_out = [
        "1 members without an extension (for example train-0.tar/noextension)",
        "1 hidden files and folders (for example train-0.tar/.hidden.jpg)",
        "1 system files and folders (for example train-0.tar/d/._0001.jpg)",
    ]
    assert remarks == [f"{manifest.name}: left out {line}" for line in left_out if form != "TarWriter"]
    found = {
        i.removeprefix("train-0.tar/").rpartition(".")[0]: data for i, data in contents(workspace, manifest).items()
    }
    labels = {i.removeprefix("train-0.tar/").rpartition(".")[0]: row[0] for i, row in rows(manifest).items()}
    theirs = list(library.WebDataset(str(path), shardshuffle=False))
    assert found == {s["__key__"]: s["jpg"] for s in theirs if "cls" in s}
    assert labels == {s["__key__"]: s["cls"].decode() for s in theirs if "cls" in s}
    assert len(found) == len(keys)


@pytest.mark.parametrize("root", ["{}", "file://{}", "{}/{{train,val,test}}/*.tar", "file://{}/*/00{{0..1}}.tar"])
def test_features_are_those_of_the_same_images_as_files(tmp_path, workspace, root):
    n = 0
    for split, archives in (("train", 2), ("val", 1), ("test", 1)):
        for a in range(2):
            pack(tmp_path / f"tars/{split}/00{a}.tar", samples(10 if a < archives else 0, n))
            for i in range(n, n + 10 if a < archives else n):
                place = tmp_path / f"files/{split}/c{i % 2}/{i:04d}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(picture(i))
            n += 10 if a < archives else 0
    tars, _ = prepare(workspace, "t=webdataset", root.format(tmp_path / "tars"), {})
    files, _ = prepare(workspace, "f=folder", tmp_path / "files", {})
    assert tars.counts() == files.counts()
    features = []
    for manifest in (tars, files):
        backbones = {"raw:8x8": load_backbone("raw:8x8")}
        extract(
            manifest, source_of(workspace, manifest), backbones, workspace, Settings(batch=8, workers=2, shard_rows=16)
        )
        cache = FeatureCache.open_complete(workspace.cache(manifest.name, "raw:8x8"))
        assert not cache.status.any()
        numbers = [i[-8:] for i in manifest.ids]
        features.append(cache.features()[np.argsort(numbers)])
    assert features[0].shape[0] == 40
    assert np.array_equal(*features)
    again = open_prepared(workspace, "t")[0]
    assert contents(workspace, again) == contents(workspace, tars)


def test_labels_attributes_and_splits_stand_in_json(tmp_path, workspace):
    meta = [
        {"species": "gull", "at": {"place": "sea", "n": 1}, "fold": "Train", "ok": True},
        {"species": "wren", "at": {"place": "land", "n": 2}, "fold": "dev", "ok": False},
        {"species": "gull", "at": {"place": "land", "n": 10}, "fold": "2", "ok": True},
    ]
    pack(
        tmp_path / "x.tar", [m for i, d in enumerate(meta) for m in ((f"{i}.jpg", b"x"), (f"{i}.json", json.dumps(d)))]
    )
    options = {"label": "json:species", "attributes": "json:at.place,json:at.n,json:ok", "split": "json:fold"}
    manifest, _ = prepare(workspace, "webdataset", str(tmp_path), options)
    assert rows(manifest, "place", "n", "ok") == {
        "x.tar/0.jpg": ("gull", "train", "sea", "1", "true"),
        "x.tar/1.jpg": ("wren", "val", "land", "2", "false"),
        "x.tar/2.jpg": ("gull", "test", "land", "10", "true"),
    }
    assert manifest.values["n"] == ("1", "2", "10")
    fixed, _ = prepare(workspace, "y=webdataset", str(tmp_path), {"label": "json:species", "split": "validation"})
    assert set(rows(fixed).values()) == {("gull", "val"), ("wren", "val")}


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("train-000.tar", "train"), ("imagenet_Validation.12.tar", "val"), ("000test.tar", "test"),
        ("val/train-0.tar", "train"), ("test/v1/0.tar", "test"), ("training0.tar", "train"),
        ("constrain-0.tar", None), ("train-test-0.tar", None), ("0/1.tar", None),
    ],
)  # fmt: skip
def test_the_name_of_an_archive_says_the_split(tmp_path, name, want):
    pack(tmp_path / name, samples(2))
    if want is None:
        with pytest.raises(
            ManifestError, match=rf"{name}: the name says no split; .* -O split=train or -O split=json:"
        ):
            webdataset.read(str(tmp_path))
    else:
        assert {split for _, split in rows(webdataset.read(str(tmp_path))).values()} == {want}


def test_what_is_left_out_is_counted_with_an_example(tmp_path):
    link, sparse = tarfile.TarInfo("l.jpg"), tarfile.TarInfo("d.jpg")
    link.type, link.linkname, sparse.type = tarfile.SYMTYPE, "0000.png", tarfile.DIRTYPE
    deep = "[" * 100_000
    pack(
        tmp_path / "train.tar",
        [
            *samples(4), (link, b""), (sparse, b""), ("a.cls", "only"), ("b.cls", "only"), ("c.png", b"unlabelled"),
            ("/etc/x.jpg", b"1"), ("a/../x.jpg", b"2"), ("new\nline.jpg", b"3"), ("n" * 1021 + ".jpg", b"4"),
            ("e.cls", ""), ("e.png", b""), ("f.cls", b"\xff\xfe"), ("f.png", b""), ("g.cls", "x" * 1_048_577),
            ("g.png", b""), ("h.json", deep), ("h.pyd", b"cos\nsystem\n."),
        ],
    )  # fmt: skip
    manifest = webdataset.read(str(tmp_path))
    assert [i[-8:] for i in manifest.ids] == [f"000{i}.png" for i in range(4)]
    assert sorted(manifest.remarks) == [
        "left out 1 links; pack the images themselves (for example train.tar/l.jpg)",
        "left out 3 keys without an image (for example train.tar/a)",
        "left out 4 keys without a cls that can be read (for example train.tar/c)",
        "left out 4 members, their names cannot be ids (for example train.tar//etc/x.jpg)",
    ]


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"y": null}', '{"y": [1]}', '{"y": {}}', "3", "{", ""])
def test_json_that_says_nothing_is_no_label(tmp_path, text):
    good = [("1.json", '{"y": "a"}'), ("1.jpg", b""), ("2.json", '{"y": "b"}'), ("2.jpg", b"")]
    pack(tmp_path / "train.tar", [*good, ("3.jpg", b""), ("3.json", text)])
    manifest = webdataset.read(str(tmp_path), label="json:y")
    assert manifest.remarks == ("left out 1 keys without a json:y that can be read (for example train.tar/3)",)


def test_an_archive_that_ends_early_keeps_its_whole_rows(tmp_path, workspace):
    whole = pack(tmp_path / "train-0.tar", samples(6)).read_bytes()
    with tarfile.open(tmp_path / "train-0.tar") as tar:
        last = tar.getmember("0004.png")
    (tmp_path / "train-0.tar").write_bytes(whole[: last.offset_data + 20])
    pack(tmp_path / "train-1.tar", [])
    (tmp_path / "train-2.tar").touch()
    manifest, remarks = prepare(workspace, "x=webdataset", str(tmp_path), {})
    assert remarks == [
        "x: train-0.tar ends early; 5 rows of it are kept",
        "x: train-2.tar is empty; 0 rows of it are kept",
    ]
    settings = Settings(batch=4, workers=0, max_bad=0.5)
    extract(manifest, source_of(workspace, manifest), {"raw:8x8": load_backbone("raw:8x8")}, workspace, settings)
    cache = FeatureCache.open_complete(workspace.cache("x", "raw:8x8"))
    assert cache.status.tolist() == [0, 0, 0, 0, 2]
    assert "the archive ends early" in str(cache.reasons)


def test_the_image_is_named_where_there_are_several(tmp_path, workspace):
    one = [("1.cls", "a"), ("1.jpg", b"j1"), ("1.mask.png", b"m1"), ("1.npy", b"n1")]
    pack(tmp_path / "train.tar", [*one, ("2.cls", "b"), ("2.jpg", b"j2"), ("2.mask.png", b"m2"), ("2.npy", b"n2")])
    for option, want in [({}, b"j"), ({"image": ".mask.png"}, b"m"), ({"image": "NPY"}, b"n")]:
        manifest, _ = prepare(workspace, f"x{len(option)}{want}=webdataset", str(tmp_path), option)
        assert sorted(contents(workspace, manifest).values()) == [want + b"1", want + b"2"]
    pack(tmp_path / "train.tar", [*one, ("1.png", b"")])
    with pytest.raises(
        ManifestError, match=r"train.tar holds '1.jpg' and '1.png' for one row; say which with -O image="
    ):
        webdataset.read(str(tmp_path))


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, r"holds no row \(the archives are empty\); members found: none; name them with -O image=EXT"),
        ([("1.npy", b""), ("1.cls", "a")], {}, r"no row \(left out 1 keys without an image .* found: cls, npy; name"),
        ([("1.jpg", b"")], {}, r"no row \(left out 1 keys without a cls that can be read .*found: jpg"),
        ([*samples(2), ("0000.png", b"")], {}, r"train.tar holds '0000.png' twice; write it again with every member"),
        ([*samples(2), ("0000.cls", "c1")], {}, r"train.tar holds '0000.cls' twice"),
        ([*samples(2)], {"label": "json"}, r"-O label=json: expected a member's extension like cls, or json:KEY"),
        ([*samples(2)], {"label": "cls:x"}, r"-O label=cls:x: expected"),
        ([*samples(2)], {"attributes": ("json:a..b",)}, r"-O attributes=json:a..b: expected"),
        ([*samples(2)], {"attributes": ("json:a", "json:b.a")}, r"two columns would be called 'a'; take other"),
        ([*samples(2)], {"attributes": ("json:id",)}, r"two columns would be called 'id'"),
        ([*samples(2)], {"attributes": ("json:label",)}, r"two columns would be called 'label'"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, members, options, message):
    pack(tmp_path / "train.tar", members)
    with pytest.raises(ManifestError, match=message):
        webdataset.read(str(tmp_path), **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1f\x8b\x08" + bytes(600), r"train.tar is compressed \(gzip\); unpack it to a plain .tar first"),
        (b"PK\x03\x04" + bytes(600), r"train.tar is no tar archive \(bad checksum\); fetch it again, or leave it out"),
    ],
)
@pytest.mark.parametrize("root", ["{}", "file://{}"])
def test_a_file_that_is_no_tar_is_refused(tmp_path, data, message, root):
    (tmp_path / "train.tar").write_bytes(data)
    with pytest.raises(ManifestError, match=message):
        webdataset.read(root.format(tmp_path))


def test_members_of_a_row_may_lie_apart(tmp_path, workspace):
    names = [("1.jpg", b"j1"), ("2.jpg", b"j2"), ("1.cls", "a"), ("2.cls", "b")]
    pack(tmp_path / "train.tar", names)
    manifest, _ = prepare(workspace, "webdataset", str(tmp_path), {})
    assert rows(manifest) == {"train.tar/1.jpg": ("a", "train"), "train.tar/2.jpg": ("b", "train")}
    assert folder.SPELLINGS["dev"] == webdataset.SPELLINGS["dev"] == "val"


def gnu(path):
    """The regular members by GNU tar, which reads on where a mark of the end is followed by more."""
    done = subprocess.run(["tar", "--ignore-zeros", "-tf", path], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.endswith("/")]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("between", [0, 512, 10_240, 3 * (1 << 20)])
@pytest.mark.parametrize("parts", [(4, 3), (0, 2, 0, 4), (2, 2, 2)])
def test_archives_joined_to_one_are_read_to_the_end(tmp_path, workspace, form, between, parts):
    start, data = 0, []
    for n in parts:
        data.append(pack(tmp_path / "part", samples(n, start), form).read_bytes())
        start += n
    (tmp_path / "train-0.tar").write_bytes(bytes(between).join(data))
    manifest, remarks = prepare(workspace, "x=webdataset", str(tmp_path / "train-0.tar"), {})
    assert [f"train-0.tar/{n}" for n in gnu(tmp_path / "train-0.tar") if n.endswith("png")] == [*manifest.ids]
    assert [*contents(workspace, manifest).values()] == [picture(i) for i in range(start)]
    assert [*rows(manifest).values()] == [(f"c{i % 2}", "train") for i in range(start)]
    assert remarks == [
        f"x: train-0.tar is several archives joined to one; all of them are read; {start} rows of it are kept"
    ]


def test_a_global_header_of_one_archive_says_nothing_of_the_next(tmp_path, workspace):
    first = pack(tmp_path / "train-0.tar", samples(2), "pax").read_bytes()
    head = tarfile.TarInfo.create_pax_global_header({"path": "all.png"})
    with pytest.raises(ManifestError):
        webdataset.read(str(tmp_path / "train-0.tar")) if (tmp_path / "train-0.tar").write_bytes(head + first) else None
    other = pack(tmp_path / "other", samples(2, 2), "pax").read_bytes()
    one = pack(tmp_path / "one", [("x.txt", b"")], "pax").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(head + one + other)
    assert [*webdataset.read(str(tmp_path / "train-0.tar")).ids] == ["train-0.tar/0002.png", "train-0.tar/0003.png"]


@pytest.mark.parametrize("tail", [b"x" * 700, b"x", bytes(512) + b"no header" * 100, bytes(5000) + b"x"])
def test_what_follows_the_end_and_is_no_archive_is_said(tmp_path, tail):
    whole = pack(tmp_path / "train-0.tar", samples(3)).read_bytes()
    (tmp_path / "train-0.tar").write_bytes(whole + tail)
    (remark,) = webdataset.read(str(tmp_path)).remarks
    size = len(tail.lstrip(b"\0"))
    least = int(remark.removeprefix("train-0.tar has ").partition(" ")[0].replace(",", ""))
    assert size <= least < size + 512
    assert remark.endswith(" bytes after the mark of its end that are no members; 3 rows of it are kept")


@pytest.mark.parametrize("zeros", [0, 1, 511, 512, 513, 10_000])
def test_zeros_at_the_end_are_padding(tmp_path, zeros):
    whole = pack(tmp_path / "train-0.tar", samples(3)).read_bytes()
    (tmp_path / "train-0.tar").write_bytes(whole + bytes(zeros))
    assert webdataset.read(str(tmp_path)).remarks == ()


def test_a_header_blanked_in_the_middle_is_not_taken_for_the_end(tmp_path):
    data = bytearray(pack(tmp_path / "train-0.tar", samples(4)).read_bytes())
    with tarfile.open(tmp_path / "train-0.tar") as tar:
        member = tar.getmember("0002.cls")
    data[member.offset : member.offset_data] = bytes(member.offset_data - member.offset)
    (tmp_path / "train-0.tar").write_bytes(data)
    manifest = webdataset.read(str(tmp_path))
    assert [i[-8:] for i in manifest.ids] == ["0000.png", "0001.png"]
    assert "after the mark of its end that are no members; 2 rows of it are kept" in manifest.remarks[0]


def test_a_name_that_two_joined_archives_hold_is_refused(tmp_path):
    whole = pack(tmp_path / "train-0.tar", samples(3)).read_bytes()
    (tmp_path / "train-0.tar").write_bytes(2 * whole)
    with pytest.raises(
        ManifestError,
        match=r"train-0.tar is several archives joined to one, which hold '0000.cls' twice; keep them apart",
    ):
        webdataset.read(str(tmp_path))


def test_many_archives_with_one_fault_are_few_lines(tmp_path):
    for n in range(9):
        whole = pack(tmp_path / f"train-{n}.tar", samples(2)).read_bytes()
        (tmp_path / f"train-{n}.tar").write_bytes(whole + b"x")
    remarks = webdataset.read(str(tmp_path)).remarks
    assert len(remarks) == 6 and remarks[-1] == "so 4 more archives: joined to one, damaged, or not whole"


def test_members_of_systems_are_no_rows(tmp_path):
    copies = [(f"{place}/{n}", d) for place in ("@eaDir", "PaxHeader", "a/__MACOSX") for n, d in samples(2)]
    sparse, pipe = tarfile.TarInfo("p.jpg"), tarfile.TarInfo("q.jpg")
    sparse.type, pipe.type = tarfile.FIFOTYPE, tarfile.CHRTYPE
    pack(
        tmp_path / "train.tar",
        [*samples(3), *copies, ("._0000.png", b""), ("d/Thumbs.db", b""), (sparse, b""), (pipe, b"")],
    )
    pack(tmp_path / "@eaDir/train.tar", samples(2))
    manifest = webdataset.read(str(tmp_path))
    assert [i[-8:] for i in manifest.ids] == ["0000.png", "0001.png", "0002.png"]
    assert sorted(manifest.remarks) == [
        "left out 15 system files and folders (for example @eaDir, train.tar/PaxHeader, train.tar/a/__MACOSX, "
        "train.tar/._0000.png, train.tar/d/Thumbs.db)",
        "left out 2 members that are no plain files (for example train.tar/p.jpg)",
    ]
