"""The extraction engine: shards of rows are the unit of work, a merge makes the cache.

A shard is written whole or not at all, so a run that was killed goes on where it was and loses one shard at most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from embedx.data.manifest import Manifest
from embedx.data.sources import Source
from embedx.errors import ExtractionError
from embedx.extract.encoding import conditions, fitting_batch, placeless, threads
from embedx.extract.job import conditions_before
from embedx.extract.kept import Looking
from embedx.extract.merge import Extraction, finish
from embedx.extract.plan import Plan, Settings, plan
from embedx.extract.shards import compute
from embedx.extract.throughput import Throughput
from embedx.extractors import Backbone
from embedx.workspace import Workspace

Progress = Callable[[int, int], None]
Engine = Callable[[Plan, Mapping[str, Backbone], Progress], Throughput]


def extract(
    manifest: Manifest,
    source: Source,
    backbones: Mapping[str, Backbone],
    workspace: Workspace,
    settings: Settings | None = None,
    progress: Progress = lambda done, total: None,
    looking: Looking = lambda done, total: None,
) -> tuple[list[Extraction], Throughput]:
    """Bring the feature cache of every backbone up to date; every image is decoded once for all of them.

    Only rows are computed that have no features yet, or whose file has changed.

    backbones  {name of the cache: backbone, already placed on the first of the settings' devices}
    progress   called with rows done and rows to do in this run
    looking    called with rows looked at and rows to look at, while files are read to see whether they changed

    Raises `ProvenanceError` for a cache or shard made differently, `ExtractionError` when too many rows fail.
    """
    settings = settings or Settings()
    device = settings.devices[0]
    facts = conditions(device, backbones.values(), compiled=settings.compiled)
    before = conditions_before(backbones, manifest, workspace, facts["device"])
    batch = settings.batch or before.get("batch") or fitting_batch(backbones.values(), device)
    facts = facts | {"batch": batch} | threads_of(settings, before)
    if settings.merge_only and before:  # which computes nothing, and may happen anywhere
        facts = before

    def free(name: str) -> bool:
        with threads(device, facts.get("threads")):
            return placeless(backbones[name], device, batch)

    work = plan(manifest, source, backbones, workspace, settings, facts, free, looking)
    return carry_out(work, backbones, progress, on_devices)


def threads_of(settings: Settings, before: Mapping[str, Any]) -> dict[str, int]:
    """{"threads": ...} that processors compute with: as many as in the run before, else their share of the cores."""
    import torch

    if settings.devices[0].startswith("cuda"):
        return {}
    several = len(settings.devices)
    available = torch.get_num_threads() if several == 1 else max(1, (os.cpu_count() or 1) // several)
    return {"threads": before.get("threads", available)}


def carry_out(
    work: Plan, backbones: Mapping[str, Backbone], progress: Progress, engine: Engine
) -> tuple[list[Extraction], Throughput]:
    """Let an engine compute what is wanted, then merge, unless one of the two was not asked for."""
    wanted, used = work.wanted(), Throughput()
    if work.settings.merge_only and (missing := work.missing()):
        listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise ExtractionError(f"{len(missing):,} shards are missing ({listed}); compute them first, then merge")
    if wanted:
        used = engine(work, backbones, progress)
    counts = {j.name: work.rows(j.name) for j in work.jobs}
    if work.settings.part is not None:
        return [Extraction(j.name, j.shards, len(work.ids), counts[j.name], (), written=False) for j in work.jobs], used
    return [finish(work, job, backbones[job.name], counts[job.name]) for job in work.jobs], used


def on_devices(work: Plan, backbones: Mapping[str, Backbone], progress: Progress) -> Throughput:
    """In this process, or in one process per device when there are several."""
    wanted = work.wanted()
    done, total = 0, sum(work.images(piece) for piece in wanted)

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    progress(0, total)
    device, *more = work.settings.devices
    if more:
        from embedx.extract.processes import compute_in_processes

        return compute_in_processes(work, wanted, count)
    workers = min(work.settings.workers, -(-total // work.batch))
    return compute(work, backbones, wanted, device, workers, count)
