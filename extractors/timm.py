"""Any model of timm: pooled features before the classifier, preprocessing from the model's own config.

`timm:MODEL` takes the pretrained weights that timm resolves the name to, from the local hub cache or the hub;
`--weights FILE` a local safetensors file or state dict, loaded strictly. The licence is the one that timm records
with the weights.
"""

from __future__ import annotations

from pathlib import Path

from . import _timm
from ._backbone import Backbone
from ._official import Official, of_timm
from ._weights import read_weights

PREFERRED = _timm.PREFERRED


def models() -> tuple[str, ...]:
    """Every name that has pretrained weights."""
    import timm

    return tuple(timm.list_models(pretrained=True))


def load(model: str, weights: Path | None = None) -> Backbone:
    """Build, fill and freeze `timm.create_model(model)`; its features are `forward_head(..., pre_logits=True)`.

    Raises `LookupError` for a name that timm does not know, `ValueError` for weights that cannot be had or do not fit.
    """
    from timm.data.config import resolve_model_data_config

    spec = f"timm:{model}"
    _timm.check(model)
    identifier, licence = model, "unknown"
    if weights is None:
        network = _timm.pretrained(model, spec)
        cfg = network.pretrained_cfg
        identifier = ".".join(filter(None, (cfg.get("architecture"), cfg.get("tag")))) or model
        licence = cfg.get("license") or "unknown"
    else:
        network = _timm.classified(model, read_weights(weights, PREFERRED), f"{weights.name} as {spec}")
    return _timm.as_backbone(
        network, _timm.pre_logits, resolve_model_data_config(network), spec=spec, model=identifier,
        feature="pooled pre-logits", licence=licence,
    )  # fmt: skip


def official(model: str, weights: Path | None = None) -> Official:
    """What timm itself makes of an image, for `embedx verify`."""
    return of_timm(model, None if weights is None else read_weights(weights, PREFERRED))
