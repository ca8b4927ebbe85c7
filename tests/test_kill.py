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

KILLS = 20
IMAGES = 300


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
        *("-b", "tiny:broad", "-b", "raw:8x8", "--workers", "1", "--shard-rows", "16", "--batch-size", "8"),
    ]


def features(cache):
    return {
        name: FeatureCache.open_complete(cache / "pets" / name).features().tobytes()
        for name in ("tiny-broad.h5", "raw-8x8.h5")
    }


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_many_kills_change_no_byte(pets, tmp_path):
    calm, cache = tmp_path / "calm", tmp_path / "cache"
    began = time.perf_counter()
    subprocess.run(command(pets, calm), check=True, capture_output=True)
    whole = time.perf_counter() - began
    expected = features(calm)
    delays = random.Random(0)
    kills = kept = 0
    while kills < KILLS:
        started = time.perf_counter()
        process = subprocess.Popen(
            command(pets, cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            # The first part of a run only imports libraries; most kills are to fall later.
            process.wait(timeout=whole * delays.uniform(0.3, 0.95))
        except subprocess.TimeoutExpired:
            kept += any(cache.glob("pets/*.shards/*.h5"))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        # It came to its end first, so the first run was a slow one: aim earlier, or kills would get rare.
        whole = min(whole, time.perf_counter() - started)
        assert process.returncode == 0
        assert features(cache) == expected
        shutil.rmtree(cache)
    subprocess.run(command(pets, cache), check=True, capture_output=True)
    assert features(cache) == expected
    assert not list(cache.glob("pets/*.shards")), "the merge takes the shards away"
    assert kept, "no kill fell where shards were on disk; the test did not test what it says"
