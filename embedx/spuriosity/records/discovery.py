"""Which features of a backbone a linear head leans on, class by class, and how sure that is.

For class c and feature i, r the features of a row, W and b the head's weights on them, G_c a group of training rows:

    importance(c, i) = mean over G_c of r_i * W[c, i]        sum_i importance(c, i) + b_c = mean over G_c of logit c

that is what the feature adds to the logit on average (Singla and Feizi 2022; Moayeri et al. 2023, appendix I.2). G_c is
the rows labelled c, those predicted as c, or those that are both. Two classes have the logits -f/2 and f/2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from embedx import plugins
from embedx.data.manifest import SPLITS, Manifest
from embedx.documents import Kind
from embedx.errors import ProvenanceError, SpuriosityError, UnknownName
from embedx.evaluation import saved
from embedx.evaluation.model import PRETRAINED, Model
from embedx.evaluation.records import date
from embedx.files import locked
from embedx.spuriosity.features import recipes
from embedx.spuriosity.features.activations import Means, Progress, class_means, gathered, silent, stream, table
from embedx.statistics import Interval, difference, proportion
from embedx.store import FeatureCache

FILE = "discovery.json"
GROUPINGS = ("label", "predicted", "correct")
SIDE = 25
"""Most validation rows on each side of a feature's gap."""


@dataclass(frozen=True)
class Candidate:
    """One of the most important features of a class.

    rank       from 1, the most important
    share      of the importance of all features that speak for the class (those above 0)
    gap        accuracy of the head on the n validation rows of the class where the feature is largest, minus that on
               the n where it is smallest; None when the class has fewer than two
    elsewhere  other classes that have the feature among their most important
    """

    label: int
    class_name: str
    feature: int
    rank: int
    importance: float
    share: float
    gap: Interval | None
    n: int
    elsewhere: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """What `discovery.json` holds.

    weights    SHA-256 of the backbone's weights: features are numbered by them and by nothing else
    recipe     how the head came to be; grouping: the training rows G_c: by "label", "predicted" or "correct"
    classes    names of the classes, in the order of their codes
    sizes      rows of G_c of every class
    fallbacks  classes without any row predicted (correctly), whose G_c is the rows labelled c instead
    head       file of the head beside `discovery.json`; head_sha256: digest of its bytes, empty where not known
    manifest   digest of the manifest
    candidates of all classes, to be looked at and annotated
    stability  {"seeds" | "recipes" | "groupings": {what: mean overlap}}, overlap the Jaccard index of two lists of
               features of a class, 1 when all are the same, its mean over the classes
    """

    dataset: str
    backbone: str
    weights: str
    recipe: str
    grouping: str
    classes: tuple[str, ...]
    sizes: tuple[int, ...]
    stability: Mapping[str, Mapping[str, float]]
    fallbacks: tuple[int, ...] = ()
    head: str = ""
    manifest: str = ""
    fitted: Model | None = field(default=None, compare=False, repr=False)
    head_sha256: str = field(default="", compare=False)
    candidates: tuple[Candidate, ...]


KIND = Kind(Document, FILE, "embedx spuriosity discover", SpuriosityError, "embedx-discovery", 1)


@dataclass(frozen=True, kw_only=True)
class Discovery(Document):
    """The candidates of all classes, and the head that was `fitted` to find them, where it just was."""

    fitted: Model | None = field(default=None, compare=False, repr=False)

    @cached_property
    def of(self) -> Mapping[int, tuple[Candidate, ...]]:
        """The candidates of each class, the most important first."""
        return {c: tuple(x for x in self.candidates if x.label == c) for c in range(len(self.classes))}

    def save(self, folder: Path) -> Path:
        """Write `discovery.json` and, where it was just fitted, the head as `embedx.evaluation.saved` does.

        The head comes first and the discovery, with its digest, last: after a kill between the two an earlier discovery
        does not take the new head for its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / FILE):
            digest = self.head_sha256
            if self.fitted is not None:
                digest = hashlib.sha256(saved.save(self.fitted, folder).read_bytes()).hexdigest()
            KIND.write(folder / FILE, replace(self, head_sha256=digest))
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Discovery:
        """Read `discovery.json`. Raises `SpuriosityError` for what is missing, foreign, newer or damaged."""
        return cls(**vars(KIND.read(folder / FILE)))

    def saved_head(self, folder: Path, notice: Callable[[str], None] = lambda text: None) -> Model:
        """The model that was looked into, from the same folder. Raises `ProvenanceError` for another of its name."""
        file = folder / self.head
        if self.head_sha256 and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != self.head_sha256:
            raise ProvenanceError(
                f"{file} is not the head that {folder / FILE} is of: one of them was replaced without the other; run "
                f"`embedx spuriosity discover {self.dataset} -b {self.backbone}` again"
            )
        return saved.load(file, notice)

    def check(self, cache: FeatureCache) -> None:
        """Refuse features of other weights, whose numbers mean other features: `ProvenanceError`."""
        if (found := weights_of(cache)) != self.weights:
            raise ProvenanceError(
                f"{cache.path} holds features of weights {found[:16]}, expected {self.weights[:16]} ({self.backbone}), "
                "whose features were discovered; run `embedx spuriosity discover` on these features"
            )


def replaced(folder: Path, fresh: Discovery) -> str:
    """What is to be said where a discovery takes the place of another one; empty where it found the same."""
    try:
        before = Discovery.load(folder)
    except SpuriosityError:
        return ""
    if before == fresh:
        return ""
    return (
        f"note: {folder / FILE} of {date(folder / FILE)} ({before.dataset}, {before.backbone}, {before.recipe} head by "
        f"{before.grouping}) found otherwise and is replaced; annotations stay, panels are drawn again with "
        f"`embedx spuriosity panels {fresh.dataset} -b {fresh.backbone}`"
    )


def discover(
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
    lists, found, weighed = _lists(manifest, cache, heads, grouping, k, progress)
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
        grouping=grouping, classes=manifest.classes, sizes=tuple(found.sizes.tolist()), candidates=candidates,
        stability=_stability(heads, lists, grouping), fallbacks=found.fallbacks,
        head=saved.file_name(heads[0].record), manifest=manifest.digest, fitted=heads[0],
    )  # fmt: skip


def weights_of(cache: FeatureCache) -> str:
    """The fingerprint of the weights that made the features."""
    return str(cache.header.identity.get("weights", ""))


@dataclass(frozen=True, eq=False)
class Groups:
    """Mean features (k, dim) of G_c, rows (k,) of it, and the classes that fell back to the rows labelled c."""

    means: np.ndarray
    sizes: np.ndarray
    fallbacks: tuple[int, ...]

    @classmethod
    def of(cls, found: Means, at: int, label: int) -> Groups:
        empty = found.sizes[at] == 0
        means = np.where(empty[:, None], found.means[label], found.means[at])
        return cls(means, np.where(empty, found.sizes[label], found.sizes[at]), tuple(np.flatnonzero(empty).tolist()))


def group_means(
    manifest: Manifest, cache: FeatureCache, asked: Sequence[tuple[Model, str]], progress: Progress = silent
) -> list[Groups]:
    """Means over the training rows, for pairs of a head and a grouping, in one pass over the cache."""
    heads = {id(head): head.predict for head, grouping in asked if grouping != "label"}

    def codes(rows: np.ndarray, X: np.ndarray) -> list[np.ndarray]:
        label = manifest.labels[rows]
        predicted = {key: predict(X) for key, predict in heads.items()}
        found = [label]  # every grouping may have to fall back to it
        for head, grouping in asked:
            here = label if grouping == "label" else predicted[id(head)]
            found.append(np.where(here == label, here, -1) if grouping == "correct" else here)
        return found

    found = class_means(manifest, cache, manifest.splits == SPLITS.index("train"), codes, progress)
    return [Groups.of(found, i + 1, 0) for i in range(len(asked))]


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
    found = group_means(manifest, cache, [(heads[i], g) for i, g in keys], progress)
    weighed = [importance(heads[i], groups) for (i, _), groups in zip(keys, found, strict=True)]
    return {key: most_important(w, k) for key, w in zip(keys, weighed, strict=True)}, found[0], weighed[0]


def _stability(
    heads: Sequence[Model], lists: Mapping[tuple[int, str], list[list[int]]], grouping: str
) -> dict[str, dict[str, float]]:
    """Mean overlaps over pairs of seeds of one recipe, over recipes (their first seed), and over groupings."""
    of = [h.name.head for h in heads]
    by_recipe = {r: [lists[i, grouping] for i, name in enumerate(of) if name == r] for r in dict.fromkeys(of)}
    seeds = {
        r: float(np.mean([overlap(a, b) for a, b in combinations(x, 2)])) for r, x in by_recipe.items() if len(x) > 1
    }
    recipe = of[0]
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
    labels, right, values = [], [], []
    for rows, X in stream(manifest, cache, wanted):
        y = manifest.labels[rows]
        labels.append(y)
        right.append(predict(X) == y)
        values.append(gathered(X, tops[y]))
    y, hits, strength = (np.concatenate(parts) for parts in (labels, right, values))
    found = []
    for c in range(len(tops)):
        here = np.flatnonzero(y == c)
        found.append([feature_gap(strength[here, j], hits[here]) for j in range(tops.shape[1])])
    return found


def feature_gap(strength: np.ndarray, hits: np.ndarray) -> tuple[Interval | None, int]:
    """Accuracy on the rows (n,) of the largest strengths minus that on the smallest, at most `SIDE` rows each."""
    n = min(SIDE, len(hits) // 2)
    if not n:
        return None, 0
    order = np.argsort(strength, kind="stable")
    low, high = (int(np.count_nonzero(hits[rows])) for rows in (order[:n], order[-n:]))
    return difference(proportion(high, n), proportion(low, n), n, value=(high - low) / n), n
