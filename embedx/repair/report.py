"""All candidates of a repair on the rows that report, as figures, as the choice, and as paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embedx.repair.answer import Differences
from embedx.repair.answers import Answers, answers, original
from embedx.repair.bias import Control, margins
from embedx.repair.descent import Change, Progress
from embedx.repair.measures import Measured, taken
from embedx.repair.problem import Problem
from embedx.repair.records import BiasOnly, Figures, Outcome
from embedx.repair.settings import Setting


@dataclass(frozen=True, eq=False)
class Report:
    """Every candidate, in the order of `Problem.tries`, on test.

    measured   the rows without the concept, with what the original head says of them; control: their margins
    images     what the original head says of all images of the concept, and image_margins (m,) their margins
    rows       answers of each candidate on the rows without the concept, of_concept: on all images of the concept
    top1_val   accuracy of each candidate on the validation rows without the concept
    """

    problem: Problem
    changes: Sequence[Change]
    measured: Measured
    control: Control
    images: Answers
    image_margins: np.ndarray
    rows: Sequence[Answers]
    of_concept: Sequence[Answers]
    top1_val: Sequence[float]

    @classmethod
    def of(cls, problem: Problem, changes: Sequence[Change], progress: Progress) -> Report:
        """Measure every candidate."""
        start, kept, target = problem.start, problem.kept, problem.target
        Z, y, Z_val, y_val = (f(rows) for rows in (kept.test, kept.val) for f in (problem.z, problem.labels))
        images, own = problem.z_concept, problem.targets(len(problem.z_concept))
        before, logits = original(start, Z, y)
        before_images, image_logits = original(start, images, own)
        whose = problem.clusters(kept.test)
        measured = Measured(y.numpy(), problem.manifest.classes, target, before, whose)
        control = Control(target, *margins(logits, target), y.numpy(), whose)
        top1_val = [float(a.right.mean()) for a in answers(start, changes, Z_val, y_val)]
        return cls(
            problem, changes, measured, control, before_images, margins(image_logits, target)[0],
            answers(start, changes, Z, y, progress), answers(start, changes, images, own), top1_val,
        )  # fmt: skip

    @cached_property
    def before(self) -> Figures:
        """The original head; of the concept all images count that report for any seed."""
        seeds = range(self.problem.settings.seeds)
        reporting = np.unique(np.concatenate([self.problem.division.drawn(s)[2] for s in seeds]))
        return self.measured.figures(self.images.take(reporting), self.measured.before, self._whose(reporting))

    def _whose(self, images: np.ndarray) -> np.ndarray | None:
        """Whose some images of the concept are."""
        return taken(self.problem.clusters_of_concept, images)

    def bias_only(self, seed: int) -> BiasOnly:
        """The smallest shift that reaches the threshold on the validation images of a seed."""
        _, stop, report = self.problem.division.drawn(seed)
        shift = self.control.reaching(self.image_margins[stop], self.problem.settings.threshold)
        return self.control.head(shift, self.image_margins[report], self._whose(report))

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """A record of every candidate."""
        return tuple(self._outcomes())

    def _outcomes(self) -> Iterator[Outcome]:
        grid, not_target = self.problem.grid, ~self.measured.of_target
        for i, (change, rows) in enumerate(zip(self.changes, self.rows, strict=True)):
            seed, setting = i // len(grid), grid[i % len(grid)]
            report = self.problem.division.drawn(seed)[2]
            said = int(np.count_nonzero(rows.said[not_target] == self.problem.target))
            yield Outcome(
                setting, seed, change.steps, change.reached, float(change.right.mean()), self.top1_val[i],
                self.measured.figures(self.of_concept[i].take(report), rows, self._whose(report)),
                self.measured.moved(rows, change),
                self.control.head(self.control.matching(said), self.image_margins[report], self._whose(report)),
            )  # fmt: skip

    def differences(self, setting: Setting) -> Differences:
        """What `answer` decides by, of one setting."""
        grid, of_target, target = self.problem.grid, self.measured.of_target, self.problem.target
        seeds, m = range(self.problem.settings.seeds), len(self.images.rank)
        repaired, concept = np.full((2, len(seeds), m), np.nan)
        others, said_target = [], []
        for seed in seeds:
            i = seed * len(grid) + grid.index(setting)
            report, rows, right = self.problem.division.drawn(seed)[2], self.rows[i], self.of_concept[i].right
            said = rows.said[~of_target] == target
            shift = self.control.matching(int(np.count_nonzero(said)))
            repaired[seed, report] = _minus(right, self.images.right)[report]
            concept[seed, report] = _minus(right, shift > self.image_margins)[report]
            others.append(_minus(rows.right, shift > self.control.margin)[of_target])
            said_target.append(_minus(said, self.measured.before.said[~of_target] == target))
        images, rows = self.problem.clusters_of_concept, self.measured.clusters
        whose = images, images, taken(rows, of_target), taken(rows, ~of_target)
        return Differences(repaired, concept, np.stack(others), np.stack(said_target), whose)


def chosen_of(outcomes: Sequence[Outcome]) -> Setting:
    """The setting that repairs for most seeds on validation; of equal ones that which breaks least there.

    Where none repairs for any, the most accurate on the validation images of the concept.
    """
    by_setting: dict[Setting, list[Outcome]] = {}
    for o in outcomes:
        by_setting.setdefault(o.setting, []).append(o)

    def worth(setting: Setting) -> tuple[float, float, float]:
        of = by_setting[setting]
        reached = float(np.mean([o.reached for o in of]))
        concept = float(np.mean([o.validation for o in of]))
        return reached, 0.0 if reached else concept, float(np.mean([o.validation_top1 for o in of]))

    return max(by_setting, key=worth)


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) - b
