"""Ray: the same bytes from a cluster of several nodes, also when a node dies, or the driver is killed repeatedly."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from embedx.store import FeatureCache

ray = pytest.importorskip("ray")

IMAGES, ROWS_PER_SHARD = 400, 10
KILLS = int(os.environ.get("EMBEDX_KILLS", "8"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.filterwarnings("ignore")]  # Ray's own warnings


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("ray") / "pets"
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        folder = root / ("train", "val", "test")[i % 3] / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(folder / f"{i:04d}.png")
    return root


@pytest.fixture(scope="module")
def expected(pets, tmp_path_factory):
    """The features of a run in one process with one thread, as Ray's tasks have."""
    cache = tmp_path_factory.mktemp("calm")
    subprocess.run(command(pets, cache, "--workers", "0"), check=True, capture_output=True)
    return features(cache)


@pytest.fixture
def cluster(monkeypatch):
    """A head without processors and two nodes of one processor each, all on this machine."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [found.add_node(num_cpus=1) for _ in range(2)]
    yield found, nodes
    found.shutdown()


def command(root, cache, *more):
    return [
        *(sys.executable, "-m", "embedx", "--cache", str(cache), "extract", "folder", "--root", str(root)),
        *("-b", "tiny:broad", "-b", "raw:8x8", "--shard-rows", str(ROWS_PER_SHARD), "--batch-size", "8", *more),
    ]


def features(cache):
    return {
        name: FeatureCache.open_complete(cache / "pets" / name).features().tobytes()
        for name in ("tiny-broad.h5", "raw-8x8.h5")
    }


def shards(cache):
    found = {}
    for path in cache.glob("pets/tiny-broad.shards/[!.]*.h5"):
        with suppress(FileNotFoundError):  # merged at this very moment
            found[path.name] = path.stat().st_mtime_ns
    return found


def wait_for(cache, count):
    until = time.monotonic() + 120
    while len(shards(cache)) < count:
        assert time.monotonic() < until, "no shards within two minutes"
        time.sleep(0.05)


def test_a_node_dies_and_the_others_do_its_work(pets, expected, cluster, tmp_path):
    found, nodes = cluster
    process = subprocess.Popen(
        command(pets, tmp_path, "--engine", "ray", "--ray-address", found.address),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(tmp_path, 4)
    before = shards(tmp_path)
    assert len(before) < IMAGES // ROWS_PER_SHARD, "the node has to die while there is work left"
    found.remove_node(nodes[0], allow_graceful=False)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert f"{IMAGES} of {IMAGES} rows extracted" in out
    assert features(tmp_path) == expected


def test_many_kills_over_ray_change_no_byte(pets, expected, cluster, tmp_path):
    """The driver is killed at random; the next run keeps every finished shard, so that one per task is lost at most."""
    found, _ = cluster
    delays, kills, kept = random.Random(0), 0, 0
    line = command(pets, tmp_path, "--engine", "ray", "--ray-address", found.address)
    while kills < KILLS:
        had = shards(tmp_path)
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 120
        more = delays.randint(1, 6)
        while process.poll() is None and len(shards(tmp_path)) < len(had) + more and time.monotonic() < until:
            time.sleep(0.02)
        if process.poll() is not None:  # it came to its end first
            assert process.returncode == 0
            assert features(tmp_path) == expected
            shutil.rmtree(tmp_path / "pets")
            continue
        time.sleep(delays.uniform(0, 0.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        if (tmp_path / "pets" / "tiny-broad.h5").exists():
            continue  # it was merging, or taking the shards away
        now = shards(tmp_path)
        assert {name: now.get(name) for name in had} == had, "a finished shard was written again"
        kept += len(had)
    subprocess.run(line, check=True, capture_output=True)
    assert features(tmp_path) == expected
    assert kept, "no kill fell where shards were on disk; the test did not test what it says"


def test_a_cluster_that_is_not_there_is_one_readable_line(pets, tmp_path):
    line = command(pets, tmp_path, "--engine", "ray", "--ray-address", "127.0.0.1:1")
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "no Ray cluster at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
