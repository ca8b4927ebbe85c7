"""DINOv3 (Siméoni et al. 2025), vision transformers and ConvNeXts, by timm: `dinov3:vit-b16`, `dinov3:convnext-b`.

`NAME[@PIXELS][/TOKENS]`: of a transformer the class token at 256 pixels (timm alone would average the patches), unless
another multiple of 16, or `/mean` or `/cls+mean` is asked for; the mean leaves the registers out. A ConvNeXt has no
tokens: its feature is the normalised mean of the last map, at 224 pixels or another multiple of 32. Names with `-qkvb`
keep the biases of queries and values, those with `-sat` were trained on satellite images, the others on web images.
Preprocessing: resize and crop to the resolution, bicubic, no margin. Licence: dinov3-license, which sets terms of use.
"""

from __future__ import annotations

from pathlib import Path

from . import _timm
from ._backbone import Backbone
from ._official import Official, of_timm_at
from ._weights import read_weights

SIZES = {
    "vit-s16": "vit_small", "vit-s16plus": "vit_small_plus", "vit-b16": "vit_base", "vit-l16": "vit_large",
    "vit-h16plus": "vit_huge_plus",
}  # fmt: skip
TRANSFORMERS = {
    **{size: f"{architecture}_patch16_dinov3.lvd1689m" for size, architecture in SIZES.items()},
    "vit-7b16": "vit_7b_patch16_dinov3.lvd1689m",
    **{f"{size}-qkvb": f"{architecture}_patch16_dinov3_qkvb.lvd1689m" for size, architecture in SIZES.items()},
    "vit-l16-sat": "vit_large_patch16_dinov3.sat493m",
    "vit-l16-sat-qkvb": "vit_large_patch16_dinov3_qkvb.sat493m",
    "vit-7b16-sat": "vit_7b_patch16_dinov3.sat493m",
}
CONVNEXTS = {f"convnext-{size[0]}": f"convnext_{size}.dinov3_lvd1689m" for size in ("tiny", "small", "base", "large")}

PREFERRED = _timm.PREFERRED


def models() -> tuple[str, ...]:
    """Each network, the transformers with each choice of tokens; the resolution is free."""
    return (*(name + kind for name in TRANSFORMERS for kind in ("", "/mean", "/cls+mean")), *CONVNEXTS)


def load(model: str, weights: Path | None = None) -> Backbone:
    """`NAME[@PIXELS][/TOKENS]`; a file may be timm's or the authors', theirs of a transformer only as `-qkvb`.

    Raises `LookupError` for an unknown name, `ValueError` for a resolution, or weights, that do not fit.
    """
    pooled = model.startswith("convnext")
    patch, pixels = (32, 224) if pooled else (16, 256)
    name, pixels, kind = _timm.asked("dinov3", model, {**TRANSFORMERS, **CONVNEXTS}, patch, pixels)
    if pooled and "/" in model:
        raise LookupError(f"a ConvNeXt has no tokens to choose from; use dinov3:{model.partition('/')[0]}")
    identifier = CONVNEXTS[name] if pooled else TRANSFORMERS[name]
    return _timm.sized(f"dinov3:{model}", identifier, weights, pixels, None if pooled else kind)


def official(model: str, weights: Path | None = None) -> Official:
    """What timm itself makes of an image, for `embedx verify`."""
    rest, _, tokens = model.partition("/")
    name, _, pixels = rest.partition("@")
    state = None if weights is None else read_weights(weights, PREFERRED)
    if name in CONVNEXTS:
        return of_timm_at(CONVNEXTS[name], state, int(pixels or 224), "")
    return of_timm_at(TRANSFORMERS[name], state, int(pixels or 256), tokens or "cls")
