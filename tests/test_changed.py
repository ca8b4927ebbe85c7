"""What changed since an extraction is extracted again, and nothing else; the result is that of a fresh extraction."""

import errno
import os
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xxhash
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data import sources
from embedx.data.sources import Folder, stamps
from embedx.data.status import Status
from embedx.errors import CacheError, ExtractionError, ProvenanceError
from embedx.extract import Settings, encoding, extract, load_backbone
from embedx.extract.encoding import conditions, placeless
from embedx.extractors._backbone import Backbone, Geometry
from embedx.extractors._weights import freeze
from embedx.files import hold, write_bytes
from embedx.store import FeatureCache
from embedx.workspace import Workspace

KINDS = ("replaced", "touched", "broken", "removed", "gone", "renamed", "copied")
number = count()


@pytest.fixture(scope="module")
def raw():
    return load_backbone("raw:4x4")


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny:narrow")


def picture(seed, size=4):
    """The bytes of a small image; others for every seed, and as many of them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return b"P6 %d %d 255\n" % (size, size) + pixels.tobytes()


def write(path, data, old=True):
    """Write a file; an old one has a time at which nothing can have changed unnoticed."""
    path.write_bytes(data)
    if old:
        when = 10**18 + next(number) * 10**9 + 1
        os.utime(path, ns=(when, when))


def table(ids):
    n = len(ids)
    return manifests.build("noise", {"id": ids, "label": [("a", "b")[i % 2] for i in range(n)], "split": ["train"] * n})


def run(root, workspace, backbone, ids=None, source=None, **how):
    """Extract all files of a folder, as after `--root`, or those named."""
    ids = sorted(p.name for p in root.iterdir()) if ids is None else ids
    how = Settings(**{"batch": 8, "max_bad": 1.0, **how})
    (found,), _ = extract(table(ids), source or Folder(root), {"net": backbone}, Workspace(workspace), how)
    return found


def contents(result):
    cache = FeatureCache.open_complete(result.path)
    assert cache.damaged() == []
    return (
        cache.ids.tolist(), cache.features().tobytes(), cache.status.tolist(), cache.content_hash.tobytes(),
        cache.stamps.tolist(), cache.reasons, cache.header.ids_digest,
    )  # fmt: skip


def change(root, ids, kinds, seed):
    """Change files below a folder; the ids that a manifest made before would still have, and those of new files."""
    for i, (name, kind) in enumerate(zip(ids, kinds, strict=True)):
        path = root / name
        if kind == "replaced":
            write(path, picture((seed, i)))
        elif kind == "touched":
            write(path, path.read_bytes())
        elif kind == "broken":
            write(path, b"no image %d" % i)
        elif kind in ("removed", "gone"):
            path.unlink()
        elif kind == "renamed":
            path.rename(root / f"{name[:-4]}-{seed}.ppm")
        elif kind == "copied":
            write(root / f"{name[:-4]}x{seed}.ppm", path.read_bytes())
    return [name for name, kind in zip(ids, kinds, strict=True) if kind == "gone"]


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), added=st.integers(0, 40), seed=st.integers(0, 99), cut=st.sampled_from([100, 256, 5000]))
def test_any_subset_of_1200_images(tmp_path, raw, share, added, seed, cut):
    """Replaced, mended, removed, added, renamed: as a fresh extraction, and only bytes that are new are computed."""
    shutil.rmtree(tmp_path)
    (root := tmp_path / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ids = [f"{i:04d}.ppm" for i in range(1200)]
    for i, name in enumerate(ids):
        write(root / name, picture(i) if i % 50 else b"broken at first")
    first = run(root, tmp_path / "cache", raw, shard_rows=cut, batch=64)
    assert first.computed == 1200
    before = {p.name: p.read_bytes() for p in root.iterdir()}
    touched = rng.permutation(1200)[: max(1, min(1199, round(share * 1200)))]
    gone = change(root, [ids[i] for i in touched], rng.choice(KINDS, len(touched)), seed)
    for i in range(added):
        write(root / f"{rng.integers(1200):04d}+{i}.ppm", picture((seed, 5000 + i)))
    now = {p.name: p.read_bytes() for p in root.iterdir()}
    wanted = sorted([*now, *gone])
    again = run(root, tmp_path / "cache", raw, wanted, shard_rows=cut, batch=64)
    assert contents(again) == contents(run(root, tmp_path / "fresh", raw, wanted, shard_rows=cut, batch=64))
    usable = {data for data in before.values() if data.startswith(b"P6")}
    if all(now.get(name) == data for name, data in before.items()):
        usable.clear()  # where nothing went, what came is not compared with what is there
    new = [n for n in wanted if before.get(n) != now.get(n) and now.get(n) not in usable]
    assert again.computed == len(new)
    assert run(root, tmp_path / "cache", raw, wanted, shard_rows=cut, batch=64).written is False


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 999))
def test_any_subset_with_a_network(tmp_path, tiny, seed):
    shutil.rmtree(tmp_path)
    (root := tmp_path / "images").mkdir(parents=True)
    ids = [f"{i:02d}.ppm" for i in range(50)]
    for i, name in enumerate(ids):
        write(root / name, picture(i, 64))
    run(root, tmp_path / "cache", tiny, shard_rows=16)
    rng = np.random.default_rng(seed)
    gone = change(root, ids, rng.choice([*KINDS, *["same"] * 9], 50), seed)
    wanted = sorted([*(p.name for p in root.iterdir()), *gone])
    found = contents(run(root, tmp_path / "cache", tiny, wanted, shard_rows=16))
    assert found == contents(run(root, tmp_path / "fresh", tiny, wanted, shard_rows=16))


@pytest.fixture
def images(tmp_path):
    (root := tmp_path / "images").mkdir()
    for i in range(20):
        write(root / f"{i:02d}.ppm", picture(i))
    return root


def network(function):
    class Network(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return freeze(Network())


def toy(function):
    reader = Geometry(size=(4, 4), resize=(4, 4))
    return Backbone(
        spec="toy:x", model="x", weights="0", feature="mean", libraries={}, dim=3, reader=reader,
        module=network(function), mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip


def test_a_network_that_rounds_by_place_computes_moved_rows_too(images, tmp_path):
    """Where a row's features depend on its place in the batch, those behind an added one are computed again."""

    def by_place(x):
        return x.mean(dim=(2, 3)) + torch.arange(len(x))[:, None] * 1e-3

    backbone = toy(by_place)
    assert not placeless(backbone, "cpu", 8)
    assert placeless(toy(lambda x: x.mean(dim=(2, 3))), "cpu", 8)
    run(images, tmp_path / "cache", backbone)
    write(images / "10+.ppm", picture(99))
    found = run(images, tmp_path / "cache", backbone)
    assert found.computed == 1 + 10
    assert contents(found) == contents(run(images, tmp_path / "fresh", backbone))
    write(images / "03.ppm", picture(98))
    assert run(images, tmp_path / "cache", backbone).computed == 1


def test_a_replaced_file_in_a_finished_shard(images, tmp_path, raw):
    def stop(done, total):
        if done >= 16:
            raise KeyboardInterrupt

    ids = sorted(p.name for p in images.iterdir())
    with pytest.raises(KeyboardInterrupt):
        extract(
            table(ids),
            Folder(images),
            {"net": raw},
            Workspace(tmp_path / "cache"),
            Settings(batch=4, shard_rows=4),
            stop,
        )
    write(images / "01.ppm", picture(99))
    (images / "02.ppm").unlink()
    found = run(images, tmp_path / "cache", raw, batch=4, shard_rows=4)
    assert found.computed == 1 + 4, "the replaced row, and those that were never computed"
    assert contents(found) == contents(run(images, tmp_path / "fresh", raw, batch=4, shard_rows=4))
    assert not list((tmp_path / "cache" / "noise").glob("*.shards"))


def test_shards_of_another_cut_are_kept(images, tmp_path, raw):
    ids = sorted(p.name for p in images.iterdir())
    how = Settings(batch=4, shard_rows=4, part=(0, 2))
    extract(table(ids), Folder(images), {"net": raw}, Workspace(tmp_path / "cache"), how)
    found = run(images, tmp_path / "cache", raw, batch=4, shard_rows=7)
    assert found.computed == 20 - 8
    assert contents(found) == contents(run(images, tmp_path / "fresh", raw, batch=4))


def test_a_part_without_shards_computes_nothing_beside_a_finished_cache(images, tmp_path, raw):
    run(images, tmp_path / "cache", raw)
    assert [run(images, tmp_path / "cache", raw, part=(i, 3)).computed for i in range(3)] == [0, 0, 0]


def test_parts_bring_a_cache_up_to_date(images, tmp_path, raw):
    run(images, tmp_path / "cache", raw, shard_rows=4)
    for i in (1, 9, 18):
        write(images / f"{i:02d}.ppm", picture(100 + i))
    before = contents(run(images, tmp_path / "other", raw))
    computed = [run(images, tmp_path / "cache", raw, shard_rows=4, part=(i, 5)).computed for i in range(5)]
    assert computed == [1, 0, 1, 0, 1]
    merged = run(images, tmp_path / "cache", raw, shard_rows=4, merge_only=True)
    assert (merged.computed, merged.written) == (0, True) and contents(merged) == before
    again = run(images, tmp_path / "cache", raw, shard_rows=4, merge_only=True)
    assert (again.computed, again.written) == (0, False)


def test_images_that_are_gone_say_nothing(images, tmp_path, raw):
    ids = sorted(p.name for p in images.iterdir())
    made = contents(run(images, tmp_path / "cache", raw))
    shutil.rmtree(images)
    found = run(images, tmp_path / "cache", raw, ids)
    assert (found.computed, found.written) == (0, False) and contents(found) == made
    images.mkdir()
    write(images / "03.ppm", picture(3))
    with pytest.raises(ExtractionError, match="19 of 20 rows failed, more than --max-bad"):
        run(images, tmp_path / "cache", raw, ids, max_bad=0.05)
    assert contents(found) == made


def test_rows_dropped_by_hand_stay_in_the_cache(images, tmp_path, raw):
    ids = sorted(p.name for p in images.iterdir())
    made = contents(run(images, tmp_path / "cache", raw))
    found = run(images, tmp_path / "cache", raw, ids[5:])
    assert (found.computed, found.written) == (0, False) and contents(found) == made


def test_a_restored_time_and_size_are_believed_only_when_settled(images, tmp_path, raw):
    """Within a tick of the file system's clock a second change cannot be told from the first by its time."""
    path = images / "07.ppm"
    write(path, picture(7), old=False)
    run(images, tmp_path / "cache", raw)
    kept = path.stat().st_mtime_ns
    write(path, picture(77), old=False)
    os.utime(path, ns=(kept, kept))
    assert run(images, tmp_path / "cache", raw).computed == 1


@pytest.mark.parametrize("version", [1, 2])
def test_caches_of_earlier_versions_are_read_and_brought_up_to_date(images, tmp_path, raw, version):
    new = run(images, tmp_path / "cache", raw)
    expected = contents(new)
    earlier(new.path, version)
    cache = FeatureCache.open_complete(new.path)
    assert cache.header.version == version and not cache.stamps.any()
    assert cache.features().tobytes() == expected[1] and cache.ids.tolist() == expected[0]
    write(images / "04.ppm", picture(4))  # the same bytes at another time: only looked at
    write(images / "05.ppm", picture(55))
    found = run(images, tmp_path / "cache", raw)
    assert found.computed == 1
    assert contents(found) == contents(run(images, tmp_path / "fresh", raw))
    assert FeatureCache.open(found.path).header.version == 3


def test_a_cache_of_version_1_whose_header_was_changed_is_refused(images, tmp_path, raw):
    path = run(images, tmp_path / "cache", raw).path
    earlier(path, 1)
    with h5py.File(path, "r+") as file:
        file.attrs["backbone"] = "another"
    with pytest.raises(CacheError, match="never finished or damaged .*extract again"):
        FeatureCache.open(path)


def earlier(path, version):
    """Write a cache as the format was: 1 without a seal before HDF5's bytes, 1 and 2 without stamps."""
    with h5py.File(path) as file:
        attrs = {**file.attrs, "version": version}
        arrays = {name: (file[name][()], dict(file[name].attrs)) for name in file if name != "stamps"}
    path.unlink()
    with h5py.File(path, "w", userblock_size=512 if version == 2 else 0) as file:
        for name, (array, own) in arrays.items():
            file.create_dataset(name, data=array).attrs.update(own)
        file.attrs.update(attrs)
        if version == 1:
            text = "".join(f"{key}={plain(value)!r};" for key, value in sorted(file.attrs.items()))
            for name in sorted(file):
                node = file[name]
                text += f"{name}:{node.shape}:{node.dtype.str}:{node.attrs.get('xxh3_64', '')};"
            file.attrs["seal"] = xxhash.xxh3_64_hexdigest(text.encode())
        places = sorted((n.id.get_offset(), n.id.get_storage_size()) for n in file.values() if n.id.get_storage_size())
    if version == 2:
        data = bytearray(path.read_bytes())
        head = f"embedx-features 2\nbytes {len(data)}\narrays {' '.join(f'{a}+{n}' for a, n in places)}\n".encode()
        outside = bytearray(data)
        for start, length in reversed(places):
            del outside[start : start + length]
        seal = head + b"xxh3_64 " + xxhash.xxh3_64_hexdigest(head + outside[512:]).encode() + b"\n"
        data[: len(seal)] = seal
        path.write_bytes(data)


def plain(value):
    return value.item() if isinstance(value, np.generic) else value


def test_other_conditions_bring_no_rows_into_a_cache(images, tmp_path, raw, monkeypatch):
    """Another processor, or other libraries: what is there stays usable, new rows are refused."""
    run(images, tmp_path / "cache", raw)
    here = conditions("cpu", [raw], compiled=False)["processor"]
    monkeypatch.setattr(encoding, "processor", lambda: "x86_64 another")
    assert run(images, tmp_path / "cache", raw).written is False
    write(images / "04.ppm", picture(4))  # the same bytes at another time
    found = run(images, tmp_path / "cache", raw)
    assert (found.computed, found.written) == (0, True)
    assert FeatureCache.open(found.path).header.provenance["conditions"]["processor"] == here
    write(images / "05.ppm", picture(55))
    told = "1 of 20 rows have to be extracted now, .*processor is .*, expected x86_64 another"
    with pytest.raises(ProvenanceError, match=told):
        run(images, tmp_path / "cache", raw)


def test_shards_of_unlike_processors_are_not_merged(images, tmp_path, raw, monkeypatch):
    run(images, tmp_path / "cache", raw, shard_rows=4, part=(0, 2))
    monkeypatch.setattr(encoding, "processor", lambda: "x86_64 another")
    with pytest.raises(ProvenanceError, match="processor is .*, expected x86_64 another"):
        run(images, tmp_path / "cache", raw, shard_rows=4, part=(1, 2))


def test_a_merge_may_happen_anywhere(images, tmp_path, raw, monkeypatch):
    for i in range(2):
        run(images, tmp_path / "cache", raw, shard_rows=4, part=(i, 2))
    here = conditions("cpu", [raw], compiled=False)["processor"]
    monkeypatch.setattr(encoding, "processor", lambda: "x86_64 another")
    found = run(images, tmp_path / "cache", raw, shard_rows=4, merge_only=True)
    assert FeatureCache.open(found.path).header.provenance["conditions"]["processor"] == here


def test_a_run_that_goes_on_computes_with_as_many_threads(images, tmp_path, raw, monkeypatch):
    seen, before = [], torch.get_num_threads()
    backbone = toy(lambda x: seen.append(torch.get_num_threads()) or x.mean(dim=(2, 3)))
    monkeypatch.setattr(torch, "get_num_threads", lambda real=torch.get_num_threads: real())
    torch.set_num_threads(1)
    try:
        run(images, tmp_path / "cache", backbone, shard_rows=4, part=(0, 2))
        torch.set_num_threads(2)
        found = run(images, tmp_path / "cache", backbone, shard_rows=4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
    assert FeatureCache.open(found.path).header.provenance["conditions"]["threads"] == 1


class Troubled(Folder):
    """A disk of which some files cannot be read, for so many tries."""

    def __init__(self, root, number, tries, names=None):
        super().__init__(root)
        self.__dict__.update(number=number, left=dict.fromkeys(names or [], tries), tries=tries, all=names is None)

    def read(self, row_id):
        left = self.left.setdefault(row_id, self.tries) if self.all else self.left.get(row_id, 0)
        if left:
            self.left[row_id] = left - 1
            raise OSError(self.number, os.strerror(self.number))
        return super().read(row_id)


PASSING = [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EMFILE, errno.ENOTCONN, errno.ENOMEM]


@pytest.fixture
def swift(monkeypatch):
    """No pauses, and no memory of earlier trouble."""
    monkeypatch.setattr(sources, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(sources, "_hopeless", False)


@pytest.mark.parametrize("trouble", PASSING)
def test_a_passing_error_is_waited_for(images, tmp_path, raw, swift, trouble):
    found = run(images, tmp_path / "cache", raw, source=Troubled(images, trouble, 3, ["03.ppm", "11.ppm"]), max_bad=0)
    assert contents(found) == contents(run(images, tmp_path / "fresh", raw))


@pytest.mark.parametrize("trouble", PASSING)
def test_a_row_that_failed_for_a_passing_error_is_tried_again(images, tmp_path, raw, swift, trouble):
    first = run(images, tmp_path / "cache", raw, source=Troubled(images, trouble, 9, ["03.ppm", "11.ppm"]))
    assert first.bad == tuple((f"{i}.ppm", os.strerror(trouble)) for i in ("03", "11"))
    same = run(images, tmp_path / "cache", raw, source=Troubled(images, trouble, 99, ["03.ppm", "11.ppm"]))
    assert (same.computed, same.written, same.bad) == (0, False, first.bad)
    again = run(images, tmp_path / "cache", raw)
    assert again.computed == 2 and contents(again) == contents(run(images, tmp_path / "fresh", raw))


def test_a_row_that_failed_in_a_shard_is_tried_again(images, tmp_path, raw, swift):
    run(images, tmp_path / "cache", raw, source=Troubled(images, errno.EIO, 9, ["03.ppm"]), shard_rows=4, part=(0, 1))
    assert run(images, tmp_path / "cache", raw, shard_rows=4).computed == 1


def test_trouble_with_the_disk_costs_no_row_that_is_there(images, tmp_path, raw, swift):
    """Changed times and a disk that answers with errors: nothing is known to be wrong with the rows."""
    made = contents(run(images, tmp_path / "cache", raw))
    for path in images.iterdir():
        write(path, path.read_bytes())
    found = run(images, tmp_path / "cache", raw, source=Troubled(images, errno.ESTALE, 10**6))
    assert (found.computed, found.written) == (0, False) and contents(found) == made


def test_a_disk_that_goes_away_stops_the_run(tmp_path, raw, swift):
    (root := tmp_path / "images").mkdir()
    for i in range(200):
        write(root / f"{i:03d}.ppm", picture(i))
    gone = Troubled(root, errno.ESTALE, 10**6, [f"{i:03d}.ppm" for i in range(100, 200)])
    with pytest.raises(
        ExtractionError, match=r"the last 64 images could not be read \(.*is .*images still there\?.*kept"
    ):
        run(root, tmp_path / "cache", raw, source=gone, shard_rows=16)
    found = run(root, tmp_path / "cache", raw, shard_rows=16)
    assert found.computed <= 200 - 96 and not found.bad


def test_too_little_memory_to_decode_says_nothing_of_the_file(images, tmp_path, raw, monkeypatch):
    real = Image.open

    def scarce(file, *args, **kwargs):
        if file.getvalue() == picture(3):
            raise MemoryError
        return real(file, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", scarce)
        found = run(images, tmp_path / "cache", raw)
        assert found.bad == (("03.ppm", "MemoryError"),)
    again = run(images, tmp_path / "cache", raw)
    assert again.computed == 1 and not again.bad


def test_a_file_that_was_changed_while_it_was_read_is_looked_at_again(images, tmp_path, raw):
    class Changing(Folder):
        def read(self, row_id):
            data = super().read(row_id)
            if row_id == "03.ppm":
                write(self.root / row_id, picture(333))
            return data

    run(images, tmp_path / "cache", raw, source=Changing(images))
    found = run(images, tmp_path / "cache", raw)
    assert found.computed == 1 and contents(found) == contents(run(images, tmp_path / "fresh", raw))


def test_another_version_of_a_dataset_is_looked_at_by_its_bytes(images, tmp_path, raw):
    """Times do not count then; images that are gone cannot be looked at, and are refused."""
    ids = sorted(p.name for p in images.iterdir())

    def of_version(version):
        manifest = replace(table(ids), version=version)
        return extract(
            manifest, Folder(images), {"net": raw}, Workspace(tmp_path / "cache"), Settings(batch=8, max_bad=1)
        )[0][0]

    of_version("1")
    times = (images / "04.ppm").stat()
    (images / "04.ppm").write_bytes(picture(44))
    os.utime(images / "04.ppm", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert of_version("1").computed == 0, "size and time are the same"
    found = of_version("2")
    assert (found.computed, found.written) == (1, True)
    assert FeatureCache.open(found.path).header.identity["dataset_version"] == "2"
    shutil.rmtree(images)
    with pytest.raises(ProvenanceError, match="dataset_version is 2, expected 3"):
        of_version("3")


def test_a_cache_that_is_replaced_while_it_is_read_is_refused(images, tmp_path, raw):
    cache = FeatureCache.open(run(images, tmp_path / "cache", raw).path)
    assert cache.status.any() == 0
    write(images / "05.ppm", b"broken")
    run(images, tmp_path / "cache", raw)
    with pytest.raises(CacheError, match="was written anew while it was being read; run the same command again"):
        cache.features()


def test_what_another_process_is_writing_survives_the_merge(images, tmp_path, raw):
    workspace = tmp_path / "cache"
    run(images, workspace, raw, shard_rows=4, part=(0, 1))
    (shards,) = (workspace / "noise").glob("*.shards")
    write_bytes(shards / ".killed.8899aabbccddeeff.part", b"x")
    with (shards / ".under-way.0011223344556677.part").open("wb") as file:
        hold(file.fileno())
        run(images, workspace, raw, shard_rows=4)
        assert [p.name for p in shards.iterdir()] == [".under-way.0011223344556677.part"]
    run(images, workspace, raw, shard_rows=4)
    assert not shards.exists()


def test_a_missing_row_that_appears(images, tmp_path, raw):
    (images / "05.ppm").rename(tmp_path / "05.ppm")
    ids = [f"{i:02d}.ppm" for i in range(20)]
    first = run(images, tmp_path / "cache", raw, ids)
    assert FeatureCache.open(first.path).status[5] == Status.MISSING
    Path(tmp_path / "05.ppm").rename(images / "05.ppm")
    found = run(images, tmp_path / "cache", raw, ids)
    assert found.computed == 1 and not found.bad


@pytest.fixture
def pets(tmp_path):
    """A folder dataset of 24 images, extracted; its root and a function that runs a command on its cache."""
    root = tmp_path / "pets"
    for i in range(24):
        folder = root / ("train", "val", "test")[i % 3] / ("cat", "dog")[i // 3 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{i:02d}.ppm", picture(i))

    def command(*words, code=0):
        done = CliRunner().invoke(main, ["--cache", str(tmp_path / "cache"), *words])
        assert done.exit_code == code, done.output
        return done.output

    command("extract", "folder", "--root", str(root), "-b", "raw:4x4")
    return root, command


@pytest.mark.slow
def test_every_command_tells_of_changed_images(pets, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    root, command = pets
    said = (
        "raw:4x4: 1 of 24 images have another size or time than when they were extracted (for example test/cat/02.ppm)"
    )
    asked = {
        "probe": ("probe", "pets", "-b", "raw:4x4", "-o", "heads"),
        "compare": ("compare", "pets", "--head", "plain"),
        "discover": ("spuriosity", "discover", "pets", "-b", "raw:4x4"),
        "predict": ("predict", "heads/pets.raw-4x4.plain.0.safetensors", "pets", "--overwrite"),
    }
    for words in asked.values():
        assert "another size or time" not in command(*words)
    write(root / "test/cat/02.ppm", picture(99))
    for words in asked.values():
        assert said in command(*words) and "`embedx extract pets -b raw:4x4`" in command(*words)
    command("extract", "pets", "-b", "raw:4x4")
    assert "another size or time" not in command(*asked["probe"])
    shutil.rmtree(root)
    assert "another size or time" not in command(*asked["probe"]), "caches outlive their images"


def test_data_check_compares_caches_with_the_bytes_of_all_files(pets):
    """Also of a file whose size and time are those of before."""
    root, command = pets
    assert "cache          raw-4x4: made from these files" in command("data", "check", "pets", "--workers", "0")
    path = root / "train/dog/03.ppm"
    times = path.stat()
    path.write_bytes(picture(77))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = command("data", "check", "pets", "--workers", "0", code=1)
    assert "raw-4x4: 1 of 24 rows were made from other bytes (for example train/dog/03.ppm); `embedx extract" in found
    assert "pets: something is wrong" in found


@pytest.mark.parametrize("late", [0.0, 1.0])
def test_stamps_are_in_the_order_of_the_ids_from_a_slow_disk_too(monkeypatch, late):
    monkeypatch.setattr(stamps, "LATE", late)

    def stamp(row_id, now):
        if row_id.endswith("7"):
            raise FileNotFoundError(row_id)
        return int(row_id), 1

    found = stamps.each(stamp, [str(i) for i in range(10_000)])
    assert found.tolist() == [[i, 1] if i % 10 != 7 else [0, 0] for i in range(10_000)]
    assert stamps.each(stamp, []).shape == (0, 2)
