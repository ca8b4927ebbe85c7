"""Extraction on a Ray cluster: Ray schedules, retries and moves the shards; what is done is the shard function.

All machines need embedx, the same libraries, and the cache folder, the images and the weights under the same paths.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedx.data.manifest import Manifest
from embedx.data.sources import Source
from embedx.errors import CacheError, EmbedxError, ExtractionError
from embedx.extract.backbones import load_backbone
from embedx.extract.encoding import conditions, fitting_batch, placeless, threads
from embedx.extract.engine import Progress, carry_out, threads_of
from embedx.extract.job import Job, Piece, conditions_before
from embedx.extract.kept import Looking
from embedx.extract.merge import Extraction
from embedx.extract.plan import Plan, Settings, plan
from embedx.extract.shards import compute, load, same_conditions
from embedx.extract.throughput import Throughput
from embedx.extractors import Backbone, Precision
from embedx.plugins.outside import PLUGINS, Plugins, closed_folder
from embedx.store import FeatureCache
from embedx.workspace import Workspace

AT_A_TIME = 8  # shards per task at most: a task that is retried skips those that are there already
RETRIES = 20
Place = tuple[str, list[str]]
"""The folder where the command runs, and the driver's `sys.path`."""


def extract_on_ray(
    manifest: Manifest,
    source: Source,
    backbones: Mapping[str, Backbone],
    workspace: Workspace,
    settings: Settings,
    progress: Progress = lambda done, total: None,
    looking: Looking = lambda done, total: None,
    address: str | None = None,
) -> tuple[list[Extraction], Throughput]:
    """As `extract`, the shards computed by tasks of a Ray cluster; the merge happens here.

    settings.devices  one kind: a task asks for a GPU when it is CUDA, else for one processor
    settings.workers  processes that decode, per task
    address           of a running cluster; None: a cluster on this machine, for as long as the extraction lasts

    Raises `ExtractionError` when Ray is not installed, the cluster cannot be reached, or a task failed for good.
    """
    ray = _library()
    workspace = Workspace(workspace.path.resolve())
    if settings.weights:
        settings = replace(settings, weights=settings.weights.resolve())
    with ExitStack() as stack:
        if not ray.is_initialized():
            _connect(ray, address)
            stack.callback(ray.shutdown)
        tasks = _Tasks(ray, settings)
        specs = {name: backbone.spec for name, backbone in backbones.items()}
        precision = next(iter(backbones.values())).precision
        there, fitting = tasks.get(tasks.facts.remote(PLUGINS, specs, settings, precision, _place()))
        before = conditions_before(backbones, manifest, workspace, there["device"])
        batch = settings.batch or before.get("batch") or fitting
        facts = there | {"batch": batch} | {k: before.get(k, there[k]) for k in ("threads",) if k in there}

        def free(name: str) -> bool:
            asked = backbones[name].spec, settings, precision, batch, facts.get("threads"), _place()
            return tasks.get(tasks.placeless.remote(PLUGINS, *asked))

        work = plan(manifest, source, backbones, workspace, settings, facts, free, looking)
        return carry_out(work, backbones, progress, tasks.run)


def tasks_on_ray(
    work: Callable[[Any], Any], items: Sequence[Any], address: str | None = None
) -> Iterator[tuple[int, Any]]:
    """(index, result) of `work` on every item, a task of a Ray cluster each, as soon as it is finished.

    work     a function of a module; a task that its machine loses is tried again, so it has to go on where it was
    address  as of `extract_on_ray`

    Raises `ExtractionError` when Ray is not installed, the cluster cannot be reached, or a task failed for good.
    """
    ray = _library()
    with ExitStack() as stack:
        if not ray.is_initialized():
            _connect(ray, address)
            stack.callback(ray.shutdown)
        gpus = min(1, int(ray.cluster_resources().get("GPU", 0)))
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_elsewhere)
        open_ = {task.remote(PLUGINS, work, item, _place()): i for i, item in enumerate(items)}
        while open_:
            for ready in ray.wait(list(open_))[0]:
                try:
                    yield open_.pop(ready), ray.get(ready)
                except ray.exceptions.RayError as error:
                    raise _lost(error) from error


def _elsewhere(plugins: Plugins, work: Callable[[Any], Any], item: Any, place: Place) -> Any:
    """Task: one item."""
    _go(place)
    return work(item)


def _lost(error: Exception) -> ExtractionError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ExtractionError(
        f"a task on the cluster failed for good ({lines[-1].strip()}); what was computed is kept, the same command "
        "goes on from there"
    )


@dataclass(frozen=True)
class _Held:
    """What a worker process keeps from task to task."""

    token: str
    plan: Plan
    backbones: dict[str, Backbone]


_held: list[_Held] = []


class _Tasks:
    """The remote functions, with the resources that they ask for."""

    def __init__(self, ray: Any, settings: Settings) -> None:
        self.ray = ray
        self.device = settings.devices[0].partition(":")[0]
        asks = {"num_cpus": max(1, settings.workers), "max_retries": RETRIES, "max_calls": 0}
        if self.device == "cuda":
            asks["num_gpus"] = 1
        self.facts, self.shards, self.placeless = (ray.remote(**asks)(f) for f in (_facts, _shards, _placeless))

    def get(self, reference: Any) -> Any:
        """The result of a task, its failure as our own error."""
        try:
            value = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            raise _lost(error) from error
        if isinstance(value, str):
            raise ExtractionError(value)
        return value

    def run(self, work: Plan, backbones: Mapping[str, Backbone], progress: Progress) -> Throughput:
        """All wanted shards as tasks; an `Engine`."""
        wanted, used = work.wanted(), Throughput()
        reference, token = self.ray.put(work), uuid.uuid4().hex
        slots = int(self.ray.cluster_resources().get("GPU" if self.device == "cuda" else "CPU", 1))
        size = max(1, min(AT_A_TIME, len(wanted) // (4 * slots)))
        groups = [wanted[i : i + size] for i in range(0, len(wanted), size)]
        given = PLUGINS, [reference], token
        open_ = {self.shards.remote(*given, group, self.device, _place()): group for group in groups}
        done, total = 0, sum(map(work.images, wanted))
        began = time.perf_counter()
        progress(done, total)
        while open_:
            ready, _ = self.ray.wait(list(open_))
            for task in ready:
                used.add(self.get(task))
                done += sum(map(work.images, open_.pop(task)))
                progress(done, total)
        used.seconds, used.processes = time.perf_counter() - began, min(slots, len(groups))
        used.workers = work.settings.workers * used.processes
        return used


def _facts(plugins: Plugins, specs: dict[str, str], settings: Settings, precision: Precision, place: Place) -> Any:
    """Task: the conditions under which the cluster works, and a batch that fits; or what is wrong.

    The weights are tried early.
    """
    _go(place)
    device = settings.devices[0].partition(":")[0]
    try:
        loaded = [load_backbone(spec, settings.weights) for spec in specs.values()]
        placed = [b.placed(device, precision, settings.decode, compiled=settings.compiled) for b in loaded]
    except (EmbedxError, ValueError) as error:
        return f"a machine of the cluster cannot load the backbones: {error}"
    facts = conditions(device, placed, compiled=settings.compiled) | threads_of(settings, {})
    return facts, settings.batch or fitting_batch(placed, device)


def _placeless(
    plugins: Plugins, spec: str, settings: Settings, precision: Precision, batch: int, number: int | None, place: Place
) -> bool:
    """Task: see `encoding.placeless`."""
    _go(place)
    device = settings.devices[0].partition(":")[0]
    backbone = load_backbone(spec, settings.weights)
    with threads(device, number):
        placed = backbone.placed(device, precision, settings.decode, compiled=settings.compiled)
        return placeless(placed, device, batch)


def _shards(
    plugins: Plugins, reference: Sequence[Any], token: str, pieces: Sequence[Piece], device: str, place: Place
) -> Any:
    """Task: compute the pieces that are not there yet; what went wrong comes back as text."""
    import ray

    _go(place)
    try:
        if not _held or _held[0].token != token:
            _held.clear()
            work: Any = ray.get(reference[0])
            backbones = load(work, device)
            same_conditions(work, device, backbones)
            _held.append(_Held(token, work, backbones))
        work, backbones = _held[0].plan, _held[0].backbones
        left = [p for p in pieces if not all(_done(job, p) for job in work.jobs if p in work.lacking[job.name])]
        return compute(work, backbones, left, device, work.settings.workers)
    except (EmbedxError, OSError) as error:
        return f"{ray.util.get_node_ip_address()}: {error}; what was computed is kept"


def _done(job: Job, piece: Piece) -> bool:
    """Whether an earlier try of this task has finished a shard; one that was there before the run was lacking rows."""
    try:
        shard = FeatureCache.open(job.shard(piece))
        job.require(shard)
        return shard.header.provenance["created"] == job.header.provenance["created"] and not shard.damaged()
    except CacheError:
        return False


def _place() -> Place:
    return str(Path.cwd()), sys.path


def _go(place: Place) -> None:
    """Work as the driver does: a plug-in may read a file beside it, or import what is on the driver's path."""
    folder, sys.path[:] = place
    with suppress(OSError):  # another machine may not have the folder
        os.chdir(folder)


def _library() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a library does not report its users
    try:
        import ray
    except ImportError as error:
        raise ExtractionError("Ray is not installed; run: pip install 'embedx[ray]'") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    try:
        host, colon, port = (address or "").rpartition("/")[2].rpartition(":")
        if colon and port.isdecimal():
            socket.create_connection((host, int(port)), 10).close()  # Ray itself would try for many minutes
        # Ray puts the folder it is started in onto its workers' sys.path, at the front: Python's own does no harm.
        with closed_folder(), chdir(Path(os.__file__).parent):
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ExtractionError(
            f"no Ray cluster at {address or 'this machine'} ({line}); start one with `ray start --head`, "
            "or leave --ray-address out for one on this machine"
        ) from error
