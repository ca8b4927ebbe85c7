"""Journals: files of JSON, a record a line, that only grow and that several processes add to at once.

A line is on the disk before `append` returns, so that a kill costs at most the line that is being written. Reading
takes what is whole: a line that cannot be read is told with its number and costs no other line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from embedx.documents import Kind, NoJSON, decoded
from embedx.errors import EmbedxError
from embedx.files import clear_faults, locked

T = TypeVar("T")
Notice = Callable[[str], None]


def append(path: Path, kind: Kind[T], record: T) -> None:
    """Add a line, safe on disk when this returns; what is left of a line that was cut short goes.

    Raises `OSError` in one line, also for a full device; then nothing of the line stays.
    """
    data = kind.text(record).encode()
    with clear_faults(path), locked(path), path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        last = _last_line(file.fileno(), size)
        if last.strip() and is_torn(last):
            size -= len(last)
            file.truncate(size)
        elif last:
            data = b"\n" + data
        try:
            _write(file.fileno(), data)
            os.fsync(file.fileno())
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
    """What a journal holds, kept up to date: only what was added since is read.

    number    of the last line that was read
    problems  {number: what is wrong with the line}; these lines are left out
    """

    path: Path
    kind: Kind[T]
    number: int = 0
    problems: dict[int, str] = field(default_factory=dict)
    _at: int = 0
    _file: tuple[int, ...] = ()

    def news(self) -> tuple[bool, list[tuple[int, T]]]:
        """(anew, lines added since): anew where the file is another one by now, and the lines are all that it holds.

        A line without its newline is not there yet: somebody may be writing it.
        """
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                same = (stat.st_dev, stat.st_ino)
                anew = bool(self._file) and (same != self._file or stat.st_size < self._at)
                if anew or not self._file:
                    self._restart()
                self._file = same
                if stat.st_size == self._at:
                    return anew, []
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            gone, self._file = bool(self._file), ()
            self._restart()
            return gone, []
        return anew, list(self._records(data))

    def _restart(self) -> None:
        self.number, self._at = 0, 0
        self.problems.clear()

    def _records(self, data: bytes) -> Iterator[tuple[int, T]]:
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.split(b"\n")[:-1]:
            self.number += 1
            if not line.strip():
                continue
            try:
                record = self.kind.parse(line, f"{self.path}, line {self.number}")
            except EmbedxError as error:
                self.problems[self.number] = str(error)
                continue
            yield self.number, record


def latest(records: Iterator[tuple[int, T]], key: Callable[[T], Any]) -> Mapping[Any, T]:
    """The last record of each key, in the order in which the keys first came."""
    found: dict[Any, T] = {}
    for _, record in records:
        found[key(record)] = record
    return found
