"""The extraction engine: shards of rows are the unit of work, a merge makes the cache.

A shard is written whole or not at all, so a run that was killed goes on where it was and loses one shard at most.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedx.errors import CacheError, ExtractionError
from embedx.extract.plan import Job, Piece, Settings, plan
from embedx.extract.rows import Batch, Decoder, Task, batches
from embedx.home import Home
from embedx.manifest import Manifest
from embedx.status import Status
from embedx.store import CacheWriter, FeatureCache, Rows
from embedx.store.header import require
from embedx.store.writer import zeros
from extractors._backbone import Backbone

NOT_FINITE = "a feature is not finite"
OVERFLOW = "a feature is not finite in float16; try --precision float32"


@dataclass(frozen=True)
class Extraction:
    """What became of one backbone: its cache, how many rows were computed now, and (id, reason) of the failed ones."""

    backbone: str
    path: Path
    rows: int
    computed: int
    bad: tuple[tuple[str, str], ...]


def extract(
    manifest: Manifest,
    root: Path,
    backbones: dict[str, Backbone],
    home: Home,
    settings: Settings | None = None,
) -> list[Extraction]:
    """Write the feature cache of every backbone that has none yet; every image is decoded once for all of them.

    backbones  {name of the cache: backbone, already placed on the settings' device}

    Raises `ProvenanceError` for a cache or shard made differently, `ExtractionError` when too many rows fail.
    """
    settings = settings or Settings()
    jobs, pieces, lacking = plan(manifest, root, backbones, home, settings)
    wanted = [piece for piece in pieces if any(piece in lacking[job.name] for job in jobs)]
    if wanted:
        _compute(manifest, root, jobs, lacking, wanted, settings)
    return [_finish(job, pieces, lacking[job.name], manifest, settings) for job in jobs]


def _compute(
    manifest: Manifest,
    root: Path,
    jobs: Sequence[Job],
    lacking: Mapping[str, list[Piece]],
    wanted: Sequence[Piece],
    settings: Settings,
) -> None:
    """Decode the wanted shards once, encode each with every backbone that lacks it, write it when it is full."""
    readers = tuple(dict.fromkeys(job.backbone.reader for job in jobs if lacking[job.name]))
    batch = min(settings.batch, len(manifest))
    cut = {piece: _tasks(piece, batch) for piece in wanted}
    decoder = Decoder(manifest.ids, root, readers, batch, tuple(t for tasks in cut.values() for t in tasks))
    stream = batches(decoder, min(settings.workers, len(decoder)))
    done, total = 0, sum(stop - start for start, stop in wanted)
    settings.progress(done, total)
    for piece in wanted:
        active = [job for job in jobs if piece in lacking[job.name]]
        ids = manifest.ids[slice(*piece)]
        filled = {job.name: zeros(ids, job.shard_header(piece)) for job in active}
        for task in cut[piece]:
            decoded = next(stream)
            for job in active:
                reader = readers.index(job.backbone.reader)
                _encode(job.backbone, settings.device, reader, decoded, task, piece[0], filled[job.name])
            done += task.stop - task.start
            settings.progress(done, total)
        for job in active:
            with CacheWriter(job.shard(piece), job.shard_header(piece), ids) as writer:
                writer.append(filled[job.name])


def _tasks(piece: Piece, batch: int) -> list[Task]:
    """The batches that a shard touches, numbered from row 0 of the manifest, so that a shard may begin anywhere."""
    start, stop = piece
    numbers = range(start // batch, -(-stop // batch))
    return [Task(b, max(start, b * batch), min(stop, (b + 1) * batch)) for b in numbers]


def _encode(backbone: Backbone, device: str, reader: int, decoded: Batch, task: Task, start: int, into: Rows) -> None:
    """Encode one batch and put its rows where they belong in the shard that begins at row `start`."""
    import torch

    here = slice(task.start - start, task.stop - start)
    pixels = decoded.pixels[reader]
    first = task.number * len(pixels)
    try:
        features = backbone.encode(pixels, device)[task.start - first : task.stop - first]
    except torch.OutOfMemoryError as error:
        raise ExtractionError(
            f"{backbone.spec}: {device} has too little memory for a batch of {len(pixels)} images; use a smaller "
            "--batch-size (shards computed with this one, if any, have to be deleted then: two sizes do not mix)"
        ) from error
    status = decoded.status[reader].copy()
    status[(status == Status.OK) & ~np.isfinite(features).all(axis=1)] = Status.NOT_FINITE
    into.features[here] = np.where((status == Status.OK)[:, None], features, 0)
    into.status[here], into.content_hash[here] = status, decoded.content_hash
    into.reasons.update({here.start + row: text for (r, row), text in decoded.reasons.items() if r == reader})
    what = OVERFLOW if backbone.precision == "float16" else NOT_FINITE
    into.reasons.update({here.start + int(row): what for row in np.flatnonzero(status == Status.NOT_FINITE)})


def _finish(
    job: Job, pieces: Sequence[Piece], computed: Sequence[Piece], manifest: Manifest, settings: Settings
) -> Extraction:
    if not job.cache.exists():
        try:
            _merge(job, [FeatureCache.open(job.shard(piece)) for piece in pieces], manifest, settings.max_bad)
        except CacheError:
            if not job.cache.exists():  # unless another run has merged the same shards meanwhile
                raise
    shutil.rmtree(job.shards, ignore_errors=True)
    bad = _bad([FeatureCache.open_complete(job.cache)])
    return Extraction(job.name, job.cache, len(manifest), sum(stop - start for start, stop in computed), bad)


def _merge(job: Job, shards: Sequence[FeatureCache], manifest: Manifest, max_bad: float) -> None:
    """Verify every shard and write them as one file."""
    bad = _bad(shards)
    if len(bad) > max_bad * len(manifest):
        listed = "; ".join(f"{i}: {reason}" for i, reason in bad[:10]) + ("; …" if len(bad) > 10 else "")
        raise ExtractionError(
            f"{job.name}: {len(bad):,} of {len(manifest):,} rows failed, more than --max-bad {max_bad:g} allows "
            f"({listed}). What was computed is kept: mend the files, or allow more, and run the same command again"
        )
    with CacheWriter(job.cache, job.header, manifest.ids) as writer:
        for shard in shards:
            require(shard.header, job.header, shard.path, conditions=True)
            for rows in shard.chunks():
                writer.append(rows)
        if job.backbone.head is not None:
            writer.attach("head/weight", job.backbone.head[0])
            writer.attach("head/bias", job.backbone.head[1])
        if job.backbone.projection is not None:
            writer.attach("projection", job.backbone.projection)
        if job.backbone.projection_bias is not None:
            writer.attach("projection_bias", job.backbone.projection_bias)


def _bad(files: Sequence[FeatureCache]) -> tuple[tuple[str, str], ...]:
    return tuple((str(f.ids[r]), f.reasons.get(int(r), "")) for f in files for r in f.bad_rows())
