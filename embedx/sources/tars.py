"""Rows that are members of tar archives, read in parts and never unpacked."""

from __future__ import annotations

import bisect
import errno
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embedx.sources.archives import part

BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Tars:
    """Members of tar archives; an id is `ARCHIVE/MEMBER`, and `index` a .npy table (id, offset, size), sorted by id.

    root  folder of the archives, or any address that fsspec knows (`s3://bucket/folder`)
    """

    root: str
    index: Path

    @property
    def place(self) -> str:
        return self.root

    @cached_property
    def _table(self) -> np.ndarray:
        return np.load(self.index, mmap_mode="r", allow_pickle=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "index": self.index}  # never the open table

    def read(self, row_id: str) -> bytes:
        """The member's bytes, in one read together with the header before them.

        The header is looked at again because an archive may have been written anew since it was indexed: then the
        bytes at this place are something else, which must not be taken for the row.
        """
        key, ids = row_id.encode(), self._table["id"]
        row = bisect.bisect_left(ids, key)
        if row == len(ids) or ids[row] != key:
            raise FileNotFoundError(errno.ENOENT, "not in the index of the archives", row_id)
        offset, size = (int(self._table[row][field]) for field in ("offset", "size"))
        archive, member = parts(row_id)
        data = part(self.root, archive, offset - BLOCK, offset + size)
        if len(data) < BLOCK + size:
            raise OSError(errno.EIO, "the archive ends early")
        if not _heads(data[:BLOCK], member, size):
            raise OSError(errno.ESTALE, "the archive has changed since it was indexed")
        return data[BLOCK:]


def parts(row_id: str) -> tuple[str, str]:
    """`train/000.tar/0001.jpg` -> (`train/000.tar`, `0001.jpg`)."""
    cut = row_id.index(".tar/") + len(".tar")
    return row_id[:cut], row_id[cut + 1 :]


def _heads(block: bytes, member: str, size: int) -> bool:
    """Is this the header of that member? Of a name too long for a header, or not in ASCII, the size has to do."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    plain = member.isascii() and len(member) < 98  # with "./" before it, 100: what a header has room for
    return info.size == size and (not plain or info.name.removeprefix("./") == member)
