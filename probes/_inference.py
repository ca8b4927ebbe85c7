"""Groups where nobody labelled any: what a first head gets wrong, and what its features or outputs cluster into.

Every function goes from data to one code per row, or to what such codes are made of; what is then done with the groups
is the business of `_group_objectives` and of the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state

from ._convex import ConvexHead
from ._data import Data
from ._draws import folds_of_clusters
from ._errors import FitError
from ._features import Features
from ._once import once, recalled
from ._operators import Shared, Spectrum
from ._path import stopped_fits
from ._problem import Problem, Solution
from ._process_settings import quiet
from ._solver import solve

SAMPLE = 2000
"""Rows of a class among which silhouettes, whose cost is quadratic, are computed."""
DIRECTIONS = 50
"""Principal directions of the features that are clustered."""

T = TypeVar("T")


@dataclass(frozen=True)
class First:
    """A first head: L2, every row counts the same.

    C              its inverse strength of regularisation
    folds          0: it predicts the rows it was fitted on; else one head per fold predicts the rows of that fold
    seed           of the folds
    tol, max_iter  as in `ConvexHead`
    """

    C: float
    folds: int = 0
    seed: Any = None
    tol: float = 1e-5
    max_iter: int = 2000

    def problem(self, weights: int) -> Problem:
        """The problem of this head under the weighting at a place."""
        return Problem(weights, float(self.C), tol=self.tol, max_iter=self.max_iter)

    @classmethod
    def asked(cls, head: ConvexHead, C: float, errors: str = "in-sample", folds: int = 0) -> First:
        """The first head of `head`. Raises `FitError` when errors or folds cannot be."""
        if errors not in ("in-sample", "out-of-fold"):
            raise FitError(f"errors must be 'in-sample' or 'out-of-fold', found {errors!r}")
        if errors == "in-sample":
            return cls(C, 0, None, head.tol, head.max_iter)
        if folds < 2:
            raise FitError(f"folds must be at least 2, found {folds}")
        return cls(C, folds, head.random_state, head.tol, head.max_iter)

    def refuse_one_group(self, groups: np.ndarray, otherwise: str) -> None:
        """Raise `FitError` when all rows (n,) are right or all are wrong, unless `otherwise` is "plain"."""
        if otherwise not in ("refuse", "plain"):
            raise FitError(f"no_errors must be 'refuse' or 'plain', found {otherwise!r}")
        if otherwise == "plain" or len(np.unique(groups)) > 1:
            return
        if groups[0]:
            raise FitError(f"the first head gets all {len(groups)} rows wrong; make first_C larger, it is {self.C:g}")
        rest = "" if self.folds else " or errors='out-of-fold'"
        raise FitError(
            f"the first head gets all {len(groups)} rows right, so that no error says which rows to attend to; take "
            f"a smaller first_C (it is {self.C:g}){rest}, or no_errors='plain', which makes this the plain head"
        )


def first_logits(data: Data, firsts: Sequence[First]) -> list[np.ndarray]:
    """(n, k) logits of the training rows from each first head; equal heads are fitted once.

    All heads and folds are solved together. Raises `FitError` when a class has too few rows for folds.
    """
    asked, of = once(firsts, lambda i: firsts[i])
    keys = [("first logits", first) for first in asked]
    logits = recalled(data.memory, keys, lambda places: _first_logits(data, [asked[i] for i in places]))
    return [logits[i] for i in of]


def _first_logits(data: Data, asked: Sequence[First]) -> list[np.ndarray]:
    def parted(first: First) -> np.ndarray:
        """(n,) fold of every row."""
        if not first.folds:
            return np.zeros(len(data.y), int)
        return folds_of(data.y, first.folds, first.seed, data.clusters)

    splits, at = once([(first.folds, first.seed) for first in asked], lambda i: parted(asked[i]))
    weightings: list[np.ndarray] = []
    places: list[range] = []  # of the weightings of each split
    for first, fold in zip((asked[at.index(i)] for i in range(len(splits))), splits, strict=True):
        parts = [(fold != f).astype(float) for f in range(fold.max() + 1)] if first.folds else [np.ones(len(fold))]
        places.append(range(len(weightings), len(weightings) + len(parts)))
        weightings += parts
    problems = [first.problem(w) for first, i in zip(asked, at, strict=True) for w in places[i]]
    solutions = iter(solve(data.features, data.y, weightings, problems))
    logits_by_head = []
    for i in at:
        logits = logits_of(data.features, [next(solutions) for _ in places[i]])
        logits_by_head.append(logits[splits[i], np.arange(len(data.y))])
    return logits_by_head


def early_logits(data: Data, steps: Sequence[int]) -> dict[int, np.ndarray]:
    """{steps: (n, k) logits of the training rows} of plain heads that are stopped after so many steps from zero."""
    heads = early_heads(data, steps)
    keys = [("early logits", stop) for stop in heads]
    logits = recalled(
        data.memory, keys, lambda places: logits_of(data.features, [[*heads.values()][i] for i in places])
    )
    return dict(zip(heads, logits, strict=True))


def early_heads(data: Data, steps: Sequence[int]) -> dict[int, Solution]:
    """{steps: plain head that is stopped after so many steps from zero}."""
    stops = list(dict.fromkeys(steps))

    def stopped(places: list[int]) -> list[Solution]:
        mine = [stops[i] for i in places]
        fits = stopped_fits(data, [np.ones((1, len(data.y)))], [0] * len(mine), mine)
        return [Solution(*fit.theta, stop, 0.0, True) for fit, stop in zip(fits, mine, strict=True)]

    return dict(zip(stops, recalled(data.memory, [("early head", stop) for stop in stops], stopped), strict=True))


def logits_of(features: Features, solutions: Sequence[Solution]) -> np.ndarray:
    """(p, n, k) float64 logits of all rows from p heads; for two classes those of the first are 0."""
    import torch

    W = torch.from_numpy(np.concatenate([np.column_stack([s.coef, s.intercept]) for s in solutions]))
    F = Shared(features, features.dtype).forward(W.to(features.device, features.dtype)[None])[0]
    logits = F.double().cpu().numpy().reshape(len(solutions), -1, features.n).transpose(0, 2, 1)
    return np.concatenate([np.zeros_like(logits), logits], 2) if logits.shape[2] == 1 else logits


def folds_of(y: np.ndarray, folds: int, seed: Any, clusters: np.ndarray | None = None) -> np.ndarray:
    """(n,) fold of every row, drawn so that folds and the classes in them differ by at most one row in size.

    clusters  (n,) subject of each row: a subject lies in one fold, and folds differ as little as that allows
    """
    if clusters is not None:
        return folds_of_clusters(y, clusters, folds, seed)
    counts = np.bincount(y)
    if counts.min() < 2:
        raise FitError(
            f"class {counts.argmin()} (counted from 0) has one row only, which is either fitted or asked about; "
            "out-of-fold errors need two rows of every class: add rows, or take errors='in-sample'"
        )
    order = check_random_state(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % folds
    return fold


def misclassified(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) 1 where the largest of the logits (n, k) is not that of the label: the error set of JTT."""
    return (logits.argmax(axis=1) != y).astype(int)


def environments(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) 1 where g_i > 0: the environments that break the invariance of logits (n, k) the most.

    g_i = d/ds loss(s f_i, y_i) at s = 1, which is sum_c p_c (f_c - f_y). EIIL maximises |sum q_i g_i|^2 +
    |sum (1 - q_i) g_i|^2 over q in [0, 1]^n. That depends on q by A = sum q_i g_i alone and is convex in A, so the best
    A is the largest or the smallest there is: q splits the rows by the sign of g. For two classes g_i > 0 exactly
    where the row is misclassified.
    """
    rows = np.arange(len(y))
    return ((softmax(logits, axis=1) * (logits - logits[rows, y][:, None])).sum(axis=1) > 0).astype(int)


def row_losses(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) logistic losses of logits (n, k)."""
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y]


def margins(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 1) logit of the label above the largest other: how easy the row is for the head."""
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    return (logits[rows, y] - others.max(axis=1))[:, None]


def principal(features: Features) -> np.ndarray:
    """(n, r) the features along their leading principal directions, at most `DIRECTIONS` of them."""
    spectrum = Spectrum.of(features)
    assert spectrum.V is not None
    V = spectrum.V[spectrum.s[0].argsort(descending=True)[:DIRECTIONS]].to(features.dtype)
    return np.concatenate([(Z @ V.T).cpu().numpy() for _, Z in features.blocks()])


class Clusters(NamedTuple):
    """codes (n,): clusters numbered through the classes in their order; silhouettes (k,): of each class's clusters.

    Within a class they are numbered as they first occur. A class of one cluster has no silhouette (nan).
    """

    codes: np.ndarray
    silhouettes: np.ndarray


@dataclass(frozen=True)
class Clustering:
    """k-means within each class.

    count        clusters of each class, or None to take, of 2 to `most`, the number with the best silhouette
    by_cluster   the silhouette of a clustering is the mean over clusters (GEORGE) and not over rows (SPARE)
    overcluster  0, or the number of pieces in a trial split of every cluster (GEORGE)
    restarts     of k-means, of which the best counts
    """

    count: int | None = None
    most: int = 10
    by_cluster: bool = True
    overcluster: int = 0
    restarts: int = 3

    def of(self, points: np.ndarray, y: np.ndarray, seed: Any, losses: np.ndarray | None = None) -> Clusters:
        """Cluster points (n, r) within the classes of y; `losses` (n,) decide which pieces of a cluster are kept.

        Raises `FitError` when a number of clusters is too small.
        """
        if (self.count if self.count is not None else self.most - 1) < 1 or self.overcluster < 0:
            raise FitError(
                "clusters must be at least 1, max_clusters at least 2 and overcluster at least 0, found "
                f"{self.count}, {self.most} and {self.overcluster}"
            )
        rng = check_random_state(seed)
        points = _in_reach(points)
        codes, silhouettes = np.zeros(len(y), int), []
        for c in range(y.max() + 1):
            rows = np.flatnonzero(y == c)
            sample = (
                np.arange(len(rows)) if len(rows) <= SAMPLE else np.sort(rng.choice(len(rows), SAMPLE, replace=False))
            )
            apart = Apart(points[rows][sample])
            own = self._class(points[rows], sample, apart, rng)
            if self.overcluster and losses is not None:
                own = self._pieces(points[rows], own, losses[rows], sample, apart, rng)
            silhouettes.append(self._score(apart, own[sample]))
            _, occurs, own = np.unique(own, return_index=True, return_inverse=True)
            codes[rows] = occurs.argsort().argsort()[own] + (codes.max() + 1 if c else 0)
        return Clusters(codes, np.array(silhouettes))

    def _class(self, points: np.ndarray, sample: np.ndarray, apart: Apart, rng: np.random.RandomState) -> np.ndarray:
        if self.count is not None:
            return _k_means(points, self.count, rng, self.restarts)
        best, score = 1, -np.inf
        for count in range(2, min(self.most, len(sample) - 1) + 1):
            silhouette = self._score(apart, _k_means(points[sample], count, rng, self.restarts))
            if silhouette >= score:  # of equals the larger, as in GEORGE
                best, score = count, silhouette
        return _k_means(points, best, rng, self.restarts)

    def _score(self, apart: Apart, codes: np.ndarray) -> float:
        values = apart.silhouettes(codes)
        if np.isnan(values).any():
            return float("nan")
        if not self.by_cluster:
            return float(values.mean())
        return float(np.mean([values[codes == c].mean() for c in np.unique(codes)]))

    def _pieces(
        self, points: np.ndarray, codes: np.ndarray, losses: np.ndarray, sample: np.ndarray, apart: Apart,
        rng: np.random.RandomState,
    ) -> np.ndarray:  # fmt: skip
        """Keep each piece that lies further apart than before, is at least as hard as its cluster, and is not tiny."""
        pieces = np.empty_like(codes)
        for c in np.unique(codes):
            of_cluster = _k_means(points[codes == c], self.overcluster, rng, self.restarts)
            pieces[codes == c] = c * self.overcluster + of_cluster
        before, after = (np.nan_to_num(apart.silhouettes(x[sample])) for x in (codes, pieces))
        kept = codes * self.overcluster
        for piece in np.unique(pieces):
            members = pieces == piece
            sampled_members = members[sample]
            parent = codes == codes[members][0]
            better = sampled_members.any() and after[sampled_members].mean() > max(before[sampled_members].mean(), 0)
            if (
                better
                and losses[members].mean() >= losses[parent].mean()
                and members.sum() >= max(0.005 * len(codes), 25)
            ):
                kept[members] = codes.max() * self.overcluster + self.overcluster + piece
        return kept


def _in_reach(points: np.ndarray) -> np.ndarray:
    """The points; in units of a power of 2 where squares would overflow or vanish, which changes no clustering."""
    unit = int(np.frexp(np.abs(points).max(initial=0))[1])
    return points if abs(unit) < 40 else np.ldexp(points, -unit).astype(points.dtype)


def _k_means(points: np.ndarray, count: int, rng: np.random.RandomState, restarts: int) -> np.ndarray:
    """(n,) codes; fewer clusters where there are fewer distinct points."""
    if min(count, len(points)) < 2:
        return np.zeros(len(points), int)
    with quiet:  # of fewer distinct points than clusters
        model: Any = KMeans(min(count, len(points)), n_init=cast("Any", restarts), random_state=rng)
        return model.fit(points).labels_


class Apart:
    """Distances between points (n, r), for the silhouettes of many clusterings of them (Rousseeuw 1987)."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points

    @cached_property
    def distances(self) -> np.ndarray:
        """(n, n), computed when they are first asked for."""
        return cdist(self.points, self.points)

    def totals(self, members: np.ndarray) -> np.ndarray:
        """(n, c) sums of the distances from every point to those of every cluster, for members (n, c) of 0 and 1."""
        if self.points.shape[1] > 1:
            return self.distances @ members
        order = self.points[:, 0].argsort()  # on a line, sums over those below and those above are enough
        x = self.points[order] - self.points[order[0]]
        count, total = members[order].cumsum(0), (x * members[order]).cumsum(0)
        sums = np.empty_like(total)
        sums[order] = x * (2 * count - count[-1]) + total[-1] - 2 * total
        return sums

    def silhouettes(self, codes: np.ndarray) -> np.ndarray:
        """(n,) (b - a) / max(a, b), a and b the mean distances to the own and to the nearest other cluster.

        0 for a row that is alone in its cluster, nan where there is only one cluster, or none of two rows.
        """
        clusters, codes = np.unique(codes, return_inverse=True)
        if not 2 <= len(clusters) < len(codes):
            return np.full(len(codes), np.nan)
        rows, sizes = np.arange(len(codes)), np.bincount(codes)
        total = self.totals((codes[:, None] == np.arange(len(clusters))).astype(float))
        a = total[rows, codes] / np.maximum(sizes[codes] - 1, 1)
        others = total / sizes
        others[rows, codes] = np.inf
        b = others.min(axis=1)
        larger = np.maximum(a, b)
        return np.where((sizes[codes] > 1) & (larger > 0), (b - a) / np.where(larger > 0, larger, 1), 0)


def effective_size(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted rows the weights (n,) are worth (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def once_each(
    data: Data, what: str, variants: Sequence[Any], names: Sequence[str], make: Callable[[Any], T]
) -> list[T]:
    """make(v) for every variant, computed once for those that agree in the parameters `names`, and kept as `what`."""
    keys = [(what, *(repr(getattr(v, name)) for name in names)) for v in variants]
    places, at = once(keys, lambda i: i)
    values = recalled(data.memory, [keys[i] for i in places], lambda some: [make(variants[places[i]]) for i in some])
    return [values[i] for i in at]
