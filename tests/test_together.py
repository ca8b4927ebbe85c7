"""Several processes at work in one folder, each with the process number 1, as in containers: nothing is lost."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedx
from embedx.data.manifest import load
from embedx.evaluation import saved
from embedx.extract import survey
from embedx.extract.kept import find
from embedx.store import FeatureCache
from embedx.workspace import Workspace

ROUNDS = int(os.environ.get("EMBEDX_ROUNDS", "50"))
IMAGES = 48
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")
WORKER = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
kind, who, others, folder, rounds, steps = sys.argv[1:]
if kind == "patched":
    os.getpid = lambda: 1
assert os.getpid() == 1
from embedx.cli import main
others, folder, rounds, steps = int(others), Path(folder), int(rounds), eval(steps)

def meet(name):
    (folder / "meeting" / f"{name}.{who}").touch()
    until = time.monotonic() + 300
    while len(list((folder / "meeting").glob(f"{name}.*"))) < others:
        assert time.monotonic() < until, "the others are gone"
        time.sleep(0.002)

for number in range(rounds):
    for step, words in enumerate(steps):
        meet(f"{number}-{step}")
        line = [w.format(cache=folder / f"cache{number}", out=folder / f"out{number}", who=who) for w in words]
        main(line, standalone_mode=False)
"""


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("together") / "pets"
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        folder = root / ("train", "val", "test")[i % 3] / ("cat", "dog")[i // 3 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module", params=["patched", "namespace"])
def alone(request):
    """How to start a process that has the number 1."""
    if request.param == "namespace":
        if (
            shutil.which("unshare") is None
            or subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode
        ):
            pytest.skip("no PID namespaces can be made here")
        return ("namespace", *NAMESPACE)
    return ("patched",)


def together(alone, n, folder, steps, rounds):
    """Run the steps in n processes, each step of a round begun by all at the same moment."""
    (folder / "meeting").mkdir()
    kind, *before = alone
    lines = [
        [*before, sys.executable, "-c", WORKER, kind, str(who), str(n), str(folder), str(rounds), repr(steps)]
        for who in range(n)
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    logs = [folder / f"log{who}" for who in range(n)]
    running = []
    for line, log in zip(lines, logs, strict=True):
        with log.open("w") as file:
            running.append(subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, text=True, env=environment))
    while any(p.poll() is None for p in running) and not any(p.poll() for p in running):
        time.sleep(0.05)
    if any(p.poll() for p in running):
        for process in running:
            process.kill()
    codes = [process.wait() for process in running]
    said = [log.read_text() for log in logs]
    assert codes == [0] * n, said
    return said


EXTRACT = ["--cache", "{cache}", "extract", "pets", "-b", "raw:4x4", "--shard-rows", "7", "--workers", "0"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_extract_merge_and_save_fifty_times(pets, alone, tmp_path):
    first = ["--cache", "{cache}", "extract", "pets=folder", "--root", str(pets), *EXTRACT[4:]]
    steps = [
        [*first, "--shard", "{who}/2"],
        [*EXTRACT, "--merge"],
        EXTRACT,
        ["--cache", "{cache}", "probe", "pets", "-b", "raw:4x4", "-o", "{out}"],
    ]
    together(alone, 2, tmp_path, steps, ROUNDS)
    expected = None
    for number in range(ROUNDS):
        workspace = Workspace(tmp_path / f"cache{number}")
        cache = FeatureCache.open_complete(workspace.cache("pets", "raw:4x4"))
        assert cache.damaged() == [] and not cache.status.any()
        expected = expected or cache.features().tobytes()
        assert cache.features().tobytes() == expected
        assert load(workspace.dataset("pets"))[1] is False, "the manifest is as prepared"
        left = [p.name for p in workspace.dataset("pets").rglob("*") if p.name.endswith((".part", ".shards"))]
        assert left == []
        (head,) = (tmp_path / f"out{number}").glob("*.safetensors")
        assert saved.load_model(head).classes == ("cat", "dog")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_six_tasks_of_an_array_that_start_at_the_same_moment(pets, alone, tmp_path):
    """Each prepares the manifest, as none is there yet."""
    first = ["--cache", "{cache}", "extract", "pets=folder", "--root", str(pets), *EXTRACT[4:], "--shard", "{who}/6"]
    together(alone, 6, tmp_path, [first, [*EXTRACT, "--merge"]], 3)
    for number in range(3):
        cache = FeatureCache.open_complete(Workspace(tmp_path / f"cache{number}").cache("pets", "raw:4x4"))
        assert cache.damaged() == [] and cache.header.rows == IMAGES


@pytest.mark.slow
def test_two_merges_at_once_and_a_third_one_later(pets, tmp_path):
    """The default suite's share of the above: two processes, two rounds."""
    first = ["--cache", "{cache}", "extract", "pets=folder", "--root", str(pets), *EXTRACT[4:]]
    said = together(
        ("patched",), 2, tmp_path, [[*first, "--shard", "{who}/2"], [*EXTRACT, "--merge"], [*EXTRACT, "--merge"]], 2
    )
    for out in said:
        assert out.count("complete already") >= 2
    assert sum(out.count("48 rows merged") for out in said) == 2, "one of the two merges, in each round"
    for number in range(2):
        assert FeatureCache.open_complete(Path(tmp_path) / f"cache{number}" / "pets" / "raw-4x4.h5").damaged() == []


def test_shards_that_another_merge_takes_away_while_they_are_looked_at(pets, tmp_path, monkeypatch):
    """The other run has written the cache by then, and this one has found it."""
    workspace = Workspace(tmp_path / "cache")
    manifest = embedx.prepare("pets=folder", pets, workspace=workspace)
    part = embedx.ExtractionSettings(shard_rows=7, workers=0, part=(0, 1))
    embedx.extract_features(manifest, "raw:4x4", part, workspace=workspace)
    shards = workspace.shards("pets", "raw:4x4")
    shutil.copytree(shards, tmp_path / "kept")
    embedx.extract_features(manifest, "raw:4x4", replace(part, part=None), workspace=workspace)
    shutil.copytree(tmp_path / "kept", shards)
    looked = []

    def take_away(*given):
        if not looked:
            shutil.rmtree(shards)
        looked.append(1)
        return find(*given)

    monkeypatch.setattr(survey, "find", take_away)
    (done,) = embedx.extract_features(manifest, "raw:4x4", replace(part, part=None), workspace=workspace)
    assert len(looked) == 2 and done.computed == 0 and not shards.exists()
