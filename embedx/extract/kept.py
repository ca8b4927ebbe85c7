"""What earlier runs left and need not be computed again, row by row: in a finished cache, and in shards.

A row is kept when its file is the one that it was made from. That is told by its stamp (size and modification time, or
what the source has in their place); where the stamp differs, or says nothing, by the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from embedx.data.manifest import ids_digest
from embedx.data.sources import Source, patiently
from embedx.data.sources.stamps import THREADS, nothing_known
from embedx.data.status import Status
from embedx.store import FeatureCache, Header, Rows
from embedx.store.writer import zeros

SAMPLE = 64
TOGETHER = 512  # rows that are read before progress is told
ABSENT, UNREADABLE = b"absent", b"unreadable"
"""What stands for the digest of a file that is not there, or cannot be read now."""

Looking = Callable[[int, int], None]


class Files:
    """The files of a manifest's rows as they are now.

    mine     (n,) the rows that matter
    stamps   (n, 2), zeros where the source knows nothing, and of rows that do not matter
    unsure   (n,) rows that could not be read when their stamp did not suffice: their stamps are not to be believed
    looking  called with rows looked at and rows to look at, while bytes have to be read
    """

    def __init__(
        self, ids: np.ndarray, source: Source, mine: np.ndarray, looking: Looking = lambda done, total: None
    ) -> None:
        self.ids, self.source, self.mine, self.looking = ids, source, mine, looking
        self.unsure = np.zeros(len(ids), dtype=bool)
        self._digests: dict[int, bytes] = {}

    @cached_property
    def stamps(self) -> np.ndarray:
        """(n, 2) int64 stamps as they are now, read once."""
        stamps = nothing_known(len(self.ids))
        stamps[self.mine] = self.source.stamps(self.ids[self.mine])
        return stamps

    @cached_property
    def ids_digest(self) -> str:
        """SHA-256 of the ids in order."""
        return ids_digest(self.ids)

    @cached_property
    def gone(self) -> bool:
        """Whether none of the files is there: caches outlive their images. False where no row matters."""
        rows = np.flatnonzero(self.mine)
        if self.stamps.any() or not len(rows):
            return False
        sample = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))]
        return all(digest in (ABSENT, UNREADABLE) for digest in self.digests(sample))

    def digests(self, rows: np.ndarray) -> list[bytes]:
        """SHA-256 of the bytes of some rows, or `ABSENT` or `UNREADABLE`; each is read once."""
        todo = [row for row in map(int, rows) if row not in self._digests]
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(todo), TOGETHER):
                self.looking(start, len(todo))
                some = todo[start : start + TOGETHER]
                self._digests.update(zip(some, pool.map(self._digest, some), strict=True))
        return [self._digests[row] for row in map(int, rows)]

    def _digest(self, row: int) -> bytes:
        try:
            return hashlib.sha256(patiently(self.source, self.ids[row])).digest()
        except FileNotFoundError:
            return ABSENT
        except OSError:
            return UNREADABLE

    def unchanged(self, rows: np.ndarray, made: FeatureCache, at: np.ndarray, *, trusted: bool = True) -> np.ndarray:
        """(k,) which of some rows of the manifest are still what the rows `at` of `made` were made from.

        trusted  whether equal stamps say so; if not, all bytes are looked at
        """
        before, now = made.stamps[at], self.stamps[rows]
        same = (before[:, 1] != 0) & (before == now).all(axis=1) & trusted
        if same.all() or self.gone:
            return np.ones(len(rows), dtype=bool)
        doubtful = np.flatnonzero(~same)
        for i, digest in zip(doubtful, self.digests(rows[doubtful]), strict=True):
            if digest == UNREADABLE:  # says nothing of what the row was made from
                same[i] = self.unsure[rows[i]] = True
            elif digest == ABSENT:
                same[i] = made.status[at[i]] == Status.MISSING
            else:
                same[i] = digest == made.content_hash[at[i]].tobytes()
        return same


def outdated(ids: np.ndarray, stamps: np.ndarray, cache: FeatureCache) -> np.ndarray:
    """Rows of a manifest whose stamps (n, 2) differ from those that a cache was made with; none is read.

    Rows of which either says nothing are left out: caches outlive their images.
    """
    rows, at = joined(ids, ids_digest(ids), cache)
    before, now = cache.stamps[at], stamps[rows]
    return rows[(before[:, 1] != 0) & (now[:, 1] != 0) & (before != now).any(axis=1)]


@dataclass(frozen=True, eq=False)
class Kept:
    """Where the features of every row lie already.

    files  caches and shards of earlier runs
    file   (n,) index into `files`, -1 for a row that has to be computed
    row    (n,) its row there
    """

    files: tuple[FeatureCache, ...]
    file: np.ndarray
    row: np.ndarray

    @property
    def todo(self) -> np.ndarray:
        """(n,) which rows have to be computed."""
        return self.file < 0

    def used(self) -> list[FeatureCache]:
        """The files that some row is kept of."""
        return [self.files[f] for f in np.unique(self.file[self.file >= 0]).tolist()]

    def seal_of(self, path: Path) -> bytes | None:
        """The seal of the file at a path, as it was when it was looked at; None where there was none."""
        return next((f.seal for f in self.files if f.path == path), None)

    @property
    def origin(self) -> np.ndarray:
        """(n,) number of each row in the dataset that it was extracted in; of those to be computed nothing."""
        starts = np.array([*(f.header.start for f in self.files), 0])
        return starts[self.file] + self.row

    def stamps(self) -> np.ndarray:
        """(n, 2) stamps as they are stored, zeros of rows to be computed."""
        stamps = nothing_known(len(self.file))
        for f, made in enumerate(self.files):
            rows = np.flatnonzero(self.file == f)
            stamps[rows] = replace(made).stamps[self.row[rows]]
        return stamps

    def without(self, rows: np.ndarray) -> Kept:
        """The same, but some rows (n,) have to be computed."""
        return Kept(self.files, np.where(rows, np.int32(-1), self.file), self.row)

    def rows(self, start: int, stop: int, ids: np.ndarray, header: Header) -> Rows:
        """Rows `start` to `stop`, zeros where they have to be computed; what is read is verified."""
        out = zeros(ids, header)
        assert out.stamps is not None
        file, row = self.file[start:stop], self.row[start:stop]
        for f in np.unique(file[file >= 0]).tolist():
            places, made = np.flatnonzero(file == f), self.files[f]
            if not made.header.complete:
                made = replace(made)  # one that forgets what it has read: there may be thousands of shards
            at = row[places]
            out.features[places] = made.take(at)
            out.status[places], out.content_hash[places] = made.status[at], made.content_hash[at]
            out.stamps[places] = made.stamps[at]
            out.reasons.update(
                {int(i): made.reasons[int(r)] for i, r in zip(places, at, strict=True) if made.status[r]}
            )
        return out


def find(files: Files, made: Sequence[FeatureCache], doubted: Sequence[FeatureCache] = ()) -> Kept:
    """The rows that can be kept, by their ids, and failing that by their bytes: a file that was renamed is the same.

    made     earlier files, the best first
    doubted  those of the files whose stamps do not count
    """
    n = len(files.ids)
    kept = Kept(tuple(replace(cache) for cache in made), np.full(n, -1, dtype=np.int32), np.zeros(n, dtype=np.int64))
    freed = False
    for f, one in enumerate(made):
        cache = replace(one)
        rows, at = joined(files.ids, files.ids_digest, cache)
        open_ = kept.todo[rows] & files.mine[rows]
        rows, at = rows[open_], at[open_]
        same = files.unchanged(rows, cache, at, trusted=one not in doubted)
        kept.file[rows[same]], kept.row[rows[same]] = f, at[same]
        freed |= int(same.sum()) < cache.header.rows
    todo = np.flatnonzero(kept.todo & files.mine)
    if freed and len(todo) and not files.gone:
        _find_by_bytes(kept, files, todo)
    return kept


def joined(ids: np.ndarray, digest: str, cache: FeatureCache) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a manifest, of such ids and digest, that a cache or shard has too, and which of its rows these are."""
    header = cache.header
    if header.ids_digest == digest:
        return np.arange(header.start, header.stop), np.arange(header.rows)
    at = np.minimum(np.searchsorted(cache.ids, ids), max(header.rows - 1, 0))
    rows = np.flatnonzero(cache.ids[at] == ids) if header.rows else np.arange(0)
    return rows, at[rows]


def _find_by_bytes(kept: Kept, files: Files, todo: np.ndarray) -> None:
    digests = files.digests(todo)
    wanted = {*digests}
    for f, cache in enumerate(kept.files):
        sound = np.flatnonzero(cache.status == Status.OK)
        row_of = {h: int(i) for i in sound if (h := cache.content_hash[i].tobytes()) in wanted}
        for row, digest in zip(todo, digests, strict=True):
            if digest in row_of and kept.file[row] < 0:
                kept.file[row], kept.row[row] = f, row_of[digest]
