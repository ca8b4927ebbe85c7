"""Adversarially trained ResNet50: the two public checkpoints for l2 attacks of size 3, and their siblings.

`madry-l2-eps3` is `imagenet_l2_3_0.pt` of MadryLab/robustness (57.90 % on clean ImageNet), the network behind the
published spuriosity rankings and salient-feature annotations. The `salman-*` are the ResNet50s of Salman et al. 2020,
`salman-l2-eps3` (62.83 %) among them: another network, though of the same norm and radius. The feature is the average
of the last activations, after their ReLU (2048, never negative). Licence: MIT.

Files: the published checkpoints, in which the network lies twice beside its normaliser and its optimiser; a plain
state dict of torchvision's resnet50; and what `embedx verify FILE -o OUT.safetensors` makes of either.

What tells the networks apart: the SHA-256 of the published file where it is known, `salman-l2-eps3` and
`salman-linf-eps4`. Such a file, or its conversion, which remembers it, is refused under any other name; and under
these two names a published checkpoint of another SHA-256 is refused. Nothing is known of the other files, nor of a
plain state dict without memory: there the name is the user's word. The cache records the fingerprint of the weights
in any case, so two networks never share a cache.
"""

from __future__ import annotations

import secrets
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _torchvision
from ._backbone import Backbone
from ._official import Official, require_filled
from ._weights import Opened, file_sha256, fill, open_weights

if TYPE_CHECKING:
    import torch

DROPBOX = "https://www.dropbox.com/s/knf4uimlqsi1yz8/imagenet_l2_3_0.pt?dl=1"
HUGGING_FACE = "https://huggingface.co/madrylab/robust-imagenet-models/resolve/main/"
L2 = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")
LINF = {"0.5": "0.5", "1": "1.0", "2": "2.0", "4": "4.0", "8": "8.0"}
COPIES = ("model.", "attacker.model.")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISERS = ("normalizer.", "attacker.normalize.")
PREFERRED = ("model", "state_dict")  # as the reference code does


FILES = {
    "madry-l2-eps3": "imagenet_l2_3_0.pt",
    "salman-l2-eps3": "resnet50_l2_eps3.ckpt",
    **{f"salman-l2-eps{eps}": f"resnet50_l2_eps{eps}.ckpt" for eps in L2},
    **{f"salman-linf-eps{eps}": f"resnet50_linf_eps{suffix}.ckpt" for eps, suffix in LINF.items()},
}
SHA256 = {
    "salman-l2-eps3": "380b14e6f9750bffa1447cf7017f65da4dc5ce71a3dd112f107515dcf7b14d9d",
    "salman-linf-eps4": "9e62216975c111b8081481533b6142dec34be69abe5d90b54d7f860015c263db",
}


def models() -> tuple[str, ...]:
    """All names; the two that are easily taken for each other come first."""
    return tuple(FILES)


def address(model: str) -> str:
    """Where the checkpoint is published."""
    return DROPBOX if model == "madry-l2-eps3" else HUGGING_FACE + FILES[model]


def load(model: str, weights: Path | None = None) -> Backbone:
    """One of `models()`, from a local file, torch's hub cache or its published address.

    Raises `LookupError` for another name, `ValueError` for a file that cannot be had, does not fit or is known to be
    another network's.
    """
    import torchvision
    from torchvision.models import ResNet50_Weights, resnet50

    if model not in FILES:
        raise LookupError(f"robust has no model {model!r}; it has {', '.join(models())}")
    path = weights or _fetched(model)
    opened = open_weights(path, PREFERRED)
    _require_origin(model, path, opened)
    network = resnet50(num_classes=1000)
    fill(network, network_state(opened.state, str(path)), f"{path.name} as robust:{model}")
    facts = _torchvision.TorchvisionFacts(f"robust:{model}", "average of the last activations", "MIT")
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms()  # 256, 224, bilinear, ImageNet's mean and deviation
    return _torchvision.torchvision_backbone(network, preset, f"resnet50/{model}", facts, torchvision.__version__)


def official(model: str, weights: Path | None = None) -> Official:
    """torchvision's resnet50 behind the transform of the reference code, for `embedx verify`."""
    import torch
    import torchvision
    from torchvision import transforms

    path = weights or _fetched(model)
    network: Any = torchvision.models.resnet50().eval()
    network.fc = torch.nn.Identity()
    require_filled(network.load_state_dict(network_state(open_weights(path, PREFERRED).state, str(path)), strict=False))
    steps = (transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor())
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return Official(f"torchvision {torchvision.__version__}", transforms.Compose([*steps, normalise]), network)


def is_wrapped(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a state dict has the layout of the published checkpoints."""
    return any(key.startswith((*COPIES, *NORMALISERS)) for key in state)


def network_state(state: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The network alone, under torchvision's names. A state dict without the published layout comes back as it is.

    Raises `ValueError` where the copy that the attacker holds, or the stored normaliser, is not what it has to be.
    """
    if not is_wrapped(state):
        return dict(state)
    first, second = ({k.removeprefix(c): v for k, v in state.items() if k.startswith(c)} for c in COPIES)
    others = [k for k in state if not k.startswith((*COPIES, *NORMALISERS))]
    if others or not first:
        content = f"{', '.join(map(ascii, others[:3]))}" if others else "no names under 'model.'"
        raise ValueError(f"{where} holds {content} beside a robust network's parts; give the published checkpoint")
    if second and (second.keys() != first.keys() or any(not _same(first[k], second[k]) for k in first)):
        raise ValueError(f"{where}: the attacker's copy of the network differs from it; fetch the published file again")
    for prefix in NORMALISERS:
        stored = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if (stored or prefix == NORMALISERS[0]) and not _is_imagenet(stored):
            content = "; ".join(f"{k!a} {v.flatten()[:3].tolist()}" for k, v in stored.items()) or "nothing"
            raise ValueError(
                f"{where}: its {prefix.rstrip('.')} holds {content}, expected new_mean {MEAN} and new_std {STD} of "
                "ImageNet; this is a network for other images"
            )
    return first


def _is_imagenet(stored: Mapping[str, torch.Tensor]) -> bool:
    import torch

    expected = {"new_mean": torch.tensor(MEAN), "new_std": torch.tensor(STD)}
    return stored.keys() == expected.keys() and all(
        stored[k].numel() == 3 and torch.allclose(stored[k].flatten().float(), v) for k, v in expected.items()
    )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    import torch

    # By bytes: a value that is not a number does not equal itself.
    x, y = (t.contiguous().flatten().view(torch.uint8) for t in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(x, y)


def _require_origin(model: str, path: Path, opened: Opened) -> None:
    """Refuse a file that is known to be another network's; see the top of this module for what can be known."""
    converted = opened.metadata.get("source_sha256", "")
    origin = converted or file_sha256(opened.file)
    for name, sha256 in SHA256.items():
        if origin == sha256 and name != model:
            raise ValueError(f"{path} is {FILES[name]}, the network robust:{name}; ask for it by that name")
    wanted = SHA256.get(model)
    if wanted and wanted != origin and (converted or is_wrapped(opened.state)):
        raise ValueError(
            f"{path} is not the published {FILES[model]}: its SHA-256 is {origin}, expected {wanted}; fetch it "
            f"from {address(model)}, or ask for the network that it is"
        )


def _fetched(model: str) -> Path:
    """The published file in the cache of torch.hub; a download lands there whole and readable, or not at all."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / FILES[model]
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:180]}.{secrets.token_hex(8)}.part")  # no other process can have it
    try:
        torch.hub.download_url_to_file(address(model), str(temporary), SHA256.get(model), progress=False)
        open_weights(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError, ValueError) as error:
        why = textwrap.shorten(str(error).replace(str(temporary), "what came"), 160, placeholder=" …")
        raise ValueError(
            f"{FILES[model]} of robust:{model} could not be had ({why}); "
            f"fetch {address(model)} on a machine with internet and pass the file with --weights"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
