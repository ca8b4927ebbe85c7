"""CLIP: features equal to open_clip's own image tower and transform, and the projection leads to its embedding."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.extractors import clip

# Pairs exist for large models only, so small configurations stand in under the names of real pairs.
TOWERS = {
    "transformer": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 32, "patch_size": None},
    "timm": {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "avg",
             "timm_proj": "linear", "image_size": 160},
}  # fmt: skip
TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}


@pytest.fixture(params=TOWERS)
def pair(request, monkeypatch, tmp_path):
    """(spec, file of random weights, the model open_clip builds)."""
    vision = TOWERS[request.param]
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16", config)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16", load_weights=False).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "w.safetensors")
    return "clip:ViT-B-16/laion2b_s34b_b88k", tmp_path / "w.safetensors", model


def test_features_and_projection_equal_open_clip(pair):
    spec, file, model = pair
    backbone = load_backbone(spec, file)
    settings = {**open_clip.get_pretrained_cfg("ViT-B-16", "laion2b_s34b_b88k"), "size": model.visual.image_size}
    keys = vars(open_clip.transform.PreprocessCfg())
    preset = open_clip.transform.PreprocessCfg(**{k: v for k, v in settings.items() if k in keys})
    transform = open_clip.transform.image_transform_v2(preset, is_train=False)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (s, 130, 3), dtype=np.uint8)) for s in (90, 200)]
    with torch.inference_mode():
        embedding = model.encode_image(torch.stack([transform(i) for i in images])).numpy()
    features = backbone.encode(torch.from_numpy(np.stack([backbone.reader(i) for i in images])), "cpu")
    assert features.shape == (2, backbone.dim)
    projected = features @ backbone.projection + (0 if backbone.projection_bias is None else backbone.projection_bias)
    np.testing.assert_allclose(projected, embedding, rtol=1e-4, atol=1e-5)


def test_a_pair_with_the_wrong_activation_is_refused_and_the_right_one_named():
    with pytest.raises(
        BackboneError, match="another activation than ViT-B-32 builds; use clip:ViT-B-32-quickgelu/openai"
    ):
        load_backbone("clip:ViT-B-32/openai")
    assert "ViT-B-32/openai" not in clip.models()
    right = [m for m in clip.models() if m.endswith("-quickgelu/openai")]
    assert "ViT-B-32-quickgelu/openai" in right


def test_every_refusal_names_a_pair_that_is_accepted_or_none():
    sound = set(clip.models())
    refused = [f"{m}/{t}" for m, t in open_clip.list_pretrained() if f"{m}/{t}" not in sound]
    assert len(refused) > 20  # open_clip only warns about these
    for model in refused:
        with pytest.raises(BackboneError, match="another activation") as caught:
            load_backbone(f"clip:{model}")
        advice = str(caught.value).rpartition("; ")[2]
        assert advice == "choose another pair" or advice.removeprefix("use clip:") in sound


def test_unknown_pairs_and_weights_that_cannot_be_had(monkeypatch, tmp_path):
    with pytest.raises(BackboneError, match="open_clip has no pair ViT-B-16/laion; did you mean|open_clip has no pair"):
        load_backbone("clip:ViT-B-16/laion")

    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("open_clip.create_model", offline)
    with pytest.raises(BackboneError, match=r"Network is unreachable.*https://huggingface.co/laion/.*--weights"):
        load_backbone("clip:ViT-B-16/laion2b_s34b_b88k")


@pytest.mark.parametrize(
    ("tag", "licence"), [("openai", "MIT"), ("metaclip_400m", "CC-BY-NC-4.0"), ("meta", "Apache-2.0"), ("x", "unknown")]
)
def test_licences(tag, licence):
    assert clip._licence(tag) == licence
