"""The extraction engine: shards of rows are the unit of work, a merge makes the cache.

A shard is written whole or not at all, so a run that was killed goes on where it was and loses one shard at most.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedx import __version__
from embedx.errors import CacheError, ExtractionError, ProvenanceError
from embedx.extract.rows import Batch, Decoder, Task, batches
from embedx.home import Home, slug
from embedx.images import decode
from embedx.manifest import Manifest
from embedx.store import CacheWriter, FeatureCache, Header, Rows, Status
from embedx.store.header import require
from embedx.store.writer import zeros
from extractors._backbone import Backbone

SHARD_ROWS = 1024
MAX_BAD = 0.01
LOOK_FIRST = 64


@dataclass(frozen=True)
class Extraction:
    """What became of one backbone: the cache, how many rows were computed now, and which rows are not ok."""

    backbone: str
    path: Path
    rows: int
    computed: int
    bad: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Job:
    """One backbone with its header for the whole dataset and the places of its files."""

    name: str
    backbone: Backbone
    header: Header
    cache: Path
    shards: Path

    def shard_header(self, start: int, stop: int) -> Header:
        from dataclasses import replace

        return replace(self.header, start=start, stop=stop)

    def shard(self, start: int, stop: int) -> Path:
        return self.shards / f"{start:010d}-{stop:010d}.h5"


def extract(
    manifest: Manifest,
    root: Path,
    backbones: Mapping[str, Backbone],
    home: Home,
    *,
    device: str = "cpu",
    batch: int = 32,
    workers: int = 0,
    shard_rows: int = SHARD_ROWS,
    max_bad: float = MAX_BAD,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Extraction]:
    """Write the feature cache of every backbone that has none yet; every image is decoded once for all of them.

    backbones  {name of the cache: backbone, already placed on `device`}
    shard_rows rows per shard: what a kill can cost; never changes the result
    max_bad    share of rows that may fail before the cache is refused (the shards stay, nothing is lost)
    progress   called with rows done and rows to do in this run

    Raises `ProvenanceError` for a cache or shard made differently, `ExtractionError` when too many rows fail.
    """
    batch = min(batch, len(manifest))
    jobs = [_job(name, b, manifest, home, device, batch) for name, b in backbones.items()]
    if len({job.cache for job in jobs}) < len(jobs):
        raise ExtractionError(
            f"two of {', '.join(backbones)} would write the same file; name one of them with -b NAME=SPEC"
        )
    pieces = [(s, min(s + shard_rows, len(manifest))) for s in range(0, len(manifest), shard_rows)]
    todo = {
        job.name: [] if _finished(job) else [p for p in pieces if not _usable(job, *p, manifest, root)] for job in jobs
    }
    wanted = [piece for piece in pieces if any(piece in todo[job.name] for job in jobs)]
    if wanted:
        _look_first(manifest, root)
        _compute(manifest, root, jobs, todo, wanted, device, batch, workers, progress)
    return [_finish(job, pieces, sum(e - s for s, e in todo[job.name]), manifest, max_bad) for job in jobs]


def _job(name: str, backbone: Backbone, manifest: Manifest, home: Home, device: str, batch: int) -> _Job:
    provenance = {
        "identity": {**backbone.identity, "dataset_version": manifest.version},
        "conditions": {"device": _device_name(device), "batch": batch, "libraries": _versions() | backbone.libraries},
        "licence": backbone.licence,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    header = Header(
        backbone=name, dim=backbone.dim, dtype=backbone.precision, ids_digest=manifest.ids_digest,
        start=0, stop=len(manifest), total=len(manifest), provenance=provenance,
    )  # fmt: skip
    return _Job(name, backbone, header, home.cache(manifest.name, name), home.shards(manifest.name, name))


def _finished(job: _Job) -> bool:
    """Is the cache there, and made from exactly this? Raises `ProvenanceError` when it was made from something else."""
    if not job.cache.exists():
        return False
    require(FeatureCache.open_complete(job.cache).header, job.header, job.cache, conditions=False)
    return True


def _usable(job: _Job, start: int, stop: int, manifest: Manifest, root: Path) -> bool:
    """Can a shard of an earlier run be kept? Not when it is damaged, nor when a file that failed can be read by now."""
    path = job.shard(start, stop)
    if not path.exists():
        return False
    try:
        shard = FeatureCache.open(path)
        require(shard.header, job.shard_header(start, stop), path, conditions=True)
        failed = [r for r in shard.bad_rows() if shard.status[r] != Status.NOT_FINITE]
    except ProvenanceError:
        raise
    except CacheError:
        return False
    reads = job.backbone.reader.reads
    return not any(
        decode(root / manifest.ids[start + r], reads).content_hash != shard.content_hash[r].tobytes() for r in failed
    )


def _look_first(manifest: Manifest, root: Path) -> None:
    """A wrong root is the commonest mistake of all: find it before a model is run."""
    sample = manifest.ids[:: max(1, len(manifest) // LOOK_FIRST)]
    if not any((root / i).exists() for i in sample):
        raise ExtractionError(
            f"none of {len(sample)} files looked for exists under {root} (for example {sample[0]}); "
            "say where the images lie with --root"
        )


def _compute(
    manifest: Manifest,
    root: Path,
    jobs: Sequence[_Job],
    todo: Mapping[str, list[tuple[int, int]]],
    wanted: Sequence[tuple[int, int]],
    device: str,
    batch: int,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    """Decode the wanted shards once, encode each with every backbone that lacks it, write each shard when it is full."""
    readers = tuple(dict.fromkeys(job.backbone.reader for job in jobs if todo[job.name]))
    cut = {piece: _tasks(*piece, batch) for piece in wanted}
    decoder = Decoder(manifest.ids, root, readers, batch, tuple(t for tasks in cut.values() for t in tasks))
    stream = batches(decoder, min(workers, len(decoder)))
    done, total = 0, sum(e - s for s, e in wanted)
    progress(done, total)
    for start, stop in wanted:
        lacking = [job for job in jobs if (start, stop) in todo[job.name]]
        filled = {job.name: zeros(manifest.ids[start:stop], job.shard_header(start, stop)) for job in lacking}
        for task in cut[start, stop]:
            decoded = next(stream)
            for job in lacking:
                _encode(
                    job.backbone, readers.index(job.backbone.reader), decoded, task, start, filled[job.name], device
                )
            done += task.stop - task.start
            progress(done, total)
        for job in lacking:
            header = job.shard_header(start, stop)
            with CacheWriter(job.shard(start, stop), header, _id_bytes(manifest.ids[start:stop])) as writer:
                writer.append(filled[job.name])


def _tasks(start: int, stop: int, batch: int) -> list[Task]:
    numbers = range(start // batch, -(-stop // batch))
    return [Task(b, max(start, b * batch), min(stop, (b + 1) * batch)) for b in numbers]


def _encode(backbone: Backbone, reader: int, decoded: Batch, task: Task, start: int, into: Rows, device: str) -> None:
    """Encode one batch and put its rows where they belong in the shard that begins at row `start`."""
    here = slice(task.start - start, task.stop - start)
    offset = task.number * backbone_batch(decoded)
    features = backbone.encode(decoded.pixels[reader].numpy(), device)[task.start - offset : task.stop - offset]
    status = decoded.status[reader].copy()
    finite = np.isfinite(features).all(axis=1)
    status[(status == Status.OK) & ~finite] = Status.NOT_FINITE
    into.features[here] = np.where((status == Status.OK)[:, None], features, 0)
    into.status[here], into.content_hash[here] = status, decoded.content_hash
    into.reasons.update({here.start + row: text for (r, row), text in decoded.reasons.items() if r == reader})
    what = "a feature is not finite" + (
        ", perhaps beyond float16: try --precision float32" * (backbone.precision == "float16")
    )
    into.reasons.update({here.start + int(row): what for row in np.flatnonzero(status == Status.NOT_FINITE)})


def backbone_batch(decoded: Batch) -> int:
    """Rows of a full batch."""
    return len(decoded.pixels[0])


def _finish(
    job: _Job, pieces: Sequence[tuple[int, int]], computed: int, manifest: Manifest, max_bad: float
) -> Extraction:
    if not job.cache.exists():
        _merge(job, [FeatureCache.open(job.shard(*piece)) for piece in pieces], manifest, max_bad)
    cache = FeatureCache.open_complete(job.cache)
    return Extraction(job.name, job.cache, len(manifest), computed, _bad([cache]))


def _merge(job: _Job, shards: Sequence[FeatureCache], manifest: Manifest, max_bad: float) -> None:
    """Verify every shard and write them as one file; then the shards go."""
    bad = _bad(shards)
    if len(bad) > max_bad * len(manifest):
        listed = "; ".join(f"{i}: {reason}" for i, reason in bad[:10]) + ("; …" if len(bad) > 10 else "")
        raise ExtractionError(
            f"{job.name}: {len(bad):,} of {len(manifest):,} rows failed, more than --max-bad {max_bad:g} allows ({listed}). "
            "What was computed is kept: mend the files, or allow more with --max-bad, and run the same command again"
        )
    with CacheWriter(job.cache, job.header, _id_bytes(manifest.ids)) as writer:
        for shard in shards:
            require(shard.header, job.header, shard.path, conditions=True)
            for rows in shard.chunks():
                writer.append(rows)
        if job.backbone.head is not None:
            writer.attach("head/weight", job.backbone.head[0])
            writer.attach("head/bias", job.backbone.head[1])
        if job.backbone.projection is not None:
            writer.attach("projection", job.backbone.projection)
    shutil.rmtree(job.shards)


def _bad(files: Sequence[FeatureCache]) -> tuple[tuple[str, str], ...]:
    return tuple((f.ids[r], f.reasons.get(int(r), "")) for f in files for r in f.bad_rows())


def _id_bytes(ids: np.ndarray) -> int:
    return max(len(i.encode()) for i in ids)


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def _versions() -> dict[str, Any]:
    import PIL
    import torch
    import torchvision

    # The part after + is the build (cu128, cpu): it changes the numbers too, so it stays.
    return {
        "embedx": __version__,
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
    }


__all__ = ["MAX_BAD", "SHARD_ROWS", "Extraction", "extract", "slug"]
