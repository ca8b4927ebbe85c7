"""A device that fills up, and other places that cannot be written: one clear line, nothing lost, nothing left over."""

import os
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedx.files import clear_faults, write_array, write_text
from embedx.store import CacheWriter, FeatureCache
from embedx.workspace import Workspace

sys.path.append(str(Path(__file__).parent))
from test_store import header, rows

IMAGES, SHARD, SIDE = 160, 16, 32
SHARD_BYTES = SHARD * 3 * SIDE * SIDE * 4
slow = pytest.mark.slow
FULL = "the device is full"
STAYS = "what is finished stays: make room and run the same command again"


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("full") / "pets"
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        folder = root / ("train", "val", "test")[i % 3] / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i:04d}.png")
    return root


@pytest.fixture(scope="module")
def expected(pets, tmp_path_factory):
    cache = tmp_path_factory.mktemp("calm")
    assert embedx(pets, cache).returncode == 0
    return features(cache)


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small file system, or resizes it, and returns its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(kib):
        how = ["-o", f"remount,size={kib}k"] if folder.is_mount() else ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs"]
        done = subprocess.run(["mount", *how, str(folder)], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no small file system can be mounted here ({done.stderr.strip()})")
        return folder

    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root may mount a small file system")
    yield sized
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def embedx(root, cache, *more, largest=None):
    """Extract in a process of its own, whose files may grow to `largest` bytes."""
    line = [sys.executable, "-m", "embedx", "--cache", str(cache), "extract", "folder", "--root", str(root)]
    line += ["-b", f"raw:{SIDE}x{SIDE}", "-b", "raw:4x4", "--shard-rows", str(SHARD), "--batch-size", "8"]
    limit = largest and partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    line += ["--workers", "1", *more]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=120, preexec_fn=limit)


def features(cache):
    names = (f"raw-{SIDE}x{SIDE}.h5", "raw-4x4.h5")
    return {name: FeatureCache.open_complete(cache / "pets" / name).features().tobytes() for name in names}


def refused(done):
    """The run ended with one line that says what is the matter, and no traceback."""
    assert done.returncode == 1, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("note:")]
    assert len(lines) == 1 and FULL in lines[0] and STAYS in lines[0], done.stderr
    assert "buf =" not in lines[0] and len(lines[0]) < 500


def sound_shards(cache):
    """Every shard there is, each looked through; nothing half-written lies beside them."""
    found = sorted(cache.glob("pets/*.shards/*.h5"))
    assert [path for path in found if FeatureCache.open(path).damaged()] == []
    assert [p for p in cache.rglob("*") if p.name.endswith(".part")] == []
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
def test_it_fills_up_among_the_shards_and_again_in_the_merge(pets, expected, disk):
    cache = disk((3 * SHARD_BYTES + 150_000) >> 10)
    refused(embedx(pets, cache))
    first = sound_shards(cache)
    assert len(first) >= 4, "some shards were to be finished"
    disk((IMAGES // SHARD * (SHARD_BYTES + 30_000) + 3 * SHARD_BYTES) >> 10)
    refused(embedx(pets, cache))
    second = sound_shards(cache)
    assert len(second) == 2 * IMAGES // SHARD, "all shards, and no room for the merge"
    assert {path: second[path] for path in first} == first, "a finished shard was written again"
    refused(embedx(pets, cache, "--merge"))
    assert not list(cache.glob("pets/*.h5"))
    disk(60_000)
    assert embedx(pets, cache).returncode == 0
    assert features(cache) == expected and not list(cache.glob("pets/*.shards"))


@slow
@pytest.mark.parametrize("kib", [0, 4, 8])
def test_it_is_full_before_there_is_a_manifest(pets, expected, disk, kib):
    cache = disk(max(4, kib + 4))
    if not kib:
        (cache / "filler").write_bytes(bytes(4096))
    refused(embedx(pets, cache))
    sound_shards(cache)
    disk(60_000)
    assert embedx(pets, cache).returncode == 0
    assert features(cache) == expected


@slow
def test_several_processes_say_it_once(pets, expected, disk):
    cache = disk((3 * SHARD_BYTES + 150_000) >> 10)
    refused(embedx(pets, cache, "--device", "cpu,cpu"))
    assert sound_shards(cache)
    disk(60_000)
    assert embedx(pets, cache).returncode == 0
    assert features(cache).keys() == expected.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "largest", [SHARD_BYTES * 3, pytest.param(SHARD_BYTES // 2, marks=slow), pytest.param(3000, marks=slow)]
)
def test_files_that_may_not_grow(pets, expected, tmp_path, largest):
    """Needs no root: among the shards, in the merge, and in the manifest."""
    refused(embedx(pets, tmp_path, largest=largest))
    shards = sound_shards(tmp_path)
    assert bool(shards) == (largest > SHARD_BYTES)
    assert embedx(pets, tmp_path).returncode == 0
    assert features(tmp_path) == expected


def test_every_place_where_a_cache_can_meet_a_full_device(tmp_path, disk):
    """From one byte too few to almost nothing: the writer says the same, and leaves nothing."""
    ids = [f"{i:03d}" for i in range(300)]
    data, outcomes = rows(ids, dim=64), set()
    for kib in range(4, 144, 4):
        folder = disk(kib)
        try:
            with CacheWriter(folder / "c.h5", header(ids, dim=64), ids) as writer:
                writer.append(data)
        except OSError as error:
            assert FULL in error.strerror and error.filename == str(folder / "c.h5")
            assert list(folder.iterdir()) == []
            outcomes.add(False)
            assert shutil.disk_usage(folder).used == 0, "the space is free again at once"
            continue
        assert FeatureCache.open(folder / "c.h5").features().tobytes() == data.features.tobytes()
        (folder / "c.h5").unlink()
        outcomes.add(True)
    assert outcomes == {False, True}


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_hdf5s_own_words_become_one_line(kind):
    said = "Can't write data\n(file write failed: time = Sun\n, errno = {}, error message = 'x', buf = 0x7f)"
    for number, text in ((28, FULL), (122, FULL), (27, FULL), (5, "Input/output error"), (30, "Read-only")):
        with pytest.raises(OSError) as caught, clear_faults(Path("c.h5")):
            raise kind(said.format(number))
        assert caught.value.errno == number and text in caught.value.strerror and caught.value.filename == "c.h5"
        assert (STAYS in caught.value.strerror) == (text == FULL)
    with pytest.raises(kind, match="something else"), clear_faults(Path("c.h5")):
        raise kind("something else")


def test_text_and_arrays_leave_nothing_and_keep_what_was_there(disk):
    folder = disk(16)
    write_text(folder / "m.csv", "old")
    for write in (lambda: write_text(folder / "m.csv", "x" * 99_999), lambda: write_array(folder / "a", np.ones(9999))):
        with pytest.raises(OSError, match=FULL):
            write()
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("m.csv", "old")]


@slow
def test_a_folder_that_is_read_only(pets, expected, disk):
    cache = disk(60_000)
    assert embedx(pets, cache, "--shard", "0/2").returncode == 0
    had = sound_shards(cache)
    subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
    done = embedx(pets, cache)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "Read-only file system" in done.stderr and str(cache) in done.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(cache)], check=True)
    assert sound_shards(cache) == had
    assert embedx(pets, cache).returncode == 0
    assert features(cache) == expected


def test_places_that_are_no_folders(pets, tmp_path):
    (tmp_path / "file").write_text("a file")
    done = embedx(pets, tmp_path / "file")
    assert done.returncode == 2 and "is a file" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "cache").mkdir()
    Workspace(tmp_path / "cache").dataset("pets").write_text("a file")
    done = embedx(pets, tmp_path / "cache")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "pets" in done.stderr, done.stderr
