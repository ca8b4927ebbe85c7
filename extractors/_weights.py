"""Reading, checking and freezing weights. Nothing here ever executes what a file holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from extractors import _checkpoint, _inert

if TYPE_CHECKING:
    import torch

Module = TypeVar("Module", bound="torch.nn.Module")


@dataclass(frozen=True, eq=False)
class Opened:
    """A file of weights.

    format    "safetensors", "torch zip" or "torch before 1.6"
    state     names mapped to tensors, wrappers and prefix removed
    wrappers  keys that lead from the file's top to the state; `beside` are their neighbours, which are not read
    prefix    "module." where every name began with it
    inert     names of classes and functions that the file wanted to call and that were not called
    metadata  of a safetensors file
    """

    format: str
    state: dict[str, torch.Tensor]
    wrappers: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    prefix: str = ""
    inert: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors` file or a torch checkpoint, as `open_weights` finds it."""
    return open_weights(path).state


def open_weights(path: Path) -> Opened:
    """The state dict of a file and what lies around it.

    A checkpoint may wrap it under `state_dict`, `model` or `model_state_dict`, and every key may begin with `module.`.
    Raises `ValueError` for a file that is absent, unreadable or holds no tensors.
    """
    if not path.is_file():
        raise ValueError(f"no weights file {path}; give --weights an existing .safetensors, .pt or .pth file")
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise ValueError(f"{path} is a web page, expected a checkpoint; its link led to a page: fetch the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a pointer of Git LFS, expected the file it points to; fetch it with `git lfs pull`"
        )
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _safetensors(path)
    return _torch(path)


def _safetensors(path: Path) -> Opened:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        found = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file ({error})") from error
    state, prefix = _stripped(path, found)
    return Opened("safetensors", state, prefix=prefix, metadata=metadata)


def _torch(path: Path) -> Opened:
    try:
        found = _checkpoint.load(path)
        content, wrappers, beside = found.content, [], []
        for wrapper in ("state_dict", "model", "model_state_dict"):
            if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                beside += [key for key in content if key != wrapper]
                wrappers.append(wrapper)
                content = content[wrapper]
        if not isinstance(content, dict) or not all(isinstance(v, _inert.Described) for v in content.values()):
            content = {}
        state = found.tensors(content)
    except Exception as error:
        why = str(error) if isinstance(error, ValueError) else f"damaged: {type(error).__name__}"
        raise ValueError(
            f"{path} cannot be loaded as plain tensors ({why.partition(chr(10))[0][:200]}); "
            "embedx never unpickles anything else: save its state dict as safetensors"
        ) from error
    state, prefix = _stripped(path, state, found.inert)
    return Opened(found.format, state, tuple(wrappers), tuple(beside), prefix, found.inert)


def _stripped(
    path: Path, state: dict[str, torch.Tensor], inert: tuple[str, ...] = ()
) -> tuple[dict[str, torch.Tensor], str]:
    """Without the prefix that every name has, and the prefix."""
    if not state:
        objects = f" (it wants objects of {', '.join(map(ascii, inert[:3]))}, which are never made)" if inert else ""
        raise ValueError(
            f"{path} holds no state dict{objects}: expected names mapped to tensors; save the state dict alone"
        )
    if odd := [key for key in state if not key.isprintable()]:
        raise ValueError(f"{path} holds a tensor called {odd[0][:80]!a}, expected names of printable characters")
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}, prefix


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


def linear(layer: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Copies of weight (out, in) and bias (out,), zeros where the layer has none."""
    weight = layer.weight.detach().numpy().copy()
    return weight, np.zeros(len(weight), weight.dtype) if layer.bias is None else layer.bias.detach().numpy().copy()


def freeze(module: Module) -> Module:
    """Eval mode (batch norm and dropout stand still) and no gradients, for every part of the network."""
    return module.eval().requires_grad_(False)


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and buffer: equal weights, equal fingerprint."""
    return digest(module.state_dict())


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """`fingerprint` of a network that has exactly this state."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
