"""Files over a network that fails in every way, and archives sent by an enemy."""

import bz2
import gzip
import hashlib
import io
import lzma
import subprocess
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from urllib.request import Request

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedx.data.download import Download, content, fetch, get, place, unpack
from embedx.data.download.compressed import decompressed
from embedx.data.download.item import silent
from embedx.datasets import _mnist, celeba, utkface, waterbirds
from embedx.errors import DownloadError

BYTES = bytes(range(256)) * 400
DATED = {"etag": "", "modified": "Sat, 01 Jan 2022 00:00:00 GMT"}


class Shop(BaseHTTPRequestHandler):
    """Serves `data` with the faults listed in `faults`, one per request: bytes to send, minus a code, an address."""

    protocol_version = "HTTP/1.1"
    data, etag, modified, ranges, length, heeds, chunked = BYTES, '"1"', "", True, True, True, False
    faults: list = []  # noqa: RUF012
    seen: list = []  # noqa: RUF012
    after = staticmethod(lambda: None)

    def do_GET(self):
        cls = type(self)
        cls.seen.append({"path": self.path, **self.headers})
        fault = cls.faults.pop(0) if cls.faults else None
        if isinstance(fault, str):
            return self._head(302, 0, Location=fault)
        if fault is not None and fault < 0:
            return self._head(-fault, 0, **({"Retry-After": "7"} if fault == -429 else {}))
        start, code, more = 0, 200, {}
        asked = self.headers.get("Range")
        if asked and cls.ranges:
            mark = self.headers.get("If-Range")
            if mark in (None, cls.etag, cls.modified) or not cls.heeds:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(cls.data):
                    return self._head(416, 0, **{"Content-Range": f"bytes */{len(cls.data)}"})
                code, more = 206, {"Content-Range": f"bytes {start}-{len(cls.data) - 1}/{len(cls.data)}"}
        body = cls.data[start:]
        self._head(code, len(body), **more)
        sent = body if fault is None else body[:fault]
        if cls.chunked:
            for at in range(0, len(sent), 9999):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(sent[at : at + 9999]), sent[at : at + 9999]))
            self.wfile.write(b"0\r\n\r\n" if len(sent) == len(body) else b"")
        else:
            self.wfile.write(sent)
        if len(sent) < len(body) or not cls.length:
            self.close_connection = True
        cls.after()
        return None

    def _head(self, code, size, **more):
        self.send_response(code)
        if self.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif self.length:
            self.send_header("Content-Length", str(size))
        for name, value in {"ETag": self.etag, "Last-Modified": self.modified, **more}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    shop = type("ThisShop", (Shop,), {})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), shop)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield SimpleNamespace(shop=shop, url=f"http://127.0.0.1:{httpd.server_port}/")
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def shop(server):
    return freshen(server)


def freshen(server, **state):
    for name in [n for n in vars(server.shop) if not n.startswith("__")]:
        delattr(server.shop, name)
    server.shop.seen = []
    server.shop.faults = []
    for name, value in state.items():
        setattr(server.shop, name, value)
    server.waits = []
    server.fetch = lambda folder, **facts: fetch(
        Download("file.bin", **{"urls": (server.url + "file.bin",), **facts}), folder, pause=server.waits.append
    )
    return server


def ranges(shop):
    return [r.get("Range") for r in shop.shop.seen]


def test_a_file_comes_as_it_is_and_is_not_asked_for_again(shop, tmp_path):
    file = shop.fetch(tmp_path, size=len(BYTES), sha256=hashlib.sha256(BYTES).hexdigest())
    assert file.read_bytes() == BYTES
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
    assert shop.shop.seen[0]["Accept-Encoding"] == "identity"
    shop.fetch(tmp_path, size=len(BYTES))
    assert len(shop.shop.seen) == 1


@given(
    cuts=st.lists(st.integers(0, len(BYTES)), max_size=3),
    mode=st.sampled_from(["etag", "date", "weak", "none", "no ranges", "no length", "chunked"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_it_is_cut_the_bytes_are_the_same(server, tmp_path_factory, cuts, mode):
    state = {
        "etag": {}, "date": DATED, "weak": {"etag": 'W/"1"'},
        "none": {"etag": ""}, "no ranges": {"ranges": False}, "no length": {"length": False},
        "chunked": {"chunked": True},
    }[mode]  # fmt: skip
    shop = freshen(server, faults=list(cuts), **state)
    size = len(BYTES) if mode == "no length" else None  # else nobody could know that something is missing
    assert shop.fetch(tmp_path_factory.mktemp("cut"), size=size).read_bytes() == BYTES


@pytest.mark.parametrize("state", [{}, DATED, {"etag": ""}, DATED | {"etag": 'W/"1"'}, {"etag": 'W/"1"'}])
def test_it_goes_on_in_a_later_process(server, tmp_path, state):
    shop = freshen(server, faults=[70_000, *[-503] * 4], **state)
    with pytest.raises(DownloadError, match=r"503 .*4 times in a row.*what has come is kept"):
        shop.fetch(tmp_path)
    assert [p.stat().st_size for p in tmp_path.glob("*.part")] == [70_000]
    freshen(server, **state)
    assert shop.fetch(tmp_path).read_bytes() == BYTES
    assert ranges(shop) == ["bytes=70000-"]
    wanted = '"1"' if "etag" not in state else state.get("modified", "")
    assert shop.shop.seen[0].get("If-Range", "") == wanted


@pytest.mark.parametrize(
    ("state", "later"),
    [
        ({}, {"etag": '"2"'}),
        ({}, {"etag": '"2"', "heeds": False}),
        ({"etag": ""}, {"etag": "", "longer": True}),
        ({"etag": ""}, {"etag": "", "shorter": True}),
        (DATED, DATED | {"modified": "Sun, 02 Jan 2022 00:00:00 GMT", "heeds": False}),
    ],
)  # fmt: skip
def test_a_file_that_changed_is_not_glued_together(server, tmp_path, state, later):
    shop = freshen(server, faults=[70_000, *[-500] * 4], **state)
    with pytest.raises(DownloadError):
        shop.fetch(tmp_path)
    new = BYTES[::-1] + b"x" * later.pop("longer", False)
    new = new[:60_000] if later.pop("shorter", False) else new
    freshen(server, data=new, **later)
    assert shop.fetch(tmp_path).read_bytes() == new


def test_two_failures_are_waited_out_and_a_long_one_ends(shop, tmp_path):
    shop.shop.faults = [-500, -503]
    assert shop.fetch(tmp_path).read_bytes() == BYTES
    assert shop.waits == [1, 2]
    shop.shop.faults = [-429] * 9
    with pytest.raises(DownloadError, match="429"):
        fetch(Download("other", (shop.url,)), tmp_path, pause=shop.waits.append)
    assert shop.waits[2:] == [7, 7, 7]


def test_a_server_that_always_cuts_is_given_up_and_one_that_brings_something_is_not(shop, tmp_path):
    shop.shop.faults = [10_000] * 9
    assert shop.fetch(tmp_path).read_bytes() == BYTES
    assert len(shop.shop.seen) == 10
    (tmp_path / "file.bin").unlink()
    freshen(shop, faults=[10_000] * 99, ranges=False)
    with pytest.raises(DownloadError, match="the connection ended after 10,000 bytes"):
        shop.fetch(tmp_path)
    assert len(shop.shop.seen) == 5


def test_mirrors_are_tried_in_order_and_never_mixed(shop, tmp_path):
    urls = (shop.url + "a", shop.url + "b")
    shop.shop.faults = [40_000, -404, None]
    assert shop.fetch(tmp_path, urls=urls).read_bytes() == BYTES
    assert [(r["path"], r.get("Range")) for r in shop.shop.seen] == [("/a", None), ("/a", "bytes=40000-"), ("/b", None)]
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
    freshen(shop, faults=[-404, -404])
    with pytest.raises(DownloadError, match=r"/a: the server answers 404 .*/b: the server answers 404"):
        fetch(Download("x", urls), tmp_path)


def test_an_unreachable_server_is_one_message(tmp_path):
    waits = []
    with pytest.raises(DownloadError, match=r"refused.*put the file into"):
        fetch(Download("x", ("http://127.0.0.1:9/x",)), tmp_path, pause=waits.append)
    assert waits == [1, 2, 4]


@pytest.mark.parametrize("facts", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_wrong_content_is_kept_aside_and_fetched_anew(shop, tmp_path, facts):
    (kind,) = facts
    with pytest.raises(DownloadError, match=f"its {kind} is {hashlib.new(kind, BYTES).hexdigest()}, expected 000"):
        shop.fetch(tmp_path, **facts)
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin.wrong"]
    assert shop.fetch(tmp_path, **{kind: hashlib.new(kind, BYTES).hexdigest()}).read_bytes() == BYTES


def test_wrong_sizes_and_web_pages_stop_at_once(shop, tmp_path):
    with pytest.raises(DownloadError, match=r"offers 102,400 bytes, expected 5"):
        shop.fetch(tmp_path, size=5)
    page = b"\n <!DOCTYPE html><html>log in" + b"x" * 3_000_000
    for data, message in ((page, "web page"), (page[:100], "web page"), (b"no archive" * 100, "expected a gzip file")):
        freshen(shop, data=data)
        with pytest.raises(DownloadError, match=message):
            fetch(Download("x.tar.gz", (shop.url,)), tmp_path)
        assert not list(tmp_path.glob("*.part*")) and not (tmp_path / "x.tar.gz").exists()
    assert not (tmp_path / "x.tar.gz.wrong").exists() or (tmp_path / "x.tar.gz.wrong").stat().st_size < 512


def test_a_file_put_there_by_hand_is_checked_and_never_touched(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"it has 4 bytes, expected 5; move it away"):
        fetch(Download("file.bin", size=5), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"


def test_a_redirection_leads_to_http_and_nowhere_else(shop, tmp_path):
    shop.shop.faults = [shop.url + "elsewhere"]
    assert shop.fetch(tmp_path).read_bytes() == BYTES
    (tmp_path / "secret").write_text("secret")
    for address, message in ((f"file://{tmp_path}/secret", "not allowed"), ("ftp://x/y", "leads on to ftp://x/y")):
        freshen(shop, faults=[address])
        with pytest.raises(DownloadError, match=message):
            fetch(Download("x", (shop.url,)), tmp_path)
    redirect = next(h for h in fetch_module()._opener().handlers if type(h).__name__ == "Redirect")
    with pytest.raises(fetch_module()._Refused, match="leads on to http://b, expected https"):
        redirect.redirect_request(Request("https://a"), None, 302, "", {}, "http://b")
    assert redirect.redirect_request(Request("https://a"), None, 302, "", {}, "https://b").full_url == "https://b"
    with pytest.raises(ValueError, match=r"no http\(s\) address"):
        Download("x", ("file:///etc/passwd",))
    with pytest.raises(ValueError, match="no plain name"):
        Download("../x")


def test_a_full_disk_is_told_before_and_during(shop, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=150_000))
        with pytest.raises(DownloadError, match=r"150.0 kB free; file.bin takes 204.8 kB more, unpacked"):
            shop.fetch(tmp_path, unpack="x")
        assert shop.fetch(tmp_path).exists()
    (tmp_path / "file.bin").unlink()
    part = place_of_part(tmp_path, shop.url + "file.bin")
    begin = fetch_module()._Part.begin
    monkeypatch.setattr(fetch_module()._Part, "begin", lambda self, f: (begin(self, f), part.symlink_to("/dev/full")))
    with pytest.raises(DownloadError, match="the disk is full after 0 bytes of file.bin; they are kept"):
        shop.fetch(tmp_path)


def fetch_module():
    import sys

    return sys.modules["embedx.data.download.fetch"]


def place_of_part(folder, url):
    return fetch_module()._Part.of(folder, Download("file.bin"), url).path


# Archives


def tar(path, members, compress=gzip.compress, end=True):
    """A tar archive of {name: bytes | TarInfo}."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, what in members.items():
            info = what if isinstance(what, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            data = what if isinstance(what, bytes) else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        length = archive.offset
    data = raw.getvalue() if end else raw.getvalue()[:length]
    path.write_bytes(compress(data))
    return path


def entry(kind, link="", **more):
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, link
    for name, value in more.items():
        setattr(info, name, value)
    return info


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, what in members.items():
            archive.writestr(name, what)
    return path


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


GOOD = {"top/a.png": b"1" * 700, "top/deep/b.png": b"", "top/c d é.png": b"3"}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_archives_become_the_folder(tmp_path, compress):
    told = []
    assert unpack(tar(tmp_path / "a", GOOD, compress), tmp_path / "top", before=told.append) == 3
    assert tree(tmp_path / "top") == {n.removeprefix("top/"): d for n, d in GOOD.items()}
    assert told == [3]
    assert unpack(zipped(tmp_path / "b", GOOD | {"__MACOSX/x": b""}), tmp_path / "other") == 4
    assert set(tree(tmp_path / "other")) == {*GOOD, "__MACOSX/x"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "other", "top"]


def test_a_hard_link_to_an_earlier_file_becomes_a_copy(tmp_path):
    members = {"a": b"same", "b": entry(tarfile.LNKTYPE, "a"), "c": entry(tarfile.DIRTYPE)}
    assert unpack(tar(tmp_path / "x.tgz", members), tmp_path / "out") == 2
    assert tree(tmp_path / "out") == {"a": b"same", "b": b"same"}
    assert (tmp_path / "out/a").stat().st_nlink == 1 and (tmp_path / "out/c").is_dir()


HOSTILE = {
    "above": {"../evil": b"x"},
    "above, later": {"a/../../evil": b"x"},
    "absolute": {"/tmp/embedx-evil": b"x"},
    "backslash": {"..\\evil": b"x"},
    "drive": {"C:/evil": b"x"},
    "symlink out": {"l": entry(tarfile.SYMTYPE, "../.."), "l/evil": b"x"},
    "symlink in": {"d/a": b"", "l": entry(tarfile.SYMTYPE, "d"), "l/evil": b"x"},
    "symlink chain": {"a": entry(tarfile.SYMTYPE, "."), "a/b": entry(tarfile.SYMTYPE, "..")},
    "hard link out": {"h": entry(tarfile.LNKTYPE, "../secret")},
    "hard link absolute": {"h": entry(tarfile.LNKTYPE, "/etc/passwd")},
    "hard link to nothing": {"h": entry(tarfile.LNKTYPE, "later"), "later": b""},
    "device": {"d": entry(tarfile.CHRTYPE, devmajor=1, devminor=3)},
    "pipe": {"d": entry(tarfile.FIFOTYPE)},
    "bomb": {"z": bytes(3_000_000)},
    "bomb of links": {"z": bytes(500_000), **{f"l{i}": entry(tarfile.LNKTYPE, "z") for i in range(9)}},
    "bomb of nothing": {f"{i}": b"" for i in range(2000)},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_leave_nothing_anywhere(tmp_path, what):
    (tmp_path / "secret").write_text("secret")
    members = {f"first/{i}": b"harmless" for i in range(3)} | HOSTILE[what]
    archive = tar(tmp_path / "x.tar.gz", members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DownloadError, match="is refused.*nothing was unpacked"):
        unpack(archive, tmp_path / "out", 1_000_000)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/embedx-evil").exists() and not (tmp_path.parent / "evil").exists()
    if not any(isinstance(m, tarfile.TarInfo) for m in members.values()):
        archive = zipped(tmp_path / "x.zip", members)
        told = "at most 1.0 MB; nothing was unpacked" if "bomb" in what else "is refused.*nothing was unpacked"
        with pytest.raises(DownloadError, match=told):
            unpack(archive, tmp_path / "out", 1_000_000)
        assert sorted(tmp_path.rglob("*")) == sorted([*before, archive])


def test_a_zip_with_a_link_or_a_password_or_a_lie_is_refused(tmp_path):
    info = zipfile.ZipInfo("l")
    info.external_attr = 0o120777 << 16
    with pytest.raises(DownloadError, match="it holds 'l', a link or device"):
        unpack(zipped(tmp_path / "x", {info: "/etc"}), tmp_path / "out")
    data = bytearray(zipped(tmp_path / "x", {"a": bytes(5000)}).read_bytes())
    at = data.rindex(b"PK\x01\x02")
    short = data[:]
    short[at + 24 : at + 28] = (10).to_bytes(4, "little")  # the declared size
    locked = data[:]
    locked[at + 8] |= 1
    for content_, message in ((short, "damaged"), (locked, "damaged .*password")):
        (tmp_path / "x").write_bytes(content_)
        with pytest.raises(DownloadError, match=message):
            unpack(tmp_path / "x", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_header_that_claims_to_be_huge_takes_no_memory(tmp_path):
    info = entry(tarfile.XHDTYPE)
    info.size = 8**11 - 1
    (tmp_path / "x").write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)))
    with pytest.raises(DownloadError, match="more than its size allows"):
        unpack(tmp_path / "x", tmp_path / "out")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_archives_cut_anywhere_are_noticed(tmp_path, compress):
    whole = tar(tmp_path / "x", GOOD, compress).read_bytes()
    data = tar(tmp_path / "x", GOOD, bytes, end=False).read_bytes() if compress is bytes else whole
    step = 512 if compress is bytes else max(len(whole) // 40, 1)
    for cut in [*range(0, len(data) - 1, step), len(data) - 1, *([len(data)] if compress is bytes else [])]:
        (tmp_path / "x").write_bytes(data[:cut])
        with pytest.raises(DownloadError, match="is damaged .*delete it"):
            unpack(tmp_path / "x", tmp_path / "top")
        assert [p.name for p in tmp_path.iterdir()] == ["x"], cut
    zipped(tmp_path / "x", GOOD)
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-30])
    with pytest.raises(DownloadError, match="is damaged"):
        unpack(tmp_path / "x", tmp_path / "top")


def test_a_header_damaged_in_the_middle_is_not_taken_for_the_end(tmp_path):
    data = bytearray(tar(tmp_path / "x", GOOD, bytes).read_bytes())
    at = data.index(b"top/deep")
    data[at] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DownloadError, match="ends without an end mark"):
        unpack(tmp_path / "x", tmp_path / "top")


@pytest.mark.parametrize("inner", [0, 10_240])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
@pytest.mark.parametrize("whole", [True, False])
def test_archives_joined_to_one_become_one_folder(tmp_path, compress, inner, whole):
    """Joined before they were compressed, or after; GNU tar is the oracle."""
    parts = [{"top/a": b"1" * 700}, {"top/b": b"2" * 512, "top/c": b""}, {}, {"top/d": b"4"}]
    plain = [tar(tmp_path / "x", p, bytes).read_bytes() + bytes(inner) for p in parts]
    (tmp_path / "x").write_bytes(compress(b"".join(plain)) if whole else b"".join(map(compress, plain)))
    assert unpack(tmp_path / "x", tmp_path / "top") == 4
    assert tree(tmp_path / "top") == {n.removeprefix("top/"): d for p in parts for n, d in p.items()}
    (tmp_path / "y").write_bytes(b"".join(plain))
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "--ignore-zeros", "-C", tmp_path / "theirs", "-xf", tmp_path / "y"], check=True)
    assert tree(tmp_path / "theirs/top") == tree(tmp_path / "top")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
@pytest.mark.parametrize("tail", [b"garbage" * 9, b"BZh9 and no more", b"x"])
def test_what_follows_an_archive_and_cannot_be_read_is_an_error(tmp_path, compress, tail):
    whole = tar(tmp_path / "x", GOOD, bytes).read_bytes()
    for data in (compress(whole + tail), compress(whole) + tail, compress(whole) + compress(whole)[:-20]):
        (tmp_path / "x").write_bytes(data)
        if compress is bytes and not data.rstrip(b"\0").endswith(tail):
            continue  # zeros cut off
        with pytest.raises(DownloadError, match="is damaged"):
            unpack(tmp_path / "x", tmp_path / "top")
    (tmp_path / "x").write_bytes(compress(whole) + bytes(4096))  # padding
    assert unpack(tmp_path / "x", tmp_path / "top") == 3


@pytest.mark.parametrize("kind", ["bz2", "xz"])
def test_compressed_streams_are_read_and_sought_as_the_library_does(kind):
    new, theirs = {"bz2": (bz2.compress, bz2.BZ2File), "xz": (lzma.compress, lzma.LZMAFile)}[kind]
    data = [bytes([n]) * (70_000 + n) for n in range(4)] + [b""]
    raw = b"".join(map(new, data))
    with decompressed(io.BytesIO(raw)) as ours, theirs(io.BytesIO(raw)) as known:
        for at, size in [(0, 10), (70_000, 9), (5, 200_000), (279_990, 99), (69_999, 3), (300_000, 1), (0, -1)]:
            ours.seek(at)
            known.seek(at)
            assert (ours.read(size), ours.tell()) == (known.read(size), known.tell())


def test_zips_that_hold_more_than_their_list_are_refused(tmp_path):
    a = zipped(tmp_path / "a", {"top/1": b"1"}).read_bytes()
    b = zipped(tmp_path / "b", {"top/2": b"2"}).read_bytes()
    parts = bytearray(b)
    parts[parts.rindex(b"PK\x05\x06") + 4] = 1
    for data, message in (
        (a + b, rf"it holds {len(a)} bytes before the first of its files, as when archives were joined to one"),
        (a + b"torn", r"it holds 4 bytes behind its end, as when something was joined to it"),
        (a + b[:40], r"it holds 40 bytes behind its end"),
        (parts, r"it holds the last part of an archive in several parts; make one of them"),
    ):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(DownloadError, match=f"is refused: {message}"):
            unpack(tmp_path / "x", tmp_path / "top")
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("1", b"1")
        archive.comment = b"a comment"
    (tmp_path / "y").write_bytes(b"PK00" + (tmp_path / "x").read_bytes())
    assert unpack(tmp_path / "x", tmp_path / "top") == unpack(tmp_path / "y", tmp_path / "other") == 1


def test_a_folder_left_by_a_kill_does_not_mix_in(tmp_path):
    (tmp_path / ".top.0011223344556677.part").mkdir()
    (tmp_path / ".top.0011223344556677.part" / "old").touch()
    unpack(tar(tmp_path / "x", GOOD), tmp_path / "top")
    assert "old" not in tree(tmp_path / "top")


# Datasets


def test_everything_once_and_then_nothing(server, tmp_path):
    shop = freshen(server, data=tar(tmp_path / "x", GOOD).read_bytes())
    items = (Download("a.tar.gz", (shop.url,), unpack="top"),)
    got = get(items, tmp_path / "in")
    assert (got.root, got.done, got.spare) == (tmp_path / "in/top", ("a.tar.gz",), (tmp_path / "in/a.tar.gz",))
    (tmp_path / "in/a.tar.gz").unlink()
    again = get(items, tmp_path / "in")
    assert (again.done, again.spare, len(shop.shop.seen)) == ((), (), 1)
    (tmp_path / "in/top/a.png").unlink()
    with pytest.raises(DownloadError, match=r"holds 2 files, a.tar.gz has 3; move it away"):
        get(items, tmp_path / "in")


def test_a_folder_of_somebody_else_is_left_alone(server, tmp_path):
    shop = freshen(server, data=tar(tmp_path / "x", GOOD).read_bytes())
    (tmp_path / "in/top").mkdir(parents=True)
    with pytest.raises(DownloadError, match="was not made by this command; use it with --root"):
        get((Download("a.tar.gz", (shop.url,), unpack="top"),), tmp_path / "in")
    assert shop.shop.seen == []


def test_a_kill_between_unpacking_and_the_name_is_made_good(server, tmp_path, monkeypatch):
    shop = freshen(server, data=tar(tmp_path / "x", GOOD).read_bytes())
    items = (Download("a.tar.gz", (shop.url,), unpack="top"),)
    with monkeypatch.context() as m:
        m.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            get(items, tmp_path / "in")
    assert not (tmp_path / "in/top").exists()
    assert get(items, tmp_path / "in").done == ("a.tar.gz",)
    assert len(tree(tmp_path / "in/top")) == 3 and len(shop.shop.seen) == 1


def test_a_kill_just_after_the_name_is_no_loss(server, tmp_path, monkeypatch):
    shop = freshen(server, data=tar(tmp_path / "x", GOOD).read_bytes())
    items, rename = (Download("a.tar.gz", (shop.url,), unpack="top"),), Path.rename

    def renamed_and_killed(path, target):
        rename(path, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Path, "rename", renamed_and_killed)
        with pytest.raises(KeyboardInterrupt):
            get(items, tmp_path / "in")
    assert get(items, tmp_path / "in").done == ()


def test_a_plain_file_that_changed_later_is_noticed(shop, tmp_path):
    items = (Download("a", (shop.url,), md5=hashlib.md5(BYTES).hexdigest()),)
    assert [get(items, tmp_path).done for _ in range(2)] == [("a",), ()]
    (tmp_path / "a").write_bytes(b"short")
    with pytest.raises(DownloadError, match=r"its md5 is .*move it away"):
        get(items, tmp_path)


def test_files_by_hand_are_asked_for_all_at_once(tmp_path):
    items = (Download("a.zip", unpack="pictures"), Download("b.txt"), Download("c.txt"))
    (tmp_path / "c.txt").touch()
    with pytest.raises(DownloadError, match=r"from the moon; put a.zip, b.txt into .* and give the same command"):
        get(items, tmp_path, "from the moon")
    zipped(tmp_path / "a.zip", {"pictures/1.png": b"1"})
    (tmp_path / "b.txt").touch()
    got = get(items, tmp_path)
    assert got.root == tmp_path and tree(tmp_path / "pictures") == {"1.png": b"1"}
    assert get(items, tmp_path).done == ()


def test_of_two_processes_the_second_waits_and_finds_it_done(shop, tmp_path):
    items, told, results = (Download("a", (shop.url,)),), Event(), []

    def tell(done, total, what=""):
        if "waiting" in what:
            told.set()

    def second():
        results.append(get(items, tmp_path, progress=tell))

    with place._alone(tmp_path, silent):
        waiting = Thread(target=second)
        waiting.start()
        assert told.wait(60)
        assert not results and not (tmp_path / "a").exists()
    waiting.join(60)
    assert [got.done for got in results] == [("a",)]
    assert get(items, tmp_path).done == ()


def test_the_tables_of_the_datasets():
    from torchvision.datasets import MNIST, CelebA

    published = {name: md5 for _, md5, name in CelebA.file_list}
    assert {d.name: d.md5 for d in celeba.DOWNLOADS} == {d.name: published[d.name] for d in celeba.DOWNLOADS}
    assert celeba.BY_HAND and utkface.BY_HAND and not any(d.urls for d in (*celeba.DOWNLOADS, *utkface.DOWNLOADS))
    assert [(d.name, d.md5) for d in _mnist.downloads()] == MNIST.resources
    assert all(d.urls and all(u.endswith("/" + d.name) for u in d.urls) for d in _mnist.downloads())
    (birds,) = waterbirds.DOWNLOADS
    assert birds.urls[0] == "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz"
    assert birds.unpack + ".tar.gz" == birds.name
    assert content.MAGIC
