"""A manifest on disk: `manifest.csv` and `manifest.json`, two files that vouch for each other.

The JSON holds the SHA-256 of the table as prepared (`table`). While a new pair is written it also holds that of the
table before (`replaces`): a table that is still the one before was not written to its end, any other one that is not
as prepared was edited by hand, which is welcome. Whoever writes a manifest, or reads it to write it, does so inside
`alone`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from embedx.data.manifest.by_hand import advice, columns_of, noticed
from embedx.data.manifest.table import RESERVED, SPLITS, Manifest, Origin, UnknownWord, assemble
from embedx.documents import ABSENT, Absent, Kind
from embedx.errors import ManifestError
from embedx.files import locked, write_array, write_bytes
from embedx.plugins import nearest

TABLE = "manifest.csv"
FACTS = "manifest.json"
MEMBERS = "members.npy"
AGAIN = "move manifest.csv and manifest.json away and prepare the dataset again"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What manifest.json says; a person may edit it, as the table.

    name        of the dataset
    rows        of the table as prepared
    classes     names of the classes, in the order of their codes
    attributes  {attribute: its values, in the order of their codes}
    grouping    attributes that form the groups, in order
    groups      names of the groups, in order
    source      where the data are from; licence, version: theirs
    expected    {what: rows that there have to be}, as published
    root        folder that the ids are relative to; null where it is not known
    members     SHA-256 of members.npy; null for plain files. Earlier versions did not say
    origin      what the manifest was prepared from; null where it is not known. Earlier versions did not say
    cluster     column that names the subjects, where there is one
    digest      of the manifest as prepared: its rows, their words and what they are called
    table       SHA-256 of manifest.csv as prepared; earlier versions did not say
    replaces    while a new pair is written: SHA-256 of the table before, null where there was none
    """

    name: str
    rows: int
    classes: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    grouping: tuple[str, ...]
    groups: tuple[str, ...]
    source: str
    licence: str
    version: str
    expected: Mapping[str, int]
    root: str | None
    members: str | Absent | None = ABSENT
    origin: Origin | Absent | None = ABSENT
    cluster: str | Absent = ABSENT
    digest: str
    table: str | Absent = ABSENT
    replaces: str | Absent | None = ABSENT


KIND = Kind(
    Facts, FACTS, "embedx extract --root", ManifestError, "embedx-manifest", 1, again=f"mend it, or {AGAIN}",
    key="format_version", indent=2,
)  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """What lies on disk.

    edited    whether a person edited it since it was prepared
    prepared  digest of the manifest as prepared
    table     SHA-256 of manifest.csv as it is
    """

    manifest: Manifest
    edited: bool
    prepared: str
    table: str


class Lost(ManifestError):
    """manifest.csv is not there, or its preparation was cut short; `facts` is what manifest.json says."""

    def __init__(self, message: str, facts: Facts) -> None:
        super().__init__(message)
        self.facts = facts


def alone(folder: Path) -> AbstractContextManager[None]:
    """A lock on the manifest in a folder. None of the functions here takes it; it must not be taken twice."""
    return locked(folder / "manifest")


def save(manifest: Manifest, folder: Path, *, over: str | None = None) -> None:
    """Write a manifest, whole or not at all; a kill in between is told when it is read. What is there already stays.

    over  SHA-256 of the table that may be replaced; raises `ManifestError` where it has just become another one
    """
    data = _table(manifest)
    facts = _facts(manifest, data)
    folder.mkdir(parents=True, exist_ok=True)
    lies = _digest(folder / TABLE)
    if over is not None and lies != over:
        raise ManifestError(f"{folder / TABLE} was edited this very moment; give the same command again")
    if lies == facts.table and _stored(folder) == facts and _digest(folder / MEMBERS) == facts.members:
        return
    KIND.write(folder / FACTS, replace(facts, replaces=lies))
    _write_members(folder, manifest)
    if lies != facts.table:
        write_bytes(folder / TABLE, data)
    KIND.write(folder / FACTS, facts)


def load(folder: Path) -> tuple[Manifest, bool]:
    """Read a manifest; the flag says whether it was edited by hand since it was prepared.

    An edit is welcome (a corrected label costs no GPU hour); results carry the digest of what was read.
    """
    try:
        kept = read(folder)
    except Lost as lost:
        if lost.facts.replaces is ABSENT:
            raise
        try:
            with alone(folder):  # another process may be about to write the table
                kept = read(folder)
        except OSError:  # a folder that may not be written to has no such process
            raise lost from None
    return kept.manifest, kept.edited


def read(folder: Path) -> Kept:
    """The manifest as it is on disk. Raises `Lost` where it is not whole, `ManifestError` where it says nothing."""
    facts, data = _pair(folder)
    digest = hashlib.sha256(data).hexdigest()
    if digest == facts.replaces != facts.table:
        raise Lost(_cut_short(folder, facts), facts)
    try:
        manifest, left_out = _manifest(folder, facts, data)
        return Kept(manifest, left_out or manifest.digest != facts.digest, facts.digest, digest)
    except ValueError as error:
        raise ManifestError(f"{folder}: the manifest cannot be read ({error}); {AGAIN}") from error


def amend(folder: Path, manifest: Manifest, **facts: Any) -> Manifest:
    """The same rows with other facts (`root`, `version`, `origin`, `members`, …); a table edited by hand stays so."""
    amended, stored = replace(manifest, **facts), KIND.read(folder / FACTS)
    if "members" in facts:
        _write_members(folder, amended)
    changed = replace(stored, **{key: value for key, value in _plain(amended).items() if key in facts})
    if changed != stored:
        KIND.write(folder / FACTS, changed)
    return amended


def is_table_of(manifest: Manifest, folder: Path) -> bool:
    """Whether manifest.csv in a folder is, byte by byte, the table of a manifest."""
    return _digest(folder / TABLE) == hashlib.sha256(_table(manifest)).hexdigest()


def check_members(folder: Path) -> None:
    """Raises `ManifestError` when the index of the rows in archives is not the one that the manifest was saved with."""
    stored = _stored(folder)
    if stored is not None and stored.members is not ABSENT and _digest(folder / MEMBERS) != stored.members:
        raise ManifestError(
            f"{folder / MEMBERS} is not the index that {FACTS} was written with; {_the_same_command(folder, stored)}"
        )


def _table(manifest: Manifest) -> bytes:
    import pandas as pd

    table = pd.DataFrame({"id": manifest.ids})
    table["label"] = np.asarray(manifest.classes, dtype=object)[manifest.labels]
    table["split"] = np.asarray(SPLITS, dtype=object)[manifest.splits]
    for attribute, codes in manifest.codes.items():
        table[attribute] = np.asarray(manifest.values[attribute], dtype=object)[codes]
    if (subjects := manifest.subjects) is not None:
        table[subjects.column] = np.asarray(subjects.names, dtype=object)[subjects.codes]
    return table.to_csv(index=False, lineterminator="\n").encode()


def _facts(manifest: Manifest, table: bytes) -> Facts:
    """All that manifest.json says."""
    return Facts(
        name=manifest.name, rows=len(manifest), classes=manifest.classes, attributes=manifest.values,
        grouping=manifest.grouping, groups=manifest.group_names, **_plain(manifest), digest=manifest.digest,
        table=hashlib.sha256(table).hexdigest(),
    )  # fmt: skip


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The facts that say nothing of the rows' words."""
    return {
        "source": manifest.source, "licence": manifest.licence, "version": manifest.version,
        "expected": dict(manifest.expected), "root": manifest.root,
        "members": None if manifest.members is None else _digest_of(manifest.members),
        "origin": manifest.origin,
        **({} if manifest.subjects is None else {"cluster": manifest.subjects.column}),
    }  # fmt: skip


def _write_members(folder: Path, manifest: Manifest) -> None:
    """Where each row lies in its archive; no such file for a manifest of plain files."""
    if manifest.members is None:
        (folder / MEMBERS).unlink(missing_ok=True)
    elif _digest(folder / MEMBERS) != _digest_of(manifest.members):
        write_array(folder / MEMBERS, manifest.members)


def _stored(folder: Path) -> Facts | None:
    """What manifest.json says; None where there is none, or no manifest."""
    try:
        return KIND.read(folder / FACTS)
    except ManifestError:
        return None


def _pair(folder: Path) -> tuple[Facts, bytes]:
    """Facts and the bytes of the table that belong together, though another process may write both meanwhile."""
    while True:
        try:
            text = (folder / FACTS).read_bytes()
            facts = KIND.parse(text, folder / FACTS)
            try:
                data = (folder / TABLE).read_bytes()
            except FileNotFoundError as error:
                if (folder / FACTS).read_bytes() == text:
                    raise Lost(_not_there(folder, facts), facts) from error
                continue
            if (folder / FACTS).read_bytes() == text:
                return facts, data
        except FileNotFoundError as error:
            raise ManifestError(
                f"{error.filename} does not exist: prepare the dataset with `embedx extract --root`"
            ) from error


def _manifest(folder: Path, facts: Facts, data: bytes) -> tuple[Manifest, bool]:
    """The manifest of a pair, and whether a column that a person added is no part of it."""
    values, grouping, cluster = facts.attributes, facts.grouping, facts.cluster or ""
    columns = columns_of(folder / TABLE, data, {"label": facts.classes, **values})
    left_out = [c for c in columns if c not in (*values, *grouping, cluster) and "" in columns[c]]
    left_out = {c: columns.pop(c) for c in left_out if c not in RESERVED}
    lost = [a for a in grouping if a not in columns]
    if lost and {*RESERVED} <= {*columns}:
        raise ManifestError(
            f"{facts.name}: groups by {lost[0]!r}, which is no attribute; "
            f"{nearest(lost[0], [c for c in columns if c not in RESERVED])}; give the column this name again, or take "
            'it out of "grouping" in manifest.json'
        )
    try:
        manifest = assemble(
            facts.name, columns, classes=facts.classes, values=values, grouping=grouping,
            source=facts.source, licence=facts.licence, version=facts.version, expected=facts.expected,
            root=facts.root, cluster=cluster, origin=facts.origin or None,
        )  # fmt: skip
    except UnknownWord as error:
        raise ManifestError(f"{error}{advice(error)}") from error
    return replace(manifest, remarks=noticed(manifest, values, left_out)), bool(left_out)


def _not_there(folder: Path, facts: Facts) -> str:
    if facts.replaces is not ABSENT:
        return _cut_short(folder, facts)
    return f"{folder / TABLE} does not exist: prepare the dataset with `embedx extract --root`"


def _cut_short(folder: Path, facts: Facts) -> str:
    return f"{folder}: the dataset's preparation was cut short; {_the_same_command(folder, facts)}"


def _the_same_command(folder: Path, facts: Facts) -> str:
    advice = "give the same command with --root, or `embedx data get`, again"
    return f"{advice}: embedx extract {facts.origin.command(folder.name)}" if facts.origin else advice


def _digest(file: Path) -> str | None:
    """SHA-256 of a file, None where there is none."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _digest_of(array: np.ndarray) -> str:
    """SHA-256 of the `.npy` file of an array, without one."""
    file: Any = SimpleNamespace(write=(sha := hashlib.sha256()).update)
    np.save(file, array, allow_pickle=False)
    return sha.hexdigest()
