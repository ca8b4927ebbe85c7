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
    found = os.stat(path)  # noqa: PTH116  a path object each would take longer than the call
    return found.st_size, mark(found.st_mtime_ns, now)


def mark(modified: int, now: int) -> int:
    """The modification time, or 0 where it is too recent to tell a further change."""
    clock = COARSE if modified % SECOND == 0 else UNSETTLED
    return 0 if abs(now - modified) < clock else modified or 1


def digest(*facts: object) -> int:
    """A mark made of facts in place of a modification time: 63 bits, never 0."""
    return (xxhash.xxh3_64_intdigest(repr(facts).encode()) >> 1) or 1


def each(stamp: Callable[[str, int], tuple[int, int]], ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """(n, 2) stamps by a function of an id and the time; nothing known where it raises `OSError`.

    Many in threads, since a network disk answers each question late, but many at once.
    """
    now = time.time_ns()
    out = nothing_known(len(ids))

    def fill(start: int) -> None:
        for row in range(start, min(start + MANY, len(ids))):
            try:
                out[row] = stamp(ids[row], now)
            except OSError:
                continue

    starts = range(0, len(ids), MANY)
    if len(starts) < 2:
        for start in starts:
            fill(start)
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, starts))
    return out
