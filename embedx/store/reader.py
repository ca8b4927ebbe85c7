"""Reading a feature cache: nothing is believed before its checksum was seen to fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import xxhash

from embedx import html
from embedx.data.manifest import ids_digest
from embedx.data.status import Status
from embedx.errors import CacheError
from embedx.store.header import CHECKSUM, DTYPES, STAMPED, Header, read_header, vouch
from embedx.store.writer import Rows

READERS = 4  # threads


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """A feature cache (or shard) on disk, its header checked. Holds a path and no open handle, so it can be pickled.

    seal  of the file that was opened; one that has taken its place since is another cache, and is refused
    """

    path: Path
    header: Header
    seal: bytes = b""

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[Path, Header, bytes]]:
        return FeatureCache, (self.path, self.header, self.seal)  # never the arrays that were read

    @classmethod
    def open(cls, path: Path) -> FeatureCache:
        """Check header and seal. Raises `CacheError` for what is absent, foreign, truncated, newer or damaged."""
        with _opened(path) as (file, seal):
            return cls(path, read_header(file, path), seal)

    @classmethod
    def open_complete(cls, path: Path) -> FeatureCache:
        """As `open`, and refuse a shard."""
        cache = cls.open(path)
        if not cache.header.complete:
            h = cache.header
            raise CacheError(
                f"{path}: holds rows {h.start:,} to {h.stop:,} of {h.total:,}; run `embedx extract` to its end"
            )
        return cache

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) object array of str."""
        return np.array([i.decode() for i in self._array("ids")], dtype=object)

    @cached_property
    def status(self) -> np.ndarray:
        """(n,) uint8, values of `Status`."""
        return self._array("status")

    @cached_property
    def content_hash(self) -> np.ndarray:
        """(n, 32) uint8: SHA-256 of the bytes each row was decoded from; zeros where there were none."""
        return self._array("content_hash")

    @cached_property
    def stamps(self) -> np.ndarray:
        """(n, 2) int64: size and mark of what each row was made from, zeros where not known."""
        if self.header.version < STAMPED:
            return np.zeros((self.header.rows, 2), dtype=np.int64)
        return self._array("stamps")

    @cached_property
    def reasons(self) -> dict[int, str]:
        """Why a row is not ok, by row."""
        rows, texts = self._array("reason_rows"), self._array("reason_texts")
        return {int(r): t.decode(errors="replace") for r, t in zip(rows, texts, strict=True)}

    def features(self) -> np.ndarray:
        """(n, dim) array of all features as stored, every block verified. Raises `CacheError` naming damaged rows."""
        out = np.empty((self.header.rows, self.header.dim), dtype=DTYPES[self.header.dtype])
        with self._blocks() as blocks, ThreadPoolExecutor(READERS) as pool:
            # Threads, as most of the time goes into fresh memory for the result, which one core cannot supply fast.
            for b, sound in enumerate(pool.map(lambda b: blocks.read(b, out[blocks.rows(b)]), range(len(blocks)))):
                self._require(sound, blocks.rows(b))
        return out

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[Rows]:
        """All rows, a block at a time and verified, ids as bytes: memory stays at one block of features.

        wanted  row numbers: only the blocks (`block_rows` rows each) that hold one of them, in order
        """
        ids, failed = self._array("ids"), np.array(sorted(self.reasons), dtype=np.int64)
        with self._blocks() as blocks:
            for b in range(len(blocks)) if wanted is None else np.unique(wanted // self.header.block_rows).tolist():
                rows, part = blocks.rows(b), blocks.empty(b)
                self._require(blocks.read(b, part), rows)
                failures = failed[slice(*np.searchsorted(failed, (rows.start, rows.stop)))]
                reasons = {int(r) - rows.start: self.reasons[int(r)] for r in failures}
                facts = self.status[rows], self.content_hash[rows]
                yield Rows(ids[rows], part, *facts, reasons, self.stamps[rows])

    def take(self, wanted: np.ndarray) -> np.ndarray:
        """(k, dim) features of some rows (k,), in that order; every block that holds one is verified."""
        out = np.empty((len(wanted), self.header.dim), dtype=DTYPES[self.header.dtype])
        block_of = wanted // self.header.block_rows
        with self._blocks() as blocks:
            for b in np.unique(block_of).tolist():
                places, part = np.flatnonzero(block_of == b), blocks.empty(b)
                self._require(blocks.read(b, part), blocks.rows(b))
                out[places] = part[wanted[places] - blocks.rows(b).start]
        return out

    @property
    def blocks(self) -> int:
        """How many blocks of rows have a checksum."""
        return -(-self.header.rows // self.header.block_rows)

    def damaged(self) -> list[tuple[int, int]]:
        """Row ranges whose features are damaged; also reads, and so verifies, every other array."""
        _ = self.ids, self.status, self.content_hash, self.stamps, self.reasons, self.extras
        return self._unsound()

    def faults(self) -> tuple[list[tuple[int, int]], list[str]]:
        """(row ranges whose features are damaged, all else that does not fit, in words); stops at nothing."""
        with self._file() as file:
            names: list[str] = []
            file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        unsound = {name for name in names if name != "features" and not self._fits(name)}
        damage = [f"the array {name!r}" for name in sorted(unsound)]
        if "ids" not in unsound and self.header.complete and ids_digest(self.ids) != self.header.ids_digest:
            damage.append("the ids, which are not those that the header announces")
        try:
            return self._unsound(), damage
        except CacheError:
            return [], [*damage, "the checksums of the blocks, so that these cannot be checked"]

    def _unsound(self) -> list[tuple[int, int]]:
        with self._blocks() as blocks:
            unsound = [b for b in range(len(blocks)) if not blocks.read(b, blocks.empty(b))]
            return [(blocks.rows(b).start, blocks.rows(b).stop) for b in unsound]

    @cached_property
    def extras(self) -> dict[str, np.ndarray]:
        """Arrays stored beside the features: classification head and projection, where the backbone has them."""
        optional = ("head/weight", "head/bias", "projection", "projection_bias")
        with self._file() as file:
            present = [name for name in optional if name in file]
        return {name: self._array(name) for name in present}

    def bad_rows(self) -> np.ndarray:
        """Indices of rows whose status is not OK."""
        return np.flatnonzero(self.status != Status.OK)

    def _repr_html_(self) -> str:
        """What a notebook shows: whose features these are, how many rows have any, and what they were made with."""
        h, counts = self.header, np.bincount(self.status, minlength=len(Status))
        provenance = {
            f"{part}: {name}" if name else part: value
            for part, values in h.provenance.items()
            for name, value in (values.items() if isinstance(values, Mapping) else [("", values)])
        }
        return html.facts(
            str(self.path),
            {
                "backbone": h.backbone, "features": f"{h.dim:,} x {h.dtype}",
                "rows": f"{h.rows:,}" if h.complete else f"{h.start:,} to {h.stop:,} of {h.total:,} (a shard)",
                "status": ", ".join(
                    f"{counts[s]:,} {s.name.lower().replace('_', ' ')}" for s in Status if counts[s] or s == Status.OK
                ), **provenance,
            },
        )  # fmt: skip

    @contextmanager
    def _file(self) -> Iterator[h5py.File]:
        with _opened(self.path) as (file, seal):
            if self.seal and seal != self.seal:
                raise CacheError(f"{self.path} was written anew while it was being read; run the same command again")
            yield file

    @contextmanager
    def _blocks(self) -> Iterator[_Blocks]:
        h, sums = self.header, self._array("checksums")
        with self._file() as file:
            stored = file["features"]
            expected = ((h.rows, h.dim), DTYPES[h.dtype], (self.blocks,))
            if not isinstance(stored, h5py.Dataset) or (stored.shape, stored.dtype, sums.shape) != expected:
                raise CacheError(f"{self.path}: the features are not of the announced shape and type; extract again")
            offset = stored.id.get_offset()
            if offset is None and h.rows:
                raise CacheError(f"{self.path}: the features are not contiguous; extract again")
        try:
            raw = self.path.open("rb", buffering=0)  # of a file written anew meanwhile, no checksum would fit
        except FileNotFoundError as error:
            raise CacheError(
                f"{self.path} was taken away while it was being read; run the same command again"
            ) from error
        with raw:
            yield _Blocks(raw.fileno(), offset or 0, h, sums)

    def _require(self, sound: bool, rows: slice) -> None:
        if not sound:
            raise CacheError(
                f"{self.path}: rows {rows.start:,} to {rows.stop:,} are damaged (their checksum does not fit); "
                "delete the file and extract again"
            )

    def _fits(self, name: str) -> bool:
        try:
            self._array(name)
        except CacheError:
            return False
        return True

    def _array(self, name: str) -> np.ndarray:
        """One of the arrays that have a single checksum, read whole and verified."""
        with self._file() as file:
            stored = file[name]
            if not isinstance(stored, h5py.Dataset):
                raise CacheError(f"{self.path}: {name!r} is no array; delete the file and extract again")
            array = np.asarray(stored[()])
            if xxhash.xxh3_64_hexdigest(np.ascontiguousarray(array).data) != stored.attrs[CHECKSUM]:
                raise CacheError(f"{self.path}: the array {name!r} is damaged; delete the file and extract again")
        return array


@dataclass(frozen=True)
class _Blocks:
    """The features as they lie in the file: contiguous, a checksum per block."""

    file: int
    offset: int
    header: Header
    sums: np.ndarray

    def __len__(self) -> int:
        return len(self.sums)

    def rows(self, block: int) -> slice:
        size = self.header.block_rows
        return slice(block * size, min((block + 1) * size, self.header.rows))

    def empty(self, block: int) -> np.ndarray:
        rows = self.rows(block)
        return np.empty((rows.stop - rows.start, self.header.dim), DTYPES[self.header.dtype])

    def read(self, block: int, into: np.ndarray) -> bool:
        """Read a block; does its checksum fit? A file that ends early has none that does."""
        view, at, got = into.data.cast("B"), self.offset + self.rows(block).start * into[0].nbytes, 0
        while got < len(view):
            more = os.preadv(self.file, [view[got:]], at + got)
            if not more:
                return False
            got += more
        # Hashed while it is still in the processor's cache.
        return xxhash.xxh3_64_intdigest(view) == self.sums[block]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, bytes]]:
    """Open for reading; every failure of HDF5 on a damaged or foreign file becomes a `CacheError`."""
    try:
        seal = vouch(path)
        # A finished file never changes, so no lock is needed (and network file systems often have none to give).
        with h5py.File(path, "r", locking=False) as file:
            yield file, seal
    except FileNotFoundError as error:
        raise CacheError(f"{path} does not exist: run `embedx extract` first") from error
    except CacheError:
        raise
    except (
        OSError,
        KeyError,
        ValueError,
        RuntimeError,
        TypeError,
        AttributeError,
        UnicodeDecodeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise CacheError(
            f"{path}: no readable HDF5 file ({_first_line(error)}); if it was a feature cache, "
            "delete it and extract again"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
