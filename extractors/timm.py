"""Any model of timm: pooled features before the classifier, preprocessing from the model's own config.

`timm:MODEL` takes the pretrained weights that timm resolves the name to, from the local hub cache or the hub;
`--weights FILE` a local safetensors file or state dict, loaded strictly. The licence is the one that timm records
with the weights.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any, get_args

from extractors._backbone import Backbone, Geometry, Interpolation
from extractors._weights import fill, fingerprint, freeze, read


def models() -> tuple[str, ...]:
    """Every name that has pretrained weights."""
    import timm

    return tuple(timm.list_models(pretrained=True))


def load(model: str, weights: Path | None = None) -> Backbone:
    """Build, fill and freeze `timm.create_model(model)`; its features are `forward_head(..., pre_logits=True)`.

    Raises `LookupError` for a name that timm does not know, `ValueError` for weights that cannot be had or do not fit.
    """
    import timm
    import torch
    from timm.data.config import resolve_model_data_config

    if not model.startswith(("hf-hub:", "local-dir:")) and not timm.is_model(model):
        import difflib

        close = difflib.get_close_matches(model, [*timm.list_models(), *timm.list_models(pretrained=True)], n=3)
        raise LookupError(f"timm has no model {model!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
    if weights is None:
        network = _pretrained(model)
    else:
        state = read(weights)
        network = _built(model, num_classes=_classes(model, state))
        fill(network, state, f"{weights.name} as timm:{model}")
    freeze(network)
    config = resolve_model_data_config(network)
    cfg = network.pretrained_cfg
    geometry = _geometry(config)
    module = freeze(_pre_logits(network))
    with torch.inference_mode():
        dim = module(torch.zeros(1, 3, *geometry.size)).shape[-1]
    identifier = ".".join(filter(None, (cfg.get("architecture"), cfg.get("tag")))) if weights is None else model
    return Backbone(
        spec=f"timm:{model}", model=identifier or model, dim=dim, reader=geometry, module=module,
        mean=tuple(config["mean"]), std=tuple(config["std"]), feature="pooled pre-logits",
        weights=fingerprint(network), libraries={"timm": timm.__version__},
        licence=(cfg.get("license") or "unknown") if weights is None else "unknown", head=_head(network, dim),
    )  # fmt: skip


def _pretrained(model: str) -> Any:
    import timm
    import timm.models

    try:
        return _built(model, pretrained=True)
    except Exception as error:
        cfg = timm.models.get_pretrained_cfg(model, allow_unregistered=True)
        where = "unknown"
        if cfg is not None and cfg.hf_hub_id:
            where = f"https://huggingface.co/{cfg.hf_hub_id} (model.safetensors)"
        elif cfg is not None and cfg.url:
            where = str(cfg.url)
        reason = textwrap.shorten(str(error), 120, placeholder=" …")
        raise ValueError(
            f"the pretrained weights of timm:{model} could not be had ({reason}); "
            f"fetch them from {where} on a machine with internet and pass the file with --weights"
        ) from error


def _built(model: str, **options: Any) -> Any:
    # Any: torch types every attribute of a module as a tensor, and timm's models have many methods of their own.
    import timm

    return timm.create_model(model, **options)


def _classes(model: str, state: dict[str, Any]) -> int:
    """Number of classes of a local checkpoint, read off its classifier; 0 when it has none."""
    names = _built(model, num_classes=0).pretrained_cfg.get("classifier") or ()
    first = names if isinstance(names, str) else next(iter(names), "")
    weight = state.get(f"{first}.weight")
    return 0 if weight is None else int(weight.shape[0])


def _geometry(config: dict[str, Any]) -> Geometry:
    """timm's evaluation transform up to the tensor: resize to floor(size / crop_pct), then crop the centre."""
    h, w = config["input_size"][-2:]
    scaled = (math.floor(h / config["crop_pct"]), math.floor(w / config["crop_pct"]))
    mode, interpolation = config["crop_mode"], config["interpolation"]
    if (
        interpolation not in get_args(Interpolation)
        or mode not in ("center", "squash")
        or (mode == "center" and h != w)
    ):
        raise ValueError(
            f"timm's preprocessing of this model (crop_mode {mode!r}, interpolation {interpolation!r}, input {h}x{w}) "
            "is not supported yet: expected a square centre crop or squash"
        )
    return Geometry(size=(h, w), resize=scaled[0] if mode == "center" else scaled, interpolation=interpolation)


def _pre_logits(network: Any) -> Any:
    import torch

    class PreLogits(torch.nn.Module):
        """The network up to, and without, its classifier."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network.forward_head(self.network.forward_features(x), pre_logits=True)

    return PreLogits()


def _head(network: Any, dim: int) -> Any:
    """The classifier's weight and bias, where it is one linear layer on exactly the cached features."""
    import torch

    head = network.get_classifier()
    if not isinstance(head, torch.nn.Linear) or head.in_features != dim:
        return None
    bias = torch.zeros(head.out_features) if head.bias is None else head.bias
    return head.weight.detach().numpy().copy(), bias.detach().numpy().copy()
