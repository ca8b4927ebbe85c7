"""Models of torchvision as backbones: built by name, filled by an explicit weights enum or a local file."""

from __future__ import annotations

import pickle
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._backbone import Backbone, Geometry
from ._weights import fill, fingerprint, freeze, linear, read_weights, width

FEATURE = "input of the last linear layer"


@dataclass(frozen=True)
class TorchvisionFacts:
    """What a family says of a model beyond what torchvision knows."""

    spec: str
    feature: str
    licence: str


def load(model: str, weights_name: str, weights: Path | None, facts: TorchvisionFacts) -> Backbone:
    """Build `model`, fill it with the member `weights_name` of its weights enum, and drop its last linear layer.

    weights  a local copy of the file; otherwise torch's hub cache or its download, checked by the hash in its name
    Preprocessing is the enum's own, also for a local file. Raises `LookupError` for an unknown name and `ValueError`
    for weights that cannot be had or do not fit.
    """
    import torchvision

    enum = weights_of(model, weights_name)
    network = _built(model, enum, len(enum.meta["categories"]))
    state = read_weights(weights) if weights is not None else _fetched(enum, facts.spec)
    fill(network, state, f"{weights.name if weights else enum.url} as {facts.spec}")
    return torchvision_backbone(network, enum.transforms(), f"{model}/{weights_name}", facts, torchvision.__version__)


def classified(model: str, enum: Any, state: dict[str, Any], what: str) -> tuple[Any, bool]:
    """The network filled strictly, with as many classes as the classifier in the state dict has.

    The second value says whether there is one; without one, the last linear layer is off already.
    """
    name, _ = _last_linear(_built(model, enum, 1))
    weight = state.get(f"{name}.weight")
    network = _built(model, enum, 1 if weight is None else int(weight.shape[0]))
    if weight is None:
        cut(network)
    fill(network, state, what)
    return network, weight is not None


def torchvision_backbone(
    network: Any, preset: Any, model: str, facts: TorchvisionFacts, version: str, *, has_head: bool = True
) -> Backbone:
    """A filled network and torchvision's classification preset as a Backbone with the classification head beside it."""
    freeze(network)
    weights_digest = fingerprint(network)
    head = cut(network) if has_head else None
    size = preset.crop_size[0]
    geometry = Geometry(size=(size, size), resize=preset.resize_size[0], interpolation=preset.interpolation.value)
    dim = width(network, (size, size))
    return Backbone(
        spec=facts.spec, model=model, dim=dim, reader=geometry, module=network, mean=tuple(preset.mean),
        std=tuple(preset.std), feature=facts.feature, weights=weights_digest, libraries={"torchvision": version},
        licence=facts.licence, head=head,
    )  # fmt: skip


def check(model: str) -> None:
    """Raises `LookupError` for a name that is no classification model of torchvision."""
    import difflib

    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if model not in names:
        close = difflib.get_close_matches(model, names, n=3)
        raise LookupError(
            f"torchvision has no model {model!r}" + (f"; did you mean {' or '.join(close)}?" if close else "")
        )


def weights_of(model: str, name: str) -> Any:
    """The member `name` of the model's weights enum; never DEFAULT, whose meaning differs from model to model."""
    from torchvision.models import get_model_weights

    members = {w.name: w for w in get_model_weights(model)}
    if name not in members:
        raise LookupError(f"torchvision's {model} has no weights {name!r}; it has {', '.join(members)}")
    return members[name]


def cut(network: Any) -> tuple[np.ndarray, np.ndarray]:
    """Replace the last linear layer by the identity; returns its weight (classes, dim) and bias (classes,)."""
    import torch

    name, layer = _last_linear(network)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, freeze(torch.nn.Identity()))
    return linear(layer)


def _last_linear(network: Any) -> tuple[str, Any]:
    import torch

    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, torch.nn.Linear)]
    if not layers:
        raise ValueError("its classifier is no linear layer, so there are no features before it; choose another model")
    return layers[-1]


def _built(model: str, enum: Any, classes: int) -> Any:
    """The network, with what the weights decide: the position embedding of a transformer belongs to one image size."""
    from torchvision.models import get_model_builder

    arguments: dict[str, Any] = {"num_classes": classes}
    if model.startswith("vit_"):
        arguments["image_size"] = enum.transforms().crop_size[0]
    if model in ("googlenet", "inception_v3"):  # as torchvision builds them for its own weights
        arguments |= {"transform_input": True, "init_weights": False}
    return get_model_builder(model)(**arguments)


def _fetched(enum: Any, spec: str) -> dict[str, Any]:
    try:
        return enum.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"the weights of {spec} could not be had ({textwrap.shorten(str(error), 120, placeholder=' …')}); "
            f"fetch {enum.url} on a machine with internet and pass the file with --weights"
        ) from error
