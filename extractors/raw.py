"""Pixels or vectors as they are: the baseline that every backbone has to beat.

`raw:32x32` resizes an image to 32 x 32 by squashing (no change where it has that size already) and takes the pixels,
scaled to 0..1, as 3,072 features. `raw:vector-40` takes `.npy` files that hold 40 numbers each. No weights, no licence.
"""

from __future__ import annotations

import re
from pathlib import Path

from ._backbone import Backbone, Geometry, Vector
from ._official import Official
from ._weights import fingerprint, freeze

FORMS = ("16x16", "32x32", "64x64", "vector-512")


def models() -> tuple[str, ...]:
    """Examples: any height x width, or any vector length, will do."""
    return FORMS


def load(model: str, weights: Path | None = None) -> Backbone:
    """`HxW` or `vector-N`. Raises `ValueError` for any other form, and for weights, which it has no use for."""
    import torch

    if weights is not None:
        raise ValueError("raw has no weights; leave --weights out")
    module = freeze(torch.nn.Flatten())
    facts = {"model": model, "module": module, "weights": fingerprint(module), "libraries": {}, "licence": "none"}
    if match := re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", model):
        h, w = int(match[1]), int(match[2])
        reader = Geometry(size=(h, w), resize=(h, w), interpolation="bilinear")
        return Backbone(f"raw:{model}", 3 * h * w, reader, feature="pixels", mean=(0.0,) * 3, std=(1.0,) * 3, **facts)
    if match := re.fullmatch(r"vector-([1-9]\d{0,5})", model):
        n = int(match[1])
        return Backbone(f"raw:{model}", n, Vector(n), feature="vector", **facts)
    raise ValueError(f"raw:{model} is unknown; use raw:HEIGHTxWIDTH such as raw:32x32, or raw:vector-LENGTH")


def official(model: str, weights: Path | None = None) -> Official:
    """There is no library: Pillow's resizing alone, for `embedx verify`."""
    import numpy as np
    import PIL
    import torch
    from PIL.Image import Image, Resampling

    if weights is not None or model.startswith("vector-"):
        raise ValueError("vectors have no library to compare with; compare a backbone that reads images")
    height, width = map(int, model.split("x"))

    def transform(image: Image) -> torch.Tensor:
        pixels = np.asarray(image.resize((width, height), Resampling.BILINEAR), dtype=np.float32)
        return torch.from_numpy(pixels / np.float32(255)).movedim(2, 0)

    return Official(f"pillow {PIL.__version__}", transform, lambda x: x.reshape(len(x), -1))
