"""DINOv2 and DINOv3: tokens, registers, resolutions; equal to timm called directly with its own transform."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.extractors import dinov2, dinov3

timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Transformers of two blocks: everything but the depth is the real thing."""
    create = timm.create_model

    def two_blocks(model, **options):
        return create(model, **options, **({"depth": 2} if model.startswith("vit_") else {}))

    monkeypatch.setattr("timm.create_model", two_blocks)


def network_of(model, file=None, **options):
    """A random network in which nothing stands at its initial value; saved as timm would."""
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=0, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    if file is not None:
        save_file(network.state_dict(), file)
    return network


def pixels_of(backbone, seed=0):
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((150, 260), (300, 190))]
    return images, torch.from_numpy(np.stack([backbone.reader(image) for image in images]))


def batch(cfg, size, images):
    """The images through timm's own transform at a resolution."""
    config = timm.data.resolve_data_config({"input_size": (3, size, size)}, pretrained_cfg=cfg)
    transform = timm.data.create_transform(**config, is_training=False)
    return torch.stack([transform(image) for image in images])


CASES = [
    ("dinov2:vit-s14", "vit_small_patch14_dinov2.lvd142m", 224, 1, "cls"),
    ("dinov2:vit-s14-reg/mean", "vit_small_patch14_reg4_dinov2.lvd142m", 224, 5, "mean"),
    ("dinov2:vit-s14-reg@98/cls+mean", "vit_small_patch14_reg4_dinov2.lvd142m", 98, 5, "cls+mean"),
    ("dinov3:vit-s16", "vit_small_patch16_dinov3.lvd1689m", 256, 5, "cls"),
    ("dinov3:vit-s16-qkvb@112/mean", "vit_small_patch16_dinov3_qkvb.lvd1689m", 112, 5, "mean"),
    ("dinov3:vit-s16@112/cls+mean", "vit_small_patch16_dinov3.lvd1689m", 112, 5, "cls+mean"),
]


@pytest.mark.parametrize(("spec", "model", "size", "prefix", "kind"), CASES, ids=[c[0] for c in CASES])
def test_tokens_equal_timm_called_directly(tmp_path, spec, model, size, prefix, kind):
    network = network_of(model, tmp_path / "w.safetensors", img_size=size)
    backbone = load_backbone(spec, tmp_path / "w.safetensors")
    images, pixels = pixels_of(backbone)
    with torch.inference_mode():
        out = network.forward_features(batch(network.pretrained_cfg, size, images))
    assert out.shape[1] == prefix + (size // (14 if "dinov2" in spec else 16)) ** 2
    parts = {
        "cls": out[:, 0],
        "mean": out[:, prefix:].mean(1),
        "cls+mean": torch.cat([out[:, 0], out[:, prefix:].mean(1)], 1),
    }
    features = backbone.encode(pixels, "cpu")
    assert features.shape == (2, backbone.dim)
    np.testing.assert_allclose(features, parts[kind].numpy(), rtol=1e-5, atol=1e-5)
    assert backbone.model == model and backbone.reader.shape == (size, size, 3) and backbone.head is None
    assert backbone.licence == ("apache-2.0" if "dinov2" in spec else "dinov3-license")


def test_registers_would_change_the_mean(tmp_path):
    network_of("vit_small_patch14_reg4_dinov2.lvd142m", tmp_path / "w.safetensors", img_size=98)
    backbone = load_backbone("dinov2:vit-s14-reg@98/mean", tmp_path / "w.safetensors")
    images, pixels = pixels_of(backbone)
    with torch.inference_mode():
        out = backbone.module.network.forward_features(batch(backbone.module.network.pretrained_cfg, 98, images))
    assert np.abs(backbone.encode(pixels, "cpu") - out[:, 1:].mean(1).numpy()).max() > 1e-2


def test_the_class_token_is_not_what_timm_pools_by_default(tmp_path):
    network = network_of("vit_small_patch16_dinov3.lvd1689m", tmp_path / "w.safetensors")
    backbone = load_backbone("dinov3:vit-s16", tmp_path / "w.safetensors")
    images, pixels = pixels_of(backbone)
    token = network_of("vit_small_patch16_dinov3.lvd1689m", global_pool="token")
    with torch.inference_mode():
        x = batch(network.pretrained_cfg, 256, images)
        default, direct = network(x).numpy(), token(x).numpy()
    features = backbone.encode(pixels, "cpu")
    np.testing.assert_allclose(features, direct, rtol=1e-5, atol=1e-5)
    assert np.abs(features - default).max() > 0.1


@pytest.mark.parametrize("reg", ["", "-reg"])
def test_a_file_of_another_resolution_is_resampled_as_timm_does(tmp_path, reg):
    model = f"vit_small_patch14_{'reg4_' if reg else ''}dinov2.lvd142m"
    network_of(model, tmp_path / "w.safetensors")  # at 518
    backbone = load_backbone(f"dinov2:vit-s14{reg}", tmp_path / "w.safetensors")
    theirs = timm.create_model(model, num_classes=0, img_size=224, pretrained=True,
                               pretrained_cfg_overlay={"file": str(tmp_path / "w.safetensors")}).eval()  # fmt: skip
    own = backbone.module.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in theirs.state_dict().items())
    images, pixels = pixels_of(backbone)
    with torch.inference_mode():
        direct = theirs(batch(theirs.pretrained_cfg, 224, images)).numpy()
    np.testing.assert_allclose(backbone.encode(pixels, "cpu"), direct, rtol=1e-5, atol=1e-5)


def test_a_convnext_has_its_normalised_mean_and_no_tokens(tmp_path):
    network = network_of("convnext_tiny.dinov3_lvd1689m", tmp_path / "w.safetensors")
    backbone = load_backbone("dinov3:convnext-t@96", tmp_path / "w.safetensors")
    images, pixels = pixels_of(backbone)
    with torch.inference_mode():
        x = batch(network.pretrained_cfg, 96, images)
        direct = network.head.norm(network.forward_features(x).mean((2, 3), keepdim=True)).flatten(1).numpy()
    np.testing.assert_allclose(backbone.encode(pixels, "cpu"), direct, rtol=1e-5, atol=1e-5)
    assert backbone.dim == 768 and backbone.licence == "dinov3-license"
    with pytest.raises(BackboneError, match="has no tokens to choose from; use dinov3:convnext-t"):
        load_backbone("dinov3:convnext-t/cls")


def test_files_as_the_authors_wrote_them(tmp_path):
    network = network_of("vit_small_patch14_reg4_dinov2.lvd142m")
    state = network.state_dict()
    position = torch.cat([torch.randn(1, 1, 384), state["pos_embed"]], 1)
    state |= {"register_tokens": state.pop("reg_token"), "pos_embed": position, "mask_token": torch.zeros(1, 384)}
    state["cls_token"] = state["cls_token"] - position[:, :1]
    torch.save(state, tmp_path / "w.pth")
    backbone = load_backbone("dinov2:vit-s14-reg@518", tmp_path / "w.pth")
    own = backbone.module.network.state_dict()
    assert all(torch.allclose(value, own[name], atol=1e-6) for name, value in network.state_dict().items())

    network = network_of("vit_small_patch16_dinov3_qkvb.lvd1689m")
    state, names = {}, (("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"))
    for name, value in network.state_dict().items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)  # noqa: PLW2901
        state[name] = value
    for block in ("blocks.0.attn.", "blocks.1.attn."):
        q, v = state.pop(f"{block}q_bias"), state.pop(f"{block}v_bias")
        state[f"{block}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    torch.save(state, tmp_path / "w.pth")
    own = load_backbone("dinov3:vit-s16-qkvb", tmp_path / "w.pth").module.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in network.state_dict().items())
    with pytest.raises(BackboneError, match="the authors' file holds biases; choose the name that ends in -qkvb"):
        load_backbone("dinov3:vit-s16", tmp_path / "w.pth")


def test_choices_are_part_of_the_identity_and_defaults_are_not_hidden(tmp_path):
    network_of("vit_small_patch14_dinov2.lvd142m", tmp_path / "w.safetensors", img_size=224)
    specs = ("vit-s14", "vit-s14@224/cls", "vit-s14/mean", "vit-s14/cls+mean", "vit-s14@70")
    first, same, *others = (load_backbone(f"dinov2:{s}", tmp_path / "w.safetensors").identity for s in specs)
    assert first == same and first["feature"] == "class token after the last norm"
    assert all(other != first for other in others)


def test_all_models_of_timm_have_a_name():
    eupe = {name for name in timm.list_models("*dinov3*", pretrained=True) if "eupe" in name}  # another family
    assert set(dinov2.MODELS.values()) == set(timm.list_models("*dinov2*", pretrained=True))
    ours = {*dinov3.TRANSFORMERS.values(), *dinov3.CONVNEXTS.values()}
    assert ours == set(timm.list_models("*dinov3*", pretrained=True)) - eupe
    assert len(dinov2.models()) == 3 * 8 and "vit-b14-reg/cls+mean" in dinov2.models()
    assert "vit-l16-sat-qkvb" in dinov3.models() and "convnext-b" in dinov3.models()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dinov2:vit-b16", r"dinov2 has no model 'vit-b16'; it has vit-b14.*written NAME\[@PIXELS\]\[/TOKENS\]"),
        ("dinov2:vit-b14/cls@224", "dinov2 has no model 'vit-b14/cls@224'.*written NAME"),
        ("dinov2:vit-b14/patches", r"has no tokens 'patches'; choose cls, mean, cls\+mean"),
        ("dinov2:vit-b14@256", "256 pixels are no multiple of the patch size 14; use @252 or @266"),
        ("dinov3:vit-b16@5", "5 pixels are no multiple of the patch size 16; use @16 or @32"),
        ("dinov3:convnext-b@250", "250 pixels are no multiple of the patch size 32; use @224 or @256"),
        ("dinov3:convnext-x", "dinov3 has no model 'convnext-x'; it has convnext-"),
    ],
)
def test_names_and_resolutions_that_do_not_exist(spec, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(spec)


def test_weights_that_do_not_fit(tmp_path):
    network_of("vit_small_patch14_reg4_dinov2.lvd142m", tmp_path / "w.safetensors", img_size=98)
    with pytest.raises(BackboneError, match=r"does not fit: .*1 unexpected \(reg_token\)|does not fit: timm cannot"):
        load_backbone("dinov2:vit-s14", tmp_path / "w.safetensors")
    with pytest.raises(
        BackboneError, match=r"patch_embed.proj.weight is \(384, 3, 14, 14\), expected \(384, 3, 16, 16"
    ):
        load_backbone("dinov3:vit-s16", tmp_path / "w.safetensors")
