"""Reading, checking and freezing weights. Nothing here ever executes what a file holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import _checkpoint, _inert, _state_dicts

if TYPE_CHECKING:
    import torch

Module = TypeVar("Module", bound="torch.nn.Module")


@dataclass(frozen=True, eq=False)
class Opened:
    """A file of weights.

    file      without the name of a state dict that may follow it
    format    "safetensors", "torch zip" or "torch before 1.6"
    state     names mapped to tensors, wrappers and prefix removed
    wrappers  keys that lead from the file's top to the state; `beside` are their neighbours, which are not read
    others    names of further state dicts in the file, as they are asked for after a `#`
    prefix    "module." where every name began with it
    inert     names of classes and functions that the file wanted to call and that were not called
    metadata  of a safetensors file
    """

    file: Path
    format: str
    state: dict[str, torch.Tensor]
    wrappers: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    prefix: str = ""
    inert: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path, preferred: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors` file or a torch checkpoint, as `open_weights` finds it."""
    return open_weights(path, preferred).state


def state_dict_taken(path: Path, preferred: Sequence[str] = ()) -> str:
    """A sentence on what `open_weights` takes of a file of several state dicts; empty where there is one."""
    path, name = _state_dicts.split_weights_name(path)
    candidates = state_dicts(path)
    if len(candidates) < 2:
        return ""
    way = _state_dicts.chosen_state_dict(path, candidates, name, preferred)
    return (
        f"{path.name} holds {len(candidates)} state dicts ({_state_dicts.listed(candidates)}); "
        f"{_state_dicts.listed({way: None})} is taken, another one with {path.name}#NAME"
    )


def state_dicts(path: Path) -> Mapping[_state_dicts.Way, Mapping[str, Any]]:
    """The state dicts in a torch checkpoint by the keys that lead to them, tensors not read; empty for safetensors."""
    return {} if _kind(path) == "safetensors" else _found(path)[1]


def open_weights(path: Path, preferred: Sequence[str] = ()) -> Opened:
    """The state dict of a file and what lies around it.

    path       FILE, or FILE#NAME for one of several state dicts; every key of it may begin with `module.`
    preferred  keys that the library's own loader looks for: see `_state_dicts`

    Raises `ValueError` for a file that is absent, unreadable, holds no tensors, or several dicts of which any may be
    meant.
    """
    path, name = _state_dicts.split_weights_name(path)
    return _safetensors(path, name) if _kind(path) == "safetensors" else _torch(path, name, preferred)


def _kind(path: Path) -> str:
    """Raises `ValueError` for a file that is absent or plainly something else."""
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
    return "safetensors" if path.suffix == ".safetensors" or head[8:9] == b"{" else "torch"


def _safetensors(path: Path, name: str) -> Opened:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if name:
        raise ValueError(f"{path} holds one state dict, as safetensors do; leave #{name[:80]} out")
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file ({error})") from error
    state, prefix = _stripped(path, tensors)
    return Opened(path, "safetensors", state, prefix=prefix, metadata=metadata)


def _torch(path: Path, name: str, preferred: Sequence[str]) -> Opened:
    checkpoint, candidates = _found(path)
    way = _state_dicts.chosen_state_dict(path, candidates, name, preferred)
    content = candidates.get(way, {})
    if not all(isinstance(v, _inert.Described) for v in content.values()):
        content = {}
    with _readable(path):
        state = checkpoint.tensors(content)
    state, prefix = _stripped(path, state, checkpoint.inert)
    beside, level = [], checkpoint.content
    for key in way:
        beside += [k for k in level if k != key]
        level = level[key]
    others = tuple(_state_dicts.state_dict_name(other) for other in candidates if other != way)
    return Opened(path, checkpoint.format, state, way, tuple(beside), others, prefix, checkpoint.inert)


def _found(path: Path) -> tuple[_checkpoint.Checkpoint, dict[_state_dicts.Way, Mapping[str, Any]]]:
    """A torch file, its tensors not yet read, and the state dicts in it."""
    with _readable(path):
        checkpoint = _checkpoint.load(path)
        return checkpoint, _state_dicts.found_in(checkpoint.content)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn any failure on a stranger's file into a `ValueError`."""
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, ValueError) else f"damaged: {type(error).__name__}"
        raise ValueError(
            f"{path} cannot be loaded as plain tensors ({why.partition(chr(10))[0][:200]}); "
            "embedx never unpickles anything else: save its state dict as safetensors"
        ) from error


def _stripped(
    path: Path, state: dict[str, torch.Tensor], inert: tuple[str, ...] = ()
) -> tuple[dict[str, torch.Tensor], str]:
    """The state without the prefix that all names share, and the prefix."""
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
    """Strict loading.

    Raises `ValueError` that names what is missing, left over, of another shape or type, not finite, or zero altogether.
    """
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shared = sorted(own.keys() & state.keys())
    shapes = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in shared
        if state[k].shape != own[k].shape
    ]
    _refuse(what, "choose the model these weights were trained as", missing=missing, unexpected=extra,
            **{"of another shape": shapes})  # fmt: skip
    advice = "give the weights as floats, not quantised or packed"
    _refuse(what, advice, **{"of another type": other_types(own, state)})
    buffers = {name for name, _ in module.named_buffers()}  # parameters are left to `width`, as they may have no use
    lost = [k for k in shared if k in buffers and not _finite(state[k].to(own[k].dtype)) and _finite(own[k])]
    dead = [k for k, p in module.named_parameters() if p.dim() > 1]
    if any(bool(state[k].any()) for k in dead):
        dead = []
    _refuse(what, "fetch the file again, or train it anew", **{"not finite": lost, "zero, as all matrices are": dead})
    module.load_state_dict(state, strict=True)


def _refuse(what: str, advice: str, **faults: Sequence[str]) -> None:
    problems = [
        f"{len(names)} {label} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for label, names in faults.items()
        if names
    ]
    if problems:
        raise ValueError(f"{what} does not fit: {'; '.join(problems)}; {advice}")


def other_types(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[str]:
    """Tensors whose numbers mean something else than the network's: integers for floats, and the like.

    Floats of 16, 32 and 64 bits stand for each other. A lone number may be of any type: it counts batches.
    """
    return [
        f"{k} is {str(state[k].dtype).removeprefix('torch.')}, expected {str(own[k].dtype).removeprefix('torch.')}"
        for k in sorted(own.keys() & state.keys())
        if own[k].numel() != 1 and _sort(own[k]) != _sort(state[k])
    ]


def _sort(tensor: torch.Tensor) -> str:
    """float, integer, or the type itself: booleans, complex numbers, floats of 8 bits and less, quantised numbers."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name in ("float16", "bfloat16", "float32", "float64"):
        return "float"
    return "integer" if re.fullmatch(r"u?int(8|16|32|64)", name) else name


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def width(module: torch.nn.Module, size: tuple[int, int]) -> int:
    """How many features a network has, by those of one grey image. Raises `ValueError` where these are not finite."""
    import torch

    with torch.inference_mode():
        features = module(torch.zeros(1, 3, *size))
    if not _finite(features):
        lost = [k for k, v in module.state_dict().items() if not _finite(v)]
        raise ValueError(
            f"its features are not finite, as {len(lost):,} of its tensors are not ({', '.join(lost[:3])}); "
            "fetch the weights again, or train them anew"
        )
    return features.shape[-1]


def linear(layer: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Copies of weight (out, in) and bias (out,), zeros where the layer has none."""
    weight = layer.weight.detach().numpy().copy()
    return weight, np.zeros(len(weight), weight.dtype) if layer.bias is None else layer.bias.detach().numpy().copy()


def freeze(module: Module) -> Module:
    """Eval mode (batch norm and dropout stand still) and no gradients, for every part of the network."""
    return module.eval().requires_grad_(False)


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and buffer: equal weights, equal fingerprint."""
    return weights_digest(module.state_dict())


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """`fingerprint` of a network that has exactly this state."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
