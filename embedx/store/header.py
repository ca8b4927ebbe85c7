"""The header of a feature cache: what every reader checks before it believes a number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xxhash

from embedx.errors import CacheError, ProvenanceError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "embedx-features"
VERSION = 1
BLOCK_BYTES = 1 << 22
DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
CHECKSUM = "xxh3_64"


@dataclass(frozen=True)
class Header:
    """Root attributes of a cache or shard.

    backbone    name of the backbone
    dim         features per row
    dtype       "float16" or "float32"
    ids_digest  SHA-256 of all ids of the whole dataset, also in a shard
    start, stop rows of the dataset that this file holds
    total       rows of the dataset
    provenance  {"identity": ..., "conditions": ...}: what decides the numbers, and under what they were computed
    """

    backbone: str
    dim: int
    dtype: str
    ids_digest: str
    start: int
    stop: int
    total: int
    provenance: Mapping[str, Any]

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def complete(self) -> bool:
        """True for a finished cache, false for a shard of a larger one."""
        return self.start == 0 and self.stop == self.total

    @property
    def block_rows(self) -> int:
        """Rows per checksum: as many as fit in 4 MiB."""
        return max(1, BLOCK_BYTES // (self.dim * DTYPES[self.dtype].itemsize))

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self.provenance["identity"])

    def attributes(self) -> dict[str, Any]:
        """The header as HDF5 root attributes."""
        return {
            "format": FORMAT, "version": VERSION, "complete": self.complete, "backbone": self.backbone,
            "dim": self.dim, "dtype": self.dtype, "ids_digest": self.ids_digest, "start": self.start,
            "stop": self.stop, "total": self.total, "block_rows": self.block_rows, "checksum": CHECKSUM,
            "provenance": json.dumps(self.provenance, sort_keys=True),
        }  # fmt: skip


def seal(file: h5py.File) -> str:
    """Checksum over all root attributes and over name, shape, type and checksum of every dataset.

    Written last, as the attribute `seal`; a file whose header was damaged, or whose writing did not end, has none
    that fits.
    """
    digest = xxhash.xxh3_64()
    for key in sorted(k for k in file.attrs if k != "seal"):
        digest.update(f"{key}={plain(file.attrs[key])!r};".encode())
    names: list[str] = []
    file.visit(names.append)  # breadth of the whole file, head/weight included
    for name in sorted(names):
        node = file[name]
        if isinstance(node, h5py.Dataset):
            digest.update(f"{name}:{node.shape}:{node.dtype.str}:{plain(node.attrs.get(CHECKSUM, ''))};".encode())
    return digest.hexdigest()


def read_header(file: h5py.File, path: Path) -> Header:
    """Check that an open file is a feature cache that we can read, and return its header.

    Raises `CacheError` for a foreign, newer, unfinished or damaged file.
    """
    attrs = {key: plain(file.attrs[key]) for key in file.attrs}
    if attrs.get("format") != FORMAT:
        raise CacheError(
            f"{path}: HDF5, but no embedx feature cache (format is {attrs.get('format')!r}, expected {FORMAT!r})"
        )
    if attrs.get("version") != VERSION:
        raise CacheError(
            f"{path}: format version {attrs.get('version')!r}, this embedx reads {VERSION}; "
            "update embedx or extract again"
        )
    if "seal" not in attrs:
        raise CacheError(f"{path}: never finished (no seal); delete it and extract again")
    if attrs["seal"] != seal(file):
        raise CacheError(f"{path}: the header is damaged (its seal does not fit); delete the file and extract again")
    keys = ("backbone", "dim", "dtype", "ids_digest", "start", "stop", "total")
    header = Header(**{k: attrs[k] for k in keys}, provenance=json.loads(attrs["provenance"]))
    if attrs["checksum"] != CHECKSUM or attrs["block_rows"] != header.block_rows:
        raise CacheError(f"{path}: checksums of a kind this embedx does not know; update embedx or extract again")
    return header


def require(found: Header, expected: Header, path: Path, *, conditions: bool) -> None:
    """Refuse a file that was not made from exactly what is asked for.

    conditions  also compare device, batch size and versions: shards of one file must agree in these
    Raises `ProvenanceError` that lists found against expected.
    """
    pairs = {"rows (ids digest)": (found.ids_digest, expected.ids_digest), "dtype": (found.dtype, expected.dtype)}
    parts = ("identity", "conditions") if conditions else ("identity",)
    for part in parts:
        a, b = found.provenance[part], expected.provenance[part]
        pairs |= {k: (a.get(k), b.get(k)) for k in sorted({*a, *b})}
    wrong = [f"{key} is {_short(f)}, expected {_short(e)}" for key, (f, e) in pairs.items() if f != e]
    if wrong:
        raise ProvenanceError(
            f"{path} was made differently: {'; '.join(wrong)}. Delete it to extract again, "
            f"or give this backbone a name of its own (-b NAME={expected.provenance.get('spec', expected.backbone)})"
        )


def plain(value: Any) -> Any:
    """An HDF5 attribute as a plain Python value."""
    return value.item() if isinstance(value, np.generic) else value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 90 else text[:40] + "…" + text[-20:]
