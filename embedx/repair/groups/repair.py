"""The repair of the groups that a head fails: rows drawn, all candidates fitted, one chosen, all reported on test."""

from __future__ import annotations

import time
from dataclasses import dataclass

from embedx.data.manifest import Manifest
from embedx.evaluation.model import Model
from embedx.evaluation.records import Notice
from embedx.evaluation.runs import versions
from embedx.repair.descent import Progress, descend, silent
from embedx.repair.groups.problem import Balance, GroupProblem
from embedx.repair.groups.records import GroupRepairRecord
from embedx.repair.groups.report import GroupReport, sentence
from embedx.repair.groups.settings import GroupRepairSettings
from embedx.store import FeatureCache

SUPERVISION = "groups of the training images that are fitted on, and of all validation rows"


@dataclass(frozen=True, eq=False)
class RepairedGroups:
    """A repaired head, of the chosen setting and the first seed, and the record of the whole sweep."""

    model: Model
    record: GroupRepairRecord


def repair_groups(
    manifest: Manifest,
    cache: FeatureCache,
    model: Model,
    settings: GroupRepairSettings | None = None,
    *,
    progress: Progress = silent,
    notice: Notice = lambda text: None,
) -> RepairedGroups:
    """Repair a linear head with k training images of each group, by gradient descent from the head as it is.

    Weak are the groups that it gets right less often on validation than the mean group of their class: of Waterbirds
    those of the minority. The descent stops once the least accurate of them is no less accurate there than the least
    accurate of the other groups of these classes, so that none is traded for another further than that.

    progress  called with candidates done, candidates to do, and the step
    Raises `HeadError` for a dataset without groups or without a weak one, for more images than a weak group has, and
    for a head that is not linear; `SplitError` where train, val or test has no row.
    """
    began, settings = time.perf_counter(), settings or GroupRepairSettings()
    problem = GroupProblem.of(manifest, cache, model, settings, notice)
    stops = Balance.of(problem)
    changes = descend(problem.start, problem.tries(), stops, settings.steps, progress)
    report = GroupReport.of(problem, changes, progress)
    before, by_shots = report.figures(report.before.right), report.by_shots()
    chosen = report.best([one.setting for one in by_shots])
    names = manifest.group_names
    record = GroupRepairRecord(
        dataset=manifest.name, model=str(model.name), supervision=SUPERVISION,
        weak=tuple(name for name, weak in zip(names, problem.weak, strict=True) if weak),
        worst=names[problem.worst],
        rows={
            "training rows": len(problem.train.at), "to stop and choose": len(problem.val.at),
            "to report": len(problem.test.at),
        },
        settings=problem.settings, before=before, outcomes=report.outcomes, by_shots=by_shots, chosen=chosen,
        sentence=sentence(by_shots, chosen, names[problem.worst], problem.settings.rates),
        inputs={"manifest": manifest.digest, "weights": str(cache.header.identity["weights"])},
        versions=versions(), seconds=time.perf_counter() - began,
    )  # fmt: skip
    first = changes[problem.grid.index(chosen)]
    return RepairedGroups(problem.start.changed(first.weight, first.beta.double().numpy()), record)
