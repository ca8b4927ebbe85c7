"""Which features of a backbone a linear head leans on, class by class, and how sure that is.

For class c and feature i, r the features of a row, W and b the head's weights on them, G_c a group of training rows:

    importance(c, i) = mean over G_c of r_i * W[c, i]        sum_i importance(c, i) + b_c = mean over G_c of logit c

that is what the feature adds to the logit on average (Singla and Feizi 2022; Moayeri et al. 2023, appendix I.2). G_c is
the rows labelled c, those predicted as c, or those that are both. Two classes have the logits -f/2 and f/2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from embedx import plugins
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import ProvenanceError, SpuriosityError, UnknownName
from embedx.evaluation import saved
from embedx.evaluation.metrics import Interval, wilson
from embedx.evaluation.records import date
from embedx.files import locked, write_text
from embedx.spuriosity.features import recipes
from embedx.spuriosity.features.activations import Means, Progress, class_means, gathered, silent, stream, table
from embedx.spuriosity.features.recipes import Recipe
from embedx.spuriosity.measures.predictions import PRETRAINED, Linear
from embedx.store import FeatureCache

FILE = "discovery.json"
FORMAT = "embedx-discovery"
VERSION = 1
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


@dataclass(frozen=True)
class Discovery:
    """The candidates of all classes, to be looked at and annotated.

    weights    SHA-256 of the backbone's weights: features are numbered by them and by nothing else
    sizes      rows of G_c of every class
    fallbacks  classes without any row predicted (correctly), whose G_c is the rows labelled c instead
    head       file of the head beside `discovery.json`; head_sha256 the digest of its bytes, empty where not known
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
    candidates: tuple[Candidate, ...]
    stability: Mapping[str, Mapping[str, float]]
    fallbacks: tuple[int, ...] = ()
    head: str = ""
    manifest: str = ""
    fitted: Recipe | None = field(default=None, compare=False, repr=False)
    head_sha256: str = field(default="", compare=False)

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
                digest = hashlib.sha256(self.fitted.save(folder).read_bytes()).hexdigest()
            document = {"format": FORMAT, "version": VERSION}
            document |= {key: getattr(self, key) for key in FIELDS} | {"head_sha256": digest}
            document |= {"candidates": [asdict(x) for x in self.candidates]}
            write_text(folder / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Discovery:
        """Read `discovery.json`. Raises `SpuriosityError` for what is missing, foreign, newer or damaged."""
        file = folder / FILE
        if not file.is_file():
            raise SpuriosityError(f"{file} does not exist; run `embedx spuriosity discover` first")
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            if (found := (document.get("format"), document.get("version"))) != (FORMAT, VERSION):
                raise SpuriosityError(f"{file}: expected {FORMAT} version {VERSION}, found {found[0]!r} {found[1]!r}")
            values = {key: document[key] for key in FIELDS}
            values |= {key: tuple(values[key]) for key in ("classes", "sizes", "fallbacks")}
            found = tuple(map(_candidate, document["candidates"]))
            return cls(**values, candidates=found, head_sha256=str(document.get("head_sha256", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpuriosityError(
                f"{file} is no discovery ({error}); run `embedx spuriosity discover` again"
            ) from error

    def saved_head(self, folder: Path, notice: Callable[[str], None] = lambda text: None) -> saved.SavedHead:
        """The head that was looked into, from the same folder. Raises `ProvenanceError` for another one of its name."""
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


FIELDS = (
    "dataset", "backbone", "weights", "recipe", "grouping", "classes", "sizes", "stability", "fallbacks", "head",
    "manifest",
)  # fmt: skip


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
    gaps = _gaps(manifest, cache, heads[0].linear, table(tops))
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
        manifest.name, cache.header.backbone, weights_of(cache), recipe, grouping, manifest.classes,
        tuple(found.sizes.tolist()), candidates, _stability(heads, lists, grouping), found.fallbacks,
        saved.file_name(heads[0].run) + saved.SUFFIX, manifest.digest, heads[0],
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
    manifest: Manifest, cache: FeatureCache, asked: Sequence[tuple[Linear, str]], progress: Progress = silent
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


def importance(head: Linear, groups: Groups) -> np.ndarray:
    """(k, dim): what each feature adds to the logit of each class, the mean over G_c."""
    return groups.means * head.weight


def most_important(weighed: np.ndarray, k: int) -> list[list[int]]:
    """Of each row the k columns that are largest, the largest first, ties by number."""
    return np.argsort(-weighed, axis=1, kind="stable")[:, :k].tolist()


def _lists(
    manifest: Manifest, cache: FeatureCache, heads: Sequence[Recipe], grouping: str, k: int, progress: Progress
) -> tuple[dict[tuple[int, str], list[list[int]]], Groups, np.ndarray]:
    """The lists of every head by `grouping` and of the first by every grouping; groups and importance of the first."""
    keys = [(i, grouping) for i in range(len(heads))] + [(0, g) for g in GROUPINGS if g != grouping]
    linear = [h.linear for h in heads]
    found = group_means(manifest, cache, [(linear[i], g) for i, g in keys], progress)
    weighed = [importance(linear[i], groups) for (i, _), groups in zip(keys, found, strict=True)]
    return {key: most_important(w, k) for key, w in zip(keys, weighed, strict=True)}, found[0], weighed[0]


def _stability(
    heads: Sequence[Recipe], lists: Mapping[tuple[int, str], list[list[int]]], grouping: str
) -> dict[str, dict[str, float]]:
    """Mean overlaps over pairs of seeds of one recipe, over recipes (their first seed), and over groupings."""
    by_recipe = {
        r: [lists[i, grouping] for i, h in enumerate(heads) if h.name == r] for r in {h.name: 0 for h in heads}
    }
    seeds = {
        r: float(np.mean([overlap(a, b) for a, b in combinations(x, 2)])) for r, x in by_recipe.items() if len(x) > 1
    }
    recipe = heads[0].name
    between = {f"{recipe}/{r}": overlap(by_recipe[recipe][0], x[0]) for r, x in by_recipe.items() if r != recipe}
    groupings = {f"{grouping}/{g}": overlap(lists[0, grouping], lists[0, g]) for g in GROUPINGS if g != grouping}
    return {"seeds": seeds, "recipes": between, "groupings": groupings}


def overlap(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> float:
    """Mean over the classes of |A and B| / |A or B|."""
    return float(np.mean([len({*x} & {*y}) / len({*x} | {*y}) for x, y in zip(a, b, strict=True)]))


def _gaps(
    manifest: Manifest, cache: FeatureCache, head: Linear, tops: np.ndarray
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
    """Accuracy on the rows (n,) of the largest strengths minus that on the smallest, at most `SIDE` of each, disjoint.

    Newcombe's interval (1998, method 10): Wilson limits of the two accuracies combined.
    """
    n = min(SIDE, len(hits) // 2)
    if not n:
        return None, 0
    order = np.argsort(strength, kind="stable")
    low, high = (int(np.count_nonzero(hits[rows])) for rows in (order[:n], order[-n:]))
    (a, b), (c, d), value = wilson(high, n), wilson(low, n), (high - low) / n
    below, above = np.hypot(high / n - a, d - low / n), np.hypot(b - high / n, low / n - c)
    return Interval(value, max(-1.0, float(value - below)), min(1.0, float(value + above)), n), n


def _candidate(values: Mapping[str, Any]) -> Candidate:
    gap = None if values["gap"] is None else Interval(**values["gap"])
    return Candidate(**{**values, "gap": gap, "elsewhere": tuple(values["elsewhere"])})
