"""SWAG (Singh et al. 2022): weakly supervised on 3.6 billion hashtagged images; the backbones of the 2022 claim.

`MODEL-linear` is the frozen original trunk, `MODEL-e2e` the one fine-tuned end to end on ImageNet-1k: two different
networks, and the published best figure is the second's. From torchvision with the official preprocessing (timm
resizes SWAG otherwise). The feature is the class token after the last norm (ViT) or the pooled map (RegNetY).
Licence: CC-BY-NC-4.0, non-commercial.
"""

from __future__ import annotations

from pathlib import Path

from . import _torchvision
from ._backbone import Backbone
from ._official import Official, of_torchvision
from ._weights import read_weights

ARCHITECTURES = {
    "vit-b16": "vit_b_16",
    "vit-l16": "vit_l_16",
    "vit-h14": "vit_h_14",
    "regnety-16gf": "regnet_y_16gf",
    "regnety-32gf": "regnet_y_32gf",
    "regnety-128gf": "regnet_y_128gf",
}
TRUNKS = {"linear": "IMAGENET1K_SWAG_LINEAR_V1", "e2e": "IMAGENET1K_SWAG_E2E_V1"}

PREFERRED = ()


def models() -> tuple[str, ...]:
    """Each architecture with both trunks."""
    return tuple(f"{a}-{t}" for a in ARCHITECTURES for t in TRUNKS)


def load(model: str, weights: Path | None = None) -> Backbone:
    """One of `models()`. Raises `LookupError` for another name, `ValueError` for absent or unfit weights."""
    architecture, _, trunk = model.rpartition("-")
    if architecture not in ARCHITECTURES or trunk not in TRUNKS:
        raise LookupError(f"swag has no model {model!r}; it has {', '.join(models())}")
    feature = "class token after the last norm" if architecture.startswith("vit") else "pooled last map"
    facts = _torchvision.TorchvisionFacts(f"swag:{model}", feature, "CC-BY-NC-4.0")
    return _torchvision.load(ARCHITECTURES[architecture], TRUNKS[trunk], weights, facts)


def official(model: str, weights: Path | None = None) -> Official:
    """What torchvision itself makes of an image, for `embedx verify`."""
    from torchvision.models import get_model_weights

    architecture, _, trunk = model.rpartition("-")
    name = ARCHITECTURES[architecture]
    return of_torchvision(
        name, get_model_weights(name)[TRUNKS[trunk]], None if weights is None else read_weights(weights)
    )
