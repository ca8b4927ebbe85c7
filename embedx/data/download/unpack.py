"""Archives into folders, as if sent by an enemy: nothing lands outside, only files and folders, and not too much.

A tar archive is read once, from the front to its very end, past the marks of archives that were joined to one. Paths
are checked and files written here, without the standard library's extraction, whose filters are missing in some
versions of Python and can be led outside by symbolic links in others. Whatever fails, nothing is left behind: the
folder gets its name when all of it is there.
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

from embedx.data.download.compressed import decompressed
from embedx.data.download.item import Progress, amount, silent
from embedx.data.left_out import system
from embedx.data.trees import count
from embedx.errors import DownloadError
from embedx.files import fresh_folder

CHUNK = 1 << 20
LARGEST_READ = 1 << 26  # a header that claims to be longer must not take all memory
BLOCK = 512  # of a tar archive
ZIP_END = 22 + 65_535  # the record at the end of a zip archive, and the longest comment in it
SPANNED = b"PK00"  # what some programs put before the first file
ENTRY = 512  # what an entry counts for beside its content, so that countless empty files are too much as well


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
        inner = [p.name for p in temporary.iterdir() if not system(p.name)]
        whole = temporary / into.name if inner == [into.name] and (temporary / into.name).is_dir() else temporary
        before(count(whole))
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

    _one_zip(raw)
    with zipfile.ZipFile(raw) as archive:
        entries = archive.infolist()
        if (before := min((i.header_offset for i in entries), default=0)) > len(SPANNED):
            raise _Refused(f"{before:,} bytes before the first of its files, as when archives were joined to one")
        total = sum(ENTRY + i.file_size for i in entries)
        if total > limit:
            raise _Refused(f"{amount(total)}, expected at most {amount(limit)}")
        _room(folder, total)
        for info in entries:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"{info.orig_filename!r}, a link or device; expected files and folders only")
            if info.is_dir():
                yield _Entry(info.filename)
            else:
                yield _Entry(info.filename, info.file_size, lambda i=info: archive.open(i))


def _one_zip(raw: IO[bytes]) -> None:
    """Refuse a zip archive in several parts, or with anything behind its end: the library reads on without a word."""
    raw.seek(max(0, raw.seek(0, os.SEEK_END) - ZIP_END))
    tail = raw.read()
    raw.seek(0)
    if (at := tail.rfind(b"PK\x05\x06")) < 0 or len(tail) < at + 22:
        return  # the library says so
    if (behind := len(tail) - at - 22 - int.from_bytes(tail[at + 20 : at + 22], "little")) > 0:
        raise _Refused(f"{behind:,} bytes behind its end, as when something was joined to it")
    if tail[at + 4 : at + 6] not in (b"\0\0", b"\xff\xff"):
        raise _Refused("the last part of an archive in several parts; make one of them (zip -s 0), and put that there")


def _tar(raw: IO[bytes], folder: Path, limit: int) -> Generator[_Entry]:
    import tarfile

    _room(folder, os.fstat(raw.fileno()).st_size)
    with decompressed(raw) as plain:
        tail, joined = _Tail(plain, limit), False
        while not joined or tail.after_zeros():
            try:
                archive = tarfile.open(fileobj=tail, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
            except tarfile.ReadError as error:
                if joined:
                    raise EOFError("what follows the mark of its end is no archive") from error
                raise
            yield from _members(archive)
            # The library takes a header that it cannot read for the end; a real end is a block of zeros.
            if tail.last != bytes(tarfile.BLOCKSIZE):
                raise EOFError("it ends without an end mark")
            joined = True  # perhaps, with `cat`: then another one follows


def _members(archive: Any) -> Generator[_Entry]:
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


def _content(archive: Any, member: Any) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None
    return file


class _Tail:
    """A file to read from that remembers what was read last, and gives no more than twice the limit in all."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._left, self.last, self._ahead = file, 2 * limit + (1 << 24), b"", b""

    def read(self, size: int) -> bytes:
        if size > min(self._left, LARGEST_READ):
            raise _Refused("more than its size allows")
        self.last, self._ahead = self._ahead or self._file.read(size), b""
        self._left -= len(self.last)
        return self.last

    def after_zeros(self) -> bool:
        """Go on to the next block that is not all zeros, which the next read gives; whether there is one."""
        while block := self.read(BLOCK):
            if block.strip(b"\0"):
                self._ahead = block
                return True
        return False

    def seek(self, at: int) -> int:
        self._ahead = b""
        return self._file.seek(at)

    def tell(self) -> int:
        return self._file.tell() - len(self._ahead)


def _room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder.parent} has {amount(free)} free; unpacking takes {amount(needed)}; make room, or name another "
            "folder with -o"
        )
