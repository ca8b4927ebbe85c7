"""Text prompts as a classifier: a vector for each class, and the projection of image features into their space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_array

from ._errors import FitError, about_the_data
from ._logits import Affine


class Prompts(NamedTuple):
    """What a text classifier needs beside image features X (n, d), un-normalised, as a CLIP cache holds them.

    text        (k, p) one vector for each class, in the order of the sorted classes: for several prompts of a class the
                mean of their unit vectors. Rows are brought to length 1
    projection  (d, p) of image features into the space of the text; None where X is in it already (p = d)
    scale       exp of the model's logit scale, 100 for OpenAI's
    """

    text: np.ndarray
    projection: np.ndarray | None = None
    scale: float = 100.0


def checked(prompts: Prompts, k: int, d: int) -> Prompts:
    """The prompts in float64, of unit rows, for k classes and d features. Raises `TypeError` or `FitError`."""
    if not isinstance(prompts, Prompts):
        raise TypeError(f"prompts must be Prompts(text, projection, scale), found {type(prompts).__name__}")
    with about_the_data("prompts.text"):
        text = np.asarray(check_array(prompts.text), np.float64)
    if len(text) != k:
        raise FitError(f"there are text vectors for {len(text)} classes, and {k} among the labels; give one for each")
    if not (norms := np.linalg.norm(text, axis=1)).all():
        raise FitError(
            f"the text vector of class {int(norms.argmin())} (counted from 0) is zero; encode its prompt again"
        )
    if not prompts.scale > 0:
        raise FitError(f"the scale of prompts must be positive, found {prompts.scale}")
    p = text.shape[1]
    with about_the_data("prompts.projection"):
        projection = None if prompts.projection is None else np.asarray(check_array(prompts.projection), np.float64)
    shape = (d, d) if projection is None else projection.shape
    if shape != (d, p):
        given = "no projection" if projection is None else f"a projection of shape {shape}"
        raise FitError(
            f"features of width {d} and text of width {p} need a projection of shape ({d}, {p}), found {given}; "
            "take text and images from the same model"
        )
    return Prompts(text / norms[:, None], projection, float(prompts.scale))


def embedded(X: np.ndarray, prompts: Prompts) -> np.ndarray:
    """(n, p) float64: scale * unit vectors of X (n, d) in the space of the text; what is 0 stays 0.

    Rows are taken in units of a power of 2, which no length depends on, so that no square overflows or vanishes.
    """
    X = np.ldexp(X, -np.frexp(np.abs(X).max(axis=1, keepdims=True, initial=0))[1]).astype(X.dtype, copy=False)
    U = X.astype(np.float64) if prompts.projection is None else Affine.plain(prompts.projection.T).logits(X)
    norms = np.sqrt(np.square(U).sum(axis=1, keepdims=True))  # of each row by itself, in whatever block
    return U * (prompts.scale / np.where(norms > 0, norms, 1))
