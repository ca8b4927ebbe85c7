"""The value: a table of rows whose words are checked and coded, and the facts that go with it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from embedx import html
from embedx.data.manifest.words import rows, tidy
from embedx.errors import ManifestError
from embedx.plugins import nearest

SPLITS = ("train", "val", "test")
RESERVED = ("id", "label", "split")
ALIKE = "alike"
"""The option of every dataset that says what to do with values that look alike: fold or keep."""
# Control characters break lines and tables; lone surrogates are file names that are no UTF-8.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
ABSENT = ("nan", "None", "<NA>", "NaT")  # as values that are no words spell nothing


class UnknownWord(ManifestError):
    """A row has a word that is none of those its column may have: `column`, all `allowed` and all `unknown` words."""

    def __init__(self, message: str, column: str, allowed: Sequence[str], unknown: Sequence[str]) -> None:
        super().__init__(message)
        self.column, self.allowed, self.unknown = column, allowed, unknown


@dataclass(frozen=True)
class Origin:
    """What a manifest was prepared from: a dataset plug-in, where it read, and its options as given.

    root     absolute path or address; None for what the plug-in generates itself
    options  {name: value}, as given with -O
    """

    dataset: str
    root: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def command(self, name: str) -> str:
        """The words after `embedx extract` that prepare the dataset `name` again."""
        words = [self.dataset if name == self.dataset else f"{name}={self.dataset}"]
        words += ["--root", self.root] if self.root is not None else []
        words += [word for key, value in self.options.items() for word in ("-O", f"{key}={value}")]
        return shlex.join(words)

    def differences(self, before: Origin) -> list[str]:
        """In what this differs from an earlier one, one phrase each."""
        differences = [f"dataset {self.dataset} where it was {before.dataset}"] * (self.dataset != before.dataset)
        differences += [f"--root {self.root} where it was {before.root}"] * (self.root != before.root)
        for key in {**before.options, **self.options}:
            now, then = (f"-O {key}={o[key]}" if key in o else "" for o in (self.options, before.options))
            if now != then:
                differences.append(f"{now or f'no -O {key}'} where it was {then or 'not given'}")
        return differences


@dataclass(frozen=True, eq=False)
class Subjects:
    """Which rows are of one subject (a patient, a photograph) and so no independent draws.

    column  its name; codes (n,) int64 index into `names`
    """

    column: str
    codes: np.ndarray
    names: tuple[str, ...]

    def count(self, rows: np.ndarray) -> int:
        """How many subjects some rows show."""
        return len(np.unique(self.codes[rows]))


@dataclass(frozen=True, eq=False)
class Manifest:
    """An immutable table of n rows in the order of their ids.

    ids      (n,) object    relative POSIX path or archive key; unique, sorted
    labels   (n,) int64     index into `classes`
    splits   (n,) int64     index into `SPLITS`
    codes    {attribute: (n,) int64}  index into `values[attribute]`
    grouping attributes that form the groups, in order; group = label x attributes, label-major
    root     folder that the ids are relative to, when known; a convenience, no part of the digest
    subjects of the column named as the cluster, which is no attribute and forms no groups; None where there is none
    members  for ids in tar archives: structured (n,) array of id, offset, size, sorted by id; kept in `members.npy`
    origin   what it was prepared from, when known
    remarks  what the user should know of the reading; not stored
    """

    name: str
    ids: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    codes: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    grouping: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    version: str = ""
    expected: Mapping[str, int] = field(default_factory=dict)
    root: str | None = None
    subjects: Subjects | None = None
    members: np.ndarray | None = None
    origin: Origin | None = None
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def distinct(self) -> bool:
        """Whether it was said that values which look alike are meant to."""
        return self.origin is not None and self.origin.options.get(ALIKE) == "keep"

    @cached_property
    def groups(self) -> np.ndarray | None:
        """(n,) int64 group of every row, or None when no attribute forms groups."""
        if not self.grouping:
            return None
        code = self.labels
        for attribute in self.grouping:
            code = code * len(self.values[attribute]) + self.codes[attribute]
        return code

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Names of all groups in code order, `waterbird/land`; the classes when no attribute forms groups."""
        names = list(self.classes)
        for attribute in self.grouping:
            names = [f"{name}/{value}" for name in names for value in self.values[attribute]]
        return tuple(names)

    @cached_property
    def ids_digest(self) -> str:
        """SHA-256 of the ids in order: what a feature cache remembers of its rows."""
        return ids_digest(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that a head sees of the rows: ids, labels, splits, attributes and their order, subjects."""
        h = hashlib.sha256(self.ids_digest.encode())
        shape = [self.classes, {a: self.values[a] for a in sorted(self.values)}, self.grouping]
        h.update(json.dumps(shape, sort_keys=True).encode())
        for column in (self.labels, self.splits, *(self.codes[a] for a in sorted(self.codes))):
            h.update(np.ascontiguousarray(column, dtype="<i8").tobytes())
        if self.subjects is not None:
            h.update(json.dumps([self.subjects.column, self.subjects.names]).encode())
            h.update(np.ascontiguousarray(self.subjects.codes, dtype="<i8").tobytes())
        return h.hexdigest()

    def counts(self) -> dict[str, int]:
        """Rows of every split and group: `{"train/waterbird/land": 56, ...}`, zeros included."""
        groups = self.labels if self.groups is None else self.groups
        return {
            f"{split}/{name}": int(np.count_nonzero((self.splits == s) & (groups == g)))
            for s, split in enumerate(SPLITS)
            for g, name in enumerate(self.group_names)
        }

    def differences(self) -> list[str]:
        """Where the counts differ from the dataset's known ones, one sentence each; empty when all agree."""
        counts = self.counts()
        return [
            f"{key}: found {counts.get(key, 0):,}, the published dataset has {n:,}"
            for key, n in self.expected.items()
            if counts.get(key, 0) != n
        ]

    def _repr_html_(self) -> str:
        """What a notebook shows: rows of every group in every split, and the source."""
        counts = self.counts()
        title = f"{self.name}: {len(self):,} rows"
        if self.subjects is not None:
            title += f" of {len(self.subjects.names):,} subjects ({self.subjects.column})"
        title += "".join(f"; {text}" for text in (self.source, self.licence) if text)
        rows = [(group, *(f"{counts[f'{split}/{group}']:,}" for split in SPLITS)) for group in self.group_names]
        return html.table(("group" if self.grouping else "class", *SPLITS), rows, caption=title, numbers=SPLITS)


def ids_digest(ids: Sequence[str] | np.ndarray) -> str:
    """SHA-256 of the ids in order, newline-separated (an id cannot hold a newline)."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def build(
    name: str,
    columns: Mapping[str, Sequence[str]],
    *,
    classes: Sequence[str] | None = None,
    values: Mapping[str, Sequence[str]] | None = None,
    cluster: str = "",
    **facts: Any,
) -> Manifest:
    """Check a table of words and turn it into a Manifest, sorted by id.

    columns  `id`, `label`, `split` and any attributes, equally long
    classes, values  the allowed labels and attribute values in order; by default those that occur, sorted
    cluster  the column that names the subject of each row, for example a patient; every row has one
    facts    further fields of `Manifest` (source, licence, version, expected, root, grouping, remarks)

    Blanks around words and names of columns are taken off, and a remark counts them; ids are names of files and stay
    as they are. `grouping` defaults to all attributes; the cluster is none. Raises `ManifestError` naming the first
    offending row.
    """
    remarks, tidied = [], {}
    for column, cells in columns.items():
        name_of = tidy(str(column))
        if name_of in tidied:
            raise ManifestError(f"{name}: two columns would be called {name_of!r}; rename one of them")
        words = [w if type(w) is str else _word(w) for w in cells]
        if name_of != "id":
            tidy_of = {w: tidy(w) for w in set(words)}
            if changed := {w for w, t in tidy_of.items() if w != t}:
                n = sum(w in changed for w in words)
                remarks.append(f"{name_of}: blanks around the words of {rows(n)} taken off, as in {min(changed)!r}")
                words = [tidy_of[w] for w in words]
        tidied[name_of] = words
    facts["remarks"] = (*facts.get("remarks", ()), *remarks)
    if "grouping" in facts:
        facts["grouping"] = tuple(map(tidy, facts["grouping"]))
    return assemble(
        name, tidied, classes=None if classes is None else _each_once(classes),
        values=None if values is None else {tidy(a): _each_once(words) for a, words in values.items()},
        cluster=tidy(cluster), **facts,
    )  # fmt: skip


def assemble(
    name: str,
    columns: Mapping[str, Sequence[str]],
    *,
    classes: Sequence[str] | None = None,
    values: Mapping[str, Sequence[str]] | None = None,
    cluster: str = "",
    **facts: Any,
) -> Manifest:
    """`build` without taking off blanks: for words that were stored."""
    order, ids = _ordered(name, columns)

    def encode(column: str, allowed: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
        return _encoded(name, ids, column, np.asarray(columns[column], dtype=object)[order], allowed)

    labels, class_names = encode("label", classes)
    splits, _ = encode("split", SPLITS)
    subjects = None
    if cluster:
        _check_cluster(name, cluster, columns, facts.get("grouping", ()))
        subjects = Subjects(cluster, *encode(cluster, None))
        subjects.codes.setflags(write=False)
    attributes = [c for c in columns if c not in (*RESERVED, cluster)]
    encoded = {a: encode(a, None if values is None else values.get(a)) for a in attributes}
    if len(class_names) < 2:
        raise ManifestError(
            f"{name}: one label only ({', '.join(class_names)}); a classifier needs at least two classes"
        )
    grouping: tuple[str, ...] = tuple(facts.pop("grouping", attributes))
    if unknown := sorted(set(grouping) - set(attributes)):
        raise ManifestError(
            f"{name}: groups by {unknown[0]!r}, which is no attribute; {nearest(unknown[0], attributes)}"
        )
    for array in (ids, labels, splits, *(c for c, _ in encoded.values())):
        array.setflags(write=False)
    manifest = Manifest(
        name=name, ids=ids, labels=labels, splits=splits, classes=class_names, grouping=grouping,
        codes={a: c for a, (c, _) in encoded.items()}, values={a: v for a, (_, v) in encoded.items()},
        subjects=subjects, **facts,
    )  # fmt: skip
    if len(set(manifest.group_names)) < len(manifest.group_names):
        raise ManifestError(f"{name}: two groups would both be called {_twice(manifest.group_names)!r}; rename a value")
    return manifest


def _ordered(name: str, columns: Mapping[str, Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """(order, ids): the ids sorted, and the places that they come from. Raises for a table that is none."""
    missing = [c for c in RESERVED if c not in columns]
    if missing:
        raise ManifestError(f"{name}: no column {', '.join(missing)}; found {', '.join(columns) or 'no column'}")
    raw = np.asarray(columns["id"], dtype=object)
    if not len(raw):
        raise ManifestError(f"{name}: the table has no rows")
    for column, cells in columns.items():
        if not column or UNWRITABLE.search(column):
            raise ManifestError(f"{name}: {column!r} is no name of a column; give it one without control characters")
        if len(cells) != len(raw):
            raise ManifestError(f"{name}: {len(raw)} ids but {len(cells)} entries of {column}; expected one per row")
    for row_id in raw:
        _check_id(name, row_id)
    order = np.argsort(raw, kind="stable")
    ids = raw[order]
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise ManifestError(
            f"{name}: id {ids[twice[0]]!r} occurs more than once ({len(twice)} such rows); ids must be unique"
        )
    return order, ids


def _encoded(
    name: str, ids: np.ndarray, column: str, words: np.ndarray, allowed: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(codes, vocabulary) of the words of a column; the vocabulary is `allowed`, or the words that occur, sorted."""
    vocabulary = tuple(sorted(set(words), key=_natural) if allowed is None else allowed)
    index = {word: code for code, word in enumerate(vocabulary)}
    codes = np.fromiter((index.get(w, -1) for w in words), dtype=np.int64, count=len(words))
    if (codes < 0).any() or "" in index:
        bad = int(np.argmax(codes < 0)) if (codes < 0).any() else int(np.argmax(words == ""))
        raise UnknownWord(
            f"{name}: row {ids[bad]!r} has {column} {words[bad]!r}; "
            f"{nearest(words[bad], [word for word in vocabulary if word])}",
            column, vocabulary, sorted({*words[codes < 0]}, key=_natural),
        )  # fmt: skip
    if odd := [word for word in vocabulary if UNWRITABLE.search(word)]:
        raise ManifestError(f"{name}: {column} {odd[0]!r}: expected UTF-8 text without control characters")
    return codes, vocabulary


def clustered(manifest: Manifest, column: str) -> Manifest:
    """The same rows with one of their attributes as the cluster. Raises `ManifestError` for a column that cannot be."""
    if manifest.subjects is not None and manifest.subjects.column == column:
        return manifest
    _check_cluster(manifest.name, column, manifest.codes, manifest.grouping)
    codes, values = ({a: v for a, v in of.items() if a != column} for of in (manifest.codes, manifest.values))
    subjects = Subjects(column, manifest.codes[column], manifest.values[column])
    return replace(manifest, codes=codes, values=values, subjects=subjects)


def _check_cluster(name: str, column: str, columns: Iterable[str], grouping: Sequence[str]) -> None:
    free = [c for c in columns if c not in RESERVED]
    if column not in free:
        choices = nearest(column, free) if free else "there is no other column than id, label and split"
        raise ManifestError(f"{name}: the cluster {column!r} is no column of the table; {choices}")
    if column in grouping:
        raise ManifestError(f"{name}: {column!r} forms groups and cannot be the cluster too; leave out one of the two")


def _twice(words: Sequence[str]) -> str:
    return next(w for i, w in enumerate(words) if w in words[:i])


def _word(value: Any) -> str:
    """A value of a table as a word; none where there is no value, which is refused with its row."""
    word = str(value)
    return "" if not isinstance(value, str) and word in ABSENT else word


def _each_once(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tidy(str(w)) for w in words))


def _check_id(name: str, row_id: str) -> None:
    # Not by `pathlib`: there may be millions.
    if not row_id or row_id[0] == "/" or UNWRITABLE.search(row_id) or ".." in row_id.split("/"):
        raise ManifestError(
            f"{name}: {row_id!r} is no id: expected a path relative to the root, "
            "in UTF-8, without '..' or control characters"
        )


def _natural(word: str) -> tuple[int, float, str]:
    """Numbers in numeric order before words: '2' before '10' before 'cat'."""
    return (0, float(word), word) if word.removeprefix("-").isdecimal() else (1, 0.0, word)
