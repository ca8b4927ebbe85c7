"""An extraction that is killed again and again ends with the bytes of one that was left in peace."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from embedx.store import FeatureCache

KILLS = int(os.environ.get("EMBEDX_KILLS", "12"))
IMAGES, SHARD = 300, 16


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("kill") / "pets"
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        folder = root / ("train", "val", "test")[i % 3] / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(folder / f"{i:04d}.png")
    return root


def command(root, cache):
    return [
        *(sys.executable, "-m", "embedx", "--cache", str(cache), "extract", "folder", "--root", str(root)),
        *("-b", "tiny:broad", "-b", "raw:8x8", "--workers", "1", "--shard-rows", str(SHARD), "--batch-size", "8"),
    ]


def features(cache):
    return {
        name: FeatureCache.open_complete(cache / "pets" / name).features().tobytes()
        for name in ("tiny-broad.h5", "raw-8x8.h5")
    }


def shards(cache):
    """When each finished shard was written, by backbone and name."""
    return {(p.parent.name, p.name): p.stat().st_mtime_ns for p in cache.glob("pets/*.shards/[!.]*.h5")}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_kills_change_no_byte(pets, tmp_path):
    """Kills at random moments, the merge among them; what a run finished before its kill is never written again."""
    calm, cache = tmp_path / "calm", tmp_path / "cache"
    began = time.perf_counter()
    subprocess.run(command(pets, calm), check=True, capture_output=True)
    whole = time.perf_counter() - began
    expected = features(calm)
    delays = random.Random(0)
    kills = kept = started = 0
    while kills < KILLS:
        had = shards(cache)
        began = time.perf_counter()
        process = subprocess.Popen(
            command(pets, cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            # The first part of a run only imports libraries; most kills are to fall later.
            process.wait(timeout=whole * delays.uniform(0.3, 0.95))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            now = shards(cache)
            merged = {p.name.removesuffix(".h5") + ".shards" for p in cache.glob("pets/[!.]*.h5")}
            lost = {key for key in had if now.get(key) != had[key] and key[0] not in merged}
            assert not lost, f"finished shards were written again: {lost}"
            started += len(now.keys() - had.keys())
            kept += bool(now)
            continue
        # It came to its end first, so the first run was a slow one: aim earlier, or kills would get rare.
        whole = min(whole, time.perf_counter() - began)
        assert process.returncode == 0
        assert features(cache) == expected
        shutil.rmtree(cache)
    had = shards(cache)
    done = subprocess.run(command(pets, cache), check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():  # PATH: 44 of 300 rows extracted
        finished = [k for k in had if k[0].removesuffix(".shards") in line]
        if finished and "rows extracted" in line:
            count = int(line.rpartition(": ")[2].split()[0])
            assert count == IMAGES - sum(rows(name) for _, name in finished), "no more was done than was lacking"
    assert features(cache) == expected
    assert not list(cache.glob("pets/*.shards")), "the merge takes the shards away"
    assert kept and started, "no kill fell where shards were on disk; the test did not test what it says"


def rows(shard):
    start, stop = shard.removesuffix(".h5").split("-")
    return int(stop) - int(start)
