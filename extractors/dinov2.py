"""DINOv2 (Oquab et al. 2023) without and with registers, by timm: `dinov2:vit-b14`, `dinov2:vit-b14-reg/cls+mean`.

`NAME[@PIXELS][/TOKENS]`: the class token at 224 pixels, unless another multiple of 14 (the pre-training ended at 518),
or `/mean` or `/cls+mean` is asked for; the mean is over patch tokens only, never over registers. Preprocessing is the
authors' own for logistic regression on frozen features: resize and crop to the resolution, bicubic, no margin (their
k-NN and their linear layers trained by SGD crop 224 from 256). Position embeddings are resampled by timm, which differs
from the authors' code in the last digits. Licence: Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path

from . import _timm
from ._backbone import Backbone
from ._official import Official, of_timm_at
from ._weights import read_weights

SIZES = {"vit-s14": "vit_small", "vit-b14": "vit_base", "vit-l14": "vit_large", "vit-g14": "vit_giant"}
MODELS = {
    f"{size}{suffix}": f"{architecture}_patch14_{infix}dinov2.lvd142m"
    for suffix, infix in (("", ""), ("-reg", "reg4_"))
    for size, architecture in SIZES.items()
}

PREFERRED = _timm.PREFERRED


def models() -> tuple[str, ...]:
    """Each network with each choice of tokens; the resolution is free."""
    return tuple(name + kind for name in MODELS for kind in ("", "/mean", "/cls+mean"))


def load(model: str, weights: Path | None = None) -> Backbone:
    """`NAME[@PIXELS][/TOKENS]`; a file may be timm's or the authors', of any resolution.

    Raises `LookupError` for an unknown name, `ValueError` for a resolution, or weights, that do not fit.
    """
    name, pixels, kind = _timm.asked("dinov2", model, MODELS, patch=14, pixels=224)
    return _timm.sized(f"dinov2:{model}", MODELS[name], weights, pixels, kind)


def official(model: str, weights: Path | None = None) -> Official:
    """What timm itself makes of an image, for `embedx verify`."""
    rest, _, tokens = model.partition("/")
    name, _, pixels = rest.partition("@")
    state = None if weights is None else read_weights(weights, PREFERRED)
    return of_timm_at(MODELS[name], state, int(pixels or 224), tokens or "cls")
