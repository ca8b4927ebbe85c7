"""`embedx verify`: it names all that is damaged and no more, and keeps weights as they were."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from embedx.cli import main
from embedx.data.manifest import ids_digest
from embedx.errors import BackboneError, CacheError
from embedx.extract import verify
from embedx.extractors import robust, tiny
from embedx.extractors import torchvision as plain_torchvision
from embedx.extractors._weights import file_sha256, read_weights, weights_digest
from embedx.store import CacheWriter, Header, Rows, header

N, DIM, BLOCK = 23, 4, 3


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of 23 rows in 8 blocks, with a classification head."""
    monkeypatch.setattr(header, "BLOCK_BYTES", BLOCK * DIM * 4)
    ids = [f"{i:02d}" for i in range(N)]
    provenance = {"spec": "raw:1x1", "identity": {"weights": "abc"}, "conditions": {}}
    head = Header("raw:1x1", DIM, "float32", ids_digest(ids), 0, N, N, provenance)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N, DIM)).astype(np.float32)
    with CacheWriter(tmp_path / "c.h5", head, ids) as writer:
        writer.append(Rows(ids, features, np.zeros(N, np.uint8), np.zeros((N, 32), np.uint8), {3: "torn"}))
        writer.attach("head/weight", np.ones((2, DIM), np.float32))
        writer.attach("head/bias", np.ones(2, np.float32))
    return tmp_path / "c.h5"


def place(path, name):
    with h5py.File(path, "r") as file:
        return file[name].id.get_offset()


def flip(path, *offsets):
    content = bytearray(path.read_bytes())
    for offset in offsets:
        content[offset] ^= 0xFF
    path.write_bytes(content)


def embedx(*words, code=0):
    result = CliRunner().invoke(main, ["verify", *map(str, words)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.sets(st.integers(0, N - 1), max_size=6))
def test_exactly_the_damaged_blocks_are_named(cache, rows):
    sound = cache.read_bytes()
    try:
        flip(cache, *(place(cache, "features") + row * DIM * 4 + 1 for row in rows))
        report = verify.check_cache(cache)
        expected = {(s, min(s + BLOCK, N)) for s in (r // BLOCK * BLOCK for r in rows)}
        assert (set(report.damaged), len(report.damaged), report.faults) == (expected, len(expected), ())
        assert report.blocks == 8
    finally:
        cache.write_bytes(sound)


def test_a_sound_cache_and_one_with_everything_damaged(cache):
    shown = embedx(cache).stdout
    assert "all 8 blocks fit, and every other array" in shown and "damaged" not in shown and "weights     abc" in shown
    names = ["ids", "status", "content_hash", "reason_texts", "head/weight", "head/bias"]
    flip(
        cache, place(cache, "features"), place(cache, "features") + (N - 1) * DIM * 4, *(place(cache, n) for n in names)
    )
    done = embedx(cache, code=1)
    lines = [line for line in done.stdout.splitlines() if line.startswith("damaged")]
    assert [line.split(None, 1)[1] for line in lines[-2:]] == ["rows 0 to 3", "rows 21 to 23"]
    assert len(lines) == 8 and all(sum(f"the array '{n}'" in line for line in lines) == 1 for n in names)
    assert "2 of 8 blocks and 6 other parts are damaged; delete the file and extract again" in done.stderr


def test_checksums_and_header_themselves(cache, tmp_path):
    sound = cache.read_bytes()
    flip(cache, place(cache, "checksums"))
    shown = embedx(cache, code=1).stdout
    assert "the array 'checksums'" in shown and "so that these cannot be checked" in shown
    cache.write_bytes(sound.replace(b"raw:1x1", b"raw:2x2"))
    with pytest.raises(CacheError, match="the header is damaged"):
        verify.check_cache(cache)
    (tmp_path / "x.h5").write_bytes(b"nothing")
    assert "no readable HDF5 file" in embedx(tmp_path / "x.h5", code=1).stderr
    cache.write_bytes(sound)
    assert verify.is_cache(cache.rename(tmp_path / "renamed"))  # by its content


def small(folder):
    """A state dict with shared and turned tensors, in a checkpoint with an object of a foreign class."""
    whole = torch.randn(4, 3)
    state = {"a": whole, "b": whole[1:], "c": whole.T, "d": torch.arange(3), "e": torch.tensor(2.5).half()}
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch\x1b[2J": 1,
                "args": SimpleNamespace(lr=1)}, folder / "x.pt")  # fmt: skip
    return folder / "x.pt", state


def test_what_is_shown_of_a_checkpoint(tmp_path):
    file, state = small(tmp_path)
    shown = embedx(file).stdout
    for line in (
        f"sha-256     {file_sha256(file)}", "format      torch zip",
        "found under state_dict; beside it: epoch?[2J, args",
        "prefix      module.", "tensors     5 in the file, 5 of the network", "numbers     37",
        "layout      no known architecture", "names       a, b, c, d, e", f"fingerprint {weights_digest(state)}",
        "left inert  types.SimpleNamespace",
    ):  # fmt: skip
        assert line in shown
    assert "\x1b" not in shown


def test_conversion_keeps_every_tensor_and_remembers_its_source(tmp_path):
    file, state = small(tmp_path)
    out, again = tmp_path / "out.safetensors", tmp_path / "again.safetensors"
    assert f"wrote {out}" in embedx(file, "-o", out).stdout
    found = read_weights(out)
    assert weights_digest(found) == weights_digest(state) and found.keys() == state.keys()
    for path in (out, again):  # a conversion of the conversion remembers the first source
        if path == again:
            embedx(out, "-o", again)
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
        assert metadata["source"] == "x.pt"
        assert (metadata["source_sha256"], metadata["fingerprint"]) == (file_sha256(file), weights_digest(state))
    before = out.read_bytes()
    assert "exists already and is not overwritten" in embedx(file, "-o", out, code=1).stderr
    assert "expected one that ends in .safetensors" in embedx(file, "-o", tmp_path / "x.bin", code=1).stderr
    assert out.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"x.pt", "out.safetensors", "again.safetensors"}


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    file, _ = small(tmp_path)
    monkeypatch.setattr("safetensors.torch.save_file", lambda s, path, m: path.write_bytes(b"half of it"))
    assert "cannot be kept as safetensors" in embedx(file, "-o", tmp_path / "o.safetensors", code=1).stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.slow
def test_the_fingerprint_is_the_one_that_caches_record(tmp_path):
    weights = tiny.WEIGHTS / "broad.safetensors"
    assert verify.inspect_weights(weights).fingerprint == tiny.load("broad").weights
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    torch.save({"state_dict": network.half().state_dict()}, tmp_path / "half.pt")
    report = verify.inspect_weights(tmp_path / "half.pt")
    assert report.architectures == ("resnet18",) and report.parameters == 11_689_512
    assert report.fingerprint == plain_torchvision.load("resnet18/IMAGENET1K_V1", tmp_path / "half.pt").weights


@pytest.mark.slow
def test_a_robust_checkpoint_and_its_conversion_are_one_network(tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.resnet50().state_dict()
    wrapped = {f"module.{p}{k}": v for p in robust.COPIES for k, v in state.items()}
    for p in robust.NORMALISERS:
        wrapped |= {f"module.{p}new_mean": torch.tensor(robust.MEAN), f"module.{p}new_std": torch.tensor(robust.STD)}
    torch.save({"model": wrapped, "epoch": 105}, tmp_path / "r.pt")
    shown = embedx(tmp_path / "r.pt", "-o", tmp_path / "r.safetensors").stdout
    for line in (
        "tensors     644 in the file, 320 of the network", "25,557,032 learnt", f"fingerprint {weights_digest(state)}",
        "torchvision's resnet50, with the attacker and normaliser of a robust checkpoint",
    ):  # fmt: skip
        assert line in shown
    backbone = robust.load("madry-l2-eps3", tmp_path / "r.safetensors")
    assert backbone.weights == weights_digest(state)


@pytest.mark.parametrize(
    ("model", "options"),
    [("resnet18", {"num_classes": 2}), ("vit_b_16", {}), ("squeezenet1_1", {}),
     ("shufflenet_v2_x0_5", {}), ("mnasnet0_5", {})],
)  # fmt: skip
def test_architectures_are_told_by_names_and_shapes(model, options):
    with torch.device("meta"):
        network = torchvision.models.get_model(model, **options)
    names, _, parameters = verify._architectures(network.state_dict())
    assert names == (model,) and parameters == sum(p.numel() for p in network.parameters())


def test_the_published_file_is_recognised(tmp_path, monkeypatch):
    file, _ = small(tmp_path)
    assert "\npublished" not in embedx(file).stdout
    monkeypatch.setitem(robust.SHA256, "salman-l2-eps3", file_sha256(file))
    embedx(file, "-o", tmp_path / "o.safetensors")
    for path in (file, tmp_path / "o.safetensors"):
        assert "published   as robust:salman-l2-eps3" in embedx(path).stdout


def test_wrong_targets(cache, tmp_path):
    assert "there is no file absent.h5; give a feature cache" in embedx("absent.h5", code=2).stderr
    assert "-o is for files of weights" in embedx(cache, "-o", tmp_path / "o.safetensors", code=2).stderr
    (tmp_path / "page.pt").write_text("<html>")
    assert "is a web page" in embedx(tmp_path / "page.pt", code=1).stderr
    with pytest.raises(BackboneError, match="holds no state dict"):
        torch.save([1], tmp_path / "l.pt")
        verify.inspect_weights(tmp_path / "l.pt")
