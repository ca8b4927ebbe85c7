"""Decoded batches: what worker processes make of the rows. A row's place in its batch never changes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedx.images import decode
from embedx.sources import Source
from embedx.status import Status
from extractors._backbone import Geometry, Reads, Vector

if TYPE_CHECKING:
    import torch

AHEAD = 4  # batches that a worker decodes ahead


@dataclass(frozen=True)
class Task:
    """One batch of one shard: rows `start` to `stop` of the manifest, which are part of batch `number`."""

    number: int
    start: int
    stop: int


def tasks(start: int, stop: int, batch: int) -> list[Task]:
    """The batches that rows `start` to `stop` touch, numbered from row 0, so that a shard may begin anywhere."""
    numbers = range(start // batch, -(-stop // batch))
    return [Task(b, max(start, b * batch), min(stop, (b + 1) * batch)) for b in numbers]


@dataclass(frozen=True, eq=False)
class Batch:
    """A decoded batch: one array per reader, always of full batch size; row i of the manifest lies at i % batch size.

    Rows outside the task, and rows that failed, are zeros. Some processors round differently at different places of
    a batch, or for other batch sizes; this way results do not depend on how the rows were cut into shards.

    pixels        per reader (batch, *shape), as tensors: those cross processes through shared memory
    status        (readers, rows) uint8
    content_hash  (rows, 32) uint8
    reasons       {(reader, row): text}
    seconds       what reading and decoding took, in the process that did it
    """

    pixels: list[torch.Tensor]
    status: np.ndarray
    content_hash: np.ndarray
    reasons: dict[tuple[int, int], str]
    seconds: float

    def pin_memory(self) -> Batch:
        """The same with its pixels where a GPU can fetch them by itself; called by torch's DataLoader."""
        pinned = [p.pin_memory() for p in self.pixels]
        return Batch(pinned, self.status, self.content_hash, self.reasons, self.seconds)


@dataclass(frozen=True, eq=False)
class Decoder:
    """Turns a Task into a Batch: decodes every row once for each kind of reader, then resizes once per geometry.

    A map-style dataset for torch's DataLoader, whose indices are tasks and whose elements are whole batches.
    """

    ids: Sequence[str] | np.ndarray
    source: Source
    readers: tuple[Geometry | Vector, ...]
    batch: int

    def __getitem__(self, task: Task) -> Batch:
        began = time.perf_counter()
        n = task.stop - task.start
        tensors = [self._fresh(reader) for reader in self.readers]
        pixels = [tensor.numpy() for tensor in tensors]
        empty = np.ones((len(self.readers), self.batch), dtype=bool)
        status = np.zeros((len(self.readers), n), dtype=np.uint8)
        hashes = np.zeros((n, 32), dtype=np.uint8)
        reasons: dict[tuple[int, int], str] = {}
        kinds: set[Reads] = {r.reads for r in self.readers}
        for row in range(n):
            decoded = {kind: decode(self.source, self.ids[task.start + row], kind) for kind in kinds}
            for r, reader in enumerate(self.readers):
                got = decoded[reader.reads]
                hashes[row] = np.frombuffer(got.content_hash, dtype=np.uint8)
                status[r, row] = got.status
                if got.status != Status.OK:
                    reasons[r, row] = got.reason
                    continue
                place = (task.start + row) % self.batch
                try:
                    pixels[r][place] = reader(got.value)
                    empty[r, place] = False
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    status[r, row] = Status.UNREADABLE
                    reasons[r, row] = str(error).partition("\n")[0][:200]
        for array, rows in zip(pixels, empty, strict=True):
            array[rows] = 0
        return Batch(tensors, status, hashes, reasons, time.perf_counter() - began)

    def _fresh(self, reader: Geometry | Vector) -> torch.Tensor:
        """Memory for one batch; in a worker process it is shared memory from the start, which saves a copy."""
        import torch
        from torch.utils.data import get_worker_info

        fresh = torch.empty((self.batch, *reader.shape), dtype=getattr(torch, reader.dtype.name))
        return fresh if get_worker_info() is None else fresh.share_memory_()


def batches(decoder: Decoder, wanted: Iterable[Task], workers: int, *, pin: bool = False) -> Iterator[Batch]:
    """The batches of the wanted tasks in order; `workers` processes decode ahead, 0 decodes here.

    wanted  drawn from only as far ahead as is decoded ahead, so it may wait for a queue
    """
    from torch.utils.data import DataLoader

    options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": AHEAD if workers else None}
    # batch_size None: an element of the decoder is a whole batch already, and is passed on as it is.
    loader = DataLoader(
        cast("Any", decoder), batch_size=None, sampler=cast("Any", wanted), collate_fn=_as_is, pin_memory=pin, **options
    )
    yield from loader


def _as_is(batch: Any) -> Any:
    return batch
