"""CLIP and its kin, every pair of open_clip: `clip:ViT-B-16/laion2b_s34b_b88k`.

The feature is the pooled output before the projection, not normalised: the CLIP paper's probe uses it, and one
product with the stored `projection` (of the ResNets, and `projection_bias`) gives the embedding that meets the text;
nothing leads back from it. Preprocessing is open_clip's for the pair. Weights trained with QuickGELU under a name that
builds plain GELU are refused: open_clip only warns, and gives other features. Licences differ by pair: check the card.
`texts` gives the text tower of a pair, for prompts.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ._backbone import Backbone, Geometry
from ._clip import TextTower, tokenizer_of, tower
from ._official import Official
from ._weights import fill, fingerprint, freeze, read_weights, width

LICENCES = {
    "openai": "MIT", "laion": "MIT", "datacomp": "MIT", "commonpool": "MIT", "merged2b": "MIT", "webli": "Apache-2.0",
    "metaclip": "CC-BY-NC-4.0", "dfn": "Apple ASCL", "meta": "Apache-2.0",
}  # fmt: skip
"""By the beginning of the tag, the longest that fits; other tags are recorded as unknown."""


PREFERRED = ("state_dict",)  # as open_clip's own loader does


def models() -> tuple[str, ...]:
    """Every `MODEL/TAG` whose activation function is the one its weights were trained with."""
    import open_clip

    return tuple(f"{m}/{t}" for m, t in open_clip.list_pretrained() if _activation_fits(m, t))


def load(model: str, weights: Path | None = None) -> Backbone:
    """`MODEL/TAG`. Raises `LookupError` for an unknown pair, `ValueError` for a wrong activation or absent weights."""
    import open_clip

    name, _, tag = model.partition("/")
    _check(name, tag)
    pair: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    visual = freeze(_filled(name, tag, weights).visual)
    weights_digest = fingerprint(visual)
    projection, bias = _cut(visual)
    preset = {**vars(open_clip.transform.PreprocessCfg()), **pair}
    size = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2
    resize = {"shortest": min(size), "squash": size}.get(preset["resize_mode"])
    if resize is None or size[0] != size[1]:
        raise ValueError(f"open_clip's preprocessing of {model} ({preset['resize_mode']}, {size}) is not supported yet")
    module = freeze(_pooled(visual))
    dim = width(module, size)
    return Backbone(
        spec=f"clip:{model}", model=model, dim=dim, module=module, weights=weights_digest,
        reader=Geometry(size=size, resize=resize, interpolation=preset["interpolation"]),
        mean=tuple(preset["mean"]), std=tuple(preset["std"]), feature="pooled, before the projection",
        libraries={"open_clip": open_clip.__version__}, licence=_licence(tag), projection=projection,
        projection_bias=bias,
    )  # fmt: skip


def texts(model: str, weights: Path | None = None) -> TextTower:
    """The text tower of `MODEL/TAG`. Raises as `load` does, and `ValueError` for a tokenizer that cannot be had."""
    name, _, tag = model.partition("/")
    _check(name, tag)
    tokenize, tokenizer = tokenizer_of(name)  # before the weights, which may be gigabytes
    return tower(_filled(name, tag, weights), tokenize, tokenizer, model, _licence(tag))


def official(model: str, weights: Path | None = None) -> Official:
    """What open_clip itself makes of an image, projected, for `embedx verify`."""
    import open_clip

    name, _, tag = model.partition("/")
    clip: Any
    transform: Any
    if weights is None:
        clip, _, transform = open_clip.create_model_and_transforms(name, pretrained=tag, weights_only=True)
    else:
        clip = open_clip.create_model(name, pretrained=None, load_weights=False)
        clip.load_state_dict(read_weights(weights, PREFERRED), strict=True)
        keys = vars(open_clip.transform.PreprocessCfg())
        pair = {k: v for k, v in open_clip.get_pretrained_cfg(name, tag).items() if k in keys}
        preset = open_clip.transform.PreprocessCfg(**{**pair, "size": clip.visual.image_size})
        transform = open_clip.transform.image_transform_v2(preset, is_train=False)
    clip.eval()
    return Official(
        f"open_clip {open_clip.__version__}", transform, lambda x: clip.encode_image(x, normalize=False), projected=True
    )


def _filled(name: str, tag: str, weights: Path | None) -> Any:
    """The whole model with the pair's weights, or those of a file."""
    import open_clip

    if weights is None:
        return _fetched(name, tag, open_clip.get_pretrained_cfg(name, tag))
    try:
        clip: Any = open_clip.create_model(name, pretrained=None, load_weights=False)
    except (ImportError, OSError, RuntimeError) as error:  # text towers of transformers
        raise ValueError(
            f"open_clip cannot build {name} ({textwrap.shorten(str(error), 120, placeholder=' …')}); "
            "install what it asks for, or choose another pair"
        ) from error
    fill(clip, read_weights(weights, PREFERRED), f"{weights.name} as clip:{name}/{tag}")
    return clip


def _check(name: str, tag: str) -> None:
    import difflib

    import open_clip

    pairs = open_clip.list_pretrained()
    if (name, tag) not in pairs:
        close = difflib.get_close_matches(f"{name}/{tag}", [f"{m}/{t}" for m, t in pairs], n=3)
        raise LookupError(
            f"open_clip has no pair {name}/{tag}" + (f"; did you mean {' or '.join(close)}?" if close else "")
        )
    if not _activation_fits(name, tag):
        other = name.removesuffix("-quickgelu") if name.endswith("-quickgelu") else f"{name}-quickgelu"
        advice = f"use clip:{other}/{tag}" if (other, tag) in pairs else "choose another pair"
        raise ValueError(f"the weights {tag} were trained with another activation than {name} builds; {advice}")


def _activation_fits(name: str, tag: str) -> bool:
    import open_clip

    wanted = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    return bool(wanted) == bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))


def _fetched(name: str, tag: str, pair: dict[str, Any]) -> Any:
    import open_clip

    try:
        return open_clip.create_model(name, pretrained=tag, weights_only=True)
    except Exception as error:  # hub, network and file layers each raise their own
        hub = pair.get("hf_hub", "").rstrip("/")
        where = f"https://huggingface.co/{hub} (open_clip_model.safetensors)" if hub else pair.get("url")
        raise ValueError(
            f"the weights could not be had ({textwrap.shorten(str(error), 120, placeholder=' …')}); "
            f"fetch them from {where} on a machine with internet and pass the file with --weights"
        ) from error


def _cut(visual: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Take the projection off the image tower; returns its matrix (dim, e) and bias (e,), None where there is none."""
    import torch

    if getattr(visual, "proj", None) is not None:  # open_clip's own transformer
        projection, visual.proj = visual.proj.detach().numpy().copy(), None
        return projection, None
    layer = None
    if hasattr(visual, "trunk"):  # a tower built by timm
        layers = [m for m in visual.head.modules() if isinstance(m, torch.nn.Linear)]
        if len(layers) > 1:
            raise ValueError("its projection is no single matrix, which the cache could hold; choose another pair")
        visual.head = freeze(torch.nn.Identity())
        layer = layers[0] if layers else None
    elif hasattr(visual, "attnpool"):  # OpenAI's ResNets: the pooling attends first, then projects
        layer = visual.attnpool.c_proj
        width = layer.in_features
        same = torch.nn.Linear(width, width)
        same.weight.data, same.bias.data = torch.eye(width), torch.zeros(width)
        visual.attnpool.c_proj = freeze(same)
    if layer is None:
        return None, None
    bias = None if layer.bias is None else layer.bias.detach().numpy().copy()
    return layer.weight.detach().numpy().T.copy(), bias


def _pooled(visual: Any) -> Any:
    import torch

    class Pooled(torch.nn.Module):
        """The tower; where it returns its tokens as well, those are dropped."""

        def __init__(self) -> None:
            super().__init__()
            self.visual = visual

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.visual(x)
            return out[0] if isinstance(out, tuple) else out

    return Pooled()


def _licence(tag: str) -> str:
    fits = [begin for begin in LICENCES if tag.startswith(begin)]
    return LICENCES[max(fits, key=len)] if fits else "unknown"
