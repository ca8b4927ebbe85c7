"""Reading, checking and freezing weights. Nothing here ever executes what a file holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Module = TypeVar("Module", bound="torch.nn.Module")


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors` file or a torch checkpoint, the latter with `weights_only=True`.

    A checkpoint may wrap it under `state_dict`, `model` or `model_state_dict`, and every key may begin with `module.`.
    Raises `ValueError` for a file that is absent, unreadable or holds no tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"no weights file {path}; give --weights an existing .safetensors, .pt or .pth file")
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file ({error})") from error
    except Exception as error:
        raise ValueError(
            f"{path} cannot be loaded as plain tensors ({str(error).partition(chr(10))[0][:200]}); "
            "embedx never unpickles anything else: save its state dict as safetensors"
        ) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(map(_named_tensor, found.items())):
        raise ValueError(f"{path} holds no state dict: expected names mapped to tensors")
    if all(key.startswith("module.") for key in found):
        found = {key.removeprefix("module."): value for key, value in found.items()}
    return dict(found)


def _named_tensor(item: tuple[Any, Any]) -> bool:
    import torch

    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor) and item[1].layout == torch.strided


def fill(module: torch.nn.Module, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Strict loading. Raises `ValueError` that names what is missing, left over or of another shape."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if state[k].shape != own[k].shape
    ]
    faults = [
        f"{len(names)} {label} ({', '.join(sorted(names)[:3])}{', …' if len(names) > 3 else ''})"
        for names, label in ((missing, "missing"), (extra, "unexpected"), (shapes, "of another shape"))
        if names
    ]
    if faults:
        raise ValueError(f"{what} does not fit: {'; '.join(faults)}; choose the model these weights were trained as")
    module.load_state_dict(state, strict=True)


def freeze(module: Module) -> Module:
    """Eval mode (batch norm and dropout stand still) and no gradients, for every part of the network."""
    return module.eval().requires_grad_(False)


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and buffer: equal weights, equal fingerprint."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()
