"""Journals: files of JSON, a record a line, that only grow and that several processes add to at once.

A line is on the disk before `append` returns, so that a kill costs at most the line that is being written. Reading
takes what is whole: a line that cannot be read is told with its number and costs no other line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from embedx.documents import Kind, NoJSON, decoded
from embedx.errors import EmbedxError
from embedx.files import clear_faults, locked, sync_folder

T = TypeVar("T")
Notice = Callable[[str], None]
MOMENT = 1_000_000_000
"""Nanoseconds for which a file may change again under the time that it has: clocks of disks are coarse."""


def append(path: Path, kind: Kind[T], *records: T) -> None:
    """Add lines, safe on disk when this returns; what is left of a line that was cut short goes.

    Raises `OSError` in one line, also for a full device; then nothing of the lines stays.
    """
    data = "".join(map(kind.text, records)).encode()
    with clear_faults(path), locked(path), path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        new = not size
        last = _last_line(file.fileno(), size)
        if last.strip() and is_torn(last):
            size -= len(last)
            file.truncate(size)
        elif last:
            data = b"\n" + data
        try:
            _write(file.fileno(), data)
            os.fsync(file.fileno())
            if new:
                sync_folder(path.parent)
        except OSError:
            file.truncate(size)
            raise


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _last_line(file: int, size: int) -> bytes:
    """What stands after the last newline."""
    last, block = b"", 1 << 16
    while size and b"\n" not in last:
        start = max(0, size - block)
        last, size = os.pread(file, size - start, start) + last, start
    return last.rpartition(b"\n")[2]


def is_torn(line: bytes) -> bool:
    """Whether the line is no whole JSON text: an object without its last brace never is one."""
    try:
        decoded(line)
    except NoJSON:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def read(path: Path, kind: Kind[T], notice: Notice | None = None) -> Iterator[tuple[int, T]]:
    """(number, record) of each line, from 1; lines without anything in them are none.

    notice  is told of each line that cannot be read, which is then left out. Without it such a line raises the error
            of the kind
    Raises `FileNotFoundError`.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == len(lines) and notice is not None and is_torn(line):
            notice(f"note: {path}: the last line, {number}, was cut short and is left out; repeat that answer")
            return
        try:
            record = kind.parse(line, f"{path}, line {number}")
        except EmbedxError as error:
            if notice is None:
                raise
            notice(f"note: a line is left out: {error}")
            continue
        yield number, record


@dataclass
class Follower(Generic[T]):
    """What a journal holds, kept up to date: only what was added since is parsed, and nothing read while it rests.

    number    of the last line that was read
    problems  {number: what is wrong with the line}; these lines are left out
    """

    path: Path
    kind: Kind[T]
    number: int = 0
    problems: dict[int, str] = field(default_factory=dict)
    _read: bytes = b""
    _stamp: tuple[int, ...] = ()

    def news(self) -> tuple[bool, list[tuple[int, T]]]:
        """(anew, lines added since): anew where what was read has changed, and the lines are all that there is now.

        A last line that is not whole is not there yet: somebody may be writing it.
        """
        try:
            stamp = _stamp(self.path.stat())
            if stamp == self._stamp:
                return False, []
            now = time.time_ns()
            with self.path.open("rb") as file:
                stamp, data = _stamp(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:
            stamp, now, data = (), 0, b""
        anew = not self._continued(data)
        if anew:
            self.number, self._read = 0, b""
            self.problems.clear()
        lines = list(self._records(data))
        self._stamp = stamp if stamp and max(stamp[-2:]) < now - MOMENT else ()
        return anew, lines

    def _continued(self, data: bytes) -> bool:
        """Whether what was read still stands at the start, and its last line has not grown."""
        grown = b"" if self._read[-1:] in (b"", b"\n") else data[len(self._read) :].partition(b"\n")[0]
        return data.startswith(self._read) and not grown.strip()

    def _records(self, data: bytes) -> Iterator[tuple[int, T]]:
        done = len(self._read)
        if data[done - 1 : done] not in (b"", b"\n"):  # the newline of a line that was taken without it
            done = data.find(b"\n", done) + 1 or len(data)
        *lines, last = data[done:].split(b"\n")
        whole = len(data) - len(last)
        if not is_torn(last):
            lines, whole = [*lines, last], len(data)
        self._read = data[:whole]
        for line in lines:
            self.number += 1
            if not line.strip():
                continue
            try:
                record = self.kind.parse(line, f"{self.path}, line {self.number}")
            except EmbedxError as error:
                self.problems[self.number] = str(error)
                continue
            yield self.number, record


def _stamp(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def latest(records: Iterator[tuple[int, T]], key: Callable[[T], Any]) -> Mapping[Any, T]:
    """The last record of each key, in the order in which the keys first came."""
    found: dict[Any, T] = {}
    for _, record in records:
        found[key(record)] = record
    return found
