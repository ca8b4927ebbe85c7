"""The production line: where the time went is told truly, a dead process is one message, compiled networks agree."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from embedx.data import manifest as manifests
from embedx.data.sources import Folder
from embedx.errors import ExtractionError
from embedx.extract import Settings, extract, load_backbone
from embedx.extract.throughput import Throughput
from embedx.extractors._backbone import Backbone, Geometry
from embedx.extractors._weights import freeze
from embedx.store import FeatureCache
from embedx.workspace import Workspace

N = 24


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    ids = [f"{i:02d}.png" for i in range(N)]
    for name in ids:
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / name)
    return manifests.build("noise", {"id": ids, "label": ["a", "b"] * 12, "split": ["train", "test"] * 12}), root


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that only `sleep` moves: how busy the machine is does not count."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


class Slow(torch.nn.Module):
    def forward(self, x):
        time.sleep(0.05)
        return x.mean(dim=(2, 3))


class SlowFolder(Folder):
    def read(self, row_id):
        time.sleep(0.02)
        return super().read(row_id)


class Deadly(Folder):
    """Ends the process that reads the last file, as a system short of memory does."""

    def read(self, row_id):
        if row_id == "23.png" and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(row_id)


def backbone(module):
    return Backbone("toy:x", 3, Geometry((20, 20), None), freeze(module), "toy", "x", "", {}, mean=(0.0,) * 3,
                    std=(1.0,) * 3)  # fmt: skip


def run(data, tmp_path, network, source=Folder, **settings):
    how = Settings(**{"batch": 4, **settings})
    return extract(data[0], source(data[1]), {"toy": network}, Workspace(tmp_path / "cache"), how)


def test_a_slow_backbone_and_slow_files_are_told_apart(data, tmp_path):
    _, used = run(data, tmp_path, backbone(Slow()))
    assert used.images == N
    assert used.device == pytest.approx(N / 4 * 0.05) == used.seconds
    assert used.waiting == 0
    assert "the backbones are the limit" in used.advice("cpu", "float32", "exact", compiled=False)
    _, used = run(data, tmp_path / "2", replace(load_backbone("raw:4x4"), dim=48), SlowFolder)
    assert used.decoding == pytest.approx(N * 0.02) == used.waiting == used.seconds
    assert used.device == 0
    assert "decoding is the limit: --workers" in used.advice("cpu", "float32", "exact", compiled=False)


@pytest.mark.parametrize(
    ("used", "how", "expected"),
    [
        (Throughput(10, 10, 9, 1, 9, 64, 1), ("cpu", "float32", "exact", False), "--decode fast"),
        (Throughput(10, 10, 9, 1, 9, 64, 1), ("cpu", "float32", "fast", False), "more cores"),
        (Throughput(10, 10, 1, 9, 0, 4, 1), ("cuda", "float32", "exact", False), "--precision float16"),
        (Throughput(10, 10, 1, 9, 0, 4, 1), ("cuda", "float16", "exact", False), "--compile"),
        (Throughput(10, 10, 1, 9, 0, 4, 1), ("cuda", "float16", "exact", True), "more GPUs"),
        (Throughput(10, 10, 1, 9, 0, 4, 1), ("cpu", "float32", "exact", False), "a GPU"),
    ],
)
def test_the_advice_names_what_was_not_used_yet(used, how, expected):
    device, precision, decode, compiled = how
    assert expected in used.advice(device, precision, decode, compiled=compiled)


def test_two_processes_are_counted_as_two():
    both = Throughput()
    both.add(Throughput(100, 10, 8, 6, 2, 1, 1))
    both.add(Throughput(50, 8, 4, 4, 2, 1, 1))
    assert both.report() == (
        "150 images in 10.0 s, 15 images/s: the backbones took 50 % of the time, waiting for images 20 %; "
        "decoding took 1.2 of 2 processes"
    )


def test_a_killed_decoder_is_one_message_and_what_was_done_is_kept(data, tmp_path):
    network = backbone(Slow())
    with pytest.raises(ExtractionError, match="a process that decodes was killed.*fewer --workers"):
        run(data, tmp_path, network, Deadly, workers=1, shard_rows=4)
    (result,), _ = run(data, tmp_path, network, shard_rows=4)
    assert 0 < result.computed < N


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_compiled_networks_agree_and_are_recorded(data, tmp_path):
    tiny = load_backbone("tiny:broad")
    (plain,), _ = run(data, tmp_path, tiny.placed("cpu"))
    settings = {"compiled": True}
    (compiled,), _ = run(data, tmp_path / "2", load_backbone("tiny:broad").placed("cpu", compiled=True), **settings)
    found = FeatureCache.open_complete(compiled.path)
    assert found.header.provenance["conditions"]["compiled"] is True
    expected = FeatureCache.open_complete(plain.path).features()
    np.testing.assert_allclose(found.features(), expected, rtol=1e-4, atol=1e-5)
