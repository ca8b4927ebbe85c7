"""Decoded batches: what worker processes make of the rows. A row's place in its batch never changes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedx.data.images import decode
from embedx.data.sources import Source
from embedx.data.sources.stamps import nothing_known
from embedx.data.status import Status
from embedx.extractors import Geometry, Reads, Vector

if TYPE_CHECKING:
    import torch

AHEAD = 4  # batches that a worker decodes ahead
HELD = 4  # batches that may be in use at a time, the newest included
Slot = list["torch.Tensor"]


@dataclass(frozen=True, eq=False)
class Task:
    """One batch of one shard: rows `start` to `stop` of the manifest, which are part of batch `number`.

    wanted  (stop - start,) which of the rows are to be decoded
    """

    number: int
    start: int
    stop: int
    wanted: np.ndarray


def tasks(start: int, stop: int, batch: int, wanted: np.ndarray) -> list[Task]:
    """The batches that wanted rows (stop - start,) of `start` to `stop` are part of.

    They are numbered from row 0, so that a shard may begin anywhere.
    """
    numbers = range(start // batch, -(-stop // batch))
    edges = [(b, max(start, b * batch), min(stop, (b + 1) * batch)) for b in numbers]
    all_tasks = [Task(b, first, last, wanted[first - start : last - start]) for b, first, last in edges]
    return [task for task in all_tasks if task.wanted.any()]


@dataclass(frozen=True, eq=False)
class Batch:
    """A decoded batch: one array per reader, always of full batch size; row i of the manifest lies at i % batch size.

    Rows outside the task, rows that are not wanted, and rows that failed, are zeros. Some processors round differently
    at different places of a batch, or for other batch sizes; this way results do not depend on how the rows were cut
    into shards.

    pixels        per reader (batch, *shape); good until `HELD` - 1 more batches were asked for
    status        (readers, rows) uint8
    content_hash  (rows, 32) uint8
    stamps        (rows, 2) int64, taken before the bytes were read
    passing       (rows,) bool, what went wrong says nothing of the file
    reasons       {(reader, row): text}
    seconds       what reading and decoding took, in the process that did it
    """

    pixels: Slot
    status: np.ndarray
    content_hash: np.ndarray
    stamps: np.ndarray
    passing: np.ndarray
    reasons: dict[tuple[int, int], str]
    seconds: float


@dataclass(frozen=True, eq=False)
class Decoder:
    """Turns a Task into a Batch: decodes every row once for each kind of reader, then resizes once per geometry.

    A map-style dataset for torch's DataLoader, whose indices are (task, number of a slot), and whose elements are whole
    batches without their pixels: those stay in the slot, memory that all processes share and use again and again.
    """

    ids: np.ndarray
    source: Source
    readers: tuple[Geometry | Vector, ...]
    batch: int
    slots: Sequence[Slot]

    def __getitem__(self, index: tuple[Task, int]) -> Batch:
        began = time.perf_counter()
        task, slot = index
        n = task.stop - task.start
        pixels = [tensor.numpy() for tensor in self.slots[slot]]
        empty = np.ones((len(self.readers), self.batch), dtype=bool)
        status = np.zeros((len(self.readers), n), dtype=np.uint8)
        hashes = np.zeros((n, 32), dtype=np.uint8)
        reasons: dict[tuple[int, int], str] = {}
        kinds: set[Reads] = {r.reads for r in self.readers}
        stamps, passing = nothing_known(n), np.zeros(n, dtype=bool)
        wanted = np.flatnonzero(task.wanted)
        stamps[wanted] = self.source.stamps(self.ids[task.start + wanted])
        for row in wanted.tolist():
            decoded = {kind: decode(self.source, self.ids[task.start + row], kind) for kind in kinds}
            for r, reader in enumerate(self.readers):
                got = decoded[reader.reads]
                hashes[row] = np.frombuffer(got.content_hash, dtype=np.uint8)
                status[r, row] = got.status
                if got.status != Status.OK:
                    reasons[r, row] = got.reason
                    passing[row] |= got.passing
                    continue
                place = (task.start + row) % self.batch
                try:
                    pixels[r][place] = reader(got.value)
                    empty[r, place] = False
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    passing[row] |= isinstance(error, MemoryError)
                    status[r, row] = Status.UNREADABLE
                    reasons[r, row] = str(error).partition("\n")[0][:200]
        for array, rows in zip(pixels, empty, strict=True):
            array[rows] = 0
        hashes[passing], stamps[passing] = 0, 0  # so that these rows are tried again by the next run
        return Batch([], status, hashes, stamps, passing, reasons, time.perf_counter() - began)


def batches(
    ids: np.ndarray,
    source: Source,
    readers: tuple[Geometry | Vector, ...],
    batch: int,
    wanted: Iterable[Task],
    workers: int,
    *,
    pin: bool = False,
) -> Iterator[Batch]:
    """The batches of the wanted tasks in order; `workers` processes decode ahead, 0 decodes here.

    wanted  drawn from only as far ahead as is decoded ahead, so it may wait for a queue
    pin     let a GPU fetch the pixels by itself; otherwise the backbones compete with the workers for processors
    """
    from torch.utils.data import DataLoader

    slots = [_slot(readers, batch, shared=workers > 0) for _ in range(workers * AHEAD + HELD)]
    options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": AHEAD if workers else None}
    indices = ((task, number % len(slots)) for number, task in enumerate(wanted))
    # batch_size None: an element of the decoder is a whole batch already, and is passed on as it is.
    loader = DataLoader(
        cast("Any", Decoder(ids, source, readers, batch, slots)), batch_size=None, sampler=cast("Any", indices),
        collate_fn=_as_is, worker_init_fn=None if pin else _step_back, **options,
    )  # fmt: skip
    with _pinned(slots) if pin else nullcontext():
        for number, decoded in enumerate(loader):
            yield replace(decoded, pixels=slots[number % len(slots)])


def _slot(readers: Sequence[Geometry | Vector], batch: int, *, shared: bool) -> Slot:
    import torch

    tensors = [torch.empty((batch, *r.shape), dtype=getattr(torch, r.dtype.name)) for r in readers]
    return [tensor.share_memory_() for tensor in tensors] if shared else tensors


@contextmanager
def _pinned(slots: Sequence[Slot]) -> Iterator[None]:
    """Register the slots with the GPU's driver; where it declines, copies are slower and no less right."""
    import torch

    runtime: Any = torch.cuda.cudart()
    tensors = [tensor for slot in slots for tensor in slot]
    done = [t for t in tensors if int(runtime.cudaHostRegister(t.data_ptr(), t.nbytes, 0)) == 0]
    try:
        yield
    finally:
        torch.cuda.synchronize()
        for tensor in done:
            runtime.cudaHostUnregister(tensor.data_ptr())


def _step_back(worker: int) -> None:
    """Lower priority: all threads of a network wait for the one that was interrupted, a decoder is far ahead anyway."""
    os.nice(10)


def _as_is(batch: Any) -> Any:
    return batch
