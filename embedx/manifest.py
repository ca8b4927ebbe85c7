"""The manifest: which rows a dataset has, and what is known of each. Labels live here and never in a feature cache.

On disk `manifest.csv` (columns `id`, `label`, `split`, then one per attribute, all spelled in words, so that a person
can correct a label by hand) and `manifest.json` (class and attribute values in order, which attributes form the
groups, which column names the subject of a row, source, licence, expected counts, digest).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from embedx.errors import ManifestError
from embedx.files import write_array, write_text
from embedx.plugins import nearest

MEMBERS = "members.npy"
SPLITS = ("train", "val", "test")
RESERVED = ("id", "label", "split")
VERSION = 1
# Control characters break lines and tables; lone surrogates are file names that are no UTF-8.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
AGAIN = "move manifest.csv and manifest.json away and prepare the dataset again"


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
    remarks  what the user should know of the reading; said once, not stored
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
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

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
    facts    further fields of `Manifest` (source, licence, version, expected, root, grouping)

    `grouping` defaults to all attributes; the cluster is none. Raises `ManifestError` naming the first offending row.
    """
    missing = [c for c in RESERVED if c not in columns]
    if missing:
        raise ManifestError(f"{name}: no column {', '.join(missing)}; found {', '.join(columns) or 'no column'}")
    raw = np.asarray([str(i) for i in columns["id"]], dtype=object)
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

    def encode(column: str, allowed: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
        words = np.asarray([str(w) for w in columns[column]], dtype=object)[order]
        known = tuple(sorted(set(words), key=_natural) if allowed is None else allowed)
        index = {word: code for code, word in enumerate(known)}
        codes = np.fromiter((index.get(w, -1) for w in words), dtype=np.int64, count=len(words))
        if (codes < 0).any() or "" in index:
            bad = int(np.argmax(codes < 0)) if (codes < 0).any() else int(np.argmax(words == ""))
            raise ManifestError(
                f"{name}: row {ids[bad]!r} has {column} {words[bad]!r}; {nearest(words[bad], [k for k in known if k])}"
            )
        if odd := [k for k in known if UNWRITABLE.search(k)]:
            raise ManifestError(f"{name}: {column} {odd[0]!r}: expected UTF-8 text without control characters")
        return codes, known

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
        known = nearest(column, free) if free else "there is no other column than id, label and split"
        raise ManifestError(f"{name}: the cluster {column!r} is no column of the table; {known}")
    if column in grouping:
        raise ManifestError(f"{name}: {column!r} forms groups and cannot be the cluster too; leave out one of the two")


def _twice(words: Sequence[str]) -> str:
    return next(w for i, w in enumerate(words) if w in words[:i])


def save(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.csv` and `manifest.json`, each whole or not at all, the JSON last: it vouches for both."""
    import pandas as pd

    table = pd.DataFrame({"id": manifest.ids})
    table["label"] = np.asarray(manifest.classes, dtype=object)[manifest.labels]
    table["split"] = np.asarray(SPLITS, dtype=object)[manifest.splits]
    for attribute, codes in manifest.codes.items():
        table[attribute] = np.asarray(manifest.values[attribute], dtype=object)[codes]
    if (subjects := manifest.subjects) is not None:
        table[subjects.column] = np.asarray(subjects.names, dtype=object)[subjects.codes]
    facts = {
        "format": "embedx-manifest", "format_version": VERSION, "name": manifest.name, "rows": len(manifest),
        "classes": manifest.classes, "attributes": dict(manifest.values), "grouping": manifest.grouping,
        "groups": manifest.group_names, "source": manifest.source, "licence": manifest.licence,
        "version": manifest.version, "expected": dict(manifest.expected), "root": manifest.root,
        "digest": manifest.digest,
    }  # fmt: skip
    if manifest.subjects is not None:
        facts["cluster"] = manifest.subjects.column
    folder.mkdir(parents=True, exist_ok=True)
    save_members(manifest, folder)
    write_text(folder / "manifest.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "manifest.json", json.dumps(facts, indent=2) + "\n")


def save_members(manifest: Manifest, folder: Path) -> None:
    """Write where each row lies in its archive; no such file for a manifest of plain files."""
    if manifest.members is not None:
        write_array(folder / MEMBERS, manifest.members)
    else:
        (folder / MEMBERS).unlink(missing_ok=True)


def load(folder: Path) -> tuple[Manifest, bool]:
    """Read a manifest; the flag says whether `manifest.csv` was edited since it was prepared.

    An edit is welcome (a corrected label costs no GPU hour); results carry the digest of what was read.
    """
    import pandas as pd

    try:
        facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        kind = (facts.get("format"), facts.get("format_version")) if isinstance(facts, dict) else None
        if kind != ("embedx-manifest", VERSION):
            raise ManifestError(f"{folder / 'manifest.json'}: not a manifest of version {VERSION}; {AGAIN}")
        table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False, encoding="utf-8")
        manifest = build(
            facts["name"], {str(c): table[c].tolist() for c in table.columns}, classes=facts["classes"],
            values=facts["attributes"], grouping=facts["grouping"], source=facts["source"],
            licence=facts["licence"], version=facts["version"], expected=facts["expected"], root=facts["root"],
            cluster=facts.get("cluster", ""),
        )  # fmt: skip
        return manifest, manifest.digest != facts["digest"]
    except FileNotFoundError as error:
        raise ManifestError(
            f"{error.filename} does not exist: prepare the dataset with `embedx extract --root`"
        ) from error
    except KeyError as error:
        raise ManifestError(f"{folder / 'manifest.json'} holds no {error}; {AGAIN}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ManifestError(f"{folder}: the manifest cannot be read ({error}); {AGAIN}") from error


def move(folder: Path, manifest: Manifest, root: str | None) -> Manifest:
    """The same rows under another root, noted in `manifest.json`; an edited table still counts as edited."""
    file = folder / "manifest.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    write_text(file, json.dumps(facts | {"root": root}, indent=2) + "\n")
    return replace(manifest, root=root)


def _check_id(name: str, row_id: str) -> None:
    path = PurePosixPath(row_id)
    if not row_id or UNWRITABLE.search(row_id) or path.is_absolute() or ".." in path.parts:
        raise ManifestError(
            f"{name}: {row_id!r} is no id: expected a path relative to the root, "
            "in UTF-8, without '..' or control characters"
        )


def _natural(word: str) -> tuple[int, float, str]:
    """Numbers in numeric order before words: '2' before '10' before 'cat'."""
    return (0, float(word), word) if word.removeprefix("-").isdecimal() else (1, 0.0, word)
