"""Two small networks over vectors of 40 numbers that come with embedx, trained on MNIST-1D with and without spikes.

Three convolutions with 256 channels, hence 1,280 features, and the last layer that they were trained with. `p0` saw
the clean training signals, `p0.9` those of `mnist1d` at its defaults, nine of ten with the spike of their class.
"""

from __future__ import annotations

from pathlib import Path

from ._backbone import Backbone, Vector
from ._weights import fill, fingerprint, freeze, linear, read_weights

WEIGHTS = Path(__file__).parent / "_weights"


def models() -> tuple[str, ...]:
    """By how often a training signal had a spike."""
    return ("p0", "p0.9")


def load(model: str, weights: Path | None = None) -> Backbone:
    """One of `models()`, or the same network with local weights. Raises `LookupError` for another name."""
    from ._cnn1d_network import CHANNELS, LENGTH, Cnn1dClassifier

    if model not in models():
        raise LookupError(f"cnn1d has no model {model!r}; it has {', '.join(models())}")
    file = weights or WEIGHTS / f"cnn1d-{model}.safetensors"
    classifier = Cnn1dClassifier()
    fill(classifier, read_weights(file), f"{file.name} as cnn1d:{model}")
    freeze(classifier)
    return Backbone(
        spec=f"cnn1d:{model}", model=model, dim=5 * CHANNELS, reader=Vector(LENGTH), module=classifier.network,
        weights=fingerprint(classifier), feature="last activations", libraries={}, licence="Apache-2.0",
        head=linear(classifier.last),
    )  # fmt: skip
