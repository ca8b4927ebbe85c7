"""timm models: features and pixels equal to timm's own model and transform called directly."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from embedx.cli import main
from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.store import FeatureCache

timm = pytest.importorskip("timm")

# A residual network, one whose head has layers of its own before the classifier, two transformers that pool otherwise.
MODELS = ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224", "test_vit2"]


def random_weights(model, path, classes=7):
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=classes).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that train mode would overwrite
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    return network


@pytest.mark.parametrize(("model", "suffix"), [(m, ".safetensors") for m in MODELS] + [("resnet10t", ".pt")])
def test_extract_equals_timm_called_directly(tmp_path, model, suffix):
    file = tmp_path / f"mine{suffix}"
    network = random_weights(model, file)
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            size = rng.integers(150, 300, 2)
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / split / label / "1.png")
    command = ["--cache", str(tmp_path / "cache"), "extract", "folder", "--root", str(tmp_path / "pets")]
    command += ["-b", f"mine=timm:{model}", "--weights", str(file), "--workers", "1", "--batch-size", "4"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    cache = FeatureCache.open_complete(tmp_path / "cache" / "pets" / "mine.h5")

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    x = torch.stack([transform(Image.open(tmp_path / "pets" / i).convert("RGB")) for i in cache.ids])
    with torch.inference_mode():
        direct = network.forward_head(network.forward_features(x), pre_logits=True)
        logits = network(x).numpy()
    np.testing.assert_allclose(cache.features(), direct.numpy(), rtol=1e-5, atol=1e-5)
    head = cache.features() @ cache.extras["head/weight"].T + cache.extras["head/bias"]
    np.testing.assert_allclose(head, logits, rtol=1e-4, atol=1e-4)


def test_weights_without_a_classifier_and_of_another_model(tmp_path):
    random_weights("resnet10t", tmp_path / "w.safetensors", classes=0)
    backbone = load_backbone("timm:resnet10t", tmp_path / "w.safetensors")
    assert backbone.head is None
    with pytest.raises(BackboneError, match=r"w.safetensors as timm:vit_tiny_patch16_224 does not fit: \d+ missing"):
        load_backbone("timm:vit_tiny_patch16_224", tmp_path / "w.safetensors")


def test_equal_weights_have_equal_fingerprints_in_any_file_format(tmp_path):
    random_weights("resnet10t", tmp_path / "a.safetensors")
    random_weights("resnet10t", tmp_path / "b.pt")
    a, b = (load_backbone("timm:resnet10t", tmp_path / f) for f in ("a.safetensors", "b.pt"))
    assert a.identity == b.identity
    random_weights("resnet10t", tmp_path / "c.pt", classes=9)
    assert load_backbone("timm:resnet10t", tmp_path / "c.pt").weights != a.weights


PIXELS = [
    "resnet50.tv_in1k",
    "resnet50.a1_in1k",
    "vit_base_patch16_224.augreg_in21k",
    "vit_base_patch16_siglip_224",
    "regnety_160.swag_lc_in1k",
    "vit_small_patch14_dinov2.lvd142m",
    "convnext_base.fb_in22k",
    "coat_lite_medium_384.in1k",
    "vit_5b_patch16_sapiens2.fb",
]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(model=st.sampled_from(PIXELS), width=st.integers(1, 700), height=st.integers(1, 700))
def test_pixels_equal_timms_transform(model, width, height):
    """The geometry read off a config gives exactly the pixels of timm's transform, for images of any shape."""
    from embedx.extractors._timm import geometry

    cfg = timm.get_pretrained_cfg(model).to_dict()
    config = timm.data.resolve_data_config(pretrained_cfg=cfg)
    rng = np.random.default_rng(width * 1000 + height)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    theirs = timm.data.create_transform(**config, is_training=False, normalize=False)(image)
    assert (geometry(config)(image) == theirs.permute(1, 2, 0).numpy()).all()


def test_preprocessing_that_cannot_be_reproduced_is_refused():
    from embedx.extractors._timm import geometry

    cfg = timm.get_pretrained_cfg("resnet10t").to_dict()
    with pytest.raises(
        ValueError, match="crop_mode 'border'.*not supported yet: expected a square centre crop or squash"
    ):
        geometry(timm.data.resolve_data_config(pretrained_cfg={**cfg, "crop_mode": "border"}))


def test_a_model_timm_does_not_know_and_weights_that_cannot_be_had(monkeypatch):
    with pytest.raises(BackboneError, match="timm has no model 'resnet10tt'; did you mean resnet10t"):
        load_backbone("timm:resnet10tt")

    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("timm.create_model", offline)
    message = r"Network is unreachable.*https://huggingface.co/timm/resnet10t.c3_in1k .*pass the file with --weights"
    with pytest.raises(BackboneError, match=message):
        load_backbone("timm:resnet10t.c3_in1k")
