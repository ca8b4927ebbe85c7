"""Small networks of embedx's own: three that come along for the demo, and as many as wanted in grades of quality.

A convolutional network on 64 x 64 pixels, with pooled features. Of the three that come along, of 128 features,
`untrained` is a random initialisation, `narrow` saw about a hundred digit scans over few textures, `broad` all scans
set apart for pre-training over many textures.

    w32-n2000-d16      32 features, pre-trained on 2,000 pictures over 16 kinds of texture
    w32-n0-d0          the same network untrained
    w32-n2000-d16-s1   another random start (the first is s0, and is not written)

say capacity, size and diversity of the pre-training by their names. `embedx.extract.pretrain` trains them when they are
first asked for, in some seconds, and rebuilds the three; none of the demo's own scans is used there. Licence:
Apache-2.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ._backbone import Backbone, Geometry
from ._official import Official
from ._weights import fill, fingerprint, freeze, read_weights, width

WEIGHTS = Path(__file__).parent / "_weights"
NUMBER = r"(0|[1-9]\d{0,4})"
GRADE = re.compile(f"w{NUMBER}-n{NUMBER}-d{NUMBER}(?:-s([1-9]\\d{{0,4}}))?")
WIDEST, KINDS = 512, 64


@dataclass(frozen=True)
class Grade:
    """What decides the quality of a network that is trained here.

    width     features, a multiple of 8 up to 512; the other layers go with it
    pictures  different ones seen in pre-training; 0 leaves the network untrained
    textures  kinds of texture behind the digits of these, up to 64
    seed      of its random start and its pictures
    """

    width: int
    pictures: int
    textures: int
    seed: int = 0


def models() -> tuple[str, ...]:
    """Those that come along, from the poorest to the best embedding."""
    return ("untrained", "narrow", "broad")


def grade(model: str) -> Grade | None:
    """The grade that a name like `w32-n2000-d16` says, None for those that come along.

    A family with this function has weights that `embedx.extract.graded` trains where there are none yet. Raises
    `LookupError` for a name that is neither.
    """
    if model in models():
        return None
    if (found := GRADE.fullmatch(model)) is None:
        raise LookupError(f"tiny has no model {model!r}; it has {', '.join(models())}, and grades like w32-n2000-d16")
    named = Grade(*(int(word or 0) for word in found.groups()))
    if named.width % 8 or not 8 <= named.width <= WIDEST:
        raise LookupError(f"tiny:{model} has a width of {named.width}; expected a multiple of 8 from 8 to {WIDEST}")
    if named.textures > KINDS or bool(named.textures) != bool(named.pictures):
        raise LookupError(
            f"tiny:{model} has {named.pictures:,} pictures over {named.textures} kinds of texture; expected 1 to "
            f"{KINDS} kinds, or an untrained network: n0-d0"
        )
    return named


def load(model: str, weights: Path | None = None) -> Backbone:
    """One of `models()` or a grade, the latter with its weights. Raises `LookupError` for another name."""
    from ._tiny_network import TINY_MEAN, TINY_STD, TinyNetwork

    named = grade(model)
    if weights is None and named is not None:
        raise ValueError(f"tiny:{model} has no weights; embedx.extract.graded trains them")
    file = weights or WEIGHTS / f"{model}.safetensors"
    network = TinyNetwork() if named is None else TinyNetwork(named.width)
    fill(network, read_weights(file), f"{file.name} as tiny:{model}")
    freeze(network)
    return Backbone(
        spec=f"tiny:{model}", model=model, dim=width(network, (64, 64)),
        reader=Geometry(size=(64, 64), resize=(64, 64)), mean=TINY_MEAN, std=TINY_STD, module=network,
        weights=fingerprint(network), feature="average of the last activations", libraries={}, licence="Apache-2.0",
    )  # fmt: skip


def official(model: str, weights: Path | None = None) -> Official:
    """There is no library: the network written out once more in torch's functions, for `embedx verify`."""
    import numpy as np
    import torch
    from PIL.Image import Image, Resampling
    from torch.nn import functional

    state = read_weights(weights or WEIGHTS / f"{model}.safetensors")

    def transform(image: Image) -> torch.Tensor:
        pixels = np.asarray(image.resize((64, 64), Resampling.BILINEAR), dtype=np.float32) / np.float32(255)
        return torch.from_numpy((pixels - np.float32(0.5)) / np.float32(0.25)).movedim(2, 0)

    def features(x: torch.Tensor) -> torch.Tensor:
        for block, stride in enumerate((2, 2, 1, 2, 1, 2)):
            kernel, scale, shift = (state[f"blocks.{block}.{name}"] for name in ("0.weight", "1.weight", "1.bias"))
            x = functional.conv2d(x, kernel, stride=stride, padding=1)
            x = functional.relu(functional.group_norm(x, 8, scale, shift))
        return x.mean(dim=(2, 3))

    return Official(f"torch {torch.__version__}", transform, features)
