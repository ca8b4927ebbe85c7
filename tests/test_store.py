"""The feature cache: what is written is what is read, and what does not fit its checksum is refused."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedx.data.manifest import ids_digest
from embedx.data.status import Status
from embedx.errors import CacheError, ProvenanceError
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.store.header import DTYPES, require

PROVENANCE = {"spec": "raw:1x1", "identity": {"weights": "abc"}, "conditions": {"device": "cpu", "batch": 4}}


def header(ids, dim=3, dtype="float32", start=0, total=None):
    n = len(ids)
    return Header("raw:1x1", dim, dtype, ids_digest(ids), start, start + n, total or n, PROVENANCE)


def rows(ids, dim=3, dtype="float32", seed=0, bad=()):
    rng = np.random.default_rng(seed)
    status = np.zeros(len(ids), dtype=np.uint8)
    status[list(bad)] = Status.UNREADABLE
    features = rng.normal(size=(len(ids), dim)).astype(DTYPES[dtype])
    hashes = rng.integers(0, 256, (len(ids), 32), dtype=np.uint8)
    stamps = rng.integers(0, 1 << 62, (len(ids), 2))
    return Rows(ids, features, status, hashes, {r: f"reason {r} é" for r in bad}, stamps)


def write(path, parts, head, ids, extras=()):
    with CacheWriter(path, head, ids) as writer:
        for part in parts:
            writer.append(part)
        for name, array in extras:
            writer.attach(name, array)
    return FeatureCache.open(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 40),
    dim=st.integers(1, 5),
    dtype=st.sampled_from(["float16", "float32"]),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    block=st.integers(8, 200),
    data=st.data(),
)
def test_round_trip_in_any_pieces(tmp_path, monkeypatch, n, dim, dtype, cuts, block, data):
    """However the rows arrive and wherever the checksum blocks fall, all of it comes back."""
    monkeypatch.setattr("embedx.store.header.BLOCK_BYTES", block)
    name = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
    ids = np.array(sorted(data.draw(st.sets(name, min_size=n, max_size=n))), dtype=object)
    bad = data.draw(st.sets(st.integers(0, n - 1)))
    whole = rows(ids, dim, dtype, bad=sorted(bad))
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    parts = [
        Rows(
            ids[a:b],
            whole.features[a:b],
            whole.status[a:b],
            whole.content_hash[a:b],
            {r - a: t for r, t in whole.reasons.items() if a <= r < b},
            whole.stamps[a:b],
        )
        for a, b in pairwise(edges)
    ]
    head = header(ids, dim, dtype)
    cache = write(tmp_path / "c.h5", parts, head, ids, [("head/weight", np.eye(dim)), ("head/bias", np.ones(dim))])
    assert cache.header == head
    assert cache.ids.tolist() == ids.tolist()
    assert cache.features().tobytes() == whole.features.tobytes()
    assert cache.status.tolist() == whole.status.tolist()
    assert cache.content_hash.tobytes() == whole.content_hash.tobytes()
    assert cache.stamps.tolist() == whole.stamps.tolist()
    assert cache.reasons == whole.reasons
    some = np.array(data.draw(st.lists(st.integers(0, n - 1))), dtype=np.int64)
    assert cache.take(some).tobytes() == whole.features[some].tobytes()
    assert cache.damaged() == []
    assert cache.extras.keys() == {"head/weight", "head/bias"}
    chunks = list(cache.chunks())
    assert np.concatenate([c.features for c in chunks]).tobytes() == whole.features.tobytes()
    assert [i.decode() for c in chunks for i in c.ids] == ids.tolist()


def test_features_can_be_memory_mapped(tmp_path):
    """The format promises contiguous, uncompressed, little-endian features."""
    ids = [f"{i:03d}" for i in range(50)]
    data = rows(ids)
    cache = write(tmp_path / "c.h5", [data], header(ids), ids)
    with h5py.File(cache.path, "r") as file:
        stored = file["features"]
        offset = stored.id.get_offset()
        assert stored.chunks is None and stored.compression is None
    mapped = np.memmap(cache.path, dtype="<f4", mode="r", offset=offset, shape=(50, 3))
    assert mapped.tobytes() == data.features.tobytes()


def test_the_specified_seal_is_the_written_one(tmp_path):
    """A second implementation, straight from cache/README.md, arrives at the same seal and block checksums."""
    import xxhash

    ids = ["a", "b"]
    cache = write(tmp_path / "c.h5", [rows(ids)], header(ids), ids, [("projection", np.ones((3, 2)))])
    content = cache.path.read_bytes()
    with h5py.File(cache.path, "r") as file:
        names = ["features", "ids", "status", "content_hash", "stamps", "checksums", "projection"]
        arrays = sorted((file[name].id.get_offset(), file[name].nbytes) for name in names)
        assert len(file) == len(names) + 2, "the reasons are empty, and lie nowhere"
        assert file["checksums"][0] == xxhash.xxh3_64_intdigest(file["features"][()].tobytes())
    text = f"embedx-features 3\nbytes {len(content)}\narrays {' '.join(f'{a}+{n}' for a, n in arrays)}\n".encode()
    outside = bytearray(content)
    for start, length in reversed(arrays):
        del outside[start : start + length]
    seal = xxhash.xxh3_64_hexdigest(text + outside[512:]).encode()
    assert content[:512] == (text + b"xxh3_64 " + seal + b"\n").ljust(512, b"\0")


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_damage_never_gives_wrong_numbers(tmp_path, where, value):
    """One byte changed anywhere: what is read is right, or refused."""
    ids = [f"{i:03d}" for i in range(200)]
    data = rows(ids, dim=16, bad=[7])
    write(tmp_path / "good.h5", [data], header(ids, dim=16), ids)
    damaged = bytearray((tmp_path / "good.h5").read_bytes())
    damaged[int(where * len(damaged))] ^= value
    (tmp_path / "bad.h5").write_bytes(damaged)
    try:
        cache = FeatureCache.open(tmp_path / "bad.h5")
        read = cache.features(), cache.ids, cache.status, cache.content_hash, cache.reasons, cache.stamps
    except CacheError as error:
        assert "extract again" in str(error)
        return
    assert read[0].tobytes() == data.features.tobytes()
    assert read[1].tolist() == ids
    assert read[2].tolist() == data.status.tolist()
    assert read[3].tobytes() == data.content_hash.tobytes()
    assert read[4] == data.reasons
    assert read[5].tolist() == data.stamps.tolist()


def test_damaged_features_are_named_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr("embedx.store.header.BLOCK_BYTES", 3 * 4 * 10)
    ids = [f"{i:03d}" for i in range(35)]
    cache = write(tmp_path / "c.h5", [rows(ids)], header(ids), ids)
    with h5py.File(cache.path, "r") as file:
        offset = file["features"].id.get_offset()
    with cache.path.open("rb+") as f:
        f.seek(offset + 12 * 4 * 3 - 1)
        f.write(b"\xff")
    assert cache.damaged() == [(10, 20)]
    with pytest.raises(CacheError, match="rows 10 to 20 are damaged.*extract again"):
        cache.features()


@pytest.mark.parametrize("cut", [0, 100, 3000, -1])
def test_truncated_file(tmp_path, cut):
    ids = [f"{i:03d}" for i in range(200)]
    cache = write(tmp_path / "c.h5", [rows(ids)], header(ids), ids)
    cache.path.write_bytes(cache.path.read_bytes()[:cut])
    with pytest.raises(CacheError, match="no readable HDF5 file"):
        FeatureCache.open(cache.path)


def test_foreign_and_absent_files(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["features"] = np.ones(3)
    with pytest.raises(CacheError, match="no embedx feature cache.*expected 'embedx-features'"):
        FeatureCache.open(tmp_path / "foreign.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(CacheError, match="no readable HDF5 file"):
        FeatureCache.open(tmp_path / "text.h5")
    with pytest.raises(CacheError, match="does not exist: run `embedx extract`"):
        FeatureCache.open(tmp_path / "absent.h5")


def test_newer_and_older_versions_and_missing_seal(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs.update(header(["a"]).attributes() | {"version": 1})
    with pytest.raises(CacheError, match="if an earlier embedx made it, delete it and extract again"):
        FeatureCache.open(tmp_path / "old.h5")
    with monkeypatch.context() as newer:
        newer.setattr("embedx.store.header.VERSION", 4)
        newer.setattr("embedx.store.header.READABLE", (4,))
        cache = write(tmp_path / "c.h5", [rows(["a"])], header(["a"]), ["a"])
    with pytest.raises(CacheError, match="format version 4, this embedx reads up to 3; update embedx"):
        FeatureCache.open(cache.path)
    with cache.path.open("rb+") as file:
        file.write(bytes(512))
    with pytest.raises(CacheError, match="never finished"):
        FeatureCache.open(cache.path)


def test_a_file_that_another_program_wrote_to_is_refused(tmp_path):
    cache = write(tmp_path / "c.h5", [rows(["a"])], header(["a"]), ["a"])
    with h5py.File(cache.path, "r+") as file:
        file.attrs["backbone"] = "raw:2x2"
    with pytest.raises(CacheError, match="extract again"):
        FeatureCache.open(cache.path)


def test_shard_is_no_cache(tmp_path):
    cache = write(tmp_path / "s.h5", [rows(["a"])], header(["a"], start=4, total=9), ["a"])
    with pytest.raises(CacheError, match="holds rows 4 to 5 of 9; run `embedx extract` to its end"):
        FeatureCache.open_complete(cache.path)


def test_provenance_mismatch_shows_found_and_expected(tmp_path):
    found = header(["a"])
    other = {"spec": "raw:1x1", "identity": {"weights": "xyz"}, "conditions": {"device": "cpu", "batch": 8}}
    expected = replace(found, provenance=other)
    with pytest.raises(ProvenanceError, match=r"weights is abc, expected xyz.*Delete it.*-b NAME=raw:1x1") as caught:
        require(found, expected, Path("x.h5"), conditions=False)
    assert "batch" not in str(caught.value)
    with pytest.raises(ProvenanceError, match="batch is 4, expected 8"):
        require(found, expected, Path("x.h5"), conditions=True)
    require(found, replace(found, provenance=json.loads(json.dumps(PROVENANCE))), Path("x.h5"), conditions=True)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with (
        pytest.raises(RuntimeError, match="half-way"),
        CacheWriter(tmp_path / "c.h5", header(["a", "b"]), ["a", "b"]) as w,
    ):
        w.append(rows(["a"]))
        raise RuntimeError("half-way")
    with (
        pytest.raises(ValueError, match="1 rows written, 2 announced"),
        CacheWriter(tmp_path / "c.h5", header(["a", "b"]), ["a", "b"]) as w,
    ):
        w.append(rows(["a"]))
    assert list(tmp_path.iterdir()) == []


def test_killed_writer_leaves_no_file_under_the_final_name(tmp_path):
    code = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from test_store import *
with CacheWriter(Path({str(tmp_path)!r}) / "c.h5", header(["a", "b"]), ["a", "b"]) as writer:
    writer.append(rows(["a"]))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "c.h5").exists()


def test_what_killed_writers_left_is_swept_away_after_a_day(tmp_path):
    old, new = (tmp_path / f".x.h5.{n}.part" for n in (1, 2))
    for path in (old, new):
        path.write_bytes(b"left")
    os.utime(old, (0, 0))
    ids = np.array(["a", "b"], dtype=object)
    write(tmp_path / "x.h5", [rows(ids)], header(ids), ids)
    assert not old.exists()
    assert new.exists()
