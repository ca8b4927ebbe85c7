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
    spurious    (m, p) vectors of texts of what is spurious alone, such as backgrounds; for the heads that need them
    pairs       (q, 2, p) vectors of pairs of texts that differ in what is spurious; for one of these heads
    """

    text: np.ndarray
    projection: np.ndarray | None = None
    scale: float = 100.0
    spurious: np.ndarray | None = None
    pairs: np.ndarray | None = None


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
    spurious = None if prompts.spurious is None else units(prompts.spurious, p, "prompts.spurious")
    pairs = None
    if prompts.pairs is not None:
        shape = np.shape(prompts.pairs)
        if len(shape) != 3 or shape[1:] != (2, p):
            raise FitError(f"pairs of prompts must have the shape (pairs, 2, {p}), found {shape}")
        pairs = units(np.reshape(prompts.pairs, (-1, p)), p, "prompts.pairs").reshape(shape)
    return Prompts(text / norms[:, None], projection, float(prompts.scale), spurious, pairs)


def units(vectors: np.ndarray, p: int, name: str) -> np.ndarray:
    """(m, p) the vectors, checked, brought to length 1; there may be none. Raises `FitError`."""
    if np.shape(vectors) == (0, p):
        return np.empty((0, p))
    with about_the_data(name):
        V = np.asarray(check_array(vectors), np.float64)
    lengths = np.linalg.norm(V, axis=1, keepdims=True)
    if V.shape[1] != p or not lengths.all():
        raise FitError(f"{name} must be vectors of width {p} that are not zero, found a shape of {V.shape}")
    return V / lengths


def embedded(X: np.ndarray, prompts: Prompts) -> np.ndarray:
    """(n, p) float64: scale * unit vectors of X (n, d) in the space of the text; what is 0 stays 0.

    Rows are taken in units of a power of 2, which no length depends on, so that no square overflows or vanishes.
    """
    X = np.ldexp(X, -np.frexp(np.abs(X).max(axis=1, keepdims=True, initial=0))[1]).astype(X.dtype, copy=False)
    U = X.astype(np.float64) if prompts.projection is None else Affine.plain(prompts.projection.T).logits(X)
    norms = np.sqrt(np.square(U).sum(axis=1, keepdims=True))  # of each row by itself, in whatever block
    return U * (prompts.scale / np.where(norms > 0, norms, 1))
