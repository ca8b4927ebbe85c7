"""Any classification model of torchvision, its weights named explicitly: `torchvision:resnet50/IMAGENET1K_V1`.

The feature is what the last linear layer takes. Preprocessing is the one that torchvision publishes with the weights.
"""

from __future__ import annotations

from pathlib import Path

from . import _torchvision
from ._backbone import Backbone
from ._official import Official, of_torchvision
from ._weights import read_weights

PREFERRED = ()  # torchvision's loaders know published files only, which hold one state dict


def models() -> tuple[str, ...]:
    """Every `MODEL/WEIGHTS` of torchvision's classification models."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return tuple(f"{n}/{w.name}" for n in names for w in torchvision.models.get_model_weights(n))


def load(model: str, weights: Path | None = None) -> Backbone:
    """`MODEL/WEIGHTS`. Raises `LookupError` for an unknown name, `ValueError` for absent or unfit weights."""
    import torchvision

    name, _, enum = model.partition("/")
    _torchvision.check(name)
    if not enum:
        members = ", ".join(f"{name}/{w.name}" for w in torchvision.models.get_model_weights(name))
        raise LookupError(f"name the weights too, torchvision's default changes: {members}")
    meta = _torchvision.weights_of(name, enum).meta
    licence = str(meta.get("license") or "BSD-3-Clause")
    facts = _torchvision.TorchvisionFacts(f"torchvision:{model}", _torchvision.FEATURE, licence)
    return _torchvision.load(name, enum, weights, facts)


def official(model: str, weights: Path | None = None) -> Official:
    """What torchvision itself makes of an image, for `embedx verify`."""
    from torchvision.models import get_model_weights

    name, _, enum = model.partition("/")
    return of_torchvision(name, get_model_weights(name)[enum], None if weights is None else read_weights(weights))
