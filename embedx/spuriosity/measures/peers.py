"""A gap among those of other features of the class: is it that of a cue, or that of any feature that counts?

Where a feature that speaks for a class is strong, its logit is high and the model is right: so a ranking by almost any
important feature has a gap, core or spurious, far beyond that of a random order. What a ranking by S(c) says of S(c) is
how its gap stands among those of rankings by as many other features of the class, drawn from a pool:

    nearest   the features that add most to the logit of c, those whose place in the order of importance is nearest to
              one of S(c), at most a quarter of all; S(c) among them, as it is one of the sets that can be drawn
    a set     that somebody names: the features annotated as core, or any others

Scores are means of features over their standard deviations within the class, as in `measures/scores.py`. Rows, answers
and k are those of the gap itself. A percentile near 1 and a small p: the model leans on S(c) more than on features like
it; in the middle: the gap says no more than that images which show the class weakly are hard; near 0: less than others.

Where there are no more sets than would be drawn, each is taken once. S(c) counts as one of the sets, so p is exact for
a set that was chosen blindly, and never 0 (Phipson and Smyth 2010); two-sided, twice the smaller tail. What is drawn is
the set: rows and answers are the same for all, so p holds of these images, in clusters or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, prod

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.spuriosity.annotations import Cues
from embedx.spuriosity.features.activations import columns, table
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.statistics import against
from embedx.store import FeatureCache

PEERS, PART = 50, 4
"""Features of a pool at most, and at most one in so many of the backbone's."""
DRAWS = 1_000
AT_ONCE = 1 << 22
"""Numbers that are held at a time."""


@dataclass(frozen=True)
class Standing:
    """A gap among those of other sets of features.

    value       the gap; median, low, high: of the gaps of the other sets, with the range of 95 % of them
    below       share of the other sets with a smaller gap, the percentile of this one; equal ones count half
    p           chance of a gap as far out on its side, two-sided
    sets        how many others there are, or were drawn
    """

    value: float
    median: float
    low: float
    high: float
    below: float
    p: float
    sets: int

    @classmethod
    def of(cls, value: float, others: np.ndarray) -> Standing:
        """A gap among others (n,)."""
        null = against(value, others)
        below = np.mean(others < value - 1e-12) + np.mean(np.abs(others - value) <= 1e-12) / 2
        return cls(float(value), null.null, null.low, null.high, float(below), null.p, len(others))


@dataclass(frozen=True)
class Peers:
    """The gaps of one model by a ranking among those by other features.

    among       the pool: "nearest", "core" or the name of a file
    pool        features of a class that sets are drawn from, mean over classes
    importance  share of what speaks for the class that a feature of S(c) adds, mean over features and classes; theirs:
                of a feature of the pool. Where ours is far larger, a larger gap is no surprise
    mean        of the mean over those classes that have other sets; None where no class has
    classes     of each class, in the order of `Gaps.classes`; None for one that has no other set
    """

    among: str
    pool: float
    importance: float
    theirs: float
    mean: Standing | None
    classes: tuple[Standing | None, ...]


@dataclass(frozen=True, eq=False)
class Pool:
    """What sets are drawn from.

    ranked    S(c) without the features that do not vary; features {class: the pool, (m,)}
    weighed   (k, dim) what each feature adds to each logit, above 0, as a share of all that is
    values    {class: (n, m)} the pool's features over their deviations; rows {class: (n,) numbers in the manifest}
    """

    among: str
    ids: np.ndarray
    ranked: Cues
    features: Mapping[int, np.ndarray]
    weighed: np.ndarray
    values: Mapping[int, np.ndarray]
    rows: Mapping[int, np.ndarray]


def nearest(weighed: np.ndarray, cues: Cues, most: int = PEERS) -> dict[int, tuple[int, ...]]:
    """{class: S(c) and the features nearest to it in importance (k, dim)}, `most` in all; see the module."""
    pools = {}
    for label, own in cues.items():
        order = np.argsort(-weighed[label], kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        far = np.abs(place[:, None] - place[list(own)][None, :]).min(axis=1)
        able = np.flatnonzero((weighed[label] > 0) & (far > 0))
        count = max(0, min(most, weighed.shape[1] // PART) - len(own))
        others = able[np.lexsort((place[able], far[able]))[:count]]
        pools[label] = (*own, *others.tolist())
    return pools


def pool_of(
    manifest: Manifest,
    cache: FeatureCache,
    cues: Cues,
    weighed: np.ndarray,
    features: Mapping[int, Sequence[int]],
    *,
    among: str,
    split: str,
    statistics: str = "train",
) -> Pool:
    """Read the features of pools for the rows of a split.

    weighed     (k, dim) importance of every feature; features: {class: its pool}
    statistics  the rows of the deviations, as those of the ranking
    Features that do not vary are left out. Raises `SpuriosityError` for a feature that there is not.
    """
    k, dim = weighed.shape
    if odd := [i for of in features.values() for i in of if not 0 <= i < dim]:
        raise SpuriosityError(f"feature {odd[0]} is to be drawn, and {cache.path} has {dim:,}, counted from 0")
    listed = [tuple(dict.fromkeys((*cues.get(c, ()), *features.get(c, ())))) if c in cues else () for c in range(k)]
    code, train = SPLITS.index(split), SPLITS.index("train")
    wanted = np.isin(manifest.labels, list(cues)) & np.isin(manifest.splits, [code, train])
    read = columns(manifest, cache, table(listed), wanted)
    ranked, pools, values, rows = {}, {}, {}, {}
    for c, own in cues.items():
        mine = np.flatnonzero((manifest.labels == c) & np.isfinite(read[:, : len(listed[c])]).all(axis=1))
        here, fitted = (mine[manifest.splits[mine] == s] for s in (code, train if statistics == "train" else code))
        X, source = (read[r][:, : len(listed[c])].astype(np.float64) for r in (here, fitted))
        if not len(source) or not len(here):
            continue
        alive = source.min(axis=0) < source.max(axis=0)
        place = {f: j for j, f in enumerate(listed[c]) if alive[j]}
        ranked[c] = tuple(f for f in own if f in place)
        pools[c] = np.array([f for f in dict.fromkeys(features.get(c, ())) if f in place], dtype=np.int64)
        at = [place[int(f)] for f in pools[c]]
        values[c], rows[c] = X[:, at] / source[:, at].std(axis=0), here
    positive = np.maximum(weighed, 0)
    shares = positive / np.maximum(positive.sum(axis=1, keepdims=True), 1e-300)
    return Pool(among, manifest.ids, ranked, pools, shares, values, rows)


def peers(order: RankedRows, k: np.ndarray, pool: Pool, seed: int = 0, draws: int = DRAWS) -> list[Peers]:
    """How the gaps of each model of `order`, with k (c,) rows at each end, stand among those of sets of the pool."""
    rng = np.random.default_rng(seed)
    tops, bottoms = order.tails(k)
    own = (tops - bottoms) / k  # (m, c)
    gaps: list[np.ndarray | None] = []
    for c, label in enumerate(order.labels.tolist()):
        sets = _sets(pool, label, draws, rng)
        at = slice(order.starts[c], order.starts[c] + order.sizes[c])
        gaps.append(_gaps(order, at, int(k[c]), pool, label, sets) if len(sets) else None)
    have = [c for c, g in enumerate(gaps) if g is not None]
    mean = _means([g for g in gaps if g is not None], draws, rng) if have else None
    labels = [int(order.labels[c]) for c in have]

    def share(of: Mapping[int, Sequence[int] | np.ndarray]) -> float:
        return float(np.mean([pool.weighed[c][list(of[c])].mean() for c in labels])) if labels else 0.0

    about = (
        pool.among, float(np.mean([len(pool.features[c]) for c in labels])) if labels else 0.0, share(pool.ranked),
        share(pool.features),
    )  # fmt: skip
    return [
        Peers(
            *about, None if mean is None else Standing.of(float(own[m, have].mean()), mean[m]),
            tuple(None if g is None else Standing.of(float(own[m, c]), g[m]) for c, g in enumerate(gaps)),
        )
        for m in range(len(own))
    ]  # fmt: skip


def _sets(pool: Pool, label: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(b, s) places in the pool of a class: all sets of the size of S(c) but S(c) itself, or draws of them."""
    features, size = pool.features.get(label, np.empty(0)), len(pool.ranked.get(label, ()))
    if not 0 < size <= len(features):
        return np.empty((0, max(size, 1)), dtype=np.int64)
    if comb(len(features), size) <= draws + 1:
        sets = np.array(list(combinations(range(len(features)), size)), dtype=np.int64)
        same = (np.sort(features[sets], axis=1) == np.sort(pool.ranked[label])).all(axis=1)
        return sets[~same]
    return np.argsort(rng.random((draws, len(features))), axis=1)[:, :size]


def _gaps(order: RankedRows, at: slice, k: int, pool: Pool, label: int, sets: np.ndarray) -> np.ndarray:
    """(m, b) gaps of the models on the rows `at` of one class, ranked by each of the sets, equal scores by id."""
    rows = np.searchsorted(pool.ids, order.ids[at])
    by = np.argsort(rows)
    values = pool.values[label][np.searchsorted(pool.rows[label], rows[by])]
    hits = order.hits[:, at][:, by].astype(np.int32)
    step, found = max(1, AT_ONCE // values[:, sets[0]].size), []
    for start in range(0, len(sets), step):
        ranked = np.argsort(values[:, sets[start : start + step]].mean(axis=2), axis=0, kind="stable")
        found.append((hits[:, ranked[-k:]].sum(axis=1) - hits[:, ranked[:k]].sum(axis=1)) / k)
    return np.concatenate(found, axis=1)


def _means(gaps: Sequence[np.ndarray], draws: int, rng: np.random.Generator) -> np.ndarray:
    """(m, b) means over classes of gaps (m, b_c): of all ways to take a set in each class, or of draws of them."""
    if prod(g.shape[1] for g in gaps) <= draws:
        picked = np.array(list(product(*(range(g.shape[1]) for g in gaps)))).T
    else:
        picked = np.stack([rng.integers(0, g.shape[1], draws) for g in gaps])
    return np.mean([g[:, p] for g, p in zip(gaps, picked, strict=True)], axis=0)
