"""Three small networks that come with embedx, for the demo: untrained, pre-trained narrowly, pre-trained broadly.

A convolutional network on 64 x 64 pixels with 128 pooled features. `untrained` is a random initialisation, `narrow`
saw about a hundred digit scans over few textures, `broad` all scans set apart for pre-training over many textures.
`python -m embedx.extract.pretrain` rebuilds the weights; none of the demo's own scans is used there. Licence:
Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path

from ._backbone import Backbone, Geometry
from ._official import Official
from ._weights import fill, fingerprint, freeze, read_weights, width

WEIGHTS = Path(__file__).parent / "_weights"


def models() -> tuple[str, ...]:
    """From the poorest to the best embedding."""
    return ("untrained", "narrow", "broad")


def load(model: str, weights: Path | None = None) -> Backbone:
    """One of `models()`, or the same network with local weights. Raises `LookupError` for another name."""
    from ._tiny_network import TINY_MEAN, TINY_STD, TinyNetwork

    if model not in models():
        raise LookupError(f"tiny has no model {model!r}; it has {', '.join(models())}")
    file = weights or WEIGHTS / f"{model}.safetensors"
    network = TinyNetwork()
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
