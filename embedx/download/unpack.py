"""Archives into folders, as if sent by an enemy: nothing lands outside, only files and folders, and not too much.

A tar archive is read once, from the front; paths are checked and files written here, without the standard library's
extraction, whose filters are missing in some versions of Python and can be led outside by symbolic links in others.
Whatever fails, nothing is left behind: the folder gets its name when all of it is there.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from embedx.download.item import Progress, amount, silent
from embedx.errors import DownloadError
from embedx.files import fresh_folder

CHUNK = 1 << 20
LARGEST_READ = 1 << 26  # a header that claims to be longer must not take all memory
ENTRY = 512  # what an entry counts for beside its content, so that countless empty files are too much as well
JUNK = ("__MACOSX", ".DS_Store")


class _Refused(Exception):
    """Something that is not let through: the message goes on after `it holds`."""


@dataclass(frozen=True)
class _Entry:
    """A file or a folder of an archive; `opened` gives the content of a file, `same_as` names an earlier one."""

    name: str
    size: int = 0
    opened: Callable[[], IO[bytes]] | None = None
    same_as: str = ""


def unpack(
    archive: Path, into: Path, limit: int | None = None, progress: Progress = silent,
    before: Callable[[int], None] = lambda files: None,
) -> int:  # fmt: skip
    """Make the folder `into` of what an archive holds, and return the number of files; one process at a time.

    An archive with one folder of the same name and nothing else becomes that folder. `limit` bounds the bytes that may
    come out; by default 20 times the archive and 100 MB. `before` is told the number of files when all are there, just
    before the folder gets its name. Raises `DownloadError`; then there is no folder.
    """
    size = archive.stat().st_size
    limit = 20 * size + 100_000_000 if limit is None else limit
    try:
        temporary = fresh_folder(into)
    except OSError as error:
        raise _no_room(archive, into, error) from error
    try:
        with archive.open("rb") as raw:

            def tell() -> None:
                progress(raw.tell() // 1_000_000, size // 1_000_000, f"unpack {archive.name}")

            read = _zip if raw.read(2) == b"PK" else _tar
            raw.seek(0)
            with closing(read(raw, temporary, limit)) as entries:
                files = _write(entries, temporary, limit, tell)
        os.sync()  # one for all: a power cut must not leave a finished folder of empty files
        inner = [p.name for p in temporary.iterdir() if p.name not in JUNK]
        whole = temporary / into.name if inner == [into.name] and (temporary / into.name).is_dir() else temporary
        before(sum(len(found) for _, _, found in os.walk(whole)))
        whole.rename(into)
    except _Refused as error:
        raise DownloadError(f"{archive} is refused: it holds {error}; nothing was unpacked") from error
    except OSError as error:
        if error.errno is None:  # so the decompressors say
            raise DownloadError(_damaged(archive, error)) from error
        raise _no_room(archive, into, error) from error
    except _faults() as error:
        raise DownloadError(_damaged(archive, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return files


def _no_room(archive: Path, into: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"{archive} cannot be unpacked into {into.parent} ({error.strerror}); make room or name another folder "
        "with -o, and give the same command again"
    )


def _faults() -> tuple[type[Exception], ...]:
    """What the libraries raise on damaged archives."""
    import lzma
    import tarfile
    import zipfile
    import zlib

    return (
        EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError,
        ValueError,
    )  # fmt: skip


def _damaged(archive: Path, error: Exception) -> str:
    return f"{archive} is damaged ({error or type(error).__name__}); delete it and give the same command again"


def _write(entries: Generator[_Entry], folder: Path, limit: int, tell: Callable[[], None]) -> int:
    """Write the entries below a folder that was empty, and count the files among them."""
    files = written = 0
    for entry in entries:
        target, twin = folder / _safe(entry.name), folder / _safe(entry.same_as)
        if entry.same_as and not twin.is_file():
            raise _Refused(f"the link {entry.name!r} to {entry.same_as!r}, which is no file before it")
        written += ENTRY + (twin.stat().st_size if entry.same_as else entry.size)
        if written > limit:
            raise _Refused(f"more than {amount(limit)}")
        if entry.opened is None and not entry.same_as:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        files += not target.exists()
        if entry.opened is None:
            if twin != target:
                shutil.copyfile(twin, target)
        else:
            with entry.opened() as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            if target.stat().st_size != entry.size:
                raise EOFError(f"{entry.name!r} ends early")
        tell()
    return files


def _safe(name: str) -> PurePosixPath:
    """A path that stays below the folder it is joined to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name.partition("/")[0]:
        raise _Refused(f"the path {name!r}, expected one inside the archive")
    return path


def _zip(raw: IO[bytes], folder: Path, limit: int) -> Generator[_Entry]:
    import zipfile

    with zipfile.ZipFile(raw) as archive:
        found = archive.infolist()
        total = sum(ENTRY + i.file_size for i in found)
        if total > limit:
            raise _Refused(f"{amount(total)}, expected at most {amount(limit)}")
        _room(folder, total)
        for info in found:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"{info.orig_filename!r}, a link or device; expected files and folders only")
            if info.is_dir():
                yield _Entry(info.filename)
            else:
                yield _Entry(info.filename, info.file_size, lambda i=info: archive.open(i))


def _tar(raw: IO[bytes], folder: Path, limit: int) -> Generator[_Entry]:
    import tarfile

    _room(folder, os.fstat(raw.fileno()).st_size)
    with _decompressed(raw) as plain:
        tail = _Tail(plain, limit)
        with tarfile.open(fileobj=tail, mode="r:") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                archive.members = []  # a million of them take gigabytes
                _safe(member.name)
                if member.isdir():
                    yield _Entry(member.name)
                elif member.islnk():
                    yield _Entry(member.name, same_as=member.linkname)
                elif member.isreg():
                    yield _Entry(member.name, member.size, lambda m=member: _content(archive, m))
                else:
                    kind = "symbolic link" if member.issym() else "device or pipe"
                    raise _Refused(f"the {kind} {member.name!r}; expected files and folders only")
        # The library takes a header that it cannot read for the end; a real end is a block of zeros.
        if tail.last != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it ends without an end mark")
        while tail.read(CHUNK):  # up to the checksum of the compression
            pass


def _content(archive: Any, member: Any) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None
    return file


class _Tail:
    """A file to read from that remembers what was read last, and gives no more than twice the limit in all."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._left, self.last = file, 2 * limit + (1 << 24), b""

    def read(self, size: int) -> bytes:
        if size > min(self._left, LARGEST_READ):
            raise _Refused("more than its size allows")
        self.last = self._file.read(size)
        self._left -= len(self.last)
        return self.last

    def seek(self, at: int) -> int:
        return self._file.seek(at)

    def tell(self) -> int:
        return self._file.tell()


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    import bz2
    import gzip
    import lzma

    head = raw.read(6)
    raw.seek(0)
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if head[:3] == b"BZh":
        return bz2.BZ2File(raw)  # type: ignore[return-value]
    return lzma.LZMAFile(raw) if head == b"\xfd7zXZ\0" else raw  # type: ignore[return-value]


def _room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder.parent} has {amount(free)} free; unpacking takes {amount(needed)}; make room, or name another "
            "folder with -o"
        )
