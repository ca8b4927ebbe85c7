"""Rows that are members of tar archives, read in parts and never unpacked."""

from __future__ import annotations

import bisect
import errno
import os
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from embedx.data.sources import stamps
from embedx.data.sources.archives import filesystem, remote

BLOCK = tarfile.BLOCKSIZE
AHEAD = 1 << 20  # bytes fetched at once where rows are read one after the other
TRIES = 3
TELLING = (
    "size", "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "generation", "LastModified", "last_modified",
    "Last-Modified", "updated", "mtime", "modified",
)  # fmt: skip
"""What the file systems of fsspec tell of a file that changes with its content."""

Window = tuple[tuple[int, str, str], int, bytes]
_window: Window = ((0, "", ""), 0, b"")  # the last part fetched: archive, offset, bytes


@dataclass(frozen=True)
class Tars:
    """Members of tar archives; an id is `ARCHIVE/MEMBER`, and `index` a .npy table (id, offset, size), sorted by id.

    root  folder of the archives, or any address that fsspec knows (`s3://bucket/folder`)
    """

    root: str
    index: Path

    @property
    def place(self) -> str:
        """The folder or address of the archives."""
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
        offset, size = self._place(row_id)
        archive, member = parts(row_id)
        data = part(self.root, archive, offset - BLOCK, offset + size)
        if len(data) < BLOCK + size:
            raise OSError(errno.EBADMSG, "the archive ends early")
        if not _heads(data[:BLOCK], member, size):
            raise OSError(errno.EBADMSG, "the archive has changed since it was indexed")
        return data[BLOCK:]

    def stamps(self, ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """(n, 2) size of every member, and a digest of its place and of what is known of its archive."""
        facts_of: dict[str, object] = {}

        def stamp(row_id: str, now: int) -> tuple[int, int]:
            offset, size = self._place(row_id)
            archive, _ = parts(row_id)
            if archive not in facts_of:
                facts_of[archive] = _facts(self.root, archive, now)
            about = facts_of[archive]
            return size, 0 if about is None else stamps.digest(offset, about)

        return stamps.each(stamp, ids)

    def _place(self, row_id: str) -> tuple[int, int]:
        """Offset and size of a member, as the index has them."""
        key, ids = row_id.encode(), self._table["id"]
        row = bisect.bisect_left(ids, key)
        if row == len(ids) or ids[row] != key:
            raise FileNotFoundError(errno.ENOENT, "not in the index of the archives", row_id)
        offset, size = (int(self._table[row][field]) for field in ("offset", "size"))
        return offset, size


def _facts(base: str, name: str, now: int) -> object:
    """What tells another archive from this one without reading it; None where nothing does (yet)."""
    if remote(base):
        system, path = filesystem(os.getpid(), base)
        try:
            status = system.info(f"{path.rstrip('/')}/{name}")
        except Exception as error:  # a library per kind of server, each with errors of its own
            raise OSError(errno.EIO, type(error).__name__) from error
        return sorted((key, str(status[key])) for key in TELLING if status.get(key) is not None)
    status = os.stat(Path(base) / name)  # noqa: PTH116
    settled = stamps.mark(status.st_mtime_ns, now)
    return (status.st_size, settled) if settled else None


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


def part(base: str, name: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of an archive, fewer where it ends. Raises `OSError` for whatever goes wrong."""
    if remote(base):
        return _fetched(base, name, start, stop)
    try:
        file = _opened(os.getpid(), base, name)
        if not os.fstat(file.number).st_nlink:  # replaced since
            _opened.cache_clear()
            file = _opened(os.getpid(), base, name)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such archive", name) from error
    stop = min(stop, os.fstat(file.number).st_size)
    return os.pread(file.number, max(0, stop - start), start)


class _Open:
    """An open archive, read without a position; closed when it is no longer held."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=8)
def _opened(process: int, base: str, name: str) -> _Open:
    """An open archive; rows come in order, so that few are open at a time. Each process opens its own."""
    return _Open(Path(base) / name)


def _fetched(base: str, name: str, start: int, stop: int) -> bytes:
    """A part of an archive far away. Rows in the order of the archive are fetched many at a time, others singly."""
    global _window  # noqa: PLW0603  a cache of one part; a row that is not in it is fetched
    archive = (os.getpid(), base, name)
    held, at, data = _window
    if held == archive and at <= start and stop <= at + len(data):
        return data[start - at : stop - at]
    follows = held == archive and at <= start <= at + len(data) + AHEAD // 16
    end = max(stop, start + AHEAD) if follows else stop
    system, path = filesystem(os.getpid(), base)
    for left in reversed(range(TRIES)):
        try:
            data = system.cat_file(f"{path.rstrip('/')}/{name}", start=start, end=end)
            break
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such archive", name) from error
        except Exception as error:  # a library per kind of server, each with errors of its own
            if not left or isinstance(error, PermissionError):
                cause = getattr(error, "strerror", None) or f"{type(error).__name__} {error}".partition("\n")[0].strip()
                raise OSError(errno.EIO, cause[:200]) from error
            time.sleep(0.2)
    if len(data) > end - start:
        raise OSError(errno.EIO, "the server sends whole files only, no parts of them")
    _window = (archive, start, data)
    return data[: stop - start]
