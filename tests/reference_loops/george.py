"""GEORGE, Sohoni et al. 2020: clusters of the margin within each class, then GroupDRO with an adjustment of 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_samples

from .group_dro import online
from .rows import Rows


def clusters(points: np.ndarray, most: int, by_cluster: bool, seed: int) -> tuple[np.ndarray, float]:
    """The clustering of 2 to `most` with the best silhouette, over clusters or over rows, on at most 2,000 rows."""
    rng, best = np.random.default_rng(seed), (np.zeros(len(points), int), -2.0)
    some = rng.permutation(len(points))[:2000]
    for k in range(2, most + 1):
        codes = KMeans(k, n_init=3, random_state=seed).fit_predict(points)
        if len(np.unique(codes[some])) < 2:
            continue
        values = silhouette_samples(points[some], codes[some])
        within = [values[codes[some] == c].mean() for c in np.unique(codes[some])]
        score = float(np.mean(within) if by_cluster else values.mean())
        if score > best[1]:
            best = codes, score
    return best


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """On the groups that were found."""
    first = LogisticRegression(C=1e-3, tol=1e-8, max_iter=5000).fit(train.Z, train.y)
    margin = (2 * train.y - 1) * first.decision_function(train.Z)
    groups = np.zeros(len(train.y), int)
    for c in (0, 1):
        rows = np.flatnonzero(train.y == c)
        groups[rows] = 100 * c + clusters(margin[rows, None], 10, True, seed)[0]
    stops = {s["steps"] for s in settings}
    found = {eta: online(train, groups, eta, 2.0, 0.0, stops) for eta in {s["eta"] for s in settings}}
    return [found[s["eta"]][s["steps"]] for s in settings]
