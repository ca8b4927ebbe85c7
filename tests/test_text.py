"""Prompts: equal to open_clip's own text tower, comparable with image features, cached whole and once."""

import hashlib
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from embedx.cli import main
from embedx.errors import BackboneError, CacheError, ExtractionError, ProvenanceError, UnknownName
from embedx.extract import load_backbone, verify
from embedx.extract import prompts as text
from embedx.extract.prompts import text_features
from embedx.extractors import _clip, clip
from embedx.extractors._weights import read_weights
from embedx.files import locked
from embedx.store import FeatureCache
from embedx.workspace import Workspace

SPEC = "clip:ViT-B-16/laion2b_s34b_b88k"
VISION = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 12, "width": 32, "heads": 2, "layers": 2}
OTHER_VISION = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "avg",
                "timm_proj": "linear", "image_size": 160}  # fmt: skip
MULTIMODAL = {"context_length": 12, "width": 32, "heads": 2, "layers": 1}
CONFIGS = {
    "one module": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "tower of its own": {"embed_dim": 24, "vision_cfg": OTHER_VISION, "text_cfg": TEXT, "custom_text": True},
    "coca": {"embed_dim": 24, "vision_cfg": VISION | {"attentional_pool": True, "output_tokens": True},
             "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True, "context_length": 11},
             "multimodal_cfg": MULTIMODAL, "custom_text": True},
}  # fmt: skip
PROMPTS = ["a waterbird", "Ein Vogel über Wasser", "鳥 🐦", "a landbird", "a waterbird", "A WATERBIRD"]


def built(monkeypatch, folder, config, seed=0, name="ViT-B-16"):
    """(file of random weights, open_clip's model) under the name of a real pair."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    torch.manual_seed(seed)
    model = open_clip.create_model(name, load_weights=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / f"{seed}.safetensors")
    return folder / f"{seed}.safetensors", model


@pytest.fixture
def pair(monkeypatch, tmp_path):
    return built(monkeypatch, tmp_path, CONFIGS["one module"])


@pytest.fixture
def encoded(monkeypatch):
    """The prompts that text towers were asked to compute, call by call."""
    calls, encode = [], _clip.TextTower.encode

    def watched(self, prompts):
        calls.append(list(prompts))
        return encode(self, prompts)

    monkeypatch.setattr(_clip.TextTower, "encode", watched)
    return calls


def direct(model, prompts):
    with torch.inference_mode():
        return model.encode_text(open_clip.get_tokenizer("ViT-B-16")(prompts), normalize=False).numpy()


@pytest.mark.parametrize("config", CONFIGS)
def test_features_are_open_clips_own(config, monkeypatch, tmp_path):
    file, model = built(monkeypatch, tmp_path, CONFIGS[config])
    monkeypatch.setattr(_clip, "BATCH", 4)
    found = text_features(Workspace(tmp_path), SPEC, PROMPTS, file)
    assert found.shape == (6, 24) and found.dtype == np.float32
    np.testing.assert_allclose(found, direct(model, PROMPTS), rtol=1e-5, atol=1e-5)
    assert (found[0] == found[4]).all() and np.abs(found[0] - found[3]).max() > 1e-2
    assert np.ptp(np.linalg.norm(found, axis=1)) > 1e-3  # not normalised


@pytest.mark.parametrize("config", ["one module", "tower of its own"])
def test_images_meet_prompts_after_the_projection(config, monkeypatch, tmp_path):
    file, model = built(monkeypatch, tmp_path, CONFIGS[config])
    backbone = load_backbone(SPEC, file)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (s, 130, 3), dtype=np.uint8)) for s in (90, 200)]
    features = backbone.encode(torch.from_numpy(np.stack([backbone.reader(i) for i in images])), "cpu")
    bias = 0 if backbone.projection_bias is None else backbone.projection_bias
    ours, words = features @ backbone.projection + bias, text_features(Workspace(tmp_path), SPEC, PROMPTS, file)
    ours, words = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ours, words))
    transform = clip.official("ViT-B-16/laion2b_s34b_b88k", file).transform
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer("ViT-B-16")(PROMPTS)
        logits, _ = model.get_logits(torch.stack([transform(i) for i in images]), tokens)
    np.testing.assert_allclose(ours @ words.T, logits / model.logit_scale.exp().item(), rtol=1e-4, atol=1e-5)


def test_what_is_cached_is_not_computed_again(pair, tmp_path, encoded):
    workspace = Workspace(tmp_path / "cache")
    first = text_features(workspace, SPEC, ["b", "a", "b"], pair[0])
    path = workspace.texts(SPEC)
    before = path.read_bytes()
    again = text_features(workspace, SPEC, ["a", "b"], pair[0])
    assert encoded == [["a", "b"]] and (again == first[[1, 0]]).all() and path.read_bytes() == before
    union = text_features(workspace, SPEC, ["c", "a"], pair[0])
    assert encoded[1:] == [["c"]] and (union[1] == first[1]).all()
    assert list(FeatureCache.open_complete(path).ids) == ["a", "b", "c"]
    assert (text_features(workspace, SPEC, ["b"], pair[0]) == first[:1]).all() and len(encoded) == 2
    assert [p.name for p in path.parent.glob("[!.]*")] == ["clip-ViT-B-16-laion2b_s34b_b88k.h5"]
    assert workspace.datasets() == ()


@pytest.mark.slow
@settings(max_examples=5, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from([*PROMPTS, "ß", "e\u0301", "é", "z" * 5]), min_size=1, max_size=5),
                min_size=1, max_size=4))  # fmt: skip
def test_any_calls_in_any_order_give_each_prompt_its_own_features(pair, tmp_path_factory, calls):
    workspace, (file, model) = Workspace(tmp_path_factory.mktemp("cache")), pair
    for prompts in calls:
        found = text_features(workspace, SPEC, prompts, file)
        np.testing.assert_allclose(found, direct(model, prompts), rtol=1e-5, atol=1e-5)
    cache = FeatureCache.open_complete(workspace.texts(SPEC))
    asked = sorted({p for prompts in calls for p in prompts})
    assert list(cache.ids) == asked
    assert [h.tobytes() for h in cache.content_hash] == [hashlib.sha256(p.encode()).digest() for p in asked]


def test_the_file_is_a_sound_feature_cache_that_says_what_it_is(pair, tmp_path):
    text_features(Workspace(tmp_path), SPEC, PROMPTS, pair[0])
    path = Workspace(tmp_path).texts(SPEC)
    report = verify.check_cache(path)
    assert not report.damaged and not report.faults and report.header.complete
    assert report.header.identity == {
        "model": "ViT-B-16/laion2b_s34b_b88k", "feature": "text, projected, not normalised", "precision": "float32",
        "tokenizer": "open_clip's byte pairs", "context": 12, "weights": clip.texts(SPEC[5:], pair[0]).weights,
    }  # fmt: skip
    assert report.header.provenance["licence"] == "MIT"
    assert set(report.header.provenance["conditions"]["libraries"]) == {"embedx", "torch", "open_clip"}


def test_the_fingerprint_is_of_the_text_tower_alone(pair, tmp_path):
    state = read_weights(pair[0])
    tower = clip.texts(SPEC[5:], pair[0]).weights
    for changed, same in (("visual.proj", True), ("logit_scale", True), ("ln_final.bias", False)):
        save_file(state | {changed: state[changed] + 1}, tmp_path / "x.safetensors")
        assert (clip.texts(SPEC[5:], tmp_path / "x.safetensors").weights == tower) is same


def test_another_tower_is_refused_and_damage_is_noticed(pair, monkeypatch, tmp_path):
    workspace = Workspace(tmp_path)
    text_features(workspace, SPEC, ["a"], pair[0])
    other, _ = built(monkeypatch, tmp_path, CONFIGS["one module"], seed=1)
    with pytest.raises(ProvenanceError, match=r"was made differently: weights is .*expected.*Delete it"):
        text_features(workspace, SPEC, ["a"], other)
    assert text_features(workspace, f"other={SPEC}", ["a"], other).shape == (1, 24)
    content = bytearray(workspace.texts(SPEC).read_bytes())
    place = content.find(text_features(workspace, SPEC, ["a"], pair[0]).tobytes())
    content[place] ^= 0xFF
    workspace.texts(SPEC).write_bytes(content)
    with pytest.raises(CacheError, match="are damaged"):
        text_features(workspace, SPEC, ["a"], pair[0])


def test_a_file_never_holds_prompts_of_two_conditions(pair, tmp_path, monkeypatch, encoded):
    workspace = Workspace(tmp_path)
    text_features(workspace, SPEC, ["a", "b"], pair[0])
    monkeypatch.setattr(text, "_conditions", lambda tower: {"device": "cpu", "libraries": {"torch": "9"}})
    text_features(workspace, SPEC, ["b"], pair[0])
    assert len(encoded) == 1
    text_features(workspace, SPEC, ["c"], pair[0])
    assert encoded[1:] == [["a", "b", "c"]]
    assert FeatureCache.open(workspace.texts(SPEC)).header.provenance["conditions"]["libraries"] == {"torch": "9"}


def test_an_interrupted_write_leaves_the_old_file(pair, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    first = text_features(workspace, SPEC, ["a"], pair[0])

    def fails(*args, **options):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("embedx.store.writer.publish", fails)
        with pytest.raises(OSError, match="disk full"):
            text_features(workspace, SPEC, ["b"], pair[0])
    assert [p for p in workspace.texts(SPEC).parent.iterdir() if p.suffix != ".lock"] == [workspace.texts(SPEC)]
    assert (text_features(workspace, SPEC, ["a"], pair[0]) == first).all()


def test_prompts_that_another_process_adds_meanwhile_stay(pair, tmp_path, monkeypatch, encoded):
    workspace = Workspace(tmp_path)
    text_features(workspace, SPEC, ["a"], pair[0])

    @contextmanager
    def overtaken(path):
        monkeypatch.setattr(text, "locked", locked)
        text_features(workspace, SPEC, ["b", "c"], pair[0])  # comes between our look at the file and our turn
        with locked(path):
            yield

    monkeypatch.setattr(text, "locked", overtaken)
    ours = text_features(workspace, SPEC, ["a", "b", "d"], pair[0])
    assert list(FeatureCache.open_complete(workspace.texts(SPEC)).ids) == ["a", "b", "c", "d"]
    assert encoded == [["a"], ["b", "c"], ["d"]]
    assert (ours == text_features(workspace, SPEC, ["a", "b", "d"], pair[0])).all()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "there are no prompts"),
        (["a", ""], "prompt 2 of 2 is blank"),
        ([" \u2003"], "prompt 1 of 1 is blank"),
        (["a\nb"], r"prompt 1 of 1 is 'a\\nb', expected UTF-8 text without control"),
        (["a\x00"], "without control characters"),
        (["\udcff"], "expected UTF-8 text"),
        (["a b c", "one two three four five six seven eight nine ten eleven"],
         "the prompt 'one two .*eleven' has 13 tokens, expected at most 12; shorten it"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be_encoded(pair, tmp_path, prompts, message):
    with pytest.raises(ExtractionError, match=message):
        text_features(Workspace(tmp_path), SPEC, prompts, pair[0])
    assert not Workspace(tmp_path).texts(SPEC).exists()


def test_the_longest_prompt_that_fits_is_not_cut(pair, tmp_path):
    words = "one two three four five six seven eight nine ten"
    found = text_features(Workspace(tmp_path), SPEC, [words, words.removesuffix(" ten")], pair[0])
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_features_that_are_not_finite_are_refused(pair, tmp_path):
    state = read_weights(pair[0])
    save_file(state | {"text_projection": state["text_projection"] * torch.nan}, tmp_path / "n.safetensors")
    with pytest.raises(ExtractionError, match="the features of 'a' are not finite; fetch the weights again"):
        text_features(Workspace(tmp_path), SPEC, ["a"], tmp_path / "n.safetensors")


def test_backbones_without_a_text_tower(tmp_path, monkeypatch):
    for spec in ("tiny:broad", "clip:", "resnet50"):
        with pytest.raises(BackboneError, match="has no text tower; use a pair of clip, such as clip-vit-b16"):
            text_features(Workspace(tmp_path), spec, ["a"])
    with pytest.raises(UnknownName, match="unknown backbone family 'clop'.*for prompts use a pair of clip"):
        text_features(Workspace(tmp_path), "clop:x", ["a"])
    with pytest.raises(BackboneError, match="another activation than ViT-B-32 builds; use clip:ViT-B-32-quickgelu"):
        text_features(Workspace(tmp_path), "clip:ViT-B-32/openai", ["a"])
    with pytest.raises(BackboneError, match="open_clip has no pair ViT-B-16/laion"):
        text_features(Workspace(tmp_path), "clip:ViT-B-16/laion", ["a"])

    def absent(*args, **kwargs):
        raise ImportError("No module named 'transformers'")

    monkeypatch.setattr("open_clip.get_tokenizer", absent)
    with pytest.raises(BackboneError, match="tokenizer timm/ViT-B-16-SigLIP of .*transformers'.; install transformers"):
        text_features(Workspace(tmp_path), "siglip-vit-b16", ["a"])
    monkeypatch.setattr("open_clip.create_model", absent)
    with pytest.raises(ValueError, match="open_clip cannot build roberta-ViT-B-32 .*choose another pair"):
        clip._filled("roberta-ViT-B-32", "laion2b_s12b_b32k", tmp_path / "w.pt")


def test_tokenizers_of_transformers_count_their_tokens():
    def inner(prompt):
        return SimpleNamespace(input_ids=[0, *prompt.split(), 2])

    tokenizer = SimpleNamespace(tokenizer=inner, clean_fn=str.strip, tokenizer_mode="")
    assert _clip._tokens(tokenizer, " a b c ") == 5
    tokenizer.tokenizer_mode = "clips"
    assert _clip._tokens(tokenizer, "a b c") == 6


def test_the_command(pair, tmp_path, encoded):
    (tmp_path / "p.txt").write_bytes("\ufeffa waterbird\r\n\r\nÜber Wasser\n".encode())
    command = ["--cache", str(tmp_path / "cache"), "prompts", f"mine={SPEC}"]
    weights = ["--weights", str(pair[0])]
    done = CliRunner().invoke(main, [*command, "a landbird", "-f", str(tmp_path / "p.txt"), *weights])
    path = tmp_path / "cache" / "_texts" / "mine.h5"
    assert done.output == f"{path}: 3 prompts computed, 3 cached, 24 features each\n", done.exception
    assert list(FeatureCache.open_complete(path).ids) == ["a landbird", "a waterbird", "Über Wasser"]
    done = CliRunner().invoke(main, [*command, "a waterbird", *weights])
    assert "0 prompts computed, 3 cached" in done.output and len(encoded) == 1
    assert CliRunner().invoke(main, command).exit_code == 2
    (tmp_path / "p.txt").write_bytes(b"\xff")
    done = CliRunner().invoke(main, [*command, "-f", str(tmp_path / "p.txt")])
    assert done.exit_code == 1 and "is no UTF-8 text" in done.output
    done = CliRunner().invoke(main, ["--cache", str(tmp_path), "prompts", "tiny:broad", "a"])
    assert done.exit_code == 1 and "has no text tower" in done.output


def test_licences_that_forbid_commerce_are_said(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(clip, "_licence", lambda tag: "CC-BY-NC-4.0")
    command = ["--cache", str(tmp_path), "prompts", SPEC, "a", "--weights", str(pair[0])]
    assert "licensed for non-commercial use only (CC-BY-NC-4.0)" in CliRunner().invoke(main, command).stderr
