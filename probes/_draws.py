"""Drawing and splitting of rows; where rows come in clusters (one subject each), whole subjects are drawn and split."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ._errors import FitError


def balanced_draws(
    codes: np.ndarray, draws: int, rng: np.random.RandomState, clusters: np.ndarray | None = None
) -> np.ndarray:
    """(draws, n) of 0 and 1: each draw takes, without replacement, as many rows of every code as the rarest has.

    clusters  (n,) subject of each row: a draw takes the rows of a code from as many subjects as possible
    """
    if draws < 1:
        raise FitError(f"draws must be at least 1, found {draws}")
    members = [np.flatnonzero(codes == c) for c in np.unique(codes)]
    size = min(map(len, members))
    taken = np.zeros((draws, len(codes)))
    for draw in taken:
        for rows in members:
            drawn = (
                rng.choice(rows, size, replace=False) if clusters is None else spread(rows, clusters[rows], size, rng)
            )
            draw[drawn] = 1
    return taken


def spread(rows: np.ndarray, clusters: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    """`size` of the rows (m,), from as many of their clusters (m,) as possible: each gives a row before any gives two.

    Clusters and their rows are drawn at random, without replacement.
    """
    order = rng.permutation(len(rows))
    by_cluster = order[np.argsort(clusters[order], kind="stable")]
    sorted_clusters = clusters[by_cluster]
    starts = np.searchsorted(sorted_clusters, sorted_clusters)
    turn = np.empty(len(rows), dtype=np.int64)
    turn[by_cluster] = np.arange(len(rows)) - starts  # number of the row within its cluster
    return rows[order[np.argsort(turn[order], kind="stable")[:size]]]


def second_part(y: np.ndarray, clusters: np.ndarray, share: float, rng: np.random.RandomState) -> np.ndarray:
    """Rows of whole clusters, in order, about `share` of the rows of every class; the others are the first part.

    A cluster is drawn with the class of most of its rows. Raises `FitError` where a class would be in one part only.
    """
    k = int(y.max()) + 1
    _, code = np.unique(clusters, return_inverse=True)
    counts = np.zeros((int(code.max()) + 1, k), dtype=np.int64)
    np.add.at(counts, (code, y), 1)
    home, sizes, taken = counts.argmax(axis=1), counts.sum(axis=1), np.zeros(len(counts), dtype=bool)
    for c in range(k):
        mine = rng.permutation(np.flatnonzero(home == c))
        ends = np.cumsum(sizes[mine])
        wanted = np.count_nonzero(ends - sizes[mine] / 2 < share * ends[-1]) if len(mine) else 0
        taken[mine[: min(max(wanted, 1), len(mine) - 1)]] = True
    second = taken[code]
    for part in (second, ~second):
        if len(lost := np.setdiff1d(np.arange(k), y[part])):
            raise FitError(
                f"the rows of class {lost[0]} (counted from 0) are of too few subjects to be parted into rows for the "
                "first head and for the second, a subject to one of them; add some"
            )
    return np.flatnonzero(second)


def folds_of_clusters(y: np.ndarray, clusters: np.ndarray, folds: int, seed: Any) -> np.ndarray:
    """(n,) fold of every row: a cluster lies in one fold, and classes are spread as evenly as that allows.

    Raises `FitError` where the rows of a class lie in one fold only, so that nothing else could be fitted on it.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.empty(len(y), int)
    folds = min(folds, len(np.unique(clusters)), int(np.bincount(y).max()))
    if folds > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of small classes, which are looked at below
            parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, clusters)
            for number, (_, rows) in enumerate(parts):
                fold[rows] = number
    alone = [c for c in np.unique(y) if folds < 2 or len(np.unique(fold[y == c])) < 2]
    if alone:
        raise FitError(
            f"the rows of class {alone[0]} (counted from 0) are of too few subjects for out-of-fold errors, which ask "
            "about subjects that were not fitted: add some, or take errors='in-sample'"
        )
    return fold
