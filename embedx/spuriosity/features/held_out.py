"""Probabilities of training rows by heads that did not see them: cross-validation of a plain head.

The training rows of each class are dealt into folds at random, rows of one subject into one fold together; a plain head
is fitted on all folds but one, and gives its probabilities for that one. Its strength of regularisation is the model's
own, where the model has one, else the default.
"""

from __future__ import annotations

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.evaluation.model import Model
from embedx.probes.plain import Plain
from embedx.spuriosity.features.activations import Progress, silent, stream
from embedx.store import FeatureCache

FOLDS = 5
MOST = 2 << 30
"""Rows x (features + classes) above which cross-validation is left out: the table would take more memory, and hours."""


def affordable(manifest: Manifest, cache: FeatureCache) -> bool:
    """Whether the training rows are few enough to be cross-validated."""
    rows = int(np.count_nonzero(manifest.splits == SPLITS.index("train")))
    return rows * (cache.header.dim + len(manifest.classes)) <= MOST


def cross_validated(
    manifest: Manifest, cache: FeatureCache, model: Model, progress: Progress = silent, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) training rows with features, and (m, k) float32 probabilities of the classes of the manifest.

    seed  of the folds. A class of a single row has probability 0 there, as no head saw it. Raises `HeadError`.
    """
    blocks = list(stream(manifest, cache, manifest.splits == SPLITS.index("train")))
    if not blocks:
        return np.zeros(0, dtype=np.int64), np.zeros((0, len(manifest.classes)), dtype=np.float32)
    rows, X = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    X, y = X.astype(np.float32, copy=False), manifest.labels[rows]
    subjects = None if manifest.subjects is None else manifest.subjects.codes[rows]
    fold = folds(y, subjects, seed)
    p = np.zeros((len(rows), len(manifest.classes)), dtype=np.float32)
    chosen = model.run.parameters.get("C", 1.0) if model.run is not None else 1.0
    head = Plain(C=float(chosen))
    for i in range(FOLDS):
        progress(i, FOLDS, "cross-validation")
        kept = fold != i
        if kept.all() or len(np.unique(y[kept])) < 2:
            continue
        fitted = head.fit(X[kept], y[kept])
        p[np.ix_(~kept, fitted.classes_)] = fitted.predict_proba(X[~kept])
    progress(FOLDS, FOLDS, "cross-validation")
    return rows, p


def folds(y: np.ndarray, subjects: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """(n,) fold of every row: classes y (n,) are dealt evenly; subjects (n,) stay whole, by their commonest class."""
    rng = np.random.default_rng(seed)
    units, at = np.unique(np.arange(len(y)) if subjects is None else subjects, return_inverse=True)
    of_unit = y
    if subjects is not None:
        counts = np.zeros((len(units), int(y.max()) + 1), dtype=np.int64)
        np.add.at(counts, (at, y), 1)
        of_unit = counts.argmax(axis=1)
    dealt = np.empty(len(units), dtype=np.int64)
    start = 0
    for label in np.unique(of_unit):
        members = rng.permutation(np.flatnonzero(of_unit == label))
        dealt[members] = (start + np.arange(len(members))) % FOLDS
        start += len(members)
    return dealt[at]
