"""The members of a tar archive, from its headers alone; their bytes are passed over."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedx.data.left_out import LeftOut
from embedx.errors import ManifestError

LARGEST = 1 << 20  # bytes of a label, or of the part of a header that holds a long name
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
DAMAGED = (tarfile.TarError, ValueError, OverflowError, RecursionError)  # what Python's parser raises on such headers


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive. One cut off by the archive's end has a size that reaches beyond it."""

    name: str
    offset: int
    size: int
    whole: bool


class Members:
    """All regular files of an open archive, in order, to its very end: what follows a mark of the end is read too.

    So are archives read that were joined to one with `cat`, each with a mark at its end, as `tar --ignore-zeros` does.
    Once read through, `trouble` says what is wrong with the archive, `joined` whether it was such a one, and `left_out`
    counts what are no regular files.
    """

    trouble = ""
    joined = False

    def __init__(self, file: Any, name: str) -> None:
        self.file, self.name, self.left_out = file, name, LeftOut()
        try:
            self.end = file.seek(0, 2)
        except (ValueError, TypeError) as error:
            raise ManifestError(
                f"{name}: the server sends whole files only, no parts of them; copy it first"
            ) from error

    def __iter__(self) -> Iterator[Member]:
        tar, at, marked = self._begin(), 0, False
        while tar is not None:
            if at > self.end:
                self.trouble = "ends early"
                return
            self.file.seek(at)
            try:
                info = tarfile.TarInfo.fromtarfile(tar)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  the blocks of zeros that close an archive
                at, marked, tar.pax_headers = self._after_zeros(at), True, {}
                if at >= self.end:
                    return
                continue
            except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
                self.trouble = "lacks the mark at its end, and perhaps members"
                return
            except DAMAGED as error:
                early = isinstance(error, tarfile.TruncatedHeaderError) or at + 512 > self.end  # type: ignore[attr-defined]
                self.trouble = "ends early" if early else f"is damaged at byte {at:,} ({error})"
                if marked:
                    self.trouble = f"has {self.end - at:,} bytes after the mark of its end that are no members"
                return
            if tar.offset <= at or info.size < 0:
                self.trouble = f"is damaged at byte {at:,} (a size below nought)"
                return
            at, self.joined, marked = tar.offset, self.joined or marked, False
            if info.isreg() and not info.issparse():
                room = self.end - info.offset_data
                yield Member(
                    info.name.removeprefix("./"), info.offset_data, min(info.size, room + 1), info.size <= room
                )
            elif info.islnk() or info.issym():
                self.left_out.add("links; pack the images themselves", info.name)
            elif not info.isdir():
                self.left_out.add("members that are no plain files", info.name)

    def small(self, member: Member) -> bytes | None:
        """The bytes of a label, None when there are too many to be one."""
        if not member.whole or member.size > LARGEST:
            return None
        self.file.seek(member.offset)
        return self.file.read(member.size)

    def _after_zeros(self, at: int) -> int:
        """Where the next block begins that is not all zeros; beyond the end when there is none."""
        self.file.seek(at)
        end = at
        while data := self.file.read(LARGEST):
            if rest := data.lstrip(b"\0"):
                end += len(data) - len(rest)
                return end - (end - at) % tarfile.BLOCKSIZE
            end += len(data)
        return end

    def _begin(self) -> tarfile.TarFile | None:
        self.file.seek(0)
        first = self.file.read(tarfile.BLOCKSIZE)
        if packed := next((kind for magic, kind in COMPRESSIONS.items() if first.startswith(magic)), None):
            raise ManifestError(f"{self.name} is compressed ({packed}); unpack it to a plain .tar first")
        if len(first) < tarfile.BLOCKSIZE:
            self.trouble = "ends early" if first else "is empty"
            return None
        try:
            tarfile.TarInfo.frombuf(first, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            pass
        except DAMAGED as error:
            raise ManifestError(f"{self.name} is no tar archive ({error}); fetch it again, or leave it out") from error
        tar = tarfile.TarFile(fileobj=io.BytesIO(), mode="w", encoding="utf-8")  # one that has not begun to read
        tar.fileobj = _Bounded(self.file)  # type: ignore[assignment]
        return tar


class _Bounded:
    """A file for Python's parser of headers, which would read as much as a damaged header claims."""

    def __init__(self, file: Any) -> None:
        self.tell, self.seek, self._read = file.tell, file.seek, file.read

    def read(self, size: int) -> bytes:
        if size > LARGEST:
            raise tarfile.ReadError(f"a name of {size:,} bytes")
        return self._read(size)


def table(ids: list[str], members: list[Member]) -> np.ndarray:
    """Where each row lies, sorted by id."""
    keys = [i.encode() for i in ids]
    table = np.empty(len(ids), dtype=[("id", f"S{max(map(len, keys))}"), ("offset", "<i8"), ("size", "<i8")])
    table["id"] = keys
    table["offset"] = [m.offset for m in members]
    table["size"] = [m.size for m in members]
    return table[np.argsort(table["id"], kind="stable")]
