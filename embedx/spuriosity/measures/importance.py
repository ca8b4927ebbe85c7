"""Which features of a backbone a linear head leans on, class by class, and how sure that is.

For class c and feature i, r the features of a row, W and b the head's weights on them, G_c a group of training rows:

    importance(c, i) = mean over G_c of r_i * W[c, i]        sum_i importance(c, i) + b_c = mean over G_c of logit c

that is what the feature adds to the logit on average (Singla and Feizi 2022; Moayeri et al. 2023, appendix I.2). G_c is
the rows labelled c, those predicted as c, or those that are both. Two classes have the logits -f/2 and f/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from embedx import plugins
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError, UnknownName
from embedx.evaluation import saved
from embedx.evaluation.model import PRETRAINED, Model
from embedx.spuriosity.features import recipes
from embedx.spuriosity.features.activations import Means, Progress, class_means, gathered, silent, stream, table
from embedx.spuriosity.records.discovery import Candidate, Discovery, weights_of
from embedx.statistics import Interval, codes_of, correlation, difference, end_of_clusters, wilson
from embedx.store import FeatureCache

GROUPINGS = ("label", "predicted", "correct")
SIDE = 25
"""Most validation rows on each side of a feature's gap."""


def important_features(
    manifest: Manifest,
    cache: FeatureCache,
    *,
    recipe: str = "convex",
    grouping: str = "label",
    k: int = 5,
    seeds: int = 3,
    progress: Progress = silent,
) -> Discovery:
    """The k most important features of every class, with gaps on validation and a report of their stability.

    recipe    how the head comes to be, see `recipes`
    grouping  which training rows a class's means are over: "label", "predicted" or "correct"
    seeds     seeds of the recipes that draw, to see whether they find the same features; of these the first is used.
              With the pretrained head nothing else is fitted, and only groupings are compared

    Raises `UnknownName`, `HeadError`, `SplitError`, or `SpuriosityError` for a k or number of seeds that is none.
    """
    if grouping not in GROUPINGS:
        raise UnknownName(f"unknown grouping {grouping!r}: {plugins.nearest(grouping, GROUPINGS)}")
    if k < 1 or seeds < 1:
        raise SpuriosityError(f"found k = {k} and seeds = {seeds}; expected at least one of each")
    others = () if recipe == PRETRAINED else tuple(r for r in recipes.FITTED if r != recipe)
    heads = recipes.fit(manifest, cache, dict.fromkeys((recipe, *others), range(seeds)), progress)
    lists, groups, weighed = _lists(manifest, cache, heads, grouping, k, progress)
    tops = lists[0, grouping]
    gaps = _gaps(manifest, cache, heads[0], table(tops))
    positive = np.maximum(weighed, 0).sum(axis=1)
    candidates = tuple(
        Candidate(
            c, manifest.classes[c], i, place + 1, float(weighed[c, i]),
            float(max(weighed[c, i], 0) / positive[c]) if positive[c] else 0.0, *gaps[c][place],
            tuple(other for other, top in enumerate(tops) if other != c and i in top),
        )
        for c, top in enumerate(tops)
        for place, i in enumerate(top)
    )  # fmt: skip
    return Discovery(
        dataset=manifest.name, backbone=cache.header.backbone, weights=weights_of(cache), recipe=recipe,
        grouping=grouping, classes=manifest.classes, sizes=tuple(groups.sizes.tolist()), candidates=candidates,
        stability=_stability(heads, lists, grouping), fallbacks=groups.fallbacks,
        head=saved.file_name(heads[0].record), manifest=manifest.digest, fitted=heads[0],
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Groups:
    """Mean features (k, dim) of G_c, rows (k,) of it, and the classes that fell back to the rows labelled c."""

    means: np.ndarray
    sizes: np.ndarray
    fallbacks: tuple[int, ...]

    @classmethod
    def of(cls, averages: Means, at: int, label: int) -> Groups:
        """The grouping `at`; a class that has no row in it is taken from the grouping `label`."""
        empty = averages.sizes[at] == 0
        means = np.where(empty[:, None], averages.means[label], averages.means[at])
        sizes = np.where(empty, averages.sizes[label], averages.sizes[at])
        return cls(means, sizes, tuple(np.flatnonzero(empty).tolist()))


def group_means(
    manifest: Manifest, cache: FeatureCache, asked: Sequence[tuple[Model, str]], progress: Progress = silent
) -> list[Groups]:
    """Means over the training rows, for pairs of a head and a grouping, in one pass over the cache."""
    heads = dict.fromkeys(head for head, grouping in asked if grouping != "label")  # each predicts once

    def codes(rows: np.ndarray, X: np.ndarray) -> list[np.ndarray]:
        label = manifest.labels[rows]
        predicted = {head: head.predict(X) for head in heads}
        groupings = [label]  # every grouping may have to fall back to it
        for head, grouping in asked:
            of_head = label if grouping == "label" else predicted[head]
            groupings.append(np.where(of_head == label, of_head, -1) if grouping == "correct" else of_head)
        return groupings

    means = class_means(manifest, cache, manifest.splits == SPLITS.index("train"), codes, progress)
    return [Groups.of(means, i + 1, 0) for i in range(len(asked))]


def importance(head: Model, groups: Groups) -> np.ndarray:
    """(k, dim): what each feature adds to the logit of each class, the mean over G_c."""
    return groups.means * head.weight


def most_important(weighed: np.ndarray, k: int) -> list[list[int]]:
    """Of each row the k columns that are largest, the largest first, ties by number."""
    return np.argsort(-weighed, axis=1, kind="stable")[:, :k].tolist()


def _lists(
    manifest: Manifest, cache: FeatureCache, heads: Sequence[Model], grouping: str, k: int, progress: Progress
) -> tuple[dict[tuple[int, str], list[list[int]]], Groups, np.ndarray]:
    """The lists of every head by `grouping` and of the first by every grouping; groups and importance of the first."""
    keys = [(i, grouping) for i in range(len(heads))] + [(0, g) for g in GROUPINGS if g != grouping]
    of_keys = group_means(manifest, cache, [(heads[i], g) for i, g in keys], progress)
    weighed = [importance(heads[i], groups) for (i, _), groups in zip(keys, of_keys, strict=True)]
    return {key: most_important(w, k) for key, w in zip(keys, weighed, strict=True)}, of_keys[0], weighed[0]


def _stability(
    heads: Sequence[Model], lists: Mapping[tuple[int, str], list[list[int]]], grouping: str
) -> dict[str, dict[str, float]]:
    """Mean overlaps over pairs of seeds of one recipe, over recipes (their first seed), and over groupings."""
    of = [head.name.head for head in heads]
    by_recipe = {r: [lists[i, grouping] for i, name in enumerate(of) if name == r] for r in dict.fromkeys(of)}
    seeds = {
        r: float(np.mean([overlap(a, b) for a, b in combinations(x, 2)])) for r, x in by_recipe.items() if len(x) > 1
    }
    recipe = heads[0].name.head
    between = {f"{recipe}/{r}": overlap(by_recipe[recipe][0], x[0]) for r, x in by_recipe.items() if r != recipe}
    groupings = {f"{grouping}/{g}": overlap(lists[0, grouping], lists[0, g]) for g in GROUPINGS if g != grouping}
    return {"seeds": seeds, "recipes": between, "groupings": groupings}


def overlap(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> float:
    """Mean over the classes of |A and B| / |A or B|."""
    return float(np.mean([len({*x} & {*y}) / len({*x} | {*y}) for x, y in zip(a, b, strict=True)]))


def _gaps(
    manifest: Manifest, cache: FeatureCache, head: Model, tops: np.ndarray
) -> list[list[tuple[Interval | None, int]]]:
    """For each class and feature of `tops` the gap on the validation rows of the class, and rows on each side of it."""
    predict, wanted = head.predict, manifest.splits == SPLITS.index("val")
    labels, right, values, whose = [], [], [], []
    subjects = manifest.subjects
    for rows, X in stream(manifest, cache, wanted):
        y = manifest.labels[rows]
        labels.append(y)
        right.append(predict(X) == y)
        values.append(gathered(X, tops[y]))
        whose.append(rows if subjects is None else subjects.codes[rows])
    y, hits, strength, of = (np.concatenate(parts) for parts in (labels, right, values, whose))
    listed = []
    for c in range(len(tops)):
        rows_of_class = np.flatnonzero(y == c)
        at, clusters = hits[rows_of_class], of[rows_of_class]
        listed.append([feature_gap(strength[rows_of_class, j], at, clusters) for j in range(tops.shape[1])])
    return listed


def feature_gap(
    strength: np.ndarray, hits: np.ndarray, clusters: np.ndarray | None = None
) -> tuple[Interval | None, int]:
    """Accuracy on the rows (n,) of the largest strengths minus that on the smallest, at most `SIDE` of each, disjoint.

    Newcombe's interval (1998, method 10): Wilson limits of the two accuracies combined.

    clusters  (n,) of any kind, whose the rows are; where several at the ends are of one, Wilson limits for the rows
              that each accuracy is worth (`statistics.end_of_clusters`)
    """
    n = min(SIDE, len(hits) // 2)
    if not n:
        return None, 0
    order = np.argsort(strength, kind="stable")
    low, high = (int(np.count_nonzero(hits[rows])) for rows in (order[:n], order[-n:]))
    value = (high - low) / n
    if clusters is not None and codes_of(clusters, np.concatenate([order[:n], order[-n:]])) is not None:
        up, down = [(order[-n:], 1.0)], [(order[:n], 1.0)]
        most, least = (end_of_clusters(hits, end, clusters) for end in (up, down))
        return difference(most, least, n, value=value, correlation=correlation(hits, up, down, clusters)), n
    (a, b), (c, d) = wilson(high, n), wilson(low, n)
    below, above = np.hypot(high / n - a, d - low / n), np.hypot(b - high / n, low / n - c)
    return Interval(value, max(-1.0, float(value - below)), min(1.0, float(value + above)), n), n
