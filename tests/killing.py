"""A small extraction that tests kill: the images, the command, and what it leaves on the disk."""

import random
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
from PIL import Image

from embedx.store import FeatureCache

BACKBONES = ("tiny-broad", "raw-8x8")


def write_images(root, count):
    """Noise of 300 x 300 pixels in the folder layout, so that decoding takes a while."""
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / ("train", "val", "test")[i % 3] / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(folder / f"{i:04d}.png")
    return root


def command(root, cache, *more):
    return [
        *(sys.executable, "-m", "embedx", "--cache", str(cache), "extract", "folder", "--root", str(root)),
        *("-b", "tiny:broad", "-b", "raw:8x8", "--batch-size", "8", *more),
    ]


def features(cache):
    """The bytes of every row, by backbone."""
    return {name: FeatureCache.open_complete(cache / "pets" / f"{name}.h5").features().tobytes() for name in BACKBONES}


def shards(cache):
    """When each finished shard was written, by backbone and name."""
    found = {}
    for path in cache.glob("pets/*.shards/[!.]*.h5"):
        with suppress(FileNotFoundError):  # merged at this very moment
            found[path.parent.name.removesuffix(".shards"), path.name] = path.stat().st_mtime_ns
    return found


def merged(cache):
    return {p.stem for p in cache.glob("pets/[!.]*.h5")}


def run_and_kill(line, cache, more, draw: random.Random):
    """Kill a run soon after it finished ``more`` shards or merged a cache; False where it came to its end first."""
    had, done = len(shards(cache)), merged(cache)
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while process.poll() is None and len(shards(cache)) < had + more and merged(cache) == done:
        assert time.monotonic() < until, f"not {more} shards within two minutes"
        time.sleep(0.01)
    with suppress(subprocess.TimeoutExpired):
        assert process.wait(timeout=draw.uniform(0, 0.2)) == 0
        return False
    process.kill()
    process.wait()
    return True
