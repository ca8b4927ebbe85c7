"""Any weights of yours in a named architecture: `checkpoint:timm/resnet50` or `checkpoint:torchvision/resnet50`.

`--weights FILE` is required. Names that all begin with `module.`, `model.`, `backbone.`, `network.` or `_orig_mod.`
lose that; then every name and shape has to fit. The number of classes is read off the file, and its classifier, if
there is one, is kept beside the features, which are what that linear layer takes. Preprocessing is that of weights
published for the architecture: those that timm's name stands for (`checkpoint:timm/resnet50.tv_in1k` chooses others),
or the first of torchvision's (`checkpoint:torchvision/resnet50/IMAGENET1K_V2`). The licence is recorded as unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import _timm, _torchvision
from ._backbone import Backbone
from ._official import Official, of_timm, of_torchvision
from ._weights import read_weights

PREFERRED = {"timm": _timm.PREFERRED, "torchvision": ()}
PREFIXES = ("module.", "model.", "backbone.", "network.", "_orig_mod.")


def models() -> tuple[str, ...]:
    """Examples: any architecture of the two libraries will do."""
    return ("timm/resnet50", "timm/vit_base_patch16_224", "torchvision/resnet50")


def load(model: str, weights: Path | None = None) -> Backbone:
    """`timm/NAME` or `torchvision/NAME[/WEIGHTS]`, whose published WEIGHTS lend nothing but their preprocessing.

    Raises `LookupError` for an unknown architecture, `ValueError` without a file and for one that does not fit.
    """
    library, _, name = model.partition("/")
    if library not in ("timm", "torchvision") or not name:
        raise LookupError(f"no architecture {model!r}; expected timm/NAME or torchvision/NAME, such as {models()[0]}")
    if weights is None:
        raise ValueError("it has no weights of its own; pass a file with --weights")
    spec = f"checkpoint:{model}"
    what = f"{weights.name} as {spec}"
    if library == "torchvision":
        return _of_torchvision(spec, name, weights, what)
    from timm.data.config import resolve_model_data_config

    _timm.check(name)
    network = _timm.classified(name, _stripped(read_weights(weights, PREFERRED[library])), what)
    cfg = network.pretrained_cfg
    published = ".".join(filter(None, (cfg.get("architecture"), cfg.get("tag"))))
    return _timm.as_backbone(
        network, _timm.pre_logits, resolve_model_data_config(network), spec=spec,
        model=f"timm/{name}, preprocessing of {published}", feature="pooled pre-logits", licence="unknown",
    )  # fmt: skip


def official(model: str, weights: Path | None = None) -> Official:
    """What the architecture's own library makes of an image, for `embedx verify`."""
    from torchvision.models import get_model_weights

    if weights is None:
        raise ValueError("it has no weights of its own; pass a file with --weights")
    library, _, name = model.partition("/")
    state = _stripped(read_weights(weights, PREFERRED[library]))
    if library == "timm":
        return of_timm(name, state)
    name, _, published = name.partition("/")
    members = list(get_model_weights(name))
    return of_torchvision(name, next((w for w in members if w.name == published), members[0]), state)


def _of_torchvision(spec: str, name: str, weights: Path, what: str) -> Backbone:
    import torchvision
    from torchvision.models import get_model_weights

    name, _, published = name.partition("/")
    _torchvision.check(name)
    published = published or next(w.name for w in get_model_weights(name))
    enum = _torchvision.weights_of(name, published)
    network, has_head = _torchvision.classified(
        name, enum, _stripped(read_weights(weights, PREFERRED["torchvision"])), what
    )
    facts = _torchvision.TorchvisionFacts(spec, _torchvision.FEATURE, "unknown")
    model = f"torchvision/{name}, preprocessing of {published}"
    return _torchvision.torchvision_backbone(
        network, enum.transforms(), model, facts, torchvision.__version__, has_head=has_head
    )


def _stripped(state: dict[str, Any]) -> dict[str, Any]:
    """The state without the prefixes that all names share, such as those of wrappers for several devices."""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
