"""The shard function: rows in, one finished file per shard and backbone out. Every engine calls this, and no other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from embedx.data.status import Status
from embedx.errors import ExtractionError
from embedx.extract.backbones import load_backbone
from embedx.extract.encoding import Encoder, kept_memory, threads
from embedx.extract.encoding import conditions as conditions_of
from embedx.extract.job import Job, Piece
from embedx.extract.plan import Plan
from embedx.extract.rows import HELD, Batch, Task, batches, tasks
from embedx.extract.throughput import Throughput
from embedx.extractors import Backbone
from embedx.store import CacheWriter, Rows

NOT_FINITE = "a feature is not finite"
OVERFLOW = "a feature is not finite in float16; try --precision float32"
IN_FLIGHT = HELD - 2  # batches whose features are still on their way back from a GPU
OUTAGE = 64  # rows, one after the other, that could not be read for want of the disk or the network
UNWRITTEN = 2  # full shards on their way to the disk: while it takes one, the next is checksummed


def load(plan: Plan, device: str) -> dict[str, Backbone]:
    """The plan's backbones in this process. Raises `ExtractionError` where they are not those of the plan."""
    loaded = {}
    for job in plan.jobs:
        backbone = load_backbone(job.spec, plan.settings.weights)
        wanted = job.header.provenance["identity"]
        placed = backbone.placed(device, job.header.dtype, wanted["decode"], compiled=plan.settings.compiled)  # pyright: ignore[reportArgumentType]
        if wrong := [k for k, v in placed.identity.items() if wanted[k] != v]:
            raise ExtractionError(
                f"{job.name}: another {wrong[0]} on this machine or in this process than where the run was started; "
                "let all of them load the same weights"
            )
        loaded[job.name] = placed
    return loaded


def same_conditions(plan: Plan, device: str, backbones: Mapping[str, Backbone]) -> None:
    """Refuse to compute where the numbers may differ: another kind of device, other library versions."""
    own = conditions_of(device, backbones.values(), compiled=plan.settings.compiled)
    planned = plan.jobs[0].header.provenance["conditions"]
    if wrong := [f"{k} is {v}, expected {planned.get(k)}" for k, v in own.items() if planned.get(k) != v]:
        raise ExtractionError(
            f"this machine would compute other numbers: {'; '.join(wrong)}. Shards of one cache must agree in this; "
            "use machines that are alike"
        )


@dataclass(eq=False)
class _Shard:
    """A shard being filled for every backbone that lacks it."""

    piece: Piece
    jobs: list[Job]
    filled: dict[str, Rows]
    tasks: int
    batch: int


def compute(
    plan: Plan,
    backbones: Mapping[str, Backbone],
    pieces: Iterable[Piece],
    device: str,
    workers: int,
    finished: Callable[[int], None] = lambda rows: None,
) -> Throughput:
    """Decode the pieces once, encode each with every backbone that lacks it, write it when it is full.

    pieces    drawn from only a little ahead of the work, so it may be shared with other processes
    finished  called with a number of rows whenever so many more are encoded
    """
    try:
        with kept_memory(device), threads(device, plan.jobs[0].conditions.get("threads")):
            return _Line(plan, backbones, device, workers, finished).run(pieces)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # torch raises it out of a signal handler, wherever we are
            raise
        raise ExtractionError(
            "a process that decodes was killed, most likely for want of memory; what was computed is kept: "
            "run the same command again with fewer --workers"
        ) from error


class _Line:
    """One device's production line: tasks drawn, batches decoded, features under way, shards to be written."""

    def __init__(
        self,
        plan: Plan,
        backbones: Mapping[str, Backbone],
        device: str,
        workers: int,
        finished: Callable[[int], None],
    ) -> None:
        self.plan, self.backbones, self.workers, self.finished = plan, backbones, workers, finished
        self.encoder = Encoder(device, plan.batch)
        self.cuda = device.startswith("cuda")
        self.active = [job for job in plan.jobs if plan.lacking[job.name]]
        self.readers = tuple(dict.fromkeys(backbones[job.name].reader for job in self.active))
        self.drawn: deque[tuple[Task, _Shard]] = deque()
        self.flight: deque[tuple[Task, _Shard, Batch, list[Callable[[], np.ndarray]]]] = deque()
        self.writing: deque[Future[None]] = deque()
        self.used = Throughput(workers=workers, processes=1)
        self.failing = 0

    def run(self, pieces: Iterable[Piece]) -> Throughput:
        began = time.perf_counter()
        if self.cuda and ":" in self.encoder.device:
            import torch

            torch.cuda.set_device(self.encoder.device)  # pinned memory belongs to the current one
        stream = batches(
            self.plan.ids, self.plan.source, self.readers, self.plan.batch, self._draw(pieces), self.workers,
            pin=self.cuda,
        )  # fmt: skip
        with ThreadPoolExecutor(UNWRITTEN) as disk:
            while (batch := self._next(stream)) is not None:
                task, shard = self.drawn.popleft()
                started = time.perf_counter()
                under_way = [self._start(job, batch) for job in shard.jobs]
                self.used.device += time.perf_counter() - started
                self.flight.append((task, shard, batch, under_way))
                while len(self.flight) > IN_FLIGHT * self.cuda:
                    self._land(disk)
            while self.flight:
                self._land(disk)
            while self.writing:
                self.writing.popleft().result()
        self.used.seconds = time.perf_counter() - began
        return self.used

    def _draw(self, pieces: Iterable[Piece]) -> Iterator[Task]:
        """The tasks of the pieces, remembered in order: batches come back in that order."""
        for piece in pieces:
            jobs = [job for job in self.active if piece in self.plan.lacking[job.name]]
            cut = tasks(*piece, self.plan.batch, self.plan.decoded(*piece))
            filled = {job.name: self.plan.begun(job, piece) for job in jobs}
            shard = _Shard(piece, jobs, filled, len(cut), self.plan.batch)
            for task in cut:
                self.drawn.append((task, shard))
                yield task

    def _next(self, stream: Iterator[Batch]) -> Batch | None:
        began = time.perf_counter()
        batch = next(stream, None)
        self.used.waiting += time.perf_counter() - began
        return batch

    def _start(self, job: Job, batch: Batch) -> Callable[[], np.ndarray]:
        backbone = self.backbones[job.name]
        return self.encoder.start(backbone, batch.pixels[self.readers.index(backbone.reader)])

    def _land(self, disk: ThreadPoolExecutor) -> None:
        """Take the oldest features in, and hand their shard to the disk when it is full."""
        task, shard, batch, under_way = self.flight.popleft()
        began = time.perf_counter()
        features = [wait() for wait in under_way]
        self.used.device += time.perf_counter() - began
        for job, values in zip(shard.jobs, features, strict=True):
            self._put(job, values, task, shard, batch)
        rows = int(task.wanted.sum())
        self.used.images += rows
        self.used.decoding += batch.seconds
        self._notice_outage(task, batch)
        shard.tasks -= 1
        shard.batch = min(shard.batch, self.encoder.batch)
        if not shard.tasks:
            while len(self.writing) >= UNWRITTEN:
                self.writing.popleft().result()
            self.writing.append(disk.submit(_write, shard))
        self.finished(rows)

    def _notice_outage(self, task: Task, batch: Batch) -> None:
        """Stop when nothing can be read any more: all the rest would fail, one by one, and have to be tried again."""
        for row in np.flatnonzero(task.wanted):
            self.failing = self.failing + 1 if batch.passing[row] else 0
            if self.failing == OUTAGE:
                reason = next(text for (_, r), text in batch.reasons.items() if r == row)
                raise ExtractionError(
                    f"the last {OUTAGE} images could not be read ({reason}, the last being "
                    f"{self.plan.ids[task.start + row]}); is {self.plan.source.place} still there? What was computed "
                    "is kept: mend it and run the same command again"
                )

    def _put(self, job: Job, features: np.ndarray, task: Task, shard: _Shard, batch: Batch) -> None:
        """Put one batch's rows where they belong in their shard; rows that failed stay zeros with a reason."""
        backbone, into = self.backbones[job.name], shard.filled[job.name]
        reader = self.readers.index(backbone.reader)
        first, offset = task.number * self.plan.batch, task.start - shard.piece[0]
        rows = np.flatnonzero(self.plan.todo(job.name, task.start, task.stop))
        places = offset + rows
        mine = features[task.start - first + rows]
        status = batch.status[reader][rows]
        status[(status == Status.OK) & ~np.isfinite(mine).all(axis=1)] = Status.NOT_FINITE
        into.features[places] = np.where((status == Status.OK)[:, None], mine, 0)
        into.status[places], into.content_hash[places] = status, batch.content_hash[rows]
        assert into.stamps is not None
        into.stamps[places] = batch.stamps[rows]
        why = {row: text for (r, row), text in batch.reasons.items() if r == reader}
        into.reasons.update({offset + int(row): why[int(row)] for row in rows if int(row) in why})
        what = OVERFLOW if backbone.precision == "float16" else NOT_FINITE
        into.reasons.update({int(row): what for row in places[status == Status.NOT_FINITE]})


def _write(shard: _Shard) -> None:
    for job in shard.jobs:
        rows = shard.filled.pop(job.name)
        with CacheWriter(job.shard(shard.piece), job.shard_header(shard.piece, shard.batch), rows.ids) as writer:
            writer.append(rows)
