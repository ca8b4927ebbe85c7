"""Millions of rows: memory grows by the ids and what stands beside each, no further; time no faster than the rows.

Each figure is the peak of a process of its own, in MiB. Bounds are the figures measured, with a margin of about a half.
"""

import io
import json
import resource
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from embedx.data import manifest as manifests
from embedx.extract import Settings, extract, load_backbone
from embedx.extract.merge import finish
from embedx.extract.plan import plan
from embedx.store import CacheWriter, Rows
from embedx.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROWS = 2_000_000
NAMES = {"v": "raw:vector-4"}
FACTS = {"device": "cpu", "batch": 256, "libraries": {}}


@dataclass(frozen=True)
class Made:
    """A source whose bytes follow from the id, so that millions of rows need no files."""

    place: str = "nowhere"

    def read(self, row_id):
        buffer = io.BytesIO()
        np.save(buffer, np.full(4, zlib.crc32(row_id.encode()) % 997, np.float32))
        return buffer.getvalue()

    def stamps(self, ids):
        return np.ones((len(ids), 2), dtype=np.int64)


def peak():
    """The most memory that this process has held so far, in MiB."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


def table(n):
    columns = {"id": [f"images/train/{i:08d}.npy" for i in range(n)], "label": ["a", "b"] * (n // 2)}
    return manifests.build("big", {**columns, "split": ["train"] * n})


def backbones():
    return {name: load_backbone(spec) for name, spec in NAMES.items()}


def building(n, folder):
    start = [peak()]
    manifest = table(n)
    built = peak()
    manifests.save(manifest, folder)
    saved = peak()
    del manifest
    manifests.load(folder)
    return [*start, built, saved, peak()]


def a_part(n, folder):
    loaded = backbones()
    manifest = table(n)
    before = peak()
    settings = Settings(batch=256, workers=2, part=(0, n // 5000))
    found, _ = extract(manifest, Made(), loaded, Workspace(folder), settings)
    assert 4000 < found[0].computed < 6200
    return [before, peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]


def merging(shards, folder, size):
    """Seconds of the processor for planning and for merging so many shards, and the memory that both took on top."""
    loaded = backbones()
    manifest, settings = table(shards * size), Settings(shard_rows=size)
    work = plan(manifest, Made(), loaded, Workspace(folder), settings, FACTS)
    job = work.jobs[0]
    for piece in work.pieces:
        ids = work.ids[slice(*piece)]
        zeros = Rows(ids, np.zeros((size, 4), "f4"), np.zeros(size, np.uint8), np.zeros((size, 32), np.uint8))
        with CacheWriter(job.shard(piece), job.shard_header(piece, 256), ids) as writer:
            writer.append(zeros)
    before, began = peak(), time.process_time()
    work = plan(manifest, Absent(), loaded, Workspace(folder), settings, FACTS)
    planned = time.process_time() - began
    assert not work.lacking["v"]
    began = time.process_time()
    finish(work, job, loaded["v"], 0)
    return [planned, time.process_time() - began, peak() - before]


class Absent(Made):
    """Images that are gone, so that no shard can be found changed."""

    def read(self, row_id):
        raise FileNotFoundError(row_id)

    def stamps(self, ids):
        return np.zeros((len(ids), 2), dtype=np.int64)


def measured(folder, call):
    """What a function above returns when it is alone in a process."""
    folder.mkdir()
    code = f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_scale as t; "
    code += f"folder = t.Path({str(folder)!r}); sys.stdout.write(json.dumps(t.{call}))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def per_row(small, large, rows):
    return [(b - a) * (1 << 20) / rows for a, b in zip(small, large, strict=True)]


def test_a_manifest_takes_a_few_hundred_bytes_a_row(tmp_path):
    small, large = (measured(tmp_path / str(n), f"building({n}, folder)") for n in (ROWS // 2, ROWS))
    _, built, saved, loaded = per_row(small, large, ROWS // 2)
    assert built < 250 and saved < 450 and loaded < 700, (built, saved, loaded)


def test_extracting_a_part_takes_memory_for_the_ids_only(tmp_path):
    small, large = (measured(tmp_path / str(n), f"a_part({n}, folder)") for n in (ROWS // 2, ROWS))
    manifest, whole, worker = per_row(small, large, ROWS // 2)
    assert whole - manifest < 150, (small, large)
    assert worker < manifest + 150, (small, large)
    assert large[1] - large[0] < 500 and large[2] < 1500, (small, large)


def test_planning_and_merging_take_time_by_the_shard_and_no_memory_by_the_row(tmp_path):
    few, many = (measured(tmp_path / str(n), f"merging({n}, folder, 100)") for n in (250, 1000))
    assert many[0] < 4 * 2 * few[0] and many[1] < 4 * 2 * few[1], (few, many)
    assert many[2] < few[2] + 20, (few, many)
    wide = measured(tmp_path / "wide", "merging(250, folder, 2000)")
    assert wide[2] < few[2] + 150, (few, wide)  # half a million rows: their ids and the hashes of a block
