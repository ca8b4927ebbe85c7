"""The cells of a study, run: prepared, extracted and compared by the ordinary machinery, which does what is missing.

A cell is a task: here one after the other or several at a time, or on a Ray cluster. Its runs land in its own folder as
they are finished, so that a study that was killed goes on where it was, and an edited one repeats nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from embedx import plugins
from embedx.data.manifest import Manifest
from embedx.data.prepare import open_prepared, prepare
from embedx.errors import EmbedxError, HeadError, StudyError
from embedx.evaluation import runs as records
from embedx.evaluation.compare import compare
from embedx.evaluation.parallel import AT_ONCE, in_processes
from embedx.evaluation.plan import ComparisonSettings
from embedx.evaluation.runs import Runs
from embedx.extract import ExtractionSettings, extract_features
from embedx.extract.backbones import by_name
from embedx.extract.devices import devices_of
from embedx.extract.merge import Extraction
from embedx.extract.on_ray import tasks_on_ray
from embedx.spuriosity.records.ranking import rankings_for
from embedx.store import open_cache
from embedx.studies.engine.cells import Cell
from embedx.studies.engine.record import CELL, CacheFacts, CellRecord
from embedx.studies.outcome import CellRuns
from embedx.workspace import Workspace

Step = Callable[[str, int, int], None]
Notice = Callable[[str], None]
CELLS = "cells"
"""The folder of the cells' folders."""


@dataclass(frozen=True)
class RunSettings:
    """How the cells of a study are run.

    jobs         cells at a time, each in a process with its share of the cores; None: one on a GPU, else one a core, at
                 most 4
    device       as of `ExtractionSettings`
    engine       "ray": a cell is a task of a Ray cluster that shares the workspace and the folder of results
    ray_address  of a running cluster; None: a cluster on this machine
    """

    jobs: int | None = None
    device: str = "auto"
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None


DEFAULTS = RunSettings()


@dataclass(frozen=True)
class Task:
    """A cell, and where it is run."""

    cell: Cell
    workspace: Workspace
    folder: Path
    extraction: ExtractionSettings
    jobs: int | None

    @property
    def own(self) -> Path:
        """The folder of the cell's runs."""
        return self.folder / CELLS / self.cell.name


@dataclass(frozen=True)
class Finished:
    """A cell that is through, or `failure`, why it is not; `remarks` are for the user."""

    record: CellRecord | None
    remarks: tuple[str, ...]
    failure: str = ""


def run_cells(
    cells: Sequence[Cell],
    workspace: Workspace,
    folder: Path,
    settings: RunSettings,
    progress: Callable[[int, int, str], None],
    notice: Notice,
) -> dict[str, Finished]:
    """{name: what became of it} of every cell, in their order.

    Raises `StudyError` when a process that runs cells is killed from outside; what is finished is kept.
    """
    jobs = min(_jobs(settings), len(cells))
    alone = jobs == 1 and settings.engine == "local"
    extraction = ExtractionSettings(device=settings.device, workers=None if alone else 0)
    place, folder = Workspace(workspace.path.resolve()), folder.resolve()
    tasks = [Task(cell, place, folder, extraction, None if alone else 1) for cell in cells]
    finished: dict[str, Finished] = {}
    progress(0, len(cells), cells[0].name if alone else "")
    for i, outcome in _outcomes(tasks, jobs, settings, alone and _stepwise(progress, tasks, finished)):
        finished[cells[i].name] = outcome
        for line in outcome.remarks:
            notice(f"{line} ({cells[i].name})" if len(cells) > 1 else line)
        if outcome.failure:
            notice(f"note: {cells[i].name} has no runs: {outcome.failure}")
        following = next((c.name for c in cells if c.name not in finished), "")
        progress(len(finished), len(cells), following if alone else cells[i].name)
    return {cell.name: finished[cell.name] for cell in cells}


def run_cell(task: Task, step: Step = lambda what, done, total: None) -> Finished:
    """One cell: its dataset prepared, what lacks extracted, every head fitted that is not finished; its record written.

    What goes wrong with it is told in the result, so that other cells go on.
    """
    remarks: list[str] = []
    try:
        record = _ran(task, step, remarks.append)
    except (EmbedxError, OSError) as error:
        return Finished(None, tuple(remarks), str(error))
    return Finished(record, tuple(remarks))


def runs_of(task_folder: Path, cell: Cell, workspace: Workspace) -> CellRuns:
    """The runs of a finished cell, read from its folder."""
    manifest, _ = open_prepared(workspace, cell.dataset)
    return CellRuns(
        cell.table, cell.axes, manifest, records.load(task_folder / CELLS / cell.name / records.FILE), workspace
    )


def _jobs(settings: RunSettings) -> int:
    if settings.jobs is not None:
        return settings.jobs
    on_gpu = settings.engine == "local" and devices_of(settings.device)[0] != "cpu"
    return 1 if on_gpu else min(AT_ONCE, len(os.sched_getaffinity(0)))


def _stepwise(progress: Callable[[int, int, str], None], tasks: Sequence[Task], finished: dict[str, Finished]) -> Step:
    """What tells, of the cell that is run in this process, how far it is."""

    def step(what: str, done: int, total: int) -> None:
        cell = tasks[len(finished)].cell.name
        progress(len(finished), len(tasks), f"{cell}: {what} {done:,}/{total:,}")

    return step


def _outcomes(
    tasks: Sequence[Task], jobs: int, settings: RunSettings, step: Step | Literal[False]
) -> Iterator[tuple[int, Finished]]:
    if settings.engine == "ray":
        yield from tasks_on_ray(run_cell, tasks, settings.ray_address)
        return
    if step:
        for i, task in enumerate(tasks):
            yield i, run_cell(task, step)
        return
    try:
        yield from in_processes(run_cell, tasks, jobs)
    except BrokenProcessPool as error:
        raise StudyError(
            "a process that ran cells was killed, most likely for want of memory; what was finished is kept: run the "
            "same command again with --jobs 1"
        ) from error


def _ran(task: Task, step: Step, notice: Notice) -> CellRecord:
    cell, own = task.cell, task.own
    _require_files(cell, task.workspace)
    manifest, remarks = prepare(task.workspace, cell.asked, cell.root or None, cell.options)
    for line in remarks:
        notice(f"note: {line}")
    own.mkdir(parents=True, exist_ok=True)
    names, began = by_name(cell.backbones), time.perf_counter()
    extracted = extract_features(
        manifest, cell.backbones, task.workspace, task.extraction, notice=notice, spent=lambda text: None,
        progress=lambda done, total: step("extract", done, total),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    runs = _compared(task, manifest, tuple(names), step, notice)
    records.save(runs, own, comparison=True)
    before = _before(own)
    caches = {e.backbone: _facts(task.workspace, manifest, e, seconds, before) for e in extracted}
    record = CellRecord(
        table=cell.table, axes=cell.axes, dataset=manifest.name, source=cell.source, options=cell.options,
        digest=manifest.digest, rows=len(manifest), caches=caches, runs=len(runs),
        seconds=sum(sum(run.timings.values()) for run in runs),
    )  # fmt: skip
    CELL.write(own / CELL.file, record)
    return record


def _require_files(cell: Cell, workspace: Workspace) -> None:
    """Raises `StudyError` for a source that does not make its files, with no root, and not prepared before."""
    plugin = cell.source in plugins.names(plugins.DATASETS) or cell.source.startswith(plugins.OUTSIDE)
    if cell.root or not plugin or cell.dataset in workspace.datasets():
        return
    module = plugins.load(plugins.DATASETS, cell.source)
    if not hasattr(module, "make"):
        published = hasattr(module, "downloads") or hasattr(module, "DOWNLOADS")
        fetched = f"fetch them with `embedx data get {cell.source}`" if published else "get them"
        raise StudyError(
            f'the dataset {cell.source} needs its files; {fetched}, or say where they lie: root = "FOLDER" in the '
            f"table {cell.table!r} of the study, or `embedx extract {cell.asked} --root FOLDER -b BACKBONE`"
        )


def _compared(task: Task, manifest: Manifest, backbones: Sequence[str], step: Step, notice: Notice) -> Runs:
    """The runs of a cell by every rule."""
    cell, runs, failures = task.cell, [], []
    for rule in cell.rules:
        rankings = rankings_for(task.workspace, manifest, backbones, cell.heads, rule)
        settings = ComparisonSettings(
            rule, cell.seeds, task.jobs, folder=task.own, prompts=cell.prompts or None, rankings=rankings
        )
        try:
            runs += compare(
                task.workspace, manifest, backbones, cell.heads, settings, notice=notice,
                progress=lambda done, total, what: step(what or "fit", done, total),
            )  # fmt: skip
        except HeadError as error:
            failures.append(error)
    if not runs:
        raise failures[0]
    for error in failures:
        notice(f"note: left out: {error}")
    return Runs(runs)


def _before(own: Path) -> CellRecord | None:
    try:
        return CELL.read(own / CELL.file)
    except StudyError:
        return None


def _facts(
    workspace: Workspace, manifest: Manifest, extraction: Extraction, seconds: float, before: CellRecord | None
) -> CacheFacts:
    """What is known of a cache; what its making took stays known when nothing was computed this time."""
    header = open_cache(workspace, manifest, extraction.backbone).header
    old = before.caches.get(extraction.backbone) if before else None
    fresh = CacheFacts(
        dim=header.dim, bytes=extraction.path.stat().st_size, weights=str(header.identity["weights"]),
        rows=extraction.computed, seconds=seconds,
    )  # fmt: skip
    return fresh if extraction.computed or old is None else replace(fresh, rows=old.rows, seconds=old.seconds)
