"""Three small networks that come with embedx, for the demo: untrained, pre-trained narrowly, pre-trained broadly.

A convolutional network on 64 x 64 pixels with 128 pooled features. `untrained` is a random initialisation, `narrow`
saw about a hundred digit scans over few textures, `broad` all scans set apart for pre-training over many textures.
`python -m embedx.pretrain` rebuilds the weights; none of the demo's own scans is used there. Licence: Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path

from extractors._backbone import Backbone, Geometry
from extractors._weights import fill, fingerprint, freeze, read

WEIGHTS = Path(__file__).parent / "_weights"


def models() -> tuple[str, ...]:
    """From the poorest to the best embedding."""
    return ("untrained", "narrow", "broad")


def load(model: str, weights: Path | None = None) -> Backbone:
    """One of `models()`, or the same network with local weights. Raises `LookupError` for another name."""
    from extractors._tiny_network import MEAN, STD, WIDTH, TinyNetwork

    if model not in models():
        raise LookupError(f"tiny has no model {model!r}; it has {', '.join(models())}")
    file = weights or WEIGHTS / f"{model}.safetensors"
    network = TinyNetwork()
    fill(network, read(file), f"{file.name} as tiny:{model}")
    freeze(network)
    return Backbone(
        spec=f"tiny:{model}", model=model, dim=WIDTH, reader=Geometry(size=(64, 64), resize=(64, 64)), mean=MEAN,
        std=STD, module=network, weights=fingerprint(network), feature="average of the last activations", libraries={},
        licence="Apache-2.0",
    )  # fmt: skip
