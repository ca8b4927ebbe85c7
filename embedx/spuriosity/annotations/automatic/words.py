"""Phrases and class names as vectors, and how like them images are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedx.probes import Prompts, embedded

LEFT = 1e-6
"""Squared length below which nothing is left of a phrase without the class name."""


@dataclass(frozen=True, eq=False)
class Words:
    """Vectors of the phrases, t_j (t, p), and of the classes, n_c (k, p), of length 1; projection as in `Prompts`.

    head  (k, p) the head's own direction in each class, see `directions`; None where the model has other features
    """

    phrases: tuple[str, ...]
    cues: np.ndarray
    classes: np.ndarray
    projection: np.ndarray | None
    templates: tuple[str, ...]
    class_templates: tuple[str, ...]
    head: np.ndarray | None = None


def similar(X: np.ndarray, y: np.ndarray, words: Words, cues: np.ndarray) -> np.ndarray:
    """(n, t) s of rows X (n, d) of the classes y (n,) to cues (t, p), NaN where nothing of a cue is left.

    What is taken out of a cue are the class name and the head's direction, which lie at right angles.
    """
    U = embedded(X.astype(np.float32), Prompts(cues, words.projection, 1.0))
    scores, left = U @ cues.T.astype(U.dtype), np.ones((len(words.classes), len(cues)))
    for out in (words.classes, words.head):
        if out is not None:
            overlap = out @ cues.T  # (k, t)
            own = np.einsum("ij,ij->i", U, out[y].astype(U.dtype))
            scores, left = scores - own[:, None] * overlap[y], left - overlap**2
    return np.where((left > LEFT)[y], scores, np.nan)
