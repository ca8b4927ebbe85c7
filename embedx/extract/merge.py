"""The merge: every shard verified, then one file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedx.errors import CacheError, ExtractionError
from embedx.extract.job import Job, batches_of
from embedx.extract.plan import Plan
from embedx.extractors import Backbone
from embedx.files import abandoned, locked
from embedx.store import CacheWriter, FeatureCache, Header


@dataclass(frozen=True)
class Extraction:
    """What became of one backbone: its cache, how many rows were computed now, and (id, reason) of the failed ones.

    path     the finished cache; the folder of shards when only a part was asked for
    written  whether the cache was written; if not, it was complete already
    """

    backbone: str
    path: Path
    rows: int
    computed: int
    bad: tuple[tuple[str, str], ...]
    written: bool = True


def finish(plan: Plan, job: Job, backbone: Backbone, computed: int) -> Extraction:
    """Merge the shards and what is kept of earlier runs, unless that was done before, and take the shards away.

    The shards go when the merged file was opened again and read to its end. Raises `ExtractionError` when more rows
    failed than are allowed, `CacheError` for a shard that is gone or damaged.
    """
    written = job.name not in plan.settled
    if written:
        with locked(job.cache):
            written = _merged(plan, job, backbone)
    cache = FeatureCache.open_complete(job.cache)
    _remove_shards(job)
    return Extraction(job.name, job.cache, len(plan.ids), computed, tuple(_bad_rows(cache)), written)


def _merged(plan: Plan, job: Job, backbone: Backbone) -> bool:
    """Whether the cache had to be written: not where another run has done so since this one was planned."""
    before = plan.kept[job.name].seal_of(job.cache)
    if _another(plan, job, before):
        return False
    try:
        _merge(plan, job, backbone)
    except CacheError:
        if not _another(plan, job, before):
            raise
        return False
    if damaged := FeatureCache.open_complete(job.cache).damaged():
        raise CacheError(
            f"{job.cache}: rows {damaged[0][0]:,} to {damaged[0][1]:,} are not what was written; the disk may be "
            "failing. The shards are kept: delete the file and merge again, better onto another disk"
        )
    return True


def _another(plan: Plan, job: Job, before: bytes | None) -> bool:
    """Whether another run has finished the cache of the same rows meanwhile."""
    if not job.cache.exists():
        return False
    now = FeatureCache.open_complete(job.cache)
    return (
        now.seal != before
        and now.header.ids_digest == job.header.ids_digest
        and now.header.identity == dict(job.header.identity)
    )


def _remove_shards(job: Job) -> None:
    """And what killed writers left beside them; what another process is writing there at this moment stays."""
    for path in (*job.shards.glob("[!.]*.h5"), *abandoned(job.shards)):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        job.shards.rmdir()


def _merge(plan: Plan, job: Job, backbone: Backbone) -> None:
    """Every row read once, verified, and written; what turns out to be too much is thrown away at the end."""
    bad: list[tuple[str, str]] = []
    batches = {b for file in plan.kept[job.name].used() for b in batches_of(file.header)}
    with CacheWriter(job.cache, job.header, plan.ids) as writer:
        for piece in plan.pieces:
            if piece not in plan.lacking[job.name]:
                rows = plan.begun(job, piece)
                writer.append(rows)
                bad += [(str(rows.ids[r]), reason) for r, reason in sorted(rows.reasons.items())]
                continue
            shard = FeatureCache.open(job.shard(piece))
            job.require(shard)
            for rows in shard.chunks():
                writer.append(rows)
            bad += _bad_rows(shard)
            batches.update(batches_of(shard.header))
        if len(bad) > plan.settings.max_bad * len(plan.ids):
            listed = "; ".join(f"{i}: {reason}" for i, reason in bad[:10]) + ("; …" if len(bad) > 10 else "")
            raise ExtractionError(
                f"{job.name}: {len(bad):,} of {len(plan.ids):,} rows failed, more than "
                f"--max-bad {plan.settings.max_bad:g} allows ({listed}). What was computed is kept: mend the files, "
                "or allow more, and run the same command again"
            )
        writer.header = _header(plan, job, sorted(batches, reverse=True))
        extras: dict[str, np.ndarray | None] = {"projection": backbone.projection}
        extras["projection_bias"] = backbone.projection_bias
        extras["head/weight"], extras["head/bias"] = backbone.head or (None, None)
        for name, array in extras.items():
            if array is not None:
                writer.attach(name, array)


def _header(plan: Plan, job: Job, batches: list[int]) -> Header:
    """The job's header with the conditions under which the rows were computed, in this run or before it.

    They are one and the same where both were, but that earlier versions say less. All batch sizes are listed where
    memory made some smaller.
    """
    earlier = [file.header.provenance["conditions"] for file in plan.kept[job.name].used()]
    conditions = {**(job.conditions if plan.lacking[job.name] or not earlier else {}), **(earlier or [{}])[0]}
    conditions |= {"batch": batches[0] if len(batches) == 1 else batches}
    return replace(job.header, provenance={**job.header.provenance, "conditions": conditions})


def _bad_rows(file: FeatureCache) -> list[tuple[str, str]]:
    """(id, reason) of every row that failed; a file without such rows is hardly read."""
    return [(str(file.ids[r]), file.reasons.get(int(r), "")) for r in file.bad_rows()]
