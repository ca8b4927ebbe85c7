"""Sources give the right bytes or an OSError, here and in other processes; archives are found by address."""

import io
import multiprocessing
import os
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedx.data.sources import Folder, HuggingFace, Tars, archives, open_source, tars
from embedx.data.sources.archives import braces, listed, open_archive
from embedx.data.sources.hugging_face import PREFIX, address_of, split_address
from embedx.datasets._members import Member, Members, table
from embedx.errors import ManifestError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def packed(members, form="ustar"):
    """The bytes of an archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=FORMATS[form]) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def indexed(root, folder, *names):
    """Tars over all regular members of the archives."""
    rows = {}
    for name in names:
        with open_archive(str(root), name) as file:
            rows |= {f"{name}/{m.name}": m for m in Members(file, name)}
    np.save(folder / "members.npy", table(list(rows), list(rows.values())))
    return Tars(str(root), folder / "members.npy")


def images(n, size=3000):
    return {f"{i:04d}.jpg": np.random.default_rng(i).bytes(size + i) for i in range(n)}


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def outcome(source, row_id):
    try:
        return source.read(row_id)
    except OSError as error:
        return error.strerror


def test_folder_reads_regular_files_only(tmp_path):
    (tmp_path / "a.png").write_bytes(b"bytes")
    os.mkfifo(tmp_path / "pipe")
    source = Folder(tmp_path)
    assert [outcome(source, i) for i in ("a.png", "b.png", "pipe")] == [b"bytes", "no such file", "not a regular file"]
    assert source.place == str(tmp_path)


def test_the_root_and_the_index_say_which_source(tmp_path):
    index = tmp_path / "members.npy"
    assert open_source("/x", index) == Folder(Path("/x"))
    index.touch()
    assert open_source("/x", index) == Tars("/x", index)
    assert open_source(PREFIX + "/x", index) == HuggingFace(PREFIX + "/x")


name = st.text(st.sampled_from("ab.é鳥/ "), min_size=1, max_size=12).map(lambda s: "/".join(filter(None, s.split("/"))))
long = st.builds(lambda n, k: f"{n}/" * k + n, st.sampled_from(["folder", "ünïcode"]), st.integers(1, 40))
names = st.lists((name | long).filter(lambda n: n and not n.startswith("./")), min_size=1, max_size=5, unique=True)


@settings(max_examples=60, deadline=None)
@given(names, st.sampled_from(["gnu", "pax"]), st.floats(0, 1), st.data())
def test_an_archive_cut_anywhere_gives_right_bytes_or_an_error(tmp_path_factory, names, form, where, data):
    folder = tmp_path_factory.mktemp("cut")
    members = {n: data.draw(st.binary(max_size=700)) for n in names}
    whole = packed(members, form)
    (folder / "a.tar").write_bytes(whole)
    source = indexed(folder, folder, "a.tar")
    assert {n: outcome(source, f"a.tar/{n}") for n in members} == members
    cut = int(where * len(whole))
    (folder / "a.tar").write_bytes(whole[:cut])
    for n, content in members.items():  # indexed when it was whole
        assert outcome(source, f"a.tar/{n}") in (content, "the archive ends early")
    with (folder / "a.tar").open("rb") as file:
        found = Members(file, "a.tar")
        seen = {m.name: m for m in found}
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        last = tar.getmembers()[-1]
    assert bool(found.trouble) == (cut < last.offset_data + -(-last.size // 512) * 512 + 512)
    if seen:
        np.save(folder / "members.npy", table([f"a.tar/{n}" for n in seen], list(seen.values())))
        for n, m in seen.items():  # indexed as it is now
            want = members[n] if m.whole else "the archive ends early"
            assert outcome(Tars(str(folder), folder / "members.npy"), f"a.tar/{n}") == want


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8))
@example([(124 + i, 0xFF) for i in range(12)])
@example([(124, 0x80), (134, 2)])
def test_a_damaged_archive_is_noticed_or_read_rightly(tmp_path_factory, spots):
    folder = tmp_path_factory.mktemp("damaged")
    members = {"a.jpg": b"x" * 600, "b/" * 70 + "b.jpg": b"y" * 10, "c.jpg": b"z" * 512}
    data = bytearray(packed(members, "pax"))
    for where, value in spots:
        data[where % len(data)] = value
    (folder / "a.tar").write_bytes(data)
    with (folder / "a.tar").open("rb") as file:
        try:
            found = list(Members(file, "a.tar"))
        except ManifestError as error:
            assert "is no tar archive" in str(error) or "is compressed" in str(error)
            return
    assert all(0 < m.offset <= len(data) and 0 <= m.size <= len(data) - m.offset + 1 for m in found)
    assert all(m.whole == (m.offset + m.size <= len(data)) for m in found)


def test_a_header_that_claims_a_long_name_is_not_believed(tmp_path):
    whole = bytearray(packed({"n" * 2_000_000 + ".jpg": b"x", "b.jpg": b"y"}, "gnu"))
    (tmp_path / "a.tar").write_bytes(packed({"a.jpg": b"a"})[:1024] + whole)
    with (tmp_path / "a.tar").open("rb") as file:
        members = Members(file, "a.tar")
        assert [m.name for m in members] == ["a.jpg"]
    assert members.trouble == "is damaged at byte 1,024 (a name of 2,000,384 bytes)"


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_written_anew_is_not_read_by_the_old_index(tmp_path, form):
    (tmp_path / "a.tar").write_bytes(packed({"1.npy": b"one", "2.npy": b"two", "3.npy": b"three"}, form))
    source = indexed(tmp_path, tmp_path, "a.tar")
    assert source.read("a.tar/1.npy") == b"one"
    (tmp_path / "new").write_bytes(packed({"2.npy": b"two", "1.npy": b"one", "3.npy": b"trio"}, form))
    (tmp_path / "new").replace(tmp_path / "a.tar")
    changed = "the archive has changed since it was indexed"
    assert [outcome(source, f"a.tar/{i}.npy") for i in "123"] == [changed] * 3
    (tmp_path / "a.tar").unlink()
    assert outcome(source, "a.tar/2.npy") == "no such archive"
    with pytest.raises(FileNotFoundError, match="not in the index of the archives"):
        source.read("a.tar/4.npy")


def test_members_keep_their_own_name_and_place(tmp_path):
    (tmp_path / "a.tar").write_bytes(packed({"./1.jpg": b"one", "é/ü.jpg": b"two", "x" * 99 + ".jpg": b"three"}, "gnu"))
    source = indexed(tmp_path, tmp_path, "a.tar")
    assert [source.read(f"a.tar/{n}") for n in ("1.jpg", "é/ü.jpg", "x" * 99 + ".jpg")] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("address", ["", "file://"])
def test_processes_read_at_once_what_one_reads(tmp_path, context, address):
    members = images(60)
    (tmp_path / "a.tar").write_bytes(packed(members))
    source = indexed(f"{address}{tmp_path}", tmp_path, "a.tar")
    ids = [f"a.tar/{n}" for n in members] * 3
    assert [source.read(i) for i in ids] == [*members.values()] * 3  # the parent's archive is open from here on
    with multiprocessing.get_context(context).Pool(2) as pool:
        assert pool.map(source.read, ids, chunksize=1) == [*members.values()] * 3


def test_what_is_sent_to_a_process_is_small(tmp_path):
    (tmp_path / "a.tar").write_bytes(packed(images(300, 10)))
    source = indexed(tmp_path, tmp_path, "a.tar")
    source.read("a.tar/0001.jpg")
    sent = pickle.dumps(source)
    assert len(sent) < 150 + 2 * len(str(tmp_path)), "two paths and little more"
    assert pickle.loads(sent) == source


def test_far_rows_in_order_come_many_at_a_time_and_others_singly(tmp_path, memory, monkeypatch):
    members = images(400)
    memory.pipe("/data/a.tar", packed(members))
    asked = []
    real = memory.cat_file
    monkeypatch.setattr(
        type(memory), "cat_file", lambda self, path, start, end: (asked.append(end - start), real(path, start, end))[1]
    )
    source = indexed("memory://data", tmp_path, "a.tar")
    assert [source.read(f"a.tar/{n}") for n in members] == [*members.values()]
    assert len(asked) <= 4
    asked.clear()
    order = np.random.default_rng(0).permutation(list(members))
    assert [source.read(f"a.tar/{n}") for n in order] == [members[n] for n in order]
    assert np.median(asked) < 4096
    assert outcome(source, "a.tar/x.jpg") == "not in the index of the archives"
    memory.rm("/data/a.tar")
    tars._window = ((0, "", ""), 0, b"")
    assert outcome(source, "a.tar/0001.jpg") == "no such archive"


@pytest.mark.parametrize(("failures", "want"), [(2, b"one"), (3, "OverflowError busy")])
def test_a_request_that_fails_is_made_again(tmp_path, memory, monkeypatch, failures, want):
    memory.pipe("/data/a.tar", packed({"1.jpg": b"one"}))
    source = indexed("memory://data", tmp_path, "a.tar")
    left, real = [failures], memory.cat_file

    def cat_file(self, *args, **kwargs):
        left[0] -= 1
        if left[0] >= 0:
            raise OverflowError("busy\nsecond line")
        return real(*args, **kwargs)

    tars._window = ((0, "", ""), 0, b"")
    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    monkeypatch.setattr(tars.time, "sleep", lambda seconds: None)
    assert outcome(source, "a.tar/1.jpg") == want


class Ranged(SimpleHTTPRequestHandler):
    """A server of files that answers ranged requests, or, as Python's own does, sends whole files only."""

    ranges = True

    def log_message(self, *args):
        pass

    def send_head(self):
        wanted = self.headers.get("Range")
        if not (self.ranges and wanted and Path(self.translate_path(self.path)).is_file()):
            return super().send_head()
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = wanted.removeprefix("bytes=").split("-")
        piece = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(piece) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        return io.BytesIO(piece)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ranges", [True, False])
def test_archives_of_a_web_server(tmp_path, monkeypatch, ranges):
    pytest.importorskip("aiohttp")
    members = images(50)
    (tmp_path / "a.tar").write_bytes(packed(members))
    monkeypatch.setattr(Ranged, "ranges", ranges)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranged, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        assert listed(f"{base}/{{a,a}}.tar") == (base, ["a.tar"])
        if ranges:
            source = indexed(base, tmp_path, "a.tar")
            assert [source.read(f"a.tar/{n}") for n in members] == [*members.values()]
            return
        source = Tars(base, indexed(tmp_path, tmp_path, "a.tar").index)
        assert outcome(source, "a.tar/0003.jpg") == "the server sends whole files only, no parts of them"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        ("a.tar", ["a.tar"]),
        ("{a,b}/{08..10}.tar", [f"{x}/{n}.tar" for x in "ab" for n in ("08", "09", "10")]),
        ("{000..002}", ["000", "001", "002"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{a,{b,c}}", ["a", "b", "a", "c"]),
    ],
)
def test_braces_are_those_of_a_shell(pattern, want):
    assert sorted(braces(pattern)) == sorted(want)


@pytest.mark.parametrize("pattern", ["{a}", "{}", "{3..1}", "{0..99999999999}", "{a..c}"])
def test_other_braces_are_refused(pattern):
    with pytest.raises(ManifestError, match=r"is neither a range like .*000\.\.010|should count upwards"):
        braces(pattern)


TREE = ["train/000.tar", "train/001.tar", "val/000.tar", "notes.txt", ".hidden/x.tar", "val/._000.tar"]


@pytest.mark.parametrize(
    ("address", "base", "found"),
    [
        ("", "", ["train/000.tar", "train/001.tar", "val/000.tar"]),
        ("/train", "/train", ["000.tar", "001.tar"]),
        ("/train/001.tar", "/train", ["001.tar"]),
        ("/train/*.tar", "/train", ["000.tar", "001.tar"]),
        ("/*/000.tar", "", ["train/000.tar", "val/000.tar"]),
        ("/train/{000..001}.tar", "/train", ["000.tar", "001.tar"]),
        ("/{train/00[01],val/000}.tar", "", ["train/000.tar", "train/001.tar", "val/000.tar"]),
    ],
)
@pytest.mark.parametrize("far", [False, True])
def test_addresses_of_archives(tmp_path, memory, address, base, found, far):
    for path in TREE:
        (tmp_path / "d" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / path).touch()
        memory.pipe(f"/d/{path}", b"")
    root = "memory://d" if far else str(tmp_path / "d")
    assert listed(root + address) == (root + base, found)


def test_a_folder_called_like_a_pattern_is_that_folder(tmp_path, monkeypatch):
    (tmp_path / "d [1]{a}").mkdir()
    (tmp_path / "d [1]{a}" / "x.tar").touch()
    monkeypatch.chdir(tmp_path)
    assert listed("d [1]{a}") == (str(tmp_path / "d [1]{a}"), ["x.tar"])
    assert listed("d [1]{a}/x.tar") == (str(tmp_path / "d [1]{a}"), ["x.tar"])


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize(
    ("files", "address", "message"),
    [
        (["a.txt"], "", r"names no .tar file; expected a folder of them, one, or data/\{000..010\}.tar"),
        (["a.tar", "b.tar.gz"], "", r"b.tar.gz is compressed, .*; unpack it to a plain .tar first"),
        (["b.tgz"], "/b.tgz", r"b.tgz is compressed"),
        (["a.tar/b.tar"], "", r"a.tar/b.tar lies in a folder called .tar; rename"),
    ],
)
def test_addresses_that_are_refused(tmp_path, memory, far, files, address, message):
    for path in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
        memory.pipe(f"/d/{path}", b"")
    with pytest.raises(ManifestError, match=message):
        listed(("memory://d" if far else str(tmp_path)) + address)


@pytest.mark.parametrize("address", ["/nowhere", "/nowhere/*.tar", "/nowhere/{0..1}.tar"])
def test_what_does_not_exist_is_said(tmp_path, address):
    with pytest.raises(ManifestError, match=r"nowhere.* does not exist; say with --root where the .tar files lie"):
        listed(f"{tmp_path}{address}")


def test_far_addresses_that_cannot_be_opened(monkeypatch):
    with pytest.raises(
        ManifestError, match=r"no-such://b/d cannot be opened \(Protocol not known: no-such.*protocols of"
    ):
        listed("no-such://b/d")
    for address in ("memory://*.tar", "memory://a.tar"):
        with pytest.raises(ManifestError, match=r"no folder is named before the archives; write one, like s3://"):
            listed(address)
    archives.filesystem.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(ManifestError, match=r"memory://d needs fsspec: pip install 'embedx\[webdataset\]'"):
        listed("memory://d")


def test_what_a_library_of_servers_raises_is_one_line(memory, monkeypatch):
    def find(*args):
        raise RuntimeError("no credentials\nlong story")

    monkeypatch.setattr(type(memory), "find", find)
    with pytest.raises(ManifestError, match=r"^memory://d cannot be read \(RuntimeError no credentials\); see fsspec"):
        listed("memory://d")


words = st.text(min_size=1, max_size=12).filter(lambda s: "\0" not in s and s.isprintable())


@given(words, st.dictionaries(st.sampled_from(["config", "image", "revision"]), words))
def test_an_address_of_a_dataset_says_what_went_into_it(tmp_path_factory, path, options):
    folder = tmp_path_factory.mktemp("hf") / path.replace("/", "_").replace(".", "_")
    folder.mkdir()
    address = address_of(str(folder), **options)
    assert split_address(address) == (str(folder), options)
    assert address_of(address) == address
    assert "?" not in address.partition("?")[2]


def test_members_of_tables_are_sorted_as_their_ids():
    ids = ["b.tar/é", "a.tar/z", "a.tar/鳥", "a.tar/z.jpg"]
    index = table(ids, [Member("", 10 * i, i, whole=True) for i in range(4)])
    assert [i.decode() for i in index["id"]] == sorted(ids)
    assert index["offset"].tolist() == [10 * ids.index(i) for i in sorted(ids)]


def test_a_member_that_claims_more_than_there_can_be_is_one_that_ends_early(tmp_path):
    info = tarfile.TarInfo("b.jpg")
    info.size = 1 << 70
    (tmp_path / "a.tar").write_bytes(packed({"a.jpg": b"a"})[:1024] + info.tobuf(tarfile.GNU_FORMAT) + b"b" * 100)
    source = indexed(tmp_path, tmp_path, "a.tar")
    assert [outcome(source, f"a.tar/{n}.jpg") for n in "ab"] == [b"a", "the archive ends early"]
