"""What is to be done: one job per backbone, cut into the same shards of rows for all, less what earlier runs left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedx.data.manifest import Manifest
from embedx.data.sources import Source, readable
from embedx.errors import ExtractionError
from embedx.extract.job import Job, Piece, job_of
from embedx.extract.kept import Files, Kept, Looking
from embedx.extract.survey import survey
from embedx.extractors import Backbone, Decode
from embedx.store import Rows
from embedx.workspace import Workspace

LOOK_FIRST = 64


@dataclass(frozen=True)
class Settings:
    """How to extract; of all this only device, batch, `decode` and `compiled` can change a bit of the result.

    devices     one process computes on each; several may be the same
    batch       images per forward pass; None: what fits the device. Halved where its memory does not suffice
    workers     processes that decode ahead, in all; 0 decodes where the backbones run
    shard_rows  rows per shard: what a kill can cost
    max_bad     share of rows that may fail before the cache is refused (the shards stay, nothing is lost)
    decode      "fast" resizes tensors instead of PIL images
    weights     the file that the backbone was loaded from, for processes that have to load it again
    part        (i, n): only the i-th of n equal parts of the shards, and no merge
    merge_only  compute nothing
    """

    devices: tuple[str, ...] = ("cpu",)
    batch: int | None = None
    workers: int = 0
    shard_rows: int = 1024
    max_bad: float = 0.01
    decode: Decode = "exact"
    compiled: bool = False
    weights: Path | None = None
    part: tuple[int, int] | None = None
    merge_only: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a process needs to know; plain values and paths, so that it can be sent to another machine.

    lacking  by name of the backbone, the shards of which some row has to be computed
    kept     by name, where the features of the other rows lie
    stamps   by name, (n, 2) stamps of the kept rows as they are now
    settled  names of the backbones whose cache is finished and as it should be
    """

    ids: np.ndarray
    source: Source
    jobs: tuple[Job, ...]
    pieces: tuple[Piece, ...]
    lacking: Mapping[str, frozenset[Piece]]
    settings: Settings
    kept: Mapping[str, Kept]
    stamps: Mapping[str, np.ndarray]
    settled: frozenset[str]

    @property
    def batch(self) -> int:
        """Images per forward pass."""
        return self.jobs[0].conditions["batch"]

    def wanted(self) -> list[Piece]:
        """The shards that this run has to compute for at least one backbone."""
        return [piece for piece in self.mine() if any(piece in lacking for lacking in self.lacking.values())]

    def mine(self) -> tuple[Piece, ...]:
        """The shards of the part that was asked for."""
        return part_of(self.pieces, self.settings.part)

    def begun(self, job: Job, piece: Piece) -> Rows:
        """The rows of a shard: those that are kept, and zeros for those to be computed."""
        rows = self.kept[job.name].rows(*piece, self.ids[slice(*piece)], job.shard_header(piece))
        kept = ~self.todo(job.name, *piece)
        assert rows.stamps is not None
        rows.stamps[kept] = self.stamps[job.name][slice(*piece)][kept]
        return rows

    def todo(self, name: str, start: int, stop: int) -> np.ndarray:
        """(stop - start,) which of these rows a backbone has to compute."""
        return self.kept[name].todo[start:stop]

    def rows(self, name: str) -> int:
        """How many rows this run computes for a backbone."""
        return sum(int(self.todo(name, *piece).sum()) for piece in self.mine())

    def images(self, piece: Piece) -> int:
        """How many rows of a shard have to be decoded."""
        return int(self.decoded(*piece).sum())

    def decoded(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) which of these rows some backbone has to compute."""
        return np.logical_or.reduce([self.todo(job.name, start, stop) for job in self.jobs])

    def missing(self) -> list[str]:
        """The shards that no run has computed yet, as file names below the cache folder."""
        return [f"{job.shards.name}/{job.shard(p).name}" for job in self.jobs for p in sorted(self.lacking[job.name])]


def part_of(pieces: tuple[Piece, ...], part: tuple[int, int] | None) -> tuple[Piece, ...]:
    """All pieces, or the i-th of n equal parts of them."""
    if part is None:
        return pieces
    i, n = part
    return pieces[len(pieces) * i // n : len(pieces) * (i + 1) // n]


def plan(
    manifest: Manifest,
    source: Source,
    backbones: Mapping[str, Backbone],
    workspace: Workspace,
    settings: Settings,
    facts: Mapping[str, Any],
    placeless: Callable[[str], bool] = lambda name: False,
    looking: Looking = lambda done, total: None,
) -> Plan:
    """The jobs, all pieces, and what each job still lacks.

    facts      the conditions, batch included, under which the work is done
    placeless  whether a backbone, by name, gives a row the same features at every place of a batch
    looking    called while files have to be read to see whether they changed

    Raises before any work: `ProvenanceError` for files made differently, `ExtractionError` for two backbones with one
    file name or a source that holds none of the rows.
    """
    jobs = tuple(job_of(name, backbone, manifest, workspace, facts) for name, backbone in backbones.items())
    if len({job.cache for job in jobs}) < len(jobs):
        raise ExtractionError(
            f"two of {', '.join(backbones)} would write the same file; give one another name with -b NAME=FAMILY:MODEL"
        )
    n, size = len(manifest), settings.shard_rows
    pieces = tuple((start, min(start + size, n)) for start in range(0, n, size))
    mine = np.zeros(n, dtype=bool)
    for start, stop in part_of(pieces, settings.part):
        mine[start:stop] = True
    files = Files(manifest.ids, source, mine, looking)
    surveys = {job.name: survey(job, files, pieces, placeless) for job in jobs}
    if any(s.kept.todo[mine].any() for s in surveys.values()) and not settings.merge_only:
        _look_first(manifest.ids, source)
    pieces_here = part_of(pieces, settings.part)
    return Plan(
        manifest.ids, source, jobs, pieces,
        {name: frozenset(p for p in pieces_here if s.kept.todo[slice(*p)].any()) for name, s in surveys.items()},
        settings, {name: s.kept for name, s in surveys.items()}, {name: s.stamps for name, s in surveys.items()},
        frozenset(name for name, s in surveys.items() if s.settled),
    )  # fmt: skip


def _look_first(ids: Sequence[str] | np.ndarray, source: Source) -> None:
    """A wrong root is the commonest mistake of all: find it before a model is run."""
    sample = [str(i) for i in ids[:: max(1, len(ids) // LOOK_FIRST)]]
    if not any(readable(source, i) for i in sample):
        raise ExtractionError(
            f"none of {len(sample)} files looked for exists in {source.place} (for example {sample[0]}); "
            "say where the images lie with --root"
        )
