"""Files and folders that land whole or not at all, and locks for what several processes add to.

Whatever is published is written under a random temporary name that nobody else can have, made safe on the disk, and
renamed. Processes in containers share process numbers and hosts share disks, so no name is made of either.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DAY = 86_400
LONGEST = 180  # characters of a name that its temporary name repeats: most file systems allow 255 bytes


def write_text(path: Path, text: str) -> None:
    """Write a text file; a kill at any moment leaves the old one or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with landing(path) as temporary:
        temporary.write_bytes(data)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file, likewise whole or not at all."""
    import numpy as np

    with landing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()


@contextmanager
def landing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """A fresh temporary file beside `path`, which takes its place when the block ends without an error.

    Exactly one of several processes that publish one path at the same moment comes last; each file is whole. Where the
    caller syncs many files at once, or can make them again, `synced` may be false: a power cut then may cost the file.
    Raises `OSError` in one line, with the name of `path`.
    """
    with clear_faults(path):
        temporary = fresh(path)
        if synced:
            sweep(path)
        try:
            yield temporary
            if synced:
                publish(temporary, path)
            else:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def landing_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path`, which takes its place when the block ends without an error.

    A folder that is there already is put aside for that, and put back when the rename fails.
    """
    with suppress(FileExistsError):  # of a parent that is a file, which the next line says better
        path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = fresh_folder(path), path.with_name(_temporary_name(path))
    try:
        yield aside
        os.sync()  # one for all: a power cut must not leave a finished folder of empty files
        if path.exists():
            path.rename(old)
        try:
            aside.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        sync_folder(path.parent)
    finally:
        for left in (aside, old):
            shutil.rmtree(left, ignore_errors=True)


def fresh(path: Path) -> Path:
    """Create an empty temporary file beside `path`, under a name that no other process can have."""
    if path.exists() and not path.is_file():  # renaming onto a device, or a pipe, would take it away
        kind = "a folder" if path.is_dir() else "no regular file"
        raise OSError(errno.EISDIR if path.is_dir() else errno.EINVAL, f"{kind}; name a file", str(path))
    temporary = path.with_name(_temporary_name(path))
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less what the umask takes
    return temporary


def fresh_folder(path: Path) -> Path:
    """Create an empty temporary folder beside `path`, likewise."""
    sweep(path)
    temporary = path.with_name(_temporary_name(path))
    temporary.mkdir()
    return temporary


def publish(temporary: Path, path: Path, *, lasting: bool = True) -> None:
    """Rename a finished file to its final name, its bytes safe on disk, and so is the rename when it is `lasting`.

    A rename that is not may be undone by a power cut, never half done.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    if lasting:
        sync_folder(path.parent)


def hold(file: int) -> None:
    """Mark an open temporary file as being written, until it is closed or its process ends: see `abandoned`."""
    with suppress(OSError):  # a disk without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def abandoned(folder: Path) -> list[Path]:
    """Temporary files in a folder that no writer holds any more; on a disk without locks, those that are a day old."""
    return [path for path in folder.glob(".*.part") if _abandoned(path)]


def _abandoned(temporary: Path) -> bool:
    try:
        with temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - temporary.stat().st_mtime > DAY
    return True


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Let one process at a time, on one machine or on several that share the disk, work on `path`.

    The lock is a file `.NAME.lock` beside it and goes when the process does. With `wait` false, `BlockingIOError` is
    raised while another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # as it is a file
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error
    lock = FileLock(path.with_name(f".{path.name[:LONGEST]}.lock"), timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process is at work there", str(path)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def clear_faults(path: Path) -> Iterator[None]:
    """Whatever fails while `path` is written becomes an `OSError` with that name and one line that says what to do.

    HDF5 for one tells of a full device in several lines, and not always as an `OSError`; NumPy does not name it at all.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        written = re.search(r"errno = (\d+)", str(error))
        number = getattr(error, "errno", None) or (int(written[1]) if written else 0)
        if "requested and" in str(error):  # NumPy's words for a write that was cut short
            number = errno.ENOSPC
        if not number:
            raise
        text = getattr(error, "strerror", None) or os.strerror(number)
        if number in FULL:
            text = f"the device is full ({os.strerror(number)}); "
            text += "what is finished stays: make room and run the same command again"
        raise OSError(number, text, str(path)) from error


def sweep(path: Path) -> None:
    """Remove what writers of this path left that were killed; a day old, it is nobody's who still writes."""
    for left in path.parent.glob(f".{escape(path.name[:LONGEST])}.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left) if stat.S_ISDIR(left.lstat().st_mode) else left.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder safe on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks sync no folders
            raise
    finally:
        os.close(number)


def _temporary_name(path: Path) -> str:
    return f".{path.name[:LONGEST]}.{secrets.token_hex(8)}.part"
