"""A study from its file to its page: cells, runs, answer, record."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedx.documents import plain
from embedx.errors import StudyError
from embedx.evaluation.runs import versions
from embedx.files import locked, write_text
from embedx.studies.drawing import lines
from embedx.studies.engine.cells import cells
from embedx.studies.engine.default import ranks_and_verdicts
from embedx.studies.engine.frame import frame_of
from embedx.studies.engine.page import page, svg_text
from embedx.studies.engine.record import STUDY, Finding, StudyRecord
from embedx.studies.engine.run import DEFAULTS, RunSettings, run_cells, runs_of
from embedx.studies.outcome import Answer, Outcome, Section
from embedx.studies.study import Plot, Study
from embedx.workspace import Workspace, slug

PAGE, TABLE, PLOTS = "report.html", "runs.csv", "plots"


def folder_of(study: Study, *, small: bool) -> Path:
    """Where a study leaves what it finds, unless told: `results/studies/NAME`, with `-small` for its reduced form."""
    return Path("results") / "studies" / (slug(study.name) + "-small" * small)


def conduct(
    study: Study,
    workspace: Workspace,
    folder: Path,
    settings: RunSettings = DEFAULTS,
    *,
    small: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    notice: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Run what is missing of a study, and write its answer: `report.html`, `study.json`, `runs.csv`, `plots/*.svg`.

    small     whether the study was read in its reduced form, for the record
    progress  called with cells done, cells to do, and what is under way

    A cell that cannot be run is told and left out. Raises `StudyError` when none can, and for two cells that would
    write one cache.
    """
    asked = cells(study)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / STUDY.file):
        finished = run_cells(asked, workspace, folder, settings, progress, notice)
        records = {name: one.record for name, one in finished.items() if one.record is not None}
        failed = {name: one.failure for name, one in finished.items() if one.record is None}
        if not records:
            raise StudyError(
                f"no cell of {study.name} could be run; {next(iter(finished))}: {next(iter(failed.values()))}"
            )
        through = tuple(runs_of(folder, cell, workspace) for cell in asked if cell.name in records)
        outcome = Outcome(study, frame_of(study, through), through)
        answer = answer_of(outcome)
        configuration = plain(study)
        record = StudyRecord(
            study=study.name, small=small, asked=configuration, question=study.question, summary=answer.summary,
            digest=hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest(),
            findings=tuple(Finding(s.question, s.answer, s.evidence) for s in answer.sections),
            cells=records, failed=failed, versions=versions(),
        )  # fmt: skip
        _publish(folder, record, outcome, answer)
    return answer


def answer_of(outcome: Outcome) -> Answer:
    """What a study finds, by the module that it names, or by ranks and verdicts; its plots as SVG text."""
    name = outcome.study.answer
    read_off = importlib.import_module(f"embedx.studies.{name}").answer if name else ranks_and_verdicts
    answer: Answer = read_off(outcome)
    return replace(answer, sections=tuple(_with_svg(section) for section in answer.sections))


def _with_svg(section: Section) -> Section:
    return replace(section, plots=tuple((title, svg_text(plot)) for title, plot in section.plots))


def _publish(folder: Path, record: StudyRecord, outcome: Outcome, answer: Answer) -> None:
    """All files; the record is the last, so that it tells of what is there."""
    asked_for = [(_title(plot), svg) for plot in outcome.study.plots if (svg := _drawn(plot, outcome))]
    drawn = [*(plot for section in answer.sections for plot in section.plots), *asked_for]
    (folder / PLOTS).mkdir(exist_ok=True)
    for before in (folder / PLOTS).glob("[0-9]*.svg"):
        before.unlink()
    for i, (title, svg) in enumerate(drawn, 1):
        write_text(folder / PLOTS / f"{i:02d}-{slug(title.lower())[:60]}.svg", svg)
    write_text(folder / TABLE, outcome.frame.to_csv(index=False, lineterminator="\n"))
    write_text(folder / PAGE, page(record, outcome, answer, asked_for))
    STUDY.write(folder / STUDY.file, record)


def _title(plot: Plot) -> str:
    return plot.title or f"{plot.y.replace('_', ' ')} against {plot.x}"


def _drawn(plot: Plot, outcome: Outcome) -> str:
    """A plot that the study asks for; empty where no run has its axis."""
    frame = outcome.frame
    if plot.table:
        frame = frame.loc[frame["table"] == plot.table]
    used = [name for name in (plot.x, plot.by, plot.panels) if name]
    frame = frame.dropna(subset=used)
    return lines(frame, plot.x, plot.y, plot.by, plot.panels) if len(frame) else ""
