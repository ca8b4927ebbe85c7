"""Trees are walked whole, with torchvision's own walk for an oracle; what is left out is counted and named."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from embedx.cli import main
from embedx.data import trees
from embedx.data.download import Download, get
from embedx.data.left_out import HIDDEN, SYSTEM, LeftOut, clutter, system
from embedx.data.prepare import prepare
from embedx.data.sources.archives import listed
from embedx.data.trees import LOOP, SPECIAL, Tree, count
from embedx.datasets import folder, imagenet, utkface
from embedx.errors import ManifestError
from embedx.extract import parity
from embedx.workspace import Workspace


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def link(root, **links):
    """{path with __ for /: target relative to the root}"""
    for name, target in links.items():
        place = root / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(root / target)
    return root


PETS = ["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png"]
FACE = "25_0_1_2017.jpg"


def theirs(root, split):
    """{(label, path): how often}, as torchvision finds them."""
    found = ImageFolder(str(root / split), allow_empty=True)
    return sorted((os.path.relpath(path, root), found.classes[y]) for path, y in found.samples)


def ours(manifest, split):
    rows = [(i, manifest.classes[y]) for i, y in zip(manifest.ids, manifest.labels, strict=True)]
    return sorted(r for r in rows if r[0].startswith(f"{split}/"))


def test_links_are_followed_as_torchvision_does(tmp_path):
    touch(tmp_path / "far", "a.png", "deep/b.png", "deep/er/c.png")
    root = touch(tmp_path / "pets", *PETS, "train/cat/in/x.png")
    link(
        root, train__bird="../far", train__cat__more="../far", train__cat__again="train/cat/in",
        train__dog__one="../far/a.png", test__bird="train/bird", test__dog__deep="../far/deep",
    )  # fmt: skip
    (root / "train/dog/one").rename(root / "train/dog/one.png")
    manifest = folder.read(root)
    for split in ("train", "test"):
        assert ours(manifest, split) == theirs(root, split)
    assert len(manifest) == 4 + 1 + 3 + 3 + 1 + 1 + 3 + 2
    assert manifest.remarks == ()
    link(tmp_path, pets2="pets")
    assert [*folder.read(tmp_path / "pets2").ids] == [*manifest.ids]


names = st.sampled_from(["a", "b", "c"])
places = st.lists(names, min_size=1, max_size=3).map("/".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(places, max_size=6), st.lists(st.tuples(places, places), max_size=4))
def test_whatever_links_there_are_every_file_is_found_and_the_walk_ends(tmp_path_factory, files, links):
    """Every file that torchvision's walk comes to before a path repeats a folder is found, and nothing else."""
    root = tmp_path_factory.mktemp("tree")
    for place in files:
        touch(root, f"{place}/x.png")
    for place, target in links:
        with suppress(OSError):  # something is there already, or the way to it is a link to nothing
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).symlink_to(root / target)

    def by_hand(at, way):
        here = Path(os.path.realpath(root / at))
        for entry in here.iterdir():
            path, real = f"{at}/{entry.name}" if at else entry.name, Path(os.path.realpath(entry))
            if not real.is_dir():
                yield path
            elif not any(f.is_relative_to(real) for f in [*way, here]):
                yield from by_hand(path, [*way, here])

    assert sorted(Tree(root).walk()) == sorted(by_hand("", []))


@pytest.mark.parametrize(
    "target", ["train/cat", "train/cat/in", "train", ".", "..", "../..", "train/cat/in/loop", "train/dog/back"]
)
def test_loops_end_and_are_said(tmp_path, target):
    root = touch(tmp_path / "pets", *PETS, "train/cat/in/x.png")
    touch(tmp_path, "outside.png")
    link(root, train__cat__in__loop=target)
    if "back" in target:
        link(root, train__dog__back="train/cat")
    manifest = folder.read(root)
    if target == "train/dog/back":  # each of the two is a loop in the other
        assert {i for i in manifest.ids if "loop" in i or "back" in i} == {
            "train/dog/back/1.png",
            "train/dog/back/in/x.png",
        }
        said = "left out 2 links to a folder that they lie in (for example train/cat/in/loop)"
    elif target == "train/cat/in/loop":  # a link to itself is no folder, but a row that fails
        assert "train/cat/in/loop" in manifest.ids and manifest.remarks == ()
        return
    else:
        assert sorted(manifest.ids) == sorted([*PETS, "train/cat/in/x.png"])
        said = "left out 1 links to a folder that they lie in (for example train/cat/in/loop)"
    assert manifest.remarks == (said,)


def test_a_class_that_is_a_loop_is_none(tmp_path):
    root = link(touch(tmp_path / "pets", *PETS), train__up=".", test__up="test")
    manifest = folder.read(root)
    assert (sorted(manifest.ids), manifest.classes) == (sorted(PETS), ("cat", "dog"))
    assert manifest.remarks == (f"left out 2 {LOOP} (for example test/up)",)


def test_a_linked_class_whose_folder_links_above_itself_takes_no_other_class(tmp_path):
    touch(tmp_path / "data", "cat/1.png", "dog/2.png")
    link(tmp_path / "data", cat__up=".")
    root = link(touch(tmp_path / "pets", "train/dog/1.png"), train__cat="../data/cat")
    assert sorted(folder.read(root).ids) == ["train/cat/1.png", "train/dog/1.png"]


def test_what_is_no_file_is_said_and_a_link_to_nothing_is_a_row_that_fails(tmp_path, monkeypatch):
    root = link(touch(tmp_path / "pets", *PETS), train__cat__gone="nowhere.png", train__cat__odd="train/cat/1.png/x")
    os.mkfifo(root / "train/cat/pipe.png")
    monkeypatch.chdir(root / "train/dog")  # a socket's path may have a hundred characters
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("plug.png")
        link(root, train__dog__piped="train/cat/pipe.png")
        manifest = folder.read(root)
    assert {*manifest.ids} - {*PETS} == {"train/cat/gone", "train/cat/odd"}
    assert manifest.remarks == (f"left out 3 {SPECIAL} (for example train/cat/pipe.png)",)


SYSTEMS = [
    "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat/._1.png", "#recycle/old.png", "lost+found/1.png",
    ".ipynb_checkpoints/1-checkpoint.png", "$RECYCLE.BIN/1.png", "System Volume Information/x", "@Recycle/1.png",
    ".@__thumb/1.jpg", "#snapshot/1.png", "@tmp/1.png", ".thumbnails/1.png", ".Trash-1000/files/1.png", ".git/HEAD",
    ".snapshot/daily/1.png", ".AppleDouble/1.png", "found.000/1.png", "__pycache__/x.pyc", "PaxHeader/1.png",
]  # fmt: skip
FILES = [
    "Thumbs.db", "desktop.ini", "Desktop.ini", ".DS_Store", "._1.png", ".directory", ".nfs0000000001f", "ehthumbs.db",
    "1.png@SynoEAStream", "Icon\r",
]  # fmt: skip


@pytest.mark.parametrize("place", ["", "train", "train/cat", "train/cat/deep"])
def test_what_systems_leave_is_no_data_at_any_depth(tmp_path, place):
    root = touch(tmp_path / "pets", *PETS, "train/cat/deep/9.png")
    touch(root / place, *SYSTEMS, *FILES)
    manifest = folder.read(root)
    assert sorted(manifest.ids) == sorted([*PETS, "train/cat/deep/9.png"])
    assert manifest.classes == ("cat", "dog")
    (remark,) = manifest.remarks
    assert remark.startswith(f"left out {len(SYSTEMS) + len(FILES)} {SYSTEM} (for example ")
    assert remark.count(", ") == 4, "five kinds are named, not one line per file"


def test_ordinary_names_are_data(tmp_path):
    for name in ("cat", "@home", "recycle", "_x", "snapshot", "tmp", "#1", "founders", "thumbs", "lost", "a.db", "é"):
        assert (name, clutter(name)) == (name, "")
    assert clutter(".cat") == HIDDEN and system("@EADIR") and system("THUMBS.DB")


def test_kinds_are_named_and_counts_add_up():
    first, second = LeftOut(), LeftOut()
    for n in range(4):
        first.add(SYSTEM, f"a{n}/@eaDir")
    second.add(SYSTEM, "b/Thumbs.db")
    second.add("odd\nthings", "x\udce9", n=1200)
    second.add("nothing", "y", n=0)
    first.merge(second)
    assert first.remarks() == [
        f"left out 5 {SYSTEM} (for example a0/@eaDir, b/Thumbs.db)",
        r"left out 1,200 odd" "\n" r"things (for example 'x\udce9')",
    ]


def test_what_lies_beside_splits_and_classes_is_said(tmp_path, capsys):
    root = touch(tmp_path / "pets", *PETS, "extra/cat/1.png", "readme.txt", "train/loose.png", "train/cat/.b.png")
    (root / "test/bird").mkdir()
    (root / "train/fish/empty/.x").mkdir(parents=True)
    manifest, remarks = prepare(Workspace(tmp_path / "cache"), "folder", root, {})
    assert manifest.classes == ("cat", "dog")
    assert sorted(remarks) == [
        "pets: left out 1 files that lie in no class folder (for example train/loose.png)",
        "pets: left out 2 class folders without a file (for example test/bird)",
        "pets: left out 2 files and folders beside the splits (for example extra/, readme.txt)",
        "pets: left out 2 hidden files and folders (for example train/cat/.b.png)",
    ]
    with pytest.raises(SystemExit) as done:
        main(["--cache", str(tmp_path / "c"), "data", "check", "folder", "--root", str(root), "--workers", "0"])
    assert done.value.code == 1  # empty files are no images
    assert "note: pets: left out 2 files and folders beside the splits (for example extra/" in capsys.readouterr().err


def test_a_tree_of_nothing_but_clutter_says_so(tmp_path):
    with pytest.raises(
        ManifestError, match=r"holds no file in a class folder \(left out 1 hidden .*\); expected train/"
    ):
        folder.read(touch(tmp_path, "train/.cat/1.png"))


def test_every_reader_of_trees_follows_links(tmp_path):
    touch(tmp_path / "far", FACE, "deep/26_1_2_2017.jpg", "n01440764_1.JPEG", "x.tar")
    faces = link(touch(tmp_path / "faces", "27_0_0_2017.jpg", "@eaDir/27_0_0_2017.jpg"), more="../far")
    manifest = utkface.read(faces)
    assert [*manifest.ids] == ["27_0_0_2017.jpg", f"more/{FACE}", "more/deep/26_1_2_2017.jpg"]
    assert f"left out 1 {SYSTEM} (for example @eaDir)" in manifest.remarks

    nets = touch(tmp_path / "nets", "train/n01443537/n01443537_1.JPEG", "train/n01443537/@eaDir/n01443537_1.JPEG")
    link(nets, train__n01440764="../far", train__n01443537__more="../far")
    manifest = imagenet.read(nets, holdout="0")
    assert [*manifest.ids] == [
        f"train/{f}" for f in (
            "n01440764/25_0_1_2017.jpg", "n01440764/deep/26_1_2_2017.jpg", "n01440764/n01440764_1.JPEG",
            "n01443537/more/25_0_1_2017.jpg", "n01443537/more/deep/26_1_2_2017.jpg",
            "n01443537/more/n01440764_1.JPEG", "n01443537/n01443537_1.JPEG",
        )
    ]  # fmt: skip
    assert f"left out 1 {SYSTEM} (for example train/n01443537/@eaDir)" in manifest.remarks

    tars = link(touch(tmp_path / "tars", "a.tar", "@eaDir/b.tar", ".c.tar"), more="../far")
    link(tars, up=".")
    for address in (tars, f"file://{tars}", f"{tars}/**/*.tar", f"{tars}/**", f"{tmp_path}/*/**/[ax].tar"):
        left_out = LeftOut()
        base, found = listed(str(address), left_out)
        base = base.removeprefix("file://")
        want = {str(tars / f) for f in ("a.tar", "more/x.tar")}
        assert {p for f in found if (p := f"{base}/{f}").startswith(str(tars))} == want
        assert left_out[SYSTEM][0] >= 1 and LOOP in left_out
    assert listed(f"{tars}/*/x.tar")[1] == ["more/x.tar"]


def test_pictures_for_parity_are_found_behind_links(tmp_path):
    from PIL import Image

    (tmp_path / "far").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "far/a.png")
    root = link(touch(tmp_path / "in", "@eaDir/a.png/b.png"), more="../far", more__up=".")
    os.mkfifo(root / "pipe.png")
    images, remarks = parity.of_folder(root)
    assert list(images) == ["more/a.png"]
    assert remarks == [
        f"left out 1 {SYSTEM} (for example @eaDir)",
        f"left out 1 {SPECIAL} (for example pipe.png)",
        f"left out 1 {LOOP} (for example more/up)",
    ]


def test_a_download_whose_files_were_moved_behind_a_link_is_whole(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("top/in/1.png", "top/in/2.png", "top/3.png", "__MACOSX/._top"):
            archive.writestr(name, name)
    items = (Download("a.zip", unpack="top"),)
    assert get(items, tmp_path).root == tmp_path / "top"
    assert (tmp_path / "top/3.png").exists(), "what lies beside the one folder is a system's, and does not count"
    (tmp_path / "top/in").rename(tmp_path / "elsewhere")
    (tmp_path / "top/in").symlink_to(tmp_path / "elsewhere")
    assert get(items, tmp_path).done == () and count(tmp_path / "top") == 3


@pytest.mark.parametrize("fault", ["listing", "link"])
def test_a_folder_that_cannot_be_seen_is_an_error_and_no_missing_files(tmp_path, monkeypatch, fault):
    root = link(touch(tmp_path / "pets", *PETS), train__cat__in="../far")
    touch(tmp_path / "far", "1.png")
    called = "scandir" if fault == "listing" else "stat"
    real = getattr(trees.os, called)

    def refuse(path, *args, **more):
        if str(path).endswith("cat/in"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(trees.os, called, refuse)
    with pytest.raises(ManifestError, match=r"cannot be read \(.*Permission denied.*cat/in"):
        prepare(Workspace(tmp_path / "cache"), "folder", root, {})
