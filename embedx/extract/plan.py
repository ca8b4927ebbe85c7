"""What is to be done: one job per backbone, cut into the same shards of rows for all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedx.errors import CacheError, ExtractionError, ProvenanceError
from embedx.home import Home
from embedx.manifest import Manifest
from embedx.sources import Source
from embedx.status import Status
from embedx.store import FeatureCache, Header
from embedx.store.header import require
from extractors._backbone import Backbone, Decode

LOOK_FIRST = 64
LOOK_AGAIN = 32
Piece = tuple[int, int]


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


@dataclass(frozen=True)
class Job:
    """One backbone over all rows: the header of its cache, where that goes, and where the shards go until then."""

    spec: str
    header: Header
    cache: Path
    shards: Path

    @property
    def name(self) -> str:
        return self.header.backbone

    def shard(self, piece: Piece) -> Path:
        return self.shards / f"{piece[0]:010d}-{piece[1]:010d}.h5"

    def shard_header(self, piece: Piece, batch: int | None = None) -> Header:
        """The header of one shard, computed with `batch` images per pass at the least."""
        conditions = dict(self.header.provenance["conditions"])
        provenance = dict(self.header.provenance) | {"conditions": conditions | ({"batch": batch} if batch else {})}
        return replace(self.header, start=piece[0], stop=piece[1], provenance=provenance)

    def finished(self, ids: np.ndarray, source: Source) -> bool:
        """Is the cache there, made from exactly this? Raises `ProvenanceError` when it was made from something else.

        A cache may hold more rows than the manifest (rows dropped since); of its files a sample is looked at again.
        """
        if not self.cache.exists():
            return False
        cache = FeatureCache.open_complete(self.cache)
        header = cache.header
        if header.ids_digest != self.header.ids_digest and set(ids) <= set(cache.ids):
            header = replace(header, ids_digest=self.header.ids_digest)
        require(header, self.header, self.cache, conditions=False)
        if changed := changed_files(cache, source):
            raise ProvenanceError(
                f"{self.cache}: {len(changed)} of the files looked at in {source.place} are not those it was made from "
                f"(for example {changed[0]}); delete it to extract again, or use another dataset name (NAME=SOURCE)"
            )
        return True

    def usable(self, piece: Piece, source: Source) -> bool:
        """Can a shard of an earlier run be kept? Not when damaged, nor when a file looked at again has changed since.

        Raises `ProvenanceError` for a sound shard made differently: shards of two kinds are never mixed.
        """
        path = self.shard(piece)
        if not path.exists():
            return False
        try:
            shard = FeatureCache.open(path)
            self.require(shard)
            return not shard.damaged() and not changed_files(shard, source)
        except ProvenanceError:
            raise
        except CacheError:
            return False

    def require(self, shard: FeatureCache) -> None:
        """Refuse a shard of another kind. The batch may be a half, a quarter … of ours: memory did not suffice then."""
        ours, theirs = self.header.provenance["conditions"]["batch"], shard.header.provenance["conditions"]["batch"]
        halved = any(ours >> k == theirs for k in range(ours.bit_length()))
        expected = self.shard_header((shard.header.start, shard.header.stop), theirs if halved else None)
        require(shard.header, expected, self.shards, conditions=True)


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a process needs to know; plain values and paths, so that it can be sent to another machine.

    lacking  by name of the backbone, the shards that are not there yet
    """

    ids: np.ndarray
    source: Source
    jobs: tuple[Job, ...]
    pieces: tuple[Piece, ...]
    lacking: Mapping[str, frozenset[Piece]]
    settings: Settings

    @property
    def batch(self) -> int:
        return self.jobs[0].header.provenance["conditions"]["batch"]

    def wanted(self) -> list[Piece]:
        """The shards that this run has to compute for at least one backbone."""
        pieces = self.pieces
        if self.settings.part is not None:
            i, n = self.settings.part
            pieces = pieces[len(pieces) * i // n : len(pieces) * (i + 1) // n]
        return [piece for piece in pieces if any(piece in lacking for lacking in self.lacking.values())]

    def missing(self) -> list[str]:
        """The shards that no run has computed yet, as file names below the cache folder."""
        return [f"{job.shards.name}/{job.shard(p).name}" for job in self.jobs for p in sorted(self.lacking[job.name])]


def plan(
    manifest: Manifest,
    source: Source,
    backbones: Mapping[str, Backbone],
    home: Home,
    settings: Settings,
    facts: Mapping[str, Any],
) -> Plan:
    """The jobs, all pieces, and what each job still lacks.

    facts  the conditions, batch included, under which the work is done

    Raises before any work: `ProvenanceError` for files made differently, `ExtractionError` for two backbones with one
    file name or a source that holds none of the rows.
    """
    jobs = tuple(_job(name, backbone, manifest, home, facts) for name, backbone in backbones.items())
    if len({job.cache for job in jobs}) < len(jobs):
        raise ExtractionError(
            f"two of {', '.join(backbones)} would write the same file; give one another name with -b NAME=FAMILY:MODEL"
        )
    n, size = len(manifest), settings.shard_rows
    pieces = tuple((start, min(start + size, n)) for start in range(0, n, size))
    lacking = {
        j.name: frozenset()
        if j.finished(manifest.ids, source)
        else frozenset(p for p in pieces if not j.usable(p, source))
        for j in jobs
    }
    if any(lacking.values()) and not settings.merge_only:
        _look_first(manifest.ids, source)
    return Plan(manifest.ids, source, jobs, pieces, lacking, settings)


def batch_before(backbones: Mapping[str, Backbone], manifest: Manifest, home: Home) -> int | None:
    """The largest batch of an earlier run that left shards: a run that goes on has to take the same."""
    found = []
    for name in backbones:
        for path in sorted(home.shards(manifest.name, name).glob("[!.]*.h5")):
            try:
                found.append(FeatureCache.open(path).header.provenance["conditions"]["batch"])
            except (CacheError, KeyError):
                continue
    return max(found, default=None)


def _job(name: str, backbone: Backbone, manifest: Manifest, home: Home, facts: Mapping[str, Any]) -> Job:
    n = len(manifest)
    provenance = {
        "spec": backbone.spec,
        "identity": {**backbone.identity, "dataset_version": manifest.version},
        "conditions": dict(facts),
        "licence": backbone.licence,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    header = Header(name, backbone.dim, backbone.precision, manifest.ids_digest, 0, n, n, provenance)
    return Job(backbone.spec, header, home.cache(manifest.name, name), home.shards(manifest.name, name))


def changed_files(cache: FeatureCache, source: Source) -> list[str]:
    """Ids whose file is not the one the row was made from: all rows that failed, and a sample of the others.

    A file that is gone or may not be read says nothing: caches outlive their images.
    """
    n, failed = cache.header.rows, cache.status != Status.OK
    looked_at = np.union1d(np.flatnonzero(failed), np.arange(0, n, max(1, n // LOOK_AGAIN)))
    changed = []
    for row in map(int, looked_at):
        try:
            digest = hashlib.sha256(source.read(cache.ids[row])).digest()
        except OSError:
            continue
        if digest != cache.content_hash[row].tobytes():
            changed.append(str(cache.ids[row]))
    return changed


def _look_first(ids: Sequence[str] | np.ndarray, source: Source) -> None:
    """A wrong root is the commonest mistake of all: find it before a model is run."""
    sample = [str(i) for i in ids[:: max(1, len(ids) // LOOK_FIRST)]]
    if not any(_readable(source, i) for i in sample):
        raise ExtractionError(
            f"none of {len(sample)} files looked for exists in {source.place} (for example {sample[0]}); "
            "say where the images lie with --root"
        )


def _readable(source: Source, row_id: str) -> bool:
    try:
        source.read(row_id)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is there; what is wrong with it will stand in its row
    return True
