"""Robust ResNet50s: features of torchvision's own resnet50, in every layout, and no network under another's name."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.extractors import robust
from embedx.extractors._weights import file_sha256, fingerprint, read_weights, weights_digest

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = torchvision.models.resnet50().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # of a fresh network they do nothing
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 1.5, 4.0)
    return network.requires_grad_(False)


def wrapped(state, top="module."):
    """The layout of the published checkpoints: network, attacker's copy, two normalisers."""
    out = {f"{top}{part}{k}": v for part in ("model.", "attacker.model.") for k, v in state.items()}
    for part in ("normalizer.", "attacker.normalize."):
        out |= {f"{top}{part}new_mean": torch.tensor(MEAN)[:, None, None]}
        out |= {f"{top}{part}new_std": torch.tensor(STD)[:, None, None]}
    return out


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """{layout: file} with one and the same network."""
    folder = tmp_path_factory.mktemp("robust")
    state = network.state_dict()
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    beside = {"optimizer": optimiser.state_dict(), "epoch": 105, "amp": None, "nat_prec1": torch.tensor(57.9)}
    foreign = {"schedule": SimpleNamespace(base_lrs=[0.1]), "rule": np.float64(0.3)}
    torch.save({"model": wrapped(state), **beside}, folder / "plain.pt")
    torch.save({"model": wrapped(state), **beside, **foreign}, folder / "zip.pt")
    torch.save({"state_dict": wrapped(state), **beside, **foreign}, folder / "old.pt",
               _use_new_zipfile_serialization=False)  # fmt: skip
    torch.save(state, folder / "clean.pt")
    save_file(state, folder / "clean.safetensors")
    return {p.name: p for p in folder.iterdir()}


@pytest.mark.parametrize("layout", ["plain.pt", "zip.pt", "old.pt", "clean.pt", "clean.safetensors"])
def test_every_layout_holds_the_network_bit_by_bit(files, network, layout):
    assert weights_digest(robust.network_state(read_weights(files[layout]), "f")) == fingerprint(network)


@pytest.fixture(scope="module")
def direct(network):
    """Two images, and what torchvision's network says of them: features by two routes, logits."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (s, 300, 3), dtype=np.uint8)) for s in (180, 320)]
    transform = Compose([Resize(256), CenterCrop(224), ToTensor(), Normalize(MEAN, STD)])
    maps = []
    hook = network.layer4.register_forward_hook(lambda module, taken, given: maps.append(given))
    logits = network(torch.stack([transform(i) for i in images])).numpy()
    hook.remove()
    return images, maps[0].mean((2, 3)).numpy(), logits


@pytest.mark.parametrize("layout", ["old.pt", "clean.safetensors"])
def test_features_and_head_are_those_of_torchvision(files, network, direct, layout):
    backbone = load_backbone("robust:madry-l2-eps3", files[layout])
    assert backbone.weights == fingerprint(network)
    assert (backbone.dim, backbone.licence, backbone.model) == (2048, "MIT", "resnet50/madry-l2-eps3")
    images, features, logits = direct
    found = backbone.encode(torch.from_numpy(np.stack([backbone.reader(i) for i in images])), "cpu")
    np.testing.assert_allclose(found, features, rtol=1e-5, atol=1e-5)
    assert found.min() >= 0 and found.max() > 0.01
    weight, bias = backbone.head
    np.testing.assert_allclose(found @ weight.T + bias, logits, rtol=1e-4, atol=1e-4)


SMALL = {
    "conv1.weight": torch.arange(4.0),
    "bn1.num_batches_tracked": torch.tensor(3),
    "fc.bias": torch.tensor([torch.nan]),
}


def changed(**entries):
    state = wrapped(SMALL, "")
    for key, value in entries.items():
        state[key.replace("__", ".")] = value
    return {k: v for k, v in state.items() if v is not None}


def test_the_network_is_taken_out_of_its_wrapping():
    for state in (wrapped(SMALL, ""), SMALL, {k: v for k, v in wrapped(SMALL, "").items() if "attacker" not in k}):
        found = robust.network_state(state, "f")
        assert found.keys() == SMALL.keys() and all(found[k] is SMALL[k] for k in SMALL)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(attacker__model__conv1__weight=None), "copy of the network differs"),
        (changed(attacker__model__more=torch.ones(1)), "copy of the network differs"),
        (changed(**{"attacker__model__conv1.weight": torch.arange(4.0) + 1e-6}), "copy of the network differs"),
        (changed(**{"attacker__model__conv1.weight": torch.arange(4)}), "copy of the network differs"),
        (changed(normalizer__new_mean=torch.tensor([0.5, 0.5, 0.5])), "normalizer holds 'new_mean' .0.5, .*other"),
        (changed(attacker__normalize__new_std=torch.tensor(STD).flip(0)), "attacker.normalize holds .*expected"),
        (changed(normalizer__new_std=None), "normalizer holds 'new_mean' .*for other images"),
        (changed(normalizer__new_mean=None, normalizer__new_std=None), "normalizer holds nothing, expected"),
        (changed(normalizer__new_mean=torch.ones(4)), "for other images"),
        (changed(something=torch.ones(1)), "holds 'something' beside a robust network's parts"),
        ({"attacker.model.a": torch.ones(1)}, "holds no names under 'model.'"),
    ],
)  # fmt: skip
def test_wrappings_that_contradict_themselves(state, message):
    with pytest.raises(ValueError, match=message):
        robust.network_state(state, "f")


def test_other_networks_do_not_fit(tmp_path):
    torch.save({"model": wrapped(torchvision.models.resnet18().state_dict())}, tmp_path / "x.pt")
    with pytest.raises(BackboneError, match="x.pt as robust:madry-l2-eps3 does not fit.*missing.*of another shape"):
        load_backbone("robust:madry-l2-eps3", tmp_path / "x.pt")
    with pytest.raises(BackboneError, match="robust has no model 'eps3'; it has madry-l2-eps3, salman-l2-eps3, salman"):
        load_backbone("robust:eps3")


@pytest.mark.slow
def test_a_known_file_goes_by_its_own_name_only(tmp_path, monkeypatch):
    """What a file tells of its origin counts: as the published file, as its conversion, or nothing at all."""
    a, b = "madry-l2-eps3", "salman-l2-eps3"
    passed = "does not fit"  # these files hold three tensors: past the check of their origin, that is what is wrong
    torch.save({"model": wrapped(SMALL)}, tmp_path / "file.ckpt")
    torch.save(SMALL, tmp_path / "clean.pt")
    own = file_sha256(tmp_path / "file.ckpt")
    save_file(SMALL, tmp_path / "converted.safetensors", {"source_sha256": own})

    def refused(model, file):
        with pytest.raises(BackboneError) as caught:
            load_backbone(f"robust:{model}", tmp_path / file)
        return str(caught.value)

    known = robust.SHA256[b]
    for file in ("file.ckpt", "converted.safetensors"):
        why = refused(b, file)
        assert f"{file} is not the published resnet50_l2_eps3.ckpt: its SHA-256 is {own}, expected {known}" in why
        assert passed in refused(a, file) and passed in refused("salman-l2-eps1", file)
    assert passed in refused(a, "clean.pt") and passed in refused(b, "clean.pt")
    monkeypatch.setitem(robust.SHA256, b, own)
    for file in ("file.ckpt", "converted.safetensors"):
        assert passed in refused(b, file)
        for other in (a, "salman-linf-eps4", "salman-l2-eps1"):
            assert "is resnet50_l2_eps3.ckpt, the network robust:salman-l2-eps3; ask for it by" in refused(other, file)


def test_the_table_of_models():
    assert robust.models()[:2] == ("madry-l2-eps3", "salman-l2-eps3") and len(robust.models()) == 16
    assert len(set(robust.FILES.values())) == 16 and set(robust.SHA256) < set(robust.FILES)
    assert robust.address("salman-linf-eps4").endswith("/resnet50_linf_eps4.0.ckpt")
    assert robust.address("salman-l2-eps0.05").endswith("/resnet50_l2_eps0.05.ckpt")


def test_hub_cache_download_and_what_to_do_without_either(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    torch.save({"model": wrapped(SMALL)}, tmp_path / "file.ckpt")
    asked = []

    def serve(answer):
        def download(url, target, hash_prefix=None, progress=True):
            asked.append((url, hash_prefix))
            if answer is None:
                raise OSError("Name or service not known")
            Path(target).write_bytes(answer)

        monkeypatch.setattr("torch.hub.download_url_to_file", download)

    def refused(model):
        with pytest.raises(BackboneError) as caught:
            load_backbone(f"robust:{model}")
        return str(caught.value)

    for answer, why in ((None, "service not known"), (b"<!DOCTYPE html>", "what came is a web page")):
        serve(answer)
        for model in robust.models():
            found = refused(model)
            assert f"{robust.FILES[model]} of robust:{model} could not be had" in found and why in found
            assert f"fetch {robust.address(model)} on a machine with internet" in found and "--weights" in found
    assert asked[:16] == [(robust.address(m), robust.SHA256.get(m)) for m in robust.models()]
    assert list(folder.iterdir()) == []
    serve((tmp_path / "file.ckpt").read_bytes())
    assert "imagenet_l2_3_0.pt as robust:madry-l2-eps3 does not fit" in refused("madry-l2-eps3")
    assert [p.name for p in folder.iterdir()] == ["imagenet_l2_3_0.pt"]
    serve(None)
    assert "does not fit" in refused("madry-l2-eps3")  # from the hub's cache
