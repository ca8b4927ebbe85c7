"""`embedx data`: from a public address, or files by hand, to a prepared dataset that has been checked."""

import csv
import io
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from embedx.cli import main
from embedx.data.download import Download
from embedx.datasets import celeba, utkface, waterbirds


def embedx(*words, code=0):
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return result


def picture(number):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def birds(folder, monkeypatch):
    """Waterbirds with 24 birds, offered by a server; its archive."""
    top = "waterbird_complete95_forest2water2"
    rows = [(f"{i % 5}.bird/{i}.png", i % 2, i // 8 % 3, i // 2 % 2) for i in range(24)]
    table = "\n".join(
        ["img_id,img_filename,y,split,place", *(f"{i},{n},{y},{s},{p}" for i, (n, y, s, p) in enumerate(rows))]
    )
    files = {"metadata.csv": table.encode()} | {n: picture(i) for i, (n, *_) in enumerate(rows)}
    (folder / "public").mkdir()
    with tarfile.open(folder / "public" / f"{top}.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "public"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/{top}.tar.gz"
    (item,) = waterbirds.DOWNLOADS
    monkeypatch.setattr(
        waterbirds, "DOWNLOADS", (Download(item.name, (url,), unpack=item.unpack, licence=item.licence),)
    )
    monkeypatch.setattr(waterbirds, "COUNTS", dict.fromkeys(waterbirds.COUNTS, (2, 2, 2, 2)))
    yield folder / "public" / f"{top}.tar.gz"
    server.shutdown()
    thread.join()
    server.server_close()


def test_get_then_extract_then_check(birds, folder):
    first = embedx("data", "get", "waterbirds")
    assert first.stderr.startswith("licence of the data: CUB-200-2011")
    root = "cache/downloads/waterbirds/waterbird_complete95_forest2water2"
    assert f"{root}: waterbird_complete95_forest2water2.tar.gz done" in first.stdout
    assert "waterbirds: 24 rows" in first.stdout and "waterbird/land" in first.stdout
    assert "and may be deleted" in first.stderr
    birds.unlink()
    again = embedx("data", "get", "waterbirds")
    assert "complete already, nothing fetched" in again.stdout and "deleted" not in again.stderr
    assert "24 of 24 rows extracted" in embedx("extract", "waterbirds", "-b", "raw:4x4", "--workers", "0").stdout
    checked = embedx("data", "check", "waterbirds")
    assert "counts         as published" in checked.stdout and "waterbirds: sound" in checked.stdout
    assert checked.stderr == ""


def test_check_says_what_is_wrong_once_and_exits_with_1(birds, folder, monkeypatch):
    embedx("data", "get", "waterbirds", "-o", "here")
    root = folder / "here" / "waterbird_complete95_forest2water2"
    (root / "0.bird/0.png").write_bytes((root / "3.bird/8.png").read_bytes())
    (root / "1.bird/1.png").write_text("no image")
    (root / "2.bird/2.png").unlink()
    table = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(table.replace("3,3.bird/3.png,1,0,1", "3,3.bird/3.png,1,0,0"))
    found = embedx("data", "check", "waterbirds", "-r", str(root), "--csv", "found.csv", code=1)
    assert found.stderr == ""
    text = found.stdout
    assert "2 differ from the published ones" in text and "2 of 24 cannot be read" in text
    assert "3 (not 2)" in text and "1 (not 2)" in text
    assert "1 images lie in more than one split: a leak" in text
    assert "unreadable  1.bird/1.png: not an image of a known format" in text
    assert "missing  2.bird/2.png: no such file" in text
    assert "leak  0.bird/0.png: train, landbird; same bytes as 3.bird/8.png (val, landbird)" in text
    assert (
        text.rstrip().endswith("something is wrong, see above\nall findings are in found.csv") or "all findings" in text
    )
    with (folder / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(r["finding"] for r in rows) == ["count", "count", "leak", "leak", "missing", "unreadable"]
    assert "there is no folder" in embedx("data", "check", "waterbirds", "--csv", "no/found.csv", code=2).stderr


def test_a_long_list_is_cut_and_says_where_the_rest_is(birds, folder):
    embedx("data", "get", "waterbirds", "-o", "here")
    for file in (folder / "here").rglob("*.png"):
        file.unlink()
    text = embedx("data", "check", "waterbirds", code=1).stdout
    assert text.count("missing  ") == 20 and "… and more; --csv FILE writes all of them" in text
    assert "24 of 24 cannot be read" in text


def test_an_interrupted_or_damaged_download_is_one_line(birds, folder):
    whole = birds.read_bytes()
    birds.write_bytes(whole[: len(whole) // 2])
    cut = embedx("data", "get", "waterbirds", code=1).stderr
    assert "is damaged" in cut and "delete it and give the same command again" in cut
    assert len(cut.strip().splitlines()) == 2  # the licence before it
    (folder / "cache/downloads/waterbirds/waterbird_complete95_forest2water2.tar.gz").unlink()
    birds.write_bytes(whole)
    assert "waterbirds is prepared" in embedx("data", "get", "waterbirds").stdout


def test_files_by_hand(folder):
    asked = embedx("data", "get", "utkface", code=1).stderr
    assert "Google Drive only" in asked and "put UTKFace.tar.gz into cache/downloads/utkface" in asked
    with tarfile.open(folder / "cache/downloads/utkface/UTKFace.tar.gz", "w:gz") as archive:
        for i in range(20):
            info = tarfile.TarInfo(f"UTKFace/{20 + i}_{i % 2}_{i % 3}_2017011617{i:07d}.jpg.chip.jpg")
            info.size = len(picture(i))
            archive.addfile(info, io.BytesIO(picture(i)))
    assert "utkface: 20 rows" in embedx("data", "get", "utkface").stdout
    assert "utkface: sound" in embedx("data", "check", "utkface").stdout
    asked = embedx("data", "get", "celeba", code=1).stderr
    assert "put img_align_celeba.zip, list_attr_celeba.txt, list_eval_partition.txt into" in asked


def test_a_dataset_of_another_name_and_a_plug_in_outside(folder, monkeypatch):
    (folder / "moons.py").write_text(
        '"""Two moons."""\n'
        "from embedx.data.download import Download\n"
        "from embedx.data.manifest import build\n"
        "DOWNLOADS = (Download('list.txt', licence='CC0'),)\n"
        "BY_HAND = 'from the moon'\n"
        "def read(root, label='x'):\n"
        "    return build('moons', {'id': ['a', 'b'], 'label': [label, 'y'], 'split': ['train', 'test']},"
        " root=str(root.resolve()))\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    assert "from the moon; put list.txt into here" in embedx("data", "get", "py:moons", "-o", "here", code=1).stderr
    (folder / "here" / "list.txt").touch()
    text = embedx("data", "get", "mine=py:moons", "-o", "here", "-O", "label=z").stdout
    assert "mine: 2 rows" in text and "mine is prepared; next: embedx extract mine -b BACKBONE" in text
    assert "mine was prepared from files of your own" in embedx("data", "get", "mine", code=1).stderr.replace("'", "")
    sys.modules.pop("moons")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "folder"], "dataset 'folder' has no public files to fetch; with the files in a folder"),
        (["get", "waterbrids"], "unknown dataset 'waterbrids': did you mean 'waterbirds'"),
        (["check", "waterbirds"], "dataset 'waterbirds' needs its files"),
        (["check", "nothing"], "unknown dataset 'nothing'"),
    ],
)
def test_mistakes_are_one_line(folder, words, message):
    result = embedx("data", *words, code=1)
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_usage_and_help(folder):
    embedx("data", "get", code=2)
    for words in (["data"], ["data", "get"], ["data", "check"]):
        text = embedx(*words, "--help").stdout
        assert "Example:" in text and f"embedx {' '.join(words)}" in text


def test_licences_said_before_are_those_of_the_manifest():
    for module in (waterbirds, celeba, utkface):
        text = Path(module.__file__).read_text(encoding="utf-8")
        assert text.count(f'licence="{module.DOWNLOADS[0].licence}"') == 2
