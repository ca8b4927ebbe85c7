"""The merge: every shard verified, then one file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedx.errors import CacheError, ExtractionError
from embedx.extract.plan import Job, Plan
from embedx.store import CacheWriter, FeatureCache, Header
from extractors._backbone import Backbone


@dataclass(frozen=True)
class Extraction:
    """What became of one backbone: its cache, how many rows were computed now, and (id, reason) of the failed ones.

    path  the finished cache; the folder of shards when only a part was asked for
    """

    backbone: str
    path: Path
    rows: int
    computed: int
    bad: tuple[tuple[str, str], ...]


def finish(plan: Plan, job: Job, backbone: Backbone, computed: int) -> Extraction:
    """Merge the shards, unless that was done before, and take them away.

    Raises `ExtractionError` when more rows failed than are allowed, `CacheError` for a shard that is gone or damaged.
    """
    if not job.cache.exists():
        try:
            _merge(plan, job, backbone)
        except CacheError:
            if not job.cache.exists():  # unless another run has merged the same shards meanwhile
                raise
    shutil.rmtree(job.shards, ignore_errors=True)
    return Extraction(
        job.name, job.cache, len(plan.ids), computed, tuple(_bad_rows(FeatureCache.open_complete(job.cache)))
    )


def _merge(plan: Plan, job: Job, backbone: Backbone) -> None:
    """Every shard read once, verified, and written; what turns out to be too much is thrown away at the end."""
    bad, batches = [], set()
    with CacheWriter(job.cache, job.header, plan.ids) as writer:
        for piece in plan.pieces:
            shard = FeatureCache.open(job.shard(piece))
            job.require(shard)
            for rows in shard.chunks():
                writer.append(rows)
            bad += _bad_rows(shard)
            batches.add(shard.header.provenance["conditions"]["batch"])
        if len(bad) > plan.settings.max_bad * len(plan.ids):
            listed = "; ".join(f"{i}: {reason}" for i, reason in bad[:10]) + ("; …" if len(bad) > 10 else "")
            raise ExtractionError(
                f"{job.name}: {len(bad):,} of {len(plan.ids):,} rows failed, more than "
                f"--max-bad {plan.settings.max_bad:g} allows ({listed}). What was computed is kept: mend the files, "
                "or allow more, and run the same command again"
            )
        writer.header = _header(job, sorted(batches, reverse=True))
        extras: dict[str, np.ndarray | None] = {"projection": backbone.projection}
        extras["projection_bias"] = backbone.projection_bias
        extras["head/weight"], extras["head/bias"] = backbone.head or (None, None)
        for name, array in extras.items():
            if array is not None:
                writer.attach(name, array)


def _header(job: Job, batches: list[int]) -> Header:
    """The job's header, with all batch sizes where memory made some smaller."""
    batch = batches[0] if len(batches) == 1 else batches
    conditions = job.header.provenance["conditions"] | {"batch": batch}
    return replace(job.header, provenance={**job.header.provenance, "conditions": conditions})


def _bad_rows(file: FeatureCache) -> list[tuple[str, str]]:
    """(id, reason) of every row that failed; a file without such rows is hardly read."""
    return [(str(file.ids[r]), file.reasons.get(int(r), "")) for r in file.bad_rows()]
