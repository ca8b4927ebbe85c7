"""Rows of test that nearly equal another row of their group, by the features: frames of a clip, crops of a photograph.

The distance of two rows is 1 - the cosine of their features, less the mean of the training rows. A row has a near
duplicate where the distance d to its nearest neighbour among the n rows of its group is below a tenth of what such a
distance is for independent rows: the larger of

    median distance of two rows of the group x n^(-2 / D)
    median distance to the nearest of k training rows of the group x (k / n)^(2 / D)

as squared distances to the nearest of n rows fall with n^(-2 / D) in D dimensions. D is the participation ratio of the
covariance S of the directions, tr(S)^2 / tr(S^2), less one, as they have length 1; with less than one dimension nothing
can be told. The first holds where many subjects are repeated, also in train; the second where few are, and train has
others: few subjects in test whose rows are in train too are not all found.
"""

from __future__ import annotations

import numpy as np

CLOSE = 0.1
QUERIES = 1_000
"""Rows of a group whose nearest neighbour is sought, among all of it; what is found stands for the others."""
FEWEST = 10
"""Rows of a group that is looked at."""
LEAST = 0.05
"""Share of a group from which on it is told, and twice the share that is so near by chance, in few dimensions."""
SEED = 0


def near_duplicates(X: np.ndarray, groups: np.ndarray, train: np.ndarray, train_groups: np.ndarray) -> dict[int, int]:
    """{group: about how many of its rows have a near duplicate} of rows X (n, d), where that are enough to tell.

    The features take up to 2 x 1,000 x n_g x d multiplications for a group of n_g rows.
    """
    centre, found = train.mean(axis=0), {}
    for group in np.unique(groups):
        mine, others = np.flatnonzero(groups == group), np.flatnonzero(train_groups == group)
        if len(mine) >= FEWEST and (n := _in_group(_directions(X[mine], centre), train[others], centre)):
            found[int(group)] = n
    return found


def _in_group(U: np.ndarray, train: np.ndarray, centre: np.ndarray) -> int:
    """Of unit rows U (n, d); 0 where there are too few to tell."""
    rng, n = np.random.default_rng(SEED), len(U)
    asked = rng.permutation(n)[:QUERIES]
    Q = U[asked]
    near = Q @ U.T
    near[np.arange(len(asked)), asked] = -1
    between = Q @ Q.T
    centred = Q - Q.mean(axis=0)
    gram = centred @ centred.T if len(Q) < Q.shape[1] else centred.T @ centred
    spread = float(np.square(gram, dtype=np.float64).sum())
    if spread == 0:  # all rows are one
        return n
    D = float(np.trace(gram, dtype=np.float64)) ** 2 / spread - 1
    if D < 1:
        return 0
    typical = float(1 - np.median(between[np.triu_indices(len(Q), 1)])) * n ** (-2 / D)
    if k := min(len(train), n):
        V = _directions(train[rng.permutation(len(train))[:k]], centre)
        typical = max(typical, float(np.median(1 - (Q @ V.T).max(axis=1))) * (k / n) ** (2 / D))
    share = float(np.mean(1 - near.max(axis=1) <= CLOSE * typical))
    chance = 1 - 2.0 ** (-(CLOSE ** (D / 2)))  # as nearest distances have a Weibull law
    return round(share * n) if share >= max(LEAST, 2 * chance) else 0


def _directions(X: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Rows less the centre, at length 1; one that lies there stays 0."""
    U = X - centre
    length = np.linalg.norm(U, axis=1, keepdims=True)
    return U / np.where(length > 0, length, 1)
