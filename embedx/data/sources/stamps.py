"""Stamps: what a source says of a row's bytes without reading them, so that changed rows are found cheaply.

A stamp is two numbers: the size in bytes, and a mark, which is the modification time in ns of a file, or 63 bits of a
digest of what the source has in its place (place in the archive, the archive's size and time, an etag). A mark of 0
says nothing: the bytes have to be looked at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xxhash

MANY, THREADS = 4096, 16
LATE = 50e-6
"""Seconds an answer; the disk of a machine takes a tenth of that."""
SECOND = 10**9
UNSETTLED = SECOND // 10
"""A file may change again within one tick of its file system's clock, unnoticed, for so long after a change (ns)."""
COARSE = 5 * SECOND // 2
"""The same where times are whole seconds, as on FAT, where they are even ones."""


def nothing_known(n: int) -> np.ndarray:
    """(n, 2) stamps that say nothing."""
    return np.zeros((n, 2), dtype=np.int64)


def of_file(path: str, now: int) -> tuple[int, int]:
    """The stamp of a file, at the time `now` in ns. Raises `OSError` when it is not there."""
    status = os.stat(path)  # noqa: PTH116  a path object each would take longer than the call
    return status.st_size, mark(status.st_mtime_ns, now)


def mark(modified: int, now: int) -> int:
    """The modification time, or 0 where it is too recent to tell a further change."""
    if abs(now - modified) < (COARSE if modified % SECOND == 0 else UNSETTLED):
        return 0
    return modified or 1


def digest(*facts: object) -> int:
    """A mark made of facts in place of a modification time: 63 bits, never 0."""
    return (xxhash.xxh3_64_intdigest(repr(facts).encode()) >> 1) or 1


def each(stamp: Callable[[str, int], tuple[int, int]], ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """(n, 2) stamps by a function of an id and the time; nothing known where it raises `OSError`.

    In threads where the first answers come late, as from a network disk, which answers many questions at once; from a
    disk of this machine they come sooner without.
    """
    now, out = time.time_ns(), nothing_known(len(ids))

    def fill(start: int) -> None:
        marks = []
        for row_id in ids[start : start + MANY]:
            try:
                marks.append(stamp(row_id, now))
            except OSError:
                marks.append((0, 0))
        out[start : start + len(marks)] = marks

    first, *more = range(0, max(len(ids), 1), MANY)
    began = time.perf_counter()
    if len(ids):
        fill(first)
    if more and time.perf_counter() - began > MANY * LATE:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, more))
    else:
        for start in more:
            fill(start)
    return out
