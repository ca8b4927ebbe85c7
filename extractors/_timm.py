"""Models of timm as backbones: built by name, filled from the hub or a file, pixels as in their config."""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ._backbone import Backbone, Geometry, Interpolation
from ._weights import fill, fingerprint, freeze, linear, read_weights, width

if TYPE_CHECKING:
    import torch

Features = Callable[[Any, "torch.Tensor"], "torch.Tensor"]
"""From a network and a batch to its features."""

PREFERRED = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys of a training's checkpoint in the order in which `timm.models.load_state_dict` takes them."""
TOKENS = {
    "cls": "class token after the last norm",
    "mean": "mean of the patch tokens after the last norm",
    "cls+mean": "class token and mean of the patch tokens after the last norm",
}
"""What a vision transformer's tokens become; registers are no patch tokens."""


def check(model: str) -> None:
    """Raises `LookupError` for a name, or the tag of weights in it, that timm does not know."""
    import difflib

    import timm

    if model.startswith(("hf-hub:", "local-dir:")):
        return
    architecture = model.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(model, [*timm.list_models(), *timm.list_models(pretrained=True)], n=3)
        raise LookupError(f"timm has no model {model!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
    try:
        timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        names = timm.list_models(f"{architecture}.*", pretrained=True)
        raise LookupError(f"timm has no model {model!r}; of this architecture it has {', '.join(names)}") from error


def pretrained(model: str, spec: str, **options: Any) -> Any:
    """The network, filled by timm from its local hub cache or the hub. Raises `ValueError` when that cannot be done."""
    import timm
    import timm.models

    try:
        return built(model, pretrained=True, **options)
    except Exception as error:
        cfg = timm.models.get_pretrained_cfg(model, allow_unregistered=True)
        where = "unknown"
        if cfg is not None and cfg.hf_hub_id:
            where = f"https://huggingface.co/{cfg.hf_hub_id} (model.safetensors)"
        elif cfg is not None and cfg.url:
            where = str(cfg.url)
        reason = textwrap.shorten(str(error), 120, placeholder=" …")
        raise ValueError(
            f"the pretrained weights of {spec} could not be had ({reason}); "
            f"fetch them from {where} on a machine with internet and pass the file with --weights"
        ) from error


def classified(model: str, state: dict[str, Any], what: str) -> Any:
    """The network filled strictly, with as many classes as the state dict's classifier has; none where it has none."""
    names = built(model, num_classes=0).pretrained_cfg.get("classifier") or ()
    first = names if isinstance(names, str) else next(iter(names), "")
    weight = state.get(f"{first}.weight")
    network = built(model, num_classes=0 if weight is None else int(weight.shape[0]))
    fill(network, state, what)
    return network


def trunk(model: str, spec: str, weights: Path | None, **options: Any) -> Any:
    """The network without a classifier, from the hub or from a file as timm or the original authors wrote it.

    timm's own filter of the architecture converts a file's names and resamples its position embedding to the
    resolution of the network; what it gives is loaded strictly.
    """
    if weights is None:
        return pretrained(model, spec, num_classes=0, **options)
    network = built(model, num_classes=0, **options)
    what = f"{weights.name} as {spec}"
    state = read_weights(weights, PREFERRED)
    _refuse(model, network, state, what)
    try:
        state = sys.modules[type(network).__module__].checkpoint_filter_fn(state, network)
    except (LookupError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{what} does not fit: timm cannot convert its position embedding or names ({type(error).__name__}: "
            f"{str(error)[:120]}); choose the model these weights were trained as"
        ) from error
    fill(network, state, what)
    return network


def _refuse(model: str, network: Any, state: dict[str, Any], what: str) -> None:
    """Refuse what timm's filters change without a word: kernels of another patch size (resampled), biases (dropped)."""
    name = "patch_embed.proj.weight"
    own, stored = network.state_dict().get(name), state.get(name)
    if own is not None and stored is not None and own.shape != stored.shape:
        raise ValueError(
            f"{what} does not fit: {name} is {tuple(stored.shape)}, expected {tuple(own.shape)}; "
            "choose the model these weights were trained as"
        )
    if "storage_tokens" in state and "_qkvb" not in model:
        raise ValueError(f"{what} does not fit: the authors' file holds biases; choose the name that ends in -qkvb")


def built(model: str, **options: Any) -> Any:
    """`timm.create_model`."""
    # Any: torch types every attribute of a module as a tensor, and timm's models have many methods of their own.
    import timm

    return timm.create_model(model, **options)


def as_backbone(
    network: Any, features: Features, config: dict[str, Any], *, spec: str, model: str, feature: str, licence: str
) -> Backbone:
    """A filled network as a Backbone whose features are `features(network, x)`; config is timm's of the data."""
    import timm

    reader = geometry(config)
    module = wrapped(freeze(network), features)
    dim = width(module, reader.size)
    return Backbone(
        dim=dim, reader=reader, module=module, mean=tuple(config["mean"]), std=tuple(config["std"]),
        weights=fingerprint(network), libraries={"timm": timm.__version__}, head=_head(network, dim), spec=spec,
        model=model, feature=feature, licence=licence,
    )  # fmt: skip


def geometry(config: dict[str, Any]) -> Geometry:
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


def wrapped(network: Any, features: Features) -> Any:
    """The network as a frozen module that returns `features(network, x)`."""
    import torch

    class Cut(torch.nn.Module):
        """A network cut where its features are."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return features(self.network, x)

    return freeze(Cut())


def pre_logits(network: Any, x: torch.Tensor) -> torch.Tensor:
    """The network up to, and without, its classifier."""
    return network.forward_head(network.forward_features(x), pre_logits=True)


def asked(family: str, model: str, names: Mapping[str, str], patch: int, pixels: int) -> tuple[str, int, str]:
    """`NAME[@PIXELS][/TOKENS]` as (name, pixels, key of `TOKENS`); `pixels` by default, and the class token.

    Raises `LookupError` for an unknown name, `ValueError` for a resolution that is no multiple of the patch size.
    """
    import difflib

    match = re.fullmatch(r"([^@/]+)(?:@([1-9]\d{0,3}))?(?:/([^@/]+))?", model)
    name, size, kind = (match[1], int(match[2] or pixels), match[3] or "cls") if match else (model, pixels, "cls")
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        raise LookupError(
            f"{family} has no model {name!r}; it has {', '.join(close or names)}, "
            f"written NAME[@PIXELS][/TOKENS] with tokens {', '.join(TOKENS)}"
        )
    if kind not in TOKENS:
        raise LookupError(f"{family}:{name} has no tokens {kind!r}; choose {', '.join(TOKENS)}")
    if size % patch:
        below = max(size // patch, 1) * patch
        raise ValueError(f"{size} pixels are no multiple of the patch size {patch}; use @{below} or @{below + patch}")
    return name, size, kind


def sized(spec: str, model: str, weights: Path | None, pixels: int, kind: str | None) -> Backbone:
    """A model of timm at `pixels` x `pixels`; its feature is `TOKENS[kind]`, or for None what timm pools itself."""
    from timm.data.config import resolve_data_config

    check(model)
    network = trunk(model, spec, weights, **({"img_size": pixels} if kind else {}))
    cfg = network.pretrained_cfg
    # Given explicitly: the network's own configuration names the resolution of the pre-training even now.
    config = resolve_data_config({"input_size": (3, pixels, pixels)}, pretrained_cfg=cfg)
    features, feature = (_tokens(kind), TOKENS[kind]) if kind else (pre_logits, "mean of the last map, normalised")
    return as_backbone(network, features, config, spec=spec, model=model, feature=feature, licence=cfg["license"])


def _tokens(kind: str) -> Features:
    def features(network: Any, x: torch.Tensor) -> torch.Tensor:
        import torch

        out = network.forward_features(x)
        parts = {"cls": out[:, 0], "mean": out[:, network.num_prefix_tokens :].mean(1)}
        return torch.cat([parts[part] for part in kind.split("+")], -1)

    return features


def _head(network: Any, dim: int) -> Any:
    """The classifier's weight and bias, where it is one linear layer on exactly the cached features."""
    import torch

    head = network.get_classifier()
    if not isinstance(head, torch.nn.Linear) or head.in_features != dim:
        return None
    return linear(head)
