"""A manifest on disk: `manifest.csv` and `manifest.json`, two files that vouch for each other.

The JSON holds the SHA-256 of the table as prepared (`table`). While a new pair is written it also holds that of the
table before (`replaces`): a table that is still the one before was not written to its end, any other one that is not
as prepared was edited by hand, which is welcome. Whoever writes a manifest, or reads it to write it, does so inside
`alone`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from embedx.data.manifest.by_hand import advice, columns_of, noticed
from embedx.data.manifest.table import RESERVED, SPLITS, Manifest, Origin, UnknownWord, assemble
from embedx.errors import ManifestError
from embedx.files import locked, write_array, write_bytes, write_text
from embedx.plugins import nearest

TABLE = "manifest.csv"
FACTS = "manifest.json"
MEMBERS = "members.npy"
VERSION = 1
AGAIN = "move manifest.csv and manifest.json away and prepare the dataset again"


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

    def __init__(self, message: str, facts: Mapping[str, Any]) -> None:
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
    if lies == facts["table"] and _stored(folder) == facts and _digest(folder / MEMBERS) == facts["members"]:
        return
    _write_facts(folder, facts | {"replaces": lies})
    _write_members(folder, manifest)
    if lies != facts["table"]:
        write_bytes(folder / TABLE, data)
    _write_facts(folder, facts)


def load(folder: Path) -> tuple[Manifest, bool]:
    """Read a manifest; the flag says whether it was edited by hand since it was prepared.

    An edit is welcome (a corrected label costs no GPU hour); results carry the digest of what was read.
    """
    try:
        kept = read(folder)
    except Lost as lost:
        if "replaces" not in lost.facts:
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
    if digest == facts.get("replaces") != facts.get("table"):
        raise Lost(_cut_short(folder, facts), facts)
    try:
        manifest, left_out = _manifest(folder, facts, data)
        return Kept(manifest, left_out or manifest.digest != facts["digest"], facts["digest"], digest)
    except KeyError as error:
        raise ManifestError(f"{folder / FACTS} holds no {error}; {AGAIN}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ManifestError(f"{folder}: the manifest cannot be read ({error}); {AGAIN}") from error


def amend(folder: Path, manifest: Manifest, **facts: Any) -> Manifest:
    """The same rows with other facts (`root`, `version`, `origin`, `members`, …); a table edited by hand stays so."""
    amended, stored = replace(manifest, **facts), _stored(folder)
    if "members" in facts:
        _write_members(folder, amended)
    changed = stored | {key: value for key, value in _plain(amended).items() if key in facts}
    if changed != stored:
        _write_facts(folder, changed)
    return amended


def is_table_of(manifest: Manifest, folder: Path) -> bool:
    """Whether manifest.csv in a folder is, byte by byte, the table of a manifest."""
    return _digest(folder / TABLE) == hashlib.sha256(_table(manifest)).hexdigest()


def check_members(folder: Path) -> None:
    """Raises `ManifestError` when the index of the rows in archives is not the one that the manifest was saved with."""
    stored = _stored(folder)
    if "members" in stored and _digest(folder / MEMBERS) != stored["members"]:
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


def _facts(manifest: Manifest, table: bytes) -> dict[str, Any]:
    """All that manifest.json says."""
    return {
        "format": "embedx-manifest", "format_version": VERSION, "name": manifest.name, "rows": len(manifest),
        "classes": list(manifest.classes), "attributes": {a: list(v) for a, v in manifest.values.items()},
        "grouping": list(manifest.grouping), "groups": list(manifest.group_names), **_plain(manifest),
        "digest": manifest.digest, "table": hashlib.sha256(table).hexdigest(),
    }  # fmt: skip


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The facts that say nothing of the rows' words."""
    return {
        "source": manifest.source, "licence": manifest.licence, "version": manifest.version,
        "expected": dict(manifest.expected), "root": manifest.root,
        "members": None if manifest.members is None else _digest_of(manifest.members),
        "origin": None if manifest.origin is None else asdict(manifest.origin),
        **({} if manifest.subjects is None else {"cluster": manifest.subjects.column}),
    }  # fmt: skip


def _write_members(folder: Path, manifest: Manifest) -> None:
    """Where each row lies in its archive; no such file for a manifest of plain files."""
    if manifest.members is None:
        (folder / MEMBERS).unlink(missing_ok=True)
    elif _digest(folder / MEMBERS) != _digest_of(manifest.members):
        write_array(folder / MEMBERS, manifest.members)


def _write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    write_text(folder / FACTS, json.dumps(facts, indent=2) + "\n")


def _stored(folder: Path) -> dict[str, Any]:
    """What manifest.json says; nothing where there is none, or no manifest."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _pair(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Facts and the bytes of the table that belong together, though another process may write both meanwhile."""
    while True:
        try:
            text = (folder / FACTS).read_bytes()
            facts = _checked(folder, text)
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


def _checked(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text.decode("utf-8-sig"))
    except ValueError as error:
        raise ManifestError(f"{folder / FACTS} cannot be read ({error}); mend it, or {AGAIN}") from error
    kind = (facts.get("format"), facts.get("format_version")) if isinstance(facts, dict) else None
    if kind != ("embedx-manifest", VERSION):
        raise ManifestError(f"{folder / FACTS}: not a manifest of version {VERSION}; {AGAIN}")
    return facts


def _manifest(folder: Path, facts: Mapping[str, Any], data: bytes) -> tuple[Manifest, bool]:
    """The manifest of a pair, and whether a column that a person added is no part of it."""
    values, grouping, cluster = facts["attributes"], facts["grouping"], facts.get("cluster", "")
    columns = columns_of(folder / TABLE, data, {"label": facts["classes"], **values})
    left_out = [c for c in columns if c not in (*values, *grouping, cluster) and "" in columns[c]]
    left_out = {c: columns.pop(c) for c in left_out if c not in RESERVED}
    lost = [a for a in grouping if a not in columns]
    if lost and {*RESERVED} <= {*columns}:
        raise ManifestError(
            f"{facts['name']}: groups by {lost[0]!r}, which is no attribute; "
            f"{nearest(lost[0], [c for c in columns if c not in RESERVED])}; give the column this name again, or take "
            'it out of "grouping" in manifest.json'
        )
    try:
        manifest = assemble(
            facts["name"], columns, classes=facts["classes"], values=values, grouping=grouping,
            source=facts["source"], licence=facts["licence"], version=facts["version"], expected=facts["expected"],
            root=facts["root"], cluster=cluster, origin=Origin(**facts["origin"]) if facts.get("origin") else None,
        )  # fmt: skip
    except UnknownWord as error:
        raise ManifestError(f"{error}{advice(error)}") from error
    return replace(manifest, remarks=noticed(manifest, values, left_out)), bool(left_out)


def _not_there(folder: Path, facts: Mapping[str, Any]) -> str:
    if "replaces" in facts:
        return _cut_short(folder, facts)
    return f"{folder / TABLE} does not exist: prepare the dataset with `embedx extract --root`"


def _cut_short(folder: Path, facts: Mapping[str, Any]) -> str:
    return f"{folder}: the dataset's preparation was cut short; {_the_same_command(folder, facts)}"


def _the_same_command(folder: Path, facts: Mapping[str, Any]) -> str:
    advice = "give the same command with --root, or `embedx data get`, again"
    return (
        f"{advice}: embedx extract {Origin(**facts['origin']).command(folder.name)}" if facts.get("origin") else advice
    )


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
