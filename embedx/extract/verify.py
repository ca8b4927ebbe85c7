"""What a file really holds: every damaged part of a feature cache, and the contents of a file of weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedx.data.manifest import ids_digest
from embedx.errors import BackboneError
from embedx.extract.backbones import preferences
from embedx.extract.kept import joined
from embedx.files import landing
from embedx.store import FeatureCache, Header
from embedx.store.header import FORMAT

if TYPE_CHECKING:
    import torch

    from embedx.extractors import Opened

# A name that only some of torchvision's architectures have, and how these begin. (RegNets cannot be built empty.)
FAMILIES = {
    "conv1.weight": ("resnet", "resnext", "wide_resnet"),
    "class_token": ("vit_",),
    "features.conv0.weight": ("densenet",),
    "features.0.0.weight": ("convnext", "efficientnet", "mobilenet", "swin_"),
    "features.0.weight": ("alexnet", "squeezenet", "vgg"),
    "conv1.0.weight": ("shufflenet",),
    "layers.0.weight": ("mnasnet",),
    "conv1.conv.weight": ("googlenet",),
    "Conv2d_1a_3x3.conv.weight": ("inception",),
}


@dataclass(frozen=True)
class CacheReport:
    """A feature cache looked through to its end: row ranges of the damaged blocks, and all else that does not fit."""

    header: Header
    blocks: int
    damaged: tuple[tuple[int, int], ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class WeightsReport:
    """A file of weights.

    state         the network's tensors, as `opened.state` or, of a robust ResNet50, under torchvision's names
    types         how many tensors there are of each type
    choice        of which family each state dict is by itself, where there are several; else empty
    layout        in words; `architectures` are torchvision's with these names and shapes
    fingerprint   of the weights as a cache records it
    parameters    how many an architecture learns; None where none is known
    published_as  backbone of which this is the published file, or its conversion
    """

    path: Path
    sha256: str
    opened: Opened
    state: dict[str, torch.Tensor]
    types: dict[str, int]
    choice: tuple[str, ...]
    layout: str
    architectures: tuple[str, ...]
    parameters: int | None
    fingerprint: str
    published_as: str


def is_cache(path: Path) -> bool:
    """Whether a file is, or ought to be, a feature cache."""
    with path.open("rb") as file:
        return path.suffix == ".h5" or file.read(len(FORMAT)) == FORMAT.encode()


def check_cache(path: Path) -> CacheReport:
    """Read everything and stop at nothing. Raises `CacheError` only where the header itself cannot be believed."""
    cache = FeatureCache.open(path)
    damaged, faults = cache.faults()
    return CacheReport(cache.header, cache.blocks, tuple(damaged), tuple(faults))


def of_other_bytes(ids: np.ndarray, hashes: np.ndarray, cache: FeatureCache) -> np.ndarray:
    """Rows of a manifest whose file holds other bytes now than a cache was made from.

    hashes  (n, 32) SHA-256 of the files now, zeros where one cannot be read, which says nothing
    """
    rows, at = joined(ids, ids_digest(ids), cache)
    return rows[hashes[rows].any(axis=1) & (hashes[rows] != cache.content_hash[at]).any(axis=1)]


def inspect_weights(path: Path) -> WeightsReport:
    """Look into a file of weights without executing anything. Raises `BackboneError` where it holds no tensors."""
    from embedx.extractors import file_sha256, open_weights, other_types, robust, weights_digest

    try:
        choice, preferred = _choice(path)
        opened = open_weights(path, preferred)
        wrapped = robust.is_wrapped(opened.state)
        state = robust.network_state(opened.state, str(path))
    except ValueError as error:
        raise BackboneError(str(error)) from error
    names, network, parameters = _architectures(state)
    of = f"torchvision's {' or '.join(names)}" if names else "no known architecture"
    layout = f"{of}, with the attacker and normaliser of a robust checkpoint" if wrapped else of
    if apart := other_types(network, state):
        layout += f" but for the types of {len(apart):,} tensors ({apart[0]}): no backbone takes these weights"
    own = file_sha256(opened.file)
    origin = opened.metadata.get("source_sha256", own)
    published = next((f"robust:{m}" for m, digest in robust.SHA256.items() if digest == origin), "")
    # A network holds its weights in types of its own, whatever the file's are.
    fingerprint = weights_digest({k: v if apart else v.to(network.get(k, v).dtype) for k, v in state.items()})
    types = Counter(str(t.dtype).removeprefix("torch.") for t in state.values())
    return WeightsReport(
        path, own, opened, state, dict(types), choice, layout, names, parameters, fingerprint, published
    )


def _choice(path: Path) -> tuple[tuple[str, ...], Sequence[str]]:
    """(which state dict the families take of a file with several, in words; the preference that is followed here).

    That is none, unless it leaves the choice open and timm's does not.
    """
    from embedx.extractors import PREFERRED, chosen_state_dict, split_weights_name, state_dict_name, state_dicts

    file, name = split_weights_name(path)
    dicts = state_dicts(file)
    if len(dicts) < 2:
        return (), ()
    by: dict[str, list[str]] = {state_dict_name(way): [] for way in dicts} | {"": []}
    for family, preferred in preferences().items():
        try:
            by[state_dict_name(chosen_state_dict(file, dicts, "", preferred))].append(family)
        except ValueError:
            by[""].append(family)
    undecided = by.pop("")
    lines = [f"{k} is taken by {', '.join(v) or 'no family'}, or with {file.name}#{k}" for k, v in by.items()]
    lines += [f"none is taken by {', '.join(undecided)}, unless one is named"] * bool(undecided)
    return tuple(lines), PREFERRED if undecided and not name else ()


def convert(report: WeightsReport, target: Path) -> None:
    """Write `report.state` as safetensors that remember their source, whole or not at all, and never over a file.

    Raises `BackboneError` for a target that exists or is called otherwise, and for types that safetensors cannot hold.
    """
    from safetensors.torch import save_file

    from embedx.extractors import read_weights, weights_digest

    if target.suffix != ".safetensors":
        raise BackboneError(f"{target} is no name for safetensors; expected one that ends in .safetensors")
    if target.exists():
        raise BackboneError(f"{target} exists already and is not overwritten; delete it or choose another name")
    source = report.opened.metadata
    metadata = {
        "format": "pt",
        "source": source.get("source", report.path.name),
        "source_sha256": source.get("source_sha256", report.sha256),
        "fingerprint": report.fingerprint,
    }
    try:
        with landing(target) as temporary:
            # Copies, since safetensors refuses tensors that share memory.
            save_file({k: v.contiguous().clone() for k, v in report.state.items()}, temporary, metadata)
            if weights_digest(read_weights(temporary)) != weights_digest(report.state):
                raise ValueError("what was written is not what was read")
    except (ValueError, KeyError, RuntimeError) as error:
        raise BackboneError(f"{report.path} cannot be kept as safetensors ({error}); keep the file as it is") from error


def _architectures(state: dict[str, torch.Tensor]) -> tuple[tuple[str, ...], dict[str, torch.Tensor], int | None]:
    """(architectures of torchvision, their empty tensors, number of parameters); any number of classes fits."""
    import torch
    from torchvision import models

    starts = tuple(s for needle, starts in FAMILIES.items() if needle in state for s in starts)
    names, empty, parameters = [], {}, None
    for name in models.list_models(module=models):
        if not name.startswith(starts or ("-",)):
            continue
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        with torch.device("meta"):
            network = models.get_model(name, weights=None, **options)
        own = network.state_dict()
        if own.keys() != state.keys():
            continue
        other = [k for k in own if own[k].shape != state[k].shape]
        if all(
            own[k].shape[:1] == (1000,) and own[k].shape[1:] == state[k].shape[1:] and state[k].dim() for k in other
        ):
            names.append(name)
            empty = own
            parameters = sum(state[k].numel() for k, _ in network.named_parameters())
    return tuple(names), empty, parameters
