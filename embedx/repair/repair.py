"""The repair of one head: rows drawn, all candidates fitted at once, one chosen on validation, everything on test."""

from __future__ import annotations

import time
from dataclasses import dataclass

from embedx.data.manifest import Manifest
from embedx.evaluation.model import Model
from embedx.evaluation.records import Notice
from embedx.evaluation.runs import versions
from embedx.repair.answer import answered
from embedx.repair.descent import Progress, Threshold, descend, silent
from embedx.repair.problem import Problem
from embedx.repair.records import RepairRecord
from embedx.repair.report import Report, chosen_of
from embedx.repair.rows import BY_SEED, BY_SPLIT
from embedx.repair.settings import RepairSettings
from embedx.store import FeatureCache


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repaired head, of the chosen setting and the first seed, and the record of the whole sweep."""

    model: Model
    record: RepairRecord


def repair_head(
    manifest: Manifest,
    cache: FeatureCache,
    model: Model,
    concept: str,
    target: str,
    settings: RepairSettings | None = None,
    *,
    progress: Progress = silent,
    notice: Notice = lambda text: None,
) -> Repaired:
    """Repair a linear head with a few images of a concept that it gets wrong, and one image of each of N classes.

    concept   ATTRIBUTE=VALUE (rows of the target's class), a file of ids, or a folder of images
    target    the class that images of the concept should get
    progress  called with candidates done, candidates to do, and the step
    Raises `UnknownName` for a target, attribute, value or id that is none, `HeadError` for a concept without enough
    images, for more classes than there are, and for a head that is not linear.
    """
    began, settings = time.perf_counter(), settings or RepairSettings()
    problem = Problem.of(manifest, cache, model, concept, target, settings, notice)
    changes = descend(problem.start, problem.tries(), Threshold(settings.threshold), settings.steps, progress)
    report = Report.of(problem, changes, progress)
    chosen = chosen_of(report.outcomes)
    record = RepairRecord(
        dataset=manifest.name, model=str(model.name), target=target, concept=concept, rows=_rows(problem),
        divided=BY_SEED if problem.division.parts is None else BY_SPLIT, settings=problem.settings,
        before=report.before, bias_only=tuple(report.bias_only(s) for s in range(settings.seeds)),
        outcomes=report.outcomes, chosen=chosen,
        answer=answered(report.differences(chosen), target, settings.margin),
        inputs={"manifest": manifest.digest, "weights": str(cache.header.identity["weights"])},
        versions=versions(), seconds=time.perf_counter() - began,
    )  # fmt: skip
    first = changes[problem.grid.index(chosen)]
    return Repaired(problem.start.changed(first.weight, first.beta.double().numpy()), record)


def _rows(problem: Problem) -> dict[str, int]:
    """How many rows are for what."""
    fit, stop, report = problem.division.drawn(0)
    return {
        "concept, to fit": len(fit), "concept, to stop": len(stop), "concept, to report": len(report),
        "to choose": len(problem.kept.val), "to report": len(problem.kept.test),
    }  # fmt: skip
