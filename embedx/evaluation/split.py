"""Labels joined to features by id: what heads are fitted, chosen and judged on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.data.status import Status
from embedx.errors import CacheError, SplitError
from embedx.evaluation.near import near_duplicates
from embedx.probes import Features, Partition, outlying, quiet
from embedx.store import FeatureCache

CLUSTERS = 2
ATTEMPTS = 16  # at halves that both have every group, where subjects are of several groups


@dataclass(frozen=True, eq=False)
class Part:
    """One split: ids (n,), features X (n, d) float32, labels y (n,), groups (n,), the labels where there are none.

    attributes  {name: (n,) codes} of the attributes that form groups
    spuriosity  (n,) how strongly rows show the spurious cues of their class, NaN where unknown; None without a ranking
    subjects    (n,) codes of the subjects that the rows show; None where the manifest names no cluster
    """

    ids: np.ndarray
    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    spuriosity: np.ndarray | None = None
    subjects: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def repeated(self) -> np.ndarray | None:
        """The subjects, where some have several rows; None where rows are independent, as far as is known."""
        return self.subjects if self.subjects is not None and len(np.unique(self.subjects)) < len(self) else None

    def take(self, rows: np.ndarray) -> Part:
        """Some of the rows."""
        codes = {name: c[rows] for name, c in self.attributes.items()}
        scores, subjects = (None if c is None else c[rows] for c in (self.spuriosity, self.subjects))
        return Part(self.ids[rows], self.X[rows], self.y[rows], self.groups[rows], codes, scores, subjects)

    def partition(self, name: str) -> np.ndarray:
        """(n,) codes of "groups", of "attribute" (the attributes together, without the label), or of one attribute."""
        if name == Partition.GROUPS or not self.attributes:
            return self.groups
        if name == Partition.ATTRIBUTE:
            return np.unique(np.stack([*self.attributes.values()]), axis=1, return_inverse=True)[1]
        return self.attributes[name]

    @cached_property
    def id_set(self) -> frozenset[str]:
        """The ids, to look rows up in."""
        return frozenset(self.ids)

    @cached_property
    def inferred(self) -> np.ndarray:
        """(n,) groups that need no group label: each class in `CLUSTERS` clusters of its standardised features."""
        from sklearn.cluster import KMeans

        Z = Features.standardize(self.X).tensor.numpy()  # centred with all digits, however far from 0 they lie
        codes = np.zeros(len(self), dtype=np.int64)
        for label in np.unique(self.y):
            rows = np.flatnonzero(self.y == label)
            with quiet:  # of rows that are all the same
                clusters = KMeans(min(CLUSTERS, len(rows)), random_state=0).fit_predict(Z[rows])
            codes[rows] = CLUSTERS * label + clusters
        return codes


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts of one dataset in the features of one backbone.

    has_groups  whether any attribute forms groups
    left_out    rows of each split that are not in it because they could not be extracted
    cluster     the column that names the subjects, where there is one
    facts       digests of what was joined, for the record; `outlying` {split: ids} of rows a million spreads away
    values      {attribute: its values in words} of the attributes that form groups
    ranked_by   what the spuriosity ranking took, in words, where there is one
    """

    dataset: str
    backbone: str
    train: Part
    val: Part
    test: Part
    classes: tuple[str, ...]
    group_names: tuple[str, ...]
    group_labels: np.ndarray
    has_groups: bool
    left_out: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranked_by: str = ""
    cluster: str = ""

    @property
    def subjects(self) -> dict[str, int]:
        """Subjects of each split, where a cluster is named."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {s: len(np.unique(p.subjects)) for s, p in parts.items() if p.subjects is not None}

    @cached_property
    def near_duplicates(self) -> dict[str, int]:
        """{group: about how many of its test rows have a near duplicate in it}; none where a cluster is named."""
        if self.cluster:
            return {}
        found = near_duplicates(self.test.X, self.test.groups, self.train.X, self.train.groups)
        return {self.group_names[g]: n for g, n in found.items()}

    def of_attribute(self, attribute: str) -> Split:
        """The same rows with the attribute as their label, in no groups: can it be read from the features?"""
        parts = {
            name: replace(part, y=part.attributes[attribute], groups=part.attributes[attribute])
            for name, part in (("train", self.train), ("val", self.val), ("test", self.test))
        }
        names = self.values[attribute]
        return replace(
            self, **parts, classes=names, group_names=names, group_labels=np.arange(len(names)), has_groups=False
        )


@dataclass(frozen=True, eq=False)
class Outline:
    """A split before its features are read, which is enough to learn what would be refused.

    split  its parts have X without columns
    rows   {split: (n,) rows of the cache} of its parts
    """

    split: Split
    cache: FeatureCache
    rows: Mapping[str, np.ndarray]

    def read(self) -> Split:
        """The split with its features, float32, each verified; the whole cache is read once."""
        stored, parts, far = self.cache.features(), {}, {}
        for name, rows in self.rows.items():
            part: Part = getattr(self.split, name)
            X = stored[rows].astype(np.float32, copy=False)
            if len(rows_far := outlying(X)):
                far[name] = part.ids[rows_far].tolist()
            parts[name] = replace(part, X=X)
        facts = {**self.split.facts, "outlying": far} if far else self.split.facts
        return replace(self.split, **parts, facts=facts)


def join(
    manifest: Manifest, cache: FeatureCache, *, ranking: Ranked | None = None, without: np.ndarray | None = None
) -> Split:
    """Join a manifest and a complete cache by id, with the features; for all else see `outline`."""
    return outline(manifest, cache, ranking=ranking, without=without).read()


def outline(
    manifest: Manifest, cache: FeatureCache, *, ranking: Ranked | None = None, without: np.ndarray | None = None
) -> Outline:
    """Join a manifest and a complete cache by id; rows that are not ok are left out and counted. Reads no features.

    ranking   the rows' spuriosity, joined as well
    without   (n,) bool rows of the manifest to leave out as well

    The manifest may be a subset of the cache (rows removed since), never the other way round: `CacheError`.
    Raises `SplitError` when a split is empty, a class has no training row, or a group in use has no test row.
    """
    rows = rows_in(manifest, cache)
    ok = cache.status[rows] == Status.OK
    groups = manifest.labels if manifest.groups is None else manifest.groups
    used = ok if without is None else ok & ~without
    empty = np.empty((cache.header.rows, 0), dtype=np.float32)
    parts, taken, left_out, dropped = {}, {}, {}, {}
    for s, name in enumerate(SPLITS):
        mine = manifest.splits == s
        at = np.flatnonzero(mine & used)
        left_out[name] = int(np.count_nonzero(mine & ~ok))
        dropped[name] = int(np.count_nonzero(mine & ok & ~used))
        if not len(at):
            lost = f" ({left_out[name]} could not be extracted)" if left_out[name] else ""
            lost += f" ({dropped[name]} left out, as they are in another split too)" if dropped[name] else ""
            raise SplitError(
                f"{manifest.name}: the {name} split has no usable row{lost}; fit, choice and report need one each"
            )
        codes = {a: manifest.codes[a][at] for a in manifest.grouping}
        subjects = None if manifest.subjects is None else manifest.subjects.codes[at]
        parts[name] = Part(
            manifest.ids[at], empty[: len(at)], manifest.labels[at], groups[at], codes, subjects=subjects
        )
        taken[name] = rows[at]
    _check(manifest, parts, dropped)
    split = Split(
        dataset=manifest.name, backbone=cache.header.backbone, **parts, classes=manifest.classes,
        group_names=manifest.group_names, has_groups=manifest.groups is not None, left_out=left_out,
        group_labels=np.repeat(np.arange(len(manifest.classes)), len(manifest.group_names) // len(manifest.classes)),
        facts={"manifest": manifest.digest, "weights": cache.header.identity.get("weights", "")},
        values={a: manifest.values[a] for a in manifest.grouping},
        cluster="" if manifest.subjects is None else manifest.subjects.column,
    )  # fmt: skip
    return Outline(split if ranking is None else ranked(split, ranking), cache, taken)


class Ranked(Protocol):
    """Spuriosity of rows: `ids` (n,) sorted, `scores` (n,), NaN where unknown, and what ranked them."""

    @property
    def backbone(self) -> str:
        """The backbone whose features ranked the rows."""
        ...

    @property
    def supervision(self) -> str:
        """What the choice of cues took, in words; empty where that is not known."""
        ...

    @property
    def ids(self) -> np.ndarray:
        """(n,) ids of the rows, sorted."""
        ...

    @property
    def scores(self) -> np.ndarray:
        """(n,) spuriosity in the order of `ids`, NaN where unknown."""
        ...


def ranked(split: Split, ranking: Ranked) -> Split:
    """The same rows with their spuriosity, joined by id. Raises `SplitError` when the ranking lacks a row."""

    def scored(part: Part) -> Part:
        at = np.minimum(np.searchsorted(ranking.ids, part.ids), len(ranking.ids) - 1)
        if len(lost := np.flatnonzero(ranking.ids[at] != part.ids)):
            raise SplitError(
                f"the ranking of {split.dataset} by {ranking.backbone} lacks {len(lost):,} rows (for example "
                f"{part.ids[lost[0]]}); rank again with `embedx spuriosity rank`"
            )
        return replace(part, spuriosity=ranking.scores[at])

    return replace(
        split, train=scored(split.train), val=scored(split.val), test=scored(split.test),
        facts={**split.facts, "ranking": ranking.backbone}, ranked_by=ranking.supervision,
    )  # fmt: skip


def halves(part: Part, seed: int, *, blind: bool = False) -> tuple[Part, Part]:
    """Two halves drawn at random within every group, one to fit or steer and one to choose; the odd rows go by turns.

    blind  draw within classes instead, for heads that see no group label

    Where subjects are known, each is in one half with all its rows, and the groups are parted as evenly as that allows.
    Raises `SplitError` for a group of one row, or one subject, which only one half could see.
    """
    codes, word = (part.y, "class") if blind else (part.groups, "group")
    if part.subjects is not None:
        return _halves_of_subjects(part, part.subjects, codes, seed)
    rng = np.random.default_rng(seed)
    first, extra = np.zeros(len(part), dtype=bool), 0
    for group in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == group))
        if len(rows) < 2:
            raise SplitError(
                f"a {word} has one validation row, and both halves of validation, to fit and to choose, need one of "
                "every group; add some, or use heads that do not fit on validation"
            )
        first[rows[: (len(rows) + extra) // 2]] = True
        extra ^= len(rows) % 2
    return part.take(np.flatnonzero(first)), part.take(np.flatnonzero(~first))


def _halves_of_subjects(part: Part, subjects: np.ndarray, codes: np.ndarray, seed: int) -> tuple[Part, Part]:
    from sklearn.model_selection import StratifiedGroupKFold

    for attempt in range(ATTEMPTS if len(np.unique(subjects)) > 1 else 0):
        folds = StratifiedGroupKFold(2, shuffle=True, random_state=seed * ATTEMPTS + attempt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of small groups, which are looked at below
            first, second = next(folds.split(part.X, codes, subjects))
        if len(np.unique(codes[first])) == len(np.unique(codes[second])) == len(np.unique(codes)):
            return part.take(first), part.take(second)
    raise SplitError(
        "a group has validation rows of too few subjects: both halves of validation, to fit and to choose, need one of "
        "every group, and a subject is in one of them; add some, or use heads that do not fit on validation"
    )


def rows_in(manifest: Manifest, cache: FeatureCache) -> np.ndarray:
    """(n,) which row of the cache holds each row of the manifest. Raises `CacheError` when one is missing."""
    if manifest.ids_digest == cache.header.ids_digest:
        return np.arange(len(manifest))
    at = np.minimum(np.searchsorted(cache.ids, manifest.ids), len(cache.ids) - 1)
    absent = np.flatnonzero(cache.ids[at] != manifest.ids)
    if len(absent):
        raise CacheError(
            f"{cache.path} was made from another manifest: {len(absent):,} of the {len(manifest):,} rows of "
            f"{manifest.name} are not in it (for example {manifest.ids[absent[0]]}); "
            "mend the ids in manifest.csv, or delete the file and run `embedx extract` again"
        )
    return at


def _check(manifest: Manifest, parts: Mapping[str, Part], dropped: Mapping[str, int]) -> None:
    k, g = len(manifest.classes), len(manifest.group_names)
    for split in ("train", "test"):
        counts = np.bincount(parts[split].y, minlength=k)
        if not counts.all():
            gone = f" once {dropped[split]:,} rows in another split too are left out" if dropped[split] else ""
            raise SplitError(
                f"{manifest.name}: class {manifest.classes[int(np.argmin(counts))]!r} has no usable row in {split}"
                f"{gone}; add some, or drop the class from the manifest"
            )
    trained = np.bincount(np.concatenate([parts["train"].groups, parts["val"].groups]), minlength=g)
    empty = np.flatnonzero((trained > 0) & (np.bincount(parts["test"].groups, minlength=g) == 0))
    if len(empty):
        names = ", ".join(f"{manifest.group_names[i]} ({trained[i]})" for i in empty)
        raise SplitError(
            f"{manifest.name}: {names} has rows to fit or choose on and none in test, so no worst group can be "
            "reported; add test rows, or drop the group's rows or its attribute from the manifest"
        )
