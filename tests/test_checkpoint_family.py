"""A local file in a named architecture: equal to the library called directly, whatever wrapper wrote the file."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.extractors import checkpoint

timm = pytest.importorskip("timm")

# Plain, one whose head has layers of its own before the classifier, one whose classifier lies deeper, a transformer.
CASES = [
    ("timm/resnet10t", "fc"), ("timm/mobilenetv3_small_050", "classifier"), ("timm/test_vit2", "head"),
    ("torchvision/resnet18", "fc"), ("torchvision/mobilenet_v3_small", "classifier.3"),
    ("torchvision/shufflenet_v2_x0_5/IMAGENET1K_V1", "fc"),
]  # fmt: skip


def made(model, classes=7):
    """A random network of the library, its normalisation statistics away from their initial values."""
    torch.manual_seed(0)
    library, name = model.split("/")[:2]
    if library == "timm":
        network = timm.create_model(name, num_classes=classes)
    else:
        network = torchvision.models.get_model(name, num_classes=classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def transform_of(model, network):
    library, name = model.split("/")[:2]
    if library == "timm":
        return timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    return torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()


def pixels_of(backbone):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((150, 260), (300, 190))]
    return images, torch.from_numpy(np.stack([backbone.reader(image) for image in images]))


@pytest.mark.parametrize(("model", "classifier"), CASES, ids=[c[0] for c in CASES])
def test_features_and_classifier_equal_the_library_called_directly(tmp_path, model, classifier):
    network = made(model)
    save_file({f"network._orig_mod.{k}": v for k, v in network.state_dict().items()}, tmp_path / "w.safetensors")
    backbone = load_backbone(f"checkpoint:{model}", tmp_path / "w.safetensors")
    images, pixels = pixels_of(backbone)
    preset = transform_of(model, network)
    taken = []
    network.get_submodule(classifier).register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with torch.inference_mode():
        logits = network(torch.stack([preset(image) for image in images])).numpy()
    features = backbone.encode(pixels, "cpu")
    np.testing.assert_allclose(features, taken[0].numpy(), rtol=1e-5, atol=1e-5)
    weight, bias = backbone.head
    assert weight.shape == (7, backbone.dim)
    np.testing.assert_allclose(features @ weight.T + bias, logits, rtol=1e-3, atol=1e-4)
    assert backbone.licence == "unknown"


@pytest.mark.parametrize("model", ["timm/resnet10t", "torchvision/mobilenet_v3_small"])
def test_a_file_without_a_classifier_gives_the_same_features(tmp_path, model):
    classifier = dict(CASES)[model]
    state = made(model).state_dict()
    trunk = {k: v for k, v in state.items() if not k.startswith(f"{classifier}.")}
    save_file(state, tmp_path / "whole.safetensors")
    save_file(trunk, tmp_path / "trunk.safetensors")
    whole, bare = (load_backbone(f"checkpoint:{model}", tmp_path / f"{f}.safetensors") for f in ("whole", "trunk"))
    assert whole.head is not None and bare.head is None and bare.dim == whole.dim
    _, pixels = pixels_of(bare)
    assert (bare.encode(pixels, "cpu") == whole.encode(pixels, "cpu")).all()
    again = load_backbone(f"checkpoint:{model}", tmp_path / "trunk.safetensors")
    assert again.identity == bare.identity and again.weights != whole.weights


@pytest.mark.parametrize("prefix", [*checkpoint.PREFIXES, "module.model.", "model.backbone."])
def test_a_prefix_is_dropped_only_where_all_names_share_it(tmp_path, prefix):
    state = made("torchvision/mobilenet_v3_small").state_dict()
    plain, wrapped, mixed = (tmp_path / f"{name}.pt" for name in ("plain", "wrapped", "mixed"))
    torch.save(state, plain)
    torch.save({"state_dict": {prefix + k: v for k, v in state.items()}}, wrapped)
    torch.save({k if k.startswith("classifier") else prefix + k: v for k, v in state.items()}, mixed)
    a, b = (load_backbone("checkpoint:torchvision/mobilenet_v3_small", file) for file in (plain, wrapped))
    assert a.identity == b.identity
    with pytest.raises(BackboneError, match=rf"mixed.pt .*does not fit: .*unexpected \({prefix}features"):
        load_backbone("checkpoint:torchvision/mobilenet_v3_small", mixed)


@pytest.mark.slow
def test_preprocessing_is_recorded_and_can_be_chosen(tmp_path):
    save_file(made("torchvision/resnet50").state_dict(), tmp_path / "tv.safetensors")
    first, second = (
        load_backbone(f"checkpoint:torchvision/resnet50{s}", tmp_path / "tv.safetensors")
        for s in ("", "/IMAGENET1K_V2")
    )
    assert first.model == "torchvision/resnet50, preprocessing of IMAGENET1K_V1" and first.reader.resize == 256
    assert second.model == "torchvision/resnet50, preprocessing of IMAGENET1K_V2" and second.reader.resize == 232
    save_file(made("timm/resnet50").state_dict(), tmp_path / "timm.safetensors")
    bare, classic = (
        load_backbone(f"checkpoint:timm/resnet50{s}", tmp_path / "timm.safetensors") for s in ("", ".tv_in1k")
    )
    assert bare.model == "timm/resnet50, preprocessing of resnet50.a1_in1k"
    assert classic.model == "timm/resnet50.tv_in1k, preprocessing of resnet50.tv_in1k"
    assert classic.reader == first.reader and bare.reader != first.reader and bare.weights == classic.weights


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet50", "no architecture 'resnet50'; expected timm/NAME or torchvision/NAME, such as timm/resnet50"),
        ("timm/", "no architecture 'timm/'; expected timm/NAME"),
        ("keras/resnet50", "no architecture 'keras/resnet50'"),
        ("timm/resnet10tt", "timm has no model 'resnet10tt'; did you mean resnet10t"),
        ("timm/resnet10t.tv", "timm has no model 'resnet10t.tv'; of this architecture it has resnet10t.c3_in1k"),
        ("torchvision/resnet5O", "torchvision has no model 'resnet5O'; did you mean resnet"),
        ("torchvision/resnet18/V9", "resnet18 has no weights 'V9'; it has IMAGENET1K_V1"),
        ("torchvision/resnet34", r"w.safetensors as checkpoint:torchvision/resnet34 does not fit: \d+ missing \(layer"),
        ("timm/resnet10t", r"does not fit: \d+ missing \(conv1.0.weight.*unexpected \(.*; choose the model"),
        ("torchvision/squeezenet1_1", "its classifier is no linear layer"),
    ],
)
def test_architectures_that_do_not_exist_or_do_not_fit(tmp_path, model, message):
    save_file(made("torchvision/resnet18").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match=message):
        load_backbone(f"checkpoint:{model}", tmp_path / "w.safetensors")


@pytest.mark.parametrize("model", checkpoint.models())
def test_a_file_is_required(model):
    with pytest.raises(BackboneError, match=f"checkpoint:{model}: it has no weights of its own; pass a file with --w"):
        load_backbone(f"checkpoint:{model}")


def test_a_tag_that_timm_does_not_know_is_no_traceback(tmp_path):
    save_file(made("timm/resnet10t").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="timm has no model 'resnet10t.nonsense'; of this architecture"):
        load_backbone("timm:resnet10t.nonsense", tmp_path / "w.safetensors")
