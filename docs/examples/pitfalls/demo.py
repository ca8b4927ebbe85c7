"""The demo's images in the features of one backbone: parts `train`, `val` and `test`, each with X, y and groups."""

import numpy as np

import embedx


def split(backbone: str) -> embedx.Split:
    """Features and labels of the demo, joined by id."""
    manifest = embedx.open_dataset("demo")
    return embedx.join(manifest, embedx.open_cache(manifest, backbone))


def worst_group(correct: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The lowest accuracy (...,) over groups, of correct (..., n)."""
    return np.min([correct[..., groups == g].mean(-1) for g in np.unique(groups)], axis=0)
