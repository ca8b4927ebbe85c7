"""torchvision and SWAG: features equal to torchvision's own model and transform called directly."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.extractors import swag

SWAG = "swag:vit-b16-linear"  # ten times as large as the others
CASES = [
    ("torchvision:resnet18/IMAGENET1K_V1", "resnet18", {}, 224, lambda net: setattr(net, "fc", torch.nn.Identity())),
    ("torchvision:mobilenet_v3_small/IMAGENET1K_V1", "mobilenet_v3_small", {}, 224,
     lambda net: net.classifier.__setitem__(3, torch.nn.Identity())),
    ("torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1", "shufflenet_v2_x0_5", {}, 224,
     lambda net: setattr(net, "fc", torch.nn.Identity())),
    (SWAG, "vit_b_16", {}, 224, lambda net: setattr(net, "heads", torch.nn.Identity())),
]  # fmt: skip
PARAMETERS = [pytest.param(*case, id=case[0], marks=[pytest.mark.slow] * (case[0] == SWAG)) for case in CASES]


@pytest.mark.parametrize(("spec", "model", "options", "size", "behead"), PARAMETERS)
def test_features_equal_torchvision_called_directly(tmp_path, spec, model, options, size, behead):
    torch.manual_seed(0)
    network = torchvision.models.get_model(model, **options).eval()
    torch.nn.init.normal_(list(network.modules())[-1].weight, std=0.02)  # a fresh ViT head is zeros
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(spec, tmp_path / "w.safetensors")
    enum = "IMAGENET1K_SWAG_LINEAR_V1" if spec.startswith("swag") else spec.partition("/")[2]
    preset = torchvision.models.get_model_weights(model)[enum].transforms()
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (s, 300, 3), dtype=np.uint8)) for s in (180, 300)]
    x = torch.stack([preset(image) for image in images])
    pixels = torch.from_numpy(np.stack([backbone.reader(image) for image in images]))
    with torch.inference_mode():
        logits = network(x).numpy()
        behead(network)
        direct = network(x).numpy()
    features = backbone.encode(pixels, "cpu")
    assert features.shape == (2, backbone.dim) and backbone.reader.shape == (size, size, 3)
    np.testing.assert_allclose(features, direct, rtol=1e-5, atol=1e-5)
    weight, bias = backbone.head
    np.testing.assert_allclose(features @ weight.T + bias, logits, rtol=1e-3, atol=1e-4)


def test_preprocessing_of_every_swag_model_is_the_official_one():
    """Resize and crop to the training size, bicubic, no margin; the end-to-end sizes are those of the paper."""
    sizes = {"vit-b16": 384, "vit-l16": 512, "vit-h14": 518}
    for name in swag.models():
        architecture, _, trunk = name.rpartition("-")
        enum = torchvision.models.get_model_weights(swag.ARCHITECTURES[architecture])[swag.TRUNKS[trunk]]
        preset = enum.transforms()
        assert preset.crop_size == preset.resize_size == [224 if trunk == "linear" else sizes.get(architecture, 384)]
        assert preset.interpolation.value == "bicubic"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet5O/IMAGENET1K_V1", "torchvision has no model 'resnet5O'; did you mean resnet"),
        ("torchvision:resnet50", "name the weights too.*resnet50/IMAGENET1K_V1, resnet50/IMAGENET1K_V2"),
        ("torchvision:resnet50/DEFAULT", "resnet50 has no weights 'DEFAULT'; it has IMAGENET1K_V1, IMAGENET1K_V2"),
        ("swag:vit-b16", "swag has no model 'vit-b16'; it has vit-b16-linear, vit-b16-e2e"),
    ],
)
def test_unknown_models_and_weights(spec, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(spec)


def test_the_hub_cache_is_used_and_a_missing_file_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url
    with pytest.raises(BackboneError, match=f"service not known.*fetch {url} .*--weights"):
        load_backbone("torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1")
    enum = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / enum.url.rpartition("/")[2])
    assert load_backbone("torchvision:resnet18/IMAGENET1K_V1").dim == 512


def test_a_classifier_that_is_no_linear_layer(tmp_path):
    save_file(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="its classifier is no linear layer.*choose another model"):
        load_backbone("torchvision:squeezenet1_1/IMAGENET1K_V1", tmp_path / "w.safetensors")
