"""Ray: the same bytes from a cluster of several nodes, also when a node dies, or the driver is killed repeatedly."""

import os
import random
import shutil
import subprocess
import time

import pytest
from killing import command, features, merged, run_and_kill, shards, write_images

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'embedx[ray]'")

IMAGES, ROWS_PER_SHARD = 400, 10
SHARDS = ("--shard-rows", str(ROWS_PER_SHARD))
KILLS = int(os.environ.get("EMBEDX_KILLS", "3"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.filterwarnings("ignore")]  # Ray's own warnings


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("ray") / "pets", IMAGES)


@pytest.fixture(scope="module")
def expected(pets, tmp_path_factory):
    """The features of a run in one process with one thread, as Ray's tasks have."""
    cache = tmp_path_factory.mktemp("calm")
    subprocess.run(command(pets, cache, "--workers", "0", *SHARDS), check=True, capture_output=True)
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


def wait_for(cache, count):
    until = time.monotonic() + 120
    while len(shards(cache)) < count:
        assert time.monotonic() < until, "no shards within two minutes"
        time.sleep(0.05)


def test_a_node_dies_and_the_others_do_its_work(pets, expected, cluster, tmp_path):
    found, nodes = cluster
    process = subprocess.Popen(
        command(pets, tmp_path, *SHARDS, "--engine", "ray", "--ray-address", found.address),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(tmp_path, 4)
    before = shards(tmp_path)
    assert len(before) < 2 * IMAGES // ROWS_PER_SHARD, "the node has to die while there is work left"
    found.remove_node(nodes[0], allow_graceful=False)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert f"{IMAGES} of {IMAGES} rows extracted" in out
    assert features(tmp_path) == expected


def test_many_kills_over_ray_change_no_byte(pets, expected, cluster, tmp_path):
    """The driver is killed at random; the next run keeps every finished shard, so that one per task is lost at most."""
    found, _ = cluster
    line, draw = command(pets, tmp_path, *SHARDS, "--engine", "ray", "--ray-address", found.address), random.Random(0)
    kills = kept = 0
    while kills < KILLS:
        had = shards(tmp_path)
        if not run_and_kill(line, tmp_path, draw.randint(1, 12), draw):
            assert features(tmp_path) == expected
            shutil.rmtree(tmp_path / "pets")
            continue
        kills += 1
        now, done = shards(tmp_path), merged(tmp_path)
        lost = {key for key in had if now.get(key) != had[key] and key[0] not in done}
        assert not lost, f"finished shards were written again: {lost}"
        kept += len(now)
    subprocess.run(line, check=True, capture_output=True)
    assert features(tmp_path) == expected
    assert kept, "no kill fell where shards were on disk; the test did not test what it says"


def test_a_cluster_that_is_not_there_is_one_readable_line(pets, tmp_path):
    line = command(pets, tmp_path, *SHARDS, "--engine", "ray", "--ray-address", "127.0.0.1:1")
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "no Ray cluster at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
