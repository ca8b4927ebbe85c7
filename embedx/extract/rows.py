"""Decoded batches: what worker processes make of the files. A row's place in its batch never changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedx.images import decode
from embedx.status import Status
from extractors._backbone import Geometry, Vector

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """One batch of one shard: rows `start` to `stop` of the manifest, which are part of batch `number`."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Batch:
    """A decoded batch: one array per reader, always of full batch size; row i of the manifest lies at i % batch size.

    Rows outside the task, and rows that failed, are zeros. Some processors round differently at different places of
    a batch, or for other batch sizes; this way results do not depend on how the rows were cut into shards.

    pixels        per reader (batch, *shape), as tensors: those cross processes through shared memory
    status        (readers, rows) uint8
    content_hash  (rows, 32) uint8
    reasons       {(reader, row): text}
    """

    pixels: list[torch.Tensor]
    status: np.ndarray
    content_hash: np.ndarray
    reasons: dict[tuple[int, int], str]


@dataclass(frozen=True, eq=False)
class Decoder:
    """Turns a Task into a Batch: decodes every file once for each kind of reader, then resizes once per geometry.

    A map-style dataset for torch's DataLoader, whose elements are whole batches.
    """

    ids: Sequence[str] | np.ndarray
    root: Path
    readers: tuple[Geometry | Vector, ...]
    batch: int
    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Batch:
        import torch

        task = self.tasks[index]
        n = task.stop - task.start
        pixels = [np.zeros((self.batch, *r.shape), dtype=r.dtype) for r in self.readers]
        status = np.zeros((len(self.readers), n), dtype=np.uint8)
        hashes = np.zeros((n, 32), dtype=np.uint8)
        reasons: dict[tuple[int, int], str] = {}
        for row in range(n):
            path = self.root / self.ids[task.start + row]
            decoded = {r.reads: decode(path, r.reads) for r in {r.reads: r for r in self.readers}.values()}
            for r, reader in enumerate(self.readers):
                got = decoded[reader.reads]
                hashes[row] = np.frombuffer(got.content_hash, dtype=np.uint8)
                status[r, row] = got.status
                if got.status != Status.OK:
                    reasons[r, row] = got.reason
                    continue
                try:
                    pixels[r][(task.start + row) % self.batch] = reader(got.value)
                except (ValueError, OSError, MemoryError) as error:
                    status[r, row] = Status.UNREADABLE
                    reasons[r, row] = str(error)
        return Batch([torch.from_numpy(p) for p in pixels], status, hashes, reasons)


def batches(decoder: Decoder, workers: int) -> Iterator[Batch]:
    """All batches of a decoder in order; `workers` processes decode ahead, 0 decodes here."""
    from torch.utils.data import DataLoader

    options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": 4 if workers else None}
    # batch_size None: an element of the decoder is a whole batch already, and is passed on as it is.
    yield from DataLoader(cast("Any", decoder), batch_size=None, collate_fn=_as_is, **options)


def _as_is(batch: Any) -> Any:
    return batch
