"""On a CUDA device: the features of the processor, half precision, batches that fit, the same bytes twice."""

import numpy as np
import pytest
import torch
from PIL import Image

from embedx.data import manifest as manifests
from embedx.data.sources import Folder
from embedx.data.status import Status
from embedx.extract import Settings, extract, load_backbone
from embedx.extract.encoding import LARGEST, Encoder, fitting_batch
from embedx.store import FeatureCache
from embedx.workspace import Workspace

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
N = 70


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("cuda")
    rng = np.random.default_rng(0)
    ids = [f"{i:02d}.png" for i in range(N)]
    for name in ids:
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(root / name)
    (root / "07.png").write_bytes(b"no image")
    return manifests.build("noise", {"id": ids, "label": ["a", "b"] * 35, "split": ["train", "test"] * 35}), root


def run(data, folder, precision="float32", devices=("cuda",), **settings):
    backbone = load_backbone("tiny:broad").placed(devices[0], precision)
    how = Settings(**{"devices": devices, "max_bad": 0.1, "shard_rows": 20, "batch": 16, **settings})
    (result,), used = extract(data[0], Folder(data[1]), {"tiny": backbone}, Workspace(folder), how)
    return FeatureCache.open_complete(result.path), used


def test_features_are_those_of_the_processor(data, tmp_path):
    torch.backends.cuda.matmul.allow_tf32 = False
    expected, _ = run(data, tmp_path / "cpu", devices=("cpu",))
    found, used = run(data, tmp_path / "cuda", workers=2)
    assert used.device > 0
    assert found.status[7] == Status.UNREADABLE
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.features(), expected.features(), rtol=1e-2, atol=2e-3)
    a, b = found.features()[found.status == 0], expected.features()[found.status == 0]
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.99999


def test_the_same_bytes_for_any_shards_and_workers(data, tmp_path):
    expected = run(data, tmp_path / "0")[0].features().tobytes()
    for i, (rows, workers) in enumerate([(1000, 0), (7, 2)], 1):
        assert run(data, tmp_path / str(i), shard_rows=rows, workers=workers)[0].features().tobytes() == expected


def test_half_precision_is_stored_as_such_and_close(data, tmp_path):
    full, _ = run(data, tmp_path / "32")
    half, _ = run(data, tmp_path / "16", precision="float16")
    assert half.header.dtype == "float16"
    ok = half.status == Status.OK
    a, b = full.features()[ok], half.features()[ok].astype(np.float32)
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.999


def test_the_batch_fits(data):
    backbone = load_backbone("tiny:broad").placed("cuda")
    assert 1 <= fitting_batch([backbone], "cuda") <= LARGEST


def test_memory_that_runs_out_halves_the_batch():
    backbone = load_backbone("tiny:broad").placed("cuda")
    pixels = torch.randint(0, 256, (512, 64, 64, 3), dtype=torch.uint8)
    expected = Encoder("cuda", 64).start(backbone, pixels)()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 200e6) / total))
    try:
        encoder = Encoder("cuda", 512)
        found = encoder.start(backbone, pixels)()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert encoder.batch < 512
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_all_gpus_at_once(data, tmp_path):
    expected = run(data, tmp_path / "1")[0].features().tobytes()
    assert run(data, tmp_path / "2", devices=("cuda:0", "cuda:1"))[0].features().tobytes() == expected
