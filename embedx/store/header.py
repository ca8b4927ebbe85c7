"""The header of a feature cache: what every reader checks before it believes a number."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xxhash

from embedx.errors import CacheError, ProvenanceError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "embedx-features"
VERSION = 3
STAMPED = 3
READABLE = (1, 2, STAMPED)
"""Version 1 has no seal before HDF5's own bytes, versions 1 and 2 have no stamps; else they are alike."""
FRONT = 512  # bytes before HDF5's own, which every reader of HDF5 passes over: the least that it allows
SEALED = re.compile(rb"%b (\d+)\nbytes (\d+)\narrays((?: \d+\+\d+)*)\nxxh3_64 [0-9a-f]{16}\n\0*" % FORMAT.encode())
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
    version     of the format that the file is in; new ones are written in the newest
    """

    backbone: str
    dim: int
    dtype: str
    ids_digest: str
    start: int
    stop: int
    total: int
    provenance: Mapping[str, Any]
    version: int = VERSION

    @property
    def rows(self) -> int:
        """Rows in this file."""
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
        """What decides the numbers: weights, transform, feature, ..."""
        return dict(self.provenance["identity"])

    def attributes(self) -> dict[str, Any]:
        """The header as HDF5 root attributes."""
        return {
            "format": FORMAT, "version": VERSION, "complete": self.complete, "backbone": self.backbone,
            "dim": self.dim, "dtype": self.dtype, "ids_digest": self.ids_digest, "start": self.start,
            "stop": self.stop, "total": self.total, "block_rows": self.block_rows, "checksum": CHECKSUM,
            "provenance": json.dumps(self.provenance, sort_keys=True),
        }  # fmt: skip


def seal(path: Path, arrays: Sequence[tuple[int, int]]) -> None:
    """Fill the front of a file that HDF5 has closed: from then on it counts as finished.

    arrays  (offset, bytes) of the raw numbers of every dataset; these have checksums of their own
    """
    with path.open("rb+") as file:
        front = _front(file.fileno(), sorted(arrays), VERSION)
        if len(front) > FRONT:
            raise ValueError(f"{path}: {len(arrays)} arrays, more than the front of the file can name")
        file.write(front)


def vouch(path: Path) -> bytes:
    """Check every byte that HDF5 itself would interpret, before it does: on damaged ones it may crash or never end.

    Returns the seal, which tells this file from any other. Raises `CacheError` for a foreign, newer, unfinished or
    damaged file.
    """
    with path.open("rb") as file:
        front = file.read(FRONT)
        if front.startswith(b"\x89HDF\r\n\x1a\n"):
            return front  # a file of version 1 or a foreign one, which `read_header` tells apart
        if front == bytes(FRONT):
            raise CacheError(f"{path}: never finished (no seal); delete it and extract again")
        match = SEALED.fullmatch(front)
        if match is None or len(front) < FRONT:
            raise CacheError(
                f"{path}: no readable HDF5 file (its first bytes are not those of a feature cache); if it was one, "
                "delete it and extract again"
            )
        version, size = int(match[1]), int(match[2])
        if version not in READABLE:
            raise CacheError(
                f"{path}: format version {version}, this embedx reads up to {VERSION}; update embedx or extract again"
            )
        if (length := os.fstat(file.fileno()).st_size) != size:
            raise CacheError(
                f"{path}: no readable HDF5 file ({length:,} bytes, of {size:,} that were written); "
                "delete it and extract again"
            )
        arrays = [(int(a), int(b)) for a, _, b in (pair.partition(b"+") for pair in match[3].split())]
        if front != _front(file.fileno(), arrays, version).ljust(FRONT, b"\0"):
            raise CacheError(
                f"{path}: the header is damaged (its seal does not fit); delete the file and extract again"
            )
        return front


def _front(file: int, arrays: Sequence[tuple[int, int]], version: int) -> bytes:
    """The first bytes as they ought to be, with the checksum over themselves and all bytes outside the arrays."""
    size = os.fstat(file).st_size
    text = f"{FORMAT} {version}\nbytes {size}\narrays{''.join(f' {a}+{n}' for a, n in arrays)}\n".encode()
    digest, at = xxhash.xxh3_64(text), FRONT
    for start, length in [*arrays, (size, 0)]:
        while at < start and (part := os.pread(file, min(start - at, BLOCK_BYTES), at)):
            digest.update(part)
            at += len(part)
        at = max(at, start + length)
    return text + f"xxh3_64 {digest.hexdigest()}\n".encode()


def read_header(file: h5py.File, path: Path) -> Header:
    """The header of an open file. Raises `CacheError` where it is not of a kind that we can read."""
    attrs = {key: plain(file.attrs[key]) for key in file.attrs}
    if attrs.get("format") != FORMAT or attrs.get("version") not in READABLE:
        raise CacheError(
            f"{path}: HDF5, but no embedx feature cache of today (format {attrs.get('format')!r}, version "
            f"{attrs.get('version')!r}; expected {FORMAT!r}, {' or '.join(map(str, READABLE))}); if an earlier embedx "
            "made it, delete it and extract again"
        )
    if file.userblock_size == 0 and attrs.get("seal") != _seal_of_version_1(file):
        raise CacheError(
            f"{path}: never finished or damaged (its seal does not fit); if an earlier embedx made it, delete it and "
            "extract again"
        )
    keys = ("backbone", "dim", "dtype", "ids_digest", "start", "stop", "total")
    header = Header(**{k: attrs[k] for k in keys}, provenance=json.loads(attrs["provenance"]), version=attrs["version"])
    if attrs["checksum"] != CHECKSUM or attrs["block_rows"] != header.block_rows:
        raise CacheError(f"{path}: checksums of a kind this embedx does not know; update embedx or extract again")
    return header


def _seal_of_version_1(file: h5py.File) -> str:
    """What version 1 kept as an attribute: a checksum of all others, and of every array's name, shape and checksum."""
    digest = xxhash.xxh3_64()
    for key in sorted(k for k in file.attrs if k != "seal"):
        digest.update(f"{key}={plain(file.attrs[key])!r};".encode())
    nodes: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, node: nodes.update({name: node}) if isinstance(node, h5py.Dataset) else None)
    for name, node in sorted(nodes.items()):
        digest.update(f"{name}:{node.shape}:{node.dtype.str}:{plain(node.attrs.get(CHECKSUM, ''))};".encode())
    return digest.hexdigest()


def require(header: Header, expected: Header, path: Path, *, conditions: bool) -> None:
    """Refuse a file that was not made from exactly what is asked for.

    conditions  also compare device, batch size and versions: shards of one file must agree in these
    Raises `ProvenanceError` that lists found against expected.
    """
    pairs = {"rows (ids digest)": (header.ids_digest, expected.ids_digest), "dtype": (header.dtype, expected.dtype)}
    parts = ("identity", "conditions") if conditions else ("identity",)
    for part in parts:
        a, b = header.provenance[part], expected.provenance[part]
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
