"""The demo's images in the features of one backbone: parts `train`, `val` and `test`, each with X, y and groups."""

from pathlib import Path

import numpy as np

from embedx.data.prepare import open_prepared
from embedx.evaluation.compare import open_cache
from embedx.evaluation.split import Split, join
from embedx.workspace import Workspace


def split(backbone: str) -> Split:
    """Features and labels of the demo, joined by id."""
    workspace = Workspace(Path("cache"))
    manifest, _ = open_prepared(workspace, "demo")
    return join(manifest, open_cache(workspace, manifest, backbone))


def worst_group(correct: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The lowest accuracy (...,) over groups, of correct (..., n)."""
    return np.min([correct[..., groups == g].mean(-1) for g in np.unique(groups)], axis=0)
