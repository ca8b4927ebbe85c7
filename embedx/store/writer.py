"""Writing a feature cache or a shard: streamed, checksummed by block, and on disk whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import xxhash

from embedx.data.status import Status
from embedx.files import clear_faults, fresh, hold, publish, sweep
from embedx.store.header import CHECKSUM, DTYPES, FRONT, Header, seal

SEND = 1 << 26  # bytes
TOGETHER = 1 << 14  # rows
FACTS = ("ids", "status", "content_hash", "stamps")
"""What is stored of every row besides its features."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Consecutive rows of a cache.

    ids (k,) object, or bytes · features (k, dim) · status (k,) uint8
    content_hash (k, 32) uint8, SHA-256 of the file's bytes
    reasons {row within these rows: why it is not ok}
    stamps (k, 2) int64, size and mark of what each row was made from (`embedx.data.sources.stamps`); None: not known
    """

    ids: Sequence[str] | np.ndarray
    features: np.ndarray
    status: np.ndarray
    content_hash: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    stamps: np.ndarray | None = None

    @property
    def facts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Status, hashes and stamps, as they are stored."""
        stamps = np.zeros((len(self.status), 2), dtype="<i8") if self.stamps is None else self.stamps
        return np.array(self.status), np.array(self.content_hash), np.array(stamps, dtype="<i8")


class CacheWriter:
    """Writes one file of `header.rows` rows by repeated `append`; use as a context manager.

    Everything goes to a temporary name beside `path`. Leaving the context without an error seals, flushes, fsyncs and
    renames; leaving it with one removes the temporary file. A kill leaves `path` as it was.
    """

    def __init__(self, path: Path, header: Header, ids: Sequence[str] | np.ndarray) -> None:
        self.path, self.header = path, header
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        with clear_faults(path):
            self._temporary = fresh(path)
            self._sink = _Sink(self._temporary)
        self._file = h5py.File(self._sink, "w", userblock_size=FRONT)
        try:
            self._create(ids)
        except BaseException:
            self._discard()
            raise
        self._reasons: dict[int, str] = {}
        self._sums = {name: xxhash.xxh3_64() for name in FACTS}
        self._block, self._block_sums = xxhash.xxh3_64(), []
        self._facts: list[tuple[np.ndarray, ...]] = []
        self._at = self._noted = 0

    def _create(self, ids: Sequence[str] | np.ndarray) -> None:
        header = self.header
        n, create = header.rows, self._file.create_dataset
        # No fill values: every row is written before the file gets its seal, and zeros first would cost a second pass.
        plain = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plain.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((n, header.dim))
        kind = h5py.h5t.py_create(DTYPES[header.dtype])
        self._features = h5py.Dataset(h5py.h5d.create(self._file.id, b"features", kind, space, plain))
        longest = max(map(len, map(str.encode, ids)), default=1)  # of all rows, as they are to be appended
        self._ids = create("ids", (n,), h5py.string_dtype("utf-8", longest))
        columns = create("status", (n,), "<u1"), create("content_hash", (n, 32), "<u1"), create("stamps", (n, 2), "<i8")
        self._known = dict(zip(FACTS, (self._ids, *columns), strict=True))

    def append(self, rows: Rows) -> None:
        """Write the next rows; features are converted to the header's type beforehand by the caller."""
        k = len(rows.status)
        at, stop = self._at, self._at + k
        features = np.ascontiguousarray(rows.features, dtype=DTYPES[self.header.dtype])
        raw = rows.ids if isinstance(rows.ids, np.ndarray) and rows.ids.dtype.kind == "S" else None
        ids = np.array(list(map(str.encode, rows.ids)) if raw is None else raw, dtype=self._ids.dtype)
        if k:
            self._features.write_direct(features, dest_sel=np.s_[at:stop])
            self._facts.append((ids, *rows.facts))
            with clear_faults(self.path):
                self._sink.require()
        for name, part in zip(FACTS, (ids, *rows.facts), strict=True):
            self._sums[name].update(np.ascontiguousarray(part).data)
        self._reasons |= {at + row: reason for row, reason in rows.reasons.items()}
        self._checksum(features)
        self._at = stop
        if stop - self._noted >= TOGETHER:
            self._note()

    def _note(self) -> None:
        """Write what is known of the rows besides their features, many rows at once."""
        if self._facts:
            for name, parts in zip(FACTS, zip(*self._facts, strict=True), strict=True):
                self._known[name][self._noted : self._at] = np.concatenate(parts)
        self._facts, self._noted = [], self._at

    def attach(self, name: str, array: np.ndarray) -> None:
        """Add a small array beside the features: `head/weight`, `head/bias`, `projection`."""
        whole = np.ascontiguousarray(array)
        self._file.create_dataset(name, data=whole).attrs[CHECKSUM] = xxhash.xxh3_64_hexdigest(whole.data)

    def _checksum(self, features: np.ndarray) -> None:
        """Extend the running block checksum; blocks are counted from row 0 of this file, whatever came in one call."""
        size, at, done = self.header.block_rows, self._at, 0
        while done < len(features):
            take = min(size - (at + done) % size, len(features) - done)
            self._block.update(features[done : done + take].data)
            done += take
            if (at + done) % size == 0:
                self._close_block()

    def _close_block(self) -> None:
        self._block_sums.append(self._block.intdigest())
        self._block.reset()

    def _finish(self) -> None:
        if self._at != self.header.rows:
            raise ValueError(f"{self.path}: {self._at} rows written, {self.header.rows} announced")
        if self._at % self.header.block_rows:
            self._close_block()
        self._note()
        rows = sorted(self._reasons)
        self.attach("checksums", np.array(self._block_sums, dtype="<u8"))
        self.attach("reason_rows", np.array(rows, dtype="<i8"))
        texts = [self._reasons[r].encode()[:400] for r in rows]
        self.attach("reason_texts", np.array(texts, dtype=h5py.string_dtype("utf-8", max([1, *map(len, texts)]))))
        for name, digest in self._sums.items():
            self._file[name].attrs[CHECKSUM] = digest.hexdigest()
        for key, value in self.header.attributes().items():
            self._file.attrs[key] = value
        arrays: list[tuple[int, int]] = []
        self._file.visititems(lambda _, node: arrays.extend(_place(node)))
        self._file.close()
        self._sink.wait()
        self._sink.require()
        seal(self._temporary, arrays)
        publish(self._temporary, self.path, lasting=self.header.complete)  # a lost shard is computed again

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with clear_faults(self.path):
                    self._finish()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Let go of the temporary file; nothing is left of it unless it was published."""
        self._temporary.unlink(missing_ok=True)
        self._file.close()
        self._sink.close()


class _Sink(io.RawIOBase):
    """The file that HDF5 writes to. A write that fails is kept for `require`, and HDF5 told that all is well.

    HDF5 that cannot flush (the device is full) cannot close its file either, and crashes the process later on.
    A thread makes the disk take the bytes while more are being written, or all would have to wait for it at the end.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb+", buffering=0)
        hold(self._file.fileno())
        self._fault: OSError | None = None
        self._at = self._unsent = 0
        self._disk = ThreadPoolExecutor(1)
        self._sent: list[Future[None]] = []

    def require(self) -> None:
        """Raise the first error that was kept back."""
        if self._fault is not None:
            raise self._fault
        for sent in self._sent:
            if sent.done():
                sent.result()

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self._fault is None:
            try:
                done = os.pwrite(self._file.fileno(), rest, self._at)
            except OSError as error:
                self._fault = error
                break
            self._at, rest = self._at + done, rest[done:]
        self._unsent += size
        if self._unsent > SEND:
            self._sent.append(self._disk.submit(os.fdatasync, self._file.fileno()))
            self._unsent = 0
        return size

    def readinto(self, buffer: Any, /) -> int:
        return os.preadv(self._file.fileno(), [buffer], self._at)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._fault = self._fault or error
            return size or 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + (0 if whence == os.SEEK_SET else os.fstat(self._file.fileno()).st_size)
        return self._at

    def tell(self) -> int:
        return self._at

    def wait(self) -> None:
        """Until the disk has all that was sent. Raises what went wrong there."""
        for sent in self._sent:
            sent.result()

    def close(self) -> None:
        self._disk.shutdown()
        self._file.close()
        super().close()


def _place(node: h5py.Dataset | h5py.Group) -> list[tuple[int, int]]:
    """Where the raw numbers of a dataset lie in the file, and how many bytes they are; nothing for an empty one."""
    if isinstance(node, h5py.Dataset) and node.id.get_storage_size():
        return [(node.id.get_offset(), node.id.get_storage_size())]
    return []


def zeros(ids: Sequence[str] | np.ndarray, header: Header) -> Rows:
    """Rows to be filled in place: features and hashes zero, every status OK."""
    n = len(ids)
    return Rows(
        ids=ids,
        features=np.zeros((n, header.dim), dtype=DTYPES[header.dtype]),
        status=np.full(n, Status.OK, dtype=np.uint8),
        content_hash=np.zeros((n, 32), dtype=np.uint8),
        stamps=np.zeros((n, 2), dtype=np.int64),
    )
