"""Which weights of a file are taken, and which are refused: by their place in it, their types and their numbers."""

import re

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from embedx.cli import main
from embedx.errors import BackboneError
from embedx.extract import load_backbone
from embedx.extractors import clip, robust, swag, tiny
from embedx.extractors import timm as family
from embedx.extractors import torchvision as plain
from embedx.extractors._weights import fill, read_weights, state_dict_taken, weights_digest

A, B = ({"a.weight": torch.full((2, 2), v), "b": torch.full((3,), v)} for v in (1.0, 2.0))
WRAPPED = {f"module.{k}": v for k, v in B.items()}
CENTRE = {"center": torch.ones(1, 3)}
EMA = [
    {"state_dict": A, "state_dict_ema": B}, {"model": A, "model_ema": B}, {"state_dict": A, "model": B},
    {"state_dict_ema": A, "model_ema": B}, {"model": A, "state_dict_ema": WRAPPED, "optimizer": {"state": {}}},
    {"model_ema": WRAPPED, "state_dict": A, "epoch": 3}, {"state_dict": A}, {"model": A}, A,
]  # fmt: skip


def saved(path, content):
    torch.save(content, path)
    return path


def tiny_with(change=lambda v: v):
    return {k: change(v) for k, v in read_weights(tiny.WEIGHTS / "broad.safetensors").items()}


@pytest.mark.parametrize("content", EMA)
def test_timm_s_families_take_what_timm_takes(tmp_path, content):
    from timm.models import load_state_dict

    path = saved(tmp_path / "x.pt", content)
    assert weights_digest(read_weights(path, family.PREFERRED)) == weights_digest(
        load_state_dict(str(path), use_ema=True)
    )


@pytest.mark.parametrize("content", [c for c in EMA if "state_dict" in c or c is A])
def test_clip_takes_what_open_clip_takes(tmp_path, content):
    from open_clip.factory import load_state_dict

    path = saved(tmp_path / "x.pt", content)
    assert weights_digest(read_weights(path, clip.PREFERRED)) == weights_digest(load_state_dict(str(path)))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"state_dict": A, "state_dict_ema": B}, "state_dict, state_dict_ema"),
        ({"model": A, "model_ema": WRAPPED, "optimizer": {}}, "model, model_ema"),
        ({"student": A, "teacher": B, "dino_loss": CENTRE}, "student, teacher, dino_loss"),
        ({"generator": A, "discriminator": {"c": torch.ones(1)}}, "generator, discriminator"),
        ({"net": A, "ema": B}, "net, ema"),
        ({"model": A, "ema": {"decay": 0.9, "shadow": B}}, "model, ema.shadow"),
        ({"model": {"state_dict": A, "average": B}}, "model.state_dict, model.average"),
        ({"state_dict": A, "model": B}, "state_dict, model"),
    ],
)  # fmt: skip
def test_what_may_be_meant_is_named_and_can_be_chosen(tmp_path, content, names):
    path = saved(tmp_path / "x.pt", content)
    first = names.partition(",")[0]
    with pytest.raises(ValueError, match=rf"holds \d state dicts \({names}\), .* choose one with x.pt#{first}$"):
        read_weights(path, plain.PREFERRED)
    assert weights_digest(read_weights(tmp_path / f"x.pt#{first}")) == weights_digest(A)
    if "ema" in names or "teacher" in names:
        assert weights_digest(read_weights(tmp_path / f"x.pt#{names.split(', ')[1]}")) == weights_digest(B)
    with pytest.raises(ValueError, match=rf"x.pt holds no state dict called 'nothing'; it holds {names}"):
        read_weights(tmp_path / "x.pt#nothing")


@pytest.mark.parametrize(
    "content",
    [
        {"model": A, "optimizer": {"state": {"a.weight": {"exp_avg": A["a.weight"]}}}, "epoch": 1},
        {"model": A, "optimizer": {"a.weight": A["a.weight"], "b": A["b"]}},
        {"state_dict": A, "discriminator": {"c": torch.ones(1)}}, {"model": A, "criterion": CENTRE}, {"net": A},
        {"model": {"model_state_dict": A, "epoch": torch.tensor(3)}, "rng": torch.ones(3)}, {"model_state_dict": A},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_no_choice(tmp_path, content):
    path = saved(tmp_path / "x.pt", content)
    assert weights_digest(read_weights(path)) == weights_digest(A)
    assert bool(state_dict_taken(path)) == ("discriminator" in content or "criterion" in content)


def test_one_dict_in_a_file_and_files_with_a_hash_in_their_names(tmp_path):
    save_file(A, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds one state dict, as safetensors do; leave #state_dict out"):
        read_weights(tmp_path / "x.safetensors#state_dict")
    assert weights_digest(
        read_weights(saved(tmp_path / "x#1.pt", {"net": A, "ema": B}).with_name("x#1.pt#ema"))
    ) == weights_digest(B)
    assert weights_digest(read_weights(saved(tmp_path / "y#2", A))) == weights_digest(A)
    with pytest.raises(ValueError, match="no weights file .*absent.pt; give"):
        read_weights(tmp_path / "absent.pt#model")


def test_all_families_say_which_they_took_and_take_another_when_asked(tmp_path):
    path = saved(tmp_path / "x.pt", {"state_dict": tiny_with(), "state_dict_ema": tiny_with(lambda v: v * 0.5)})
    with pytest.raises(BackboneError, match=r"tiny:broad: .*2 state dicts .*choose one with x.pt#state_dict$"):
        load_backbone("tiny:broad", path)
    halved = tmp_path / "x.pt#state_dict_ema"
    whole = load_backbone("tiny:broad", tmp_path / "x.pt#state_dict")
    assert whole.weights == tiny.load("broad").weights != load_backbone("tiny:broad", halved).weights
    import timm

    network = timm.create_model("test_resnet")
    state = network.state_dict()
    other = {k: v * 2 if v.is_floating_point() else v for k, v in state.items()}
    path = saved(tmp_path / "t.pt", {"model": state, "model_ema": other})
    for spec in ("timm:test_resnet.r160_in1k", "checkpoint:timm/test_resnet"):
        found = load_backbone(spec, path)
        assert found.weights == weights_digest(other)
        assert found.remark.startswith("t.pt holds 2 state dicts (model, model_ema); model_ema is taken")
        assert load_backbone(spec, tmp_path / "t.pt#model").weights == weights_digest(state)
    assert load_backbone("tiny:broad").remark == ""
    assert robust.PREFERRED[0] == "model" and swag.PREFERRED == ()


def test_verify_shows_them_all_and_compares_the_one_meant(tmp_path):
    def embedx(*words, code=0):
        done = CliRunner().invoke(main, ["verify", *map(str, words)])
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    halves = tiny_with(lambda v: v * 0.5)
    path = saved(tmp_path / "x.pt", {"state_dict": tiny_with(), "state_dict_ema": halves})
    shown = embedx(path)
    assert (
        "found under state_dict_ema; beside it: state_dict" in shown
        and f"fingerprint {weights_digest(halves)}" in shown
    )
    assert "state_dict is taken by clip, robust, or with x.pt#state_dict\n" in shown
    assert "state_dict_ema is taken by dinov2, dinov3, timm, checkpoint:timm, or with x.pt#state_dict_ema\n" in shown
    assert "none is taken by lite, swag, torchvision, checkpoint:torchvision, unless one is named" in shown
    embedx(f"{path}#state_dict", "-o", tmp_path / "o.safetensors")
    assert weights_digest(read_weights(tmp_path / "o.safetensors")) == weights_digest(tiny_with())
    done = embedx("tiny:broad", "--weights", f"{path}#state_dict_ema")
    assert "note: x.pt holds 2 state dicts" in done and "parity      holds" in done
    assert "choose one with x.pt#student" in embedx(saved(tmp_path / "x.pt", {"student": A, "teacher": B}), code=1)


FAMILIES = (
    "tiny:broad",
    "timm:test_resnet.r160_in1k",
    "torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1",
    "checkpoint:timm/test_vit",
)


def state_of(spec):
    import timm
    import torchvision

    torch.manual_seed(0)
    if spec == FAMILIES[0]:
        return tiny_with()
    name = re.split(r"[:/]", spec)
    network = torchvision.models.shufflenet_v2_x0_5() if "shufflenet" in spec else timm.create_model(name[-1])
    return network.state_dict()


def scaled(v, dtype):
    return (v * 100).to(dtype) if v.is_floating_point() else v


@pytest.mark.parametrize("spec", FAMILIES)
@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_numbers_of_another_kind_are_refused(tmp_path, spec, dtype):
    save_file({k: scaled(v, dtype) for k, v in state_of(spec).items()}, tmp_path / "x.safetensors")
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(
        BackboneError, match=rf"of another type \(\S+ is {kind}, expected float32.*not quantised or packed"
    ):
        load_backbone(spec, tmp_path / "x.safetensors")


def test_one_tensor_of_another_kind_is_enough_and_verify_says_so(tmp_path):
    import torchvision

    network = torchvision.models.squeezenet1_1()
    state = network.state_dict() | {"features.3.squeeze.weight": torch.ones(16, 64, 1, 1, dtype=torch.int8)}
    with pytest.raises(ValueError, match=r"x does not fit: 1 of another type \(features.3.squeeze.weight is int8"):
        fill(network, state, "x")
    save_file(state, tmp_path / "x.safetensors")
    shown = CliRunner().invoke(main, ["verify", str(tmp_path / "x.safetensors")]).output
    assert "types       51 float32, 1 int8" in shown
    assert "but for the types of 1 tensors (features.3.squeeze.weight is int8, expected float32)" in shown


class Counting(torch.nn.Module):
    """A kernel, an index, a mask, and a counter."""

    def __init__(self):
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.ones(2, 2))
        self.register_buffer("index", torch.arange(3))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("spread", torch.ones(2))
        self.register_buffer("on", torch.tensor([True, False]))
        self.register_buffer("counter", torch.tensor(0))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kernel": torch.ones(2, 2).half()}, ""), ({"kernel": torch.ones(2, 2).bfloat16()}, ""),
        ({"kernel": torch.ones(2, 2).double()}, ""), ({"index": torch.arange(3, dtype=torch.int32)}, ""),
        ({"counter": torch.tensor(7.0)}, ""), ({"mask": torch.tensor([0.0, 1.0])}, ""),
        ({"index": torch.tensor([0.0, 1, 2])}, "index is float32, expected int64"),
        ({"on": torch.tensor([1, 0])}, "on is int64, expected bool"),
        ({"spread": torch.tensor([1, torch.nan])}, r"1 not finite \(spread\); fetch the file again"),
        ({"spread": torch.tensor([1, 1e300]).double() * 1e300}, r"1 not finite \(spread\)"),
        ({"kernel": torch.tensor([[1, torch.nan], [0, 0]])}, ""),
        ({"kernel": torch.zeros(2, 2)}, r"1 zero, as all matrices are \(kernel\)"),
    ],
)  # fmt: skip
def test_types_and_numbers_of_every_tensor_are_checked(change, fault):
    network = Counting()
    state = network.state_dict() | change
    if fault:
        with pytest.raises(ValueError, match=f"x does not fit: .*{fault}"):
            fill(network, state, "x")
        return
    fill(network, state, "x")
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == Counting().state_dict()[name].dtype
        torch.testing.assert_close(tensor, state[name].to(tensor.dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("spec", FAMILIES)
@pytest.mark.parametrize(
    ("wrong", "dtype"), [(torch.nan, torch.float32), (torch.inf, torch.float16), (1e300, torch.float64)]
)
def test_weights_that_are_not_finite_are_refused_where_they_are_used(tmp_path, spec, wrong, dtype):
    state = state_of(spec)
    first = next(k for k, v in state.items() if v.dim() > 1)
    state[first] = state[first].to(dtype).index_fill(0, torch.tensor([0]), wrong)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(
        BackboneError, match="its features are not finite, as 1 of its tensors are not .*fetch the weights"
    ):
        load_backbone(spec, tmp_path / "x.safetensors")
