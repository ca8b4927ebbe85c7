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


def clusters(
    points: np.ndarray, most: int, by_cluster: bool, rng: np.random.RandomState, restarts: int = 3
) -> tuple[np.ndarray, float]:
    """(codes, silhouette) of the number of clusters, of 2 to `most`, whose silhouette is best on at most 2,000 rows."""
    m = len(points)
    some = np.arange(m) if m <= 2000 else np.sort(rng.choice(m, 2000, replace=False))

    def silhouette(codes: np.ndarray) -> float:
        values = silhouette_samples(points[some], codes)
        return float(np.mean([values[codes == c].mean() for c in set(codes)]) if by_cluster else values.mean())

    scores = {
        k: silhouette(KMeans(k, n_init=restarts, random_state=rng).fit_predict(points[some]))
        for k in range(2, most + 1)
    }
    best = max(scores, key=lambda k: (scores[k], k))
    codes = KMeans(best, n_init=restarts, random_state=rng).fit_predict(points)
    return codes, silhouette(codes[some])


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """On the groups that were found."""
    first = LogisticRegression(C=1e-3, tol=1e-8, max_iter=5000).fit(train.Z, train.y)
    margin = (2 * train.y - 1) * first.decision_function(train.Z)
    groups = np.zeros(len(train.y), int)
    rng = np.random.RandomState(seed)
    for c in (0, 1):
        rows = np.flatnonzero(train.y == c)
        groups[rows] = 100 * c + clusters(margin[rows, None], 10, True, rng)[0]
    stops = {s["steps"] for s in settings}
    found = {eta: online(train, groups, eta, 2.0, 0.0, stops) for eta in {s["eta"] for s in settings}}
    return [found[s["eta"]][s["steps"]] for s in settings]
