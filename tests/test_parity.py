"""Parity: what `embedx extract` caches, of one model of each family, is what the family's own library makes."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from embedx import extractors, plugins
from embedx.cli import main
from embedx.data.images import rgb
from embedx.extract import parity
from embedx.extractors import raw
from embedx.extractors._backbone import Vector
from embedx.store import FeatureCache

CLIP = {"embed_dim": 32, "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}}  # fmt: skip


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Transformers of one or two blocks, and a small CLIP under the name of a pair: the rest is the real thing."""
    create, build = timm.create_model, torchvision.models.vision_transformer._vision_transformer

    def two_blocks(model, **options):
        return create(model, **options, **({"depth": 2} if model.startswith("vit_small") else {}))

    monkeypatch.setattr("timm.create_model", two_blocks)
    monkeypatch.setattr(
        "torchvision.models.vision_transformer._vision_transformer",
        lambda num_layers, **options: build(num_layers=1, **options),
    )
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16", CLIP)


def shaken(network):
    """Eval mode, and no weight or statistic at its initial value, where many do nothing."""
    network.eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(1.5, 4)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * 0.01)
    return network.state_dict()


def robust_checkpoint(path):
    """As published: the network twice, two normalisers, an optimiser."""
    state = shaken(torchvision.models.resnet50())
    wrapped = {f"module.{part}{k}": v for part in ("model.", "attacker.model.") for k, v in state.items()}
    for part in ("normalizer.", "attacker.normalize."):
        wrapped[f"module.{part}new_mean"] = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        wrapped[f"module.{part}new_std"] = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.save({"model": wrapped, "optimizer": {"state": {}}, "epoch": 105}, path)


def safetensors(make):
    return lambda path: save_file({k: v.contiguous() for k, v in shaken(make()).items()}, path)


def in_torch(make, prefix="", wrapper=None):
    def write(path):
        state = {prefix + k: v for k, v in shaken(make()).items()}
        torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)

    return write


# Family, model, name of the file as it is published, and how it is written.
CASES = {
    "timm:resnet10t": ("m.safetensors", safetensors(lambda: timm.create_model("resnet10t", num_classes=7))),
    "timm:test_vit": ("m.safetensors", safetensors(lambda: timm.create_model("test_vit"))),
    "torchvision:resnet18/IMAGENET1K_V1": ("resnet18-f37072fd.pth", in_torch(torchvision.models.resnet18)),
    "swag:vit-b16-linear": ("vit_b_16_lc_swag-4e70ced5.pth", in_torch(torchvision.models.vit_b_16)),
    "robust:madry-l2-eps3": ("imagenet_l2_3_0.pt", robust_checkpoint),
    "dinov2:vit-s14-reg@98/cls+mean": ("m.safetensors", safetensors(
        lambda: timm.create_model("vit_small_patch14_reg4_dinov2.lvd142m", num_classes=0))),
    "dinov3:vit-s16@112": ("m.safetensors", safetensors(
        lambda: timm.create_model("vit_small_patch16_dinov3.lvd1689m", num_classes=0))),
    "dinov3:convnext-t@64": ("m.safetensors", safetensors(
        lambda: timm.create_model("convnext_tiny.dinov3_lvd1689m", num_classes=0))),
    "clip:ViT-B-16/laion2b_s34b_b88k": ("open_clip_model.safetensors", safetensors(
        lambda: open_clip.create_model("ViT-B-16", load_weights=False))),
    "checkpoint:timm/resnet10t": ("mine.pt", in_torch(
        lambda: timm.create_model("resnet10t", num_classes=3), "module.model.", "state_dict")),
    "checkpoint:torchvision/resnet18": ("mine.pth", in_torch(
        lambda: torchvision.models.resnet18(num_classes=2), "backbone.")),
    "lite:0": (None, None),  # the published weights, in their package
    "tiny:broad": (None, None),
    "raw:24x40": (None, None),
}  # fmt: skip


def test_every_case_is_of_a_family():
    assert {spec.partition(":")[0] for spec in CASES} <= set(plugins.names(plugins.BACKBONES))


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A table of six images: photographs, a grey one, one with a palette, a small and a tall one."""
    folder = tmp_path_factory.mktemp("pets")
    images = parity.bundled()
    names = list(images)
    kinds = {f"{i}.png": images[names[i]] for i in (0, 1, 2, 3)}
    kinds |= {"4.png": images[names[0]].convert("L"), "5.png": images[names[2]].quantize(16)}
    for name, image in kinds.items():
        image.save(folder / name)
    rows = [f"{n},{'ab'[i % 2]},{('train', 'val', 'test')[i // 2]}" for i, n in enumerate(kinds)]
    (folder / "pets.csv").write_text("\n".join(["file,kind,split", *rows]))
    return folder


def embedx(*words, code=0):
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result


HEAVY = ("robust:madry-l2-eps3", "dinov3:convnext-t@64", "swag:vit-b16-linear", "checkpoint:torchvision/resnet18",
         "torchvision:resnet18/IMAGENET1K_V1", "checkpoint:timm/resnet10t")  # fmt: skip


@pytest.mark.parametrize("spec", [pytest.param(s, marks=[pytest.mark.slow] * (s in HEAVY)) for s in CASES])
def test_the_cache_holds_what_the_library_makes(spec, pets, tmp_path):
    name, write = CASES[spec]
    weights = () if write is None else ("--weights", tmp_path / name)
    if write is not None:
        torch.manual_seed(0)
        write(tmp_path / name)
    embedx(
        "--cache", tmp_path / "cache", "extract", "pets=csv", "--root", pets / "pets.csv", "-O", "path=file",
        "-O", "label=kind", "-b", f"mine={spec}", *weights, "--workers", 0, "--batch-size", 4,
    )  # fmt: skip
    cache = FeatureCache.open_complete(tmp_path / "cache" / "pets" / "mine.h5")
    family, _, model = spec.partition(":")
    official = plugins.load(plugins.BACKBONES, family).official(model, tmp_path / name if write else None)
    with torch.inference_mode():
        x = torch.stack([official.transform(rgb((pets / i).read_bytes())) for i in cache.ids])
        theirs = official.features(x).numpy()
    ours = cache.features()
    if official.projected:
        ours = ours @ cache.extras["projection"]
    assert ours.dtype == np.float32 and len(ours) == 6 and np.ptp(ours, axis=0).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)

    shown = embedx("verify", spec, *weights).stdout
    assert "largest difference 0 levels of 255\n" in shown and "parity      holds" in shown
    assert f"against     {official.library}, on 8 images" in shown


def test_the_official_side_shares_nothing_but_the_reading_of_files():
    folder = Path(extractors.__file__).parent
    allowed = {"read_weights", "open_weights", "network_state", "_stripped", "_fetched", "_installed", "WEIGHTS"}
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text())
        own = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        own |= {
            a.asname or a.name
            for n in tree.body
            if isinstance(n, ast.ImportFrom) and n.level == 1
            for a in n.names
            if n.module != "_official"
        }
        if path.stem == "_official":
            assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
            continue
        for function in (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "official"):
            used = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} & own
            assert used <= allowed, (path.name, used - allowed)


@pytest.fixture
def bent(monkeypatch):
    """Give the backbone of the next comparison another property."""
    load = parity.load_backbone

    def bend(change):
        monkeypatch.setattr(parity, "load_backbone", lambda *a: change(load(*a)))

    return bend


def of_module(backbone, function):
    class Bent(torch.nn.Module):
        def forward(self, x):
            return function(backbone.module(x))

    return replace(backbone, module=Bent().eval())


def geometry(**changes):
    return lambda b: replace(b, reader=replace(b.reader, **changes))


MUTATIONS = {
    "interpolation": (geometry(interpolation="bicubic"), "pixels of .* are .* levels of 255 apart, expected none"),
    "mean": (lambda b: replace(b, mean=(0.485, 0.456, 0.406)), "pixels of .* levels"),
    "one last digit": (lambda b: replace(b, std=(b.std[0] + 1e-6, *b.std[1:])), "pixels of .* levels"),
    "margin": (geometry(resize=72), "pixels of .* levels"),
    "no squashing": (geometry(resize=64), "pixels of .* levels"),
    "fast decoding": (geometry(decode="fast"), "pixels of .* levels"),
    "size": (geometry(size=(56, 56)), r"takes pixels \(3, 56, 56\), expected \(3, 64, 64\) as torch"),
    "length": (lambda b: of_module(b, lambda f: f * 1.01), "features are 1.00% of their length apart, expected at"),
    "order": (lambda b: of_module(b, lambda f: f.flip(1)), "have a cosine of 0.* expected at least 0.99999"),
    "dim": (lambda b: replace(of_module(b, lambda f: f[:, :9]), dim=9), r"has features \(9,\), expected \(128,\)"),
    "nan": (lambda b: of_module(b, lambda f: f * torch.nan), "have a cosine of nan"),
}


@pytest.mark.parametrize("change", MUTATIONS)
def test_what_differs_is_noticed(change, bent):
    bend, message = MUTATIONS[change]
    bent(bend)
    done = embedx("verify", "tiny:broad", code=1)
    assert "parity" not in done.stdout and len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr)


def test_fast_decoding_may_have_other_pixels_but_hardly_other_features(bent):
    shown = embedx("verify", "tiny:broad", "--decode", "fast").stdout
    assert "fast decoding" in shown and "difference 0 levels" not in shown and "parity      holds" in shown
    bent(lambda b: of_module(b, lambda f: f * 1.01))
    embedx("verify", "tiny:broad", "--decode", "fast")
    bent(geometry(resize=80))
    assert "expected at least 0.999." in embedx("verify", "tiny:broad", "--decode", "fast", code=1).stderr


def test_the_difference_is_counted_in_levels_before_the_normalisation(bent):
    bent(lambda b: replace(b, mean=tuple(m + 3 / 255 for m in b.mean)))
    found = parity.compare("tiny:broad", parity.bundled())
    assert found.pixels == pytest.approx(3, abs=1e-3) and found.features > 0


def test_images_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for n, name in enumerate(("b.png", "deep/a.JPG", "deep/c.webp")):
        Image.new("RGB", (20 + n, 30), (9, 99, 199)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "torn.png").write_bytes(b"\x89PNG")
    done = embedx("verify", "raw:8x8", "--images", tmp_path / "in")
    assert "on 3 images" in done.stdout and "torn.png is left out" in done.stderr and "notes" not in done.stderr
    monkeypatch.setattr(parity, "MOST", 2)
    images, remarks = parity.of_folder(tmp_path / "in")
    assert list(images) == ["b.png", "deep/a.JPG"] and "the first 2 of 4 images" in remarks[0]
    (tmp_path / "none").mkdir()
    assert "no readable image lies below" in embedx("verify", "raw:8x8", "--images", tmp_path / "none", code=1).stderr


def test_the_bundled_images_are_always_the_same_and_of_awkward_sizes():
    first, second = parity.bundled(), parity.bundled()
    assert all(np.array_equal(first[n], second[n]) for n in first) and list(first) == list(second)
    sizes = {image.size for image in first.values()}
    assert (640, 427) in sizes and any(w < 10 for w, _ in sizes) and any(h > 10 * w for w, h in sizes)
    assert {image.mode for image in first.values()} == {"RGB"}


def test_what_has_nothing_to_compare_with(monkeypatch, tmp_path):
    (tmp_path / "own_family.py").write_text(
        "from embedx.extractors import raw\n\ndef models():\n    return ('8x8',)\n\nload = raw.load\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = embedx("verify", "py:own_family:8x8", code=1)
    assert "py:own_family has no library to compare with; its module may offer official(model, weights)" in done.stderr
    assert "reads vectors, not images" in embedx("verify", "raw:vector-8", code=1).stderr
    assert isinstance(raw.load("vector-8").reader, Vector)


def test_targets_and_options_that_do_not_go_together(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"")
    assert "are for backbones" in embedx("verify", tmp_path / "w.pt", "--decode", "fast", code=2).stderr
    assert "are for backbones" in embedx("verify", tmp_path / "w.pt", "--images", tmp_path, code=2).stderr
    assert "-o is for files of weights" in embedx("verify", "tiny:broad", "-o", tmp_path / "o", code=2).stderr
    assert "there is no file" in embedx("verify", tmp_path / "absent.h5", code=2).stderr
    assert "did you mean 'resnet18'" in embedx("verify", "resnet1", code=1).stderr
    assert "no weights file" in embedx("verify", "timm:resnet18", "--weights", tmp_path / "x.pt", code=1).stderr
