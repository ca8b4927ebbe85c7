"""All candidates of a repair of groups on the test rows, as figures, as the choice, and as paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embedx.repair.answer import LEVEL, in_words
from embedx.repair.answers import Answers, answers, original
from embedx.repair.descent import Change, Progress
from embedx.repair.groups.problem import GroupProblem, Rows
from embedx.repair.groups.records import GroupFigures, GroupOutcome, OfShots
from embedx.repair.groups.settings import GroupSetting
from embedx.repair.measures import taken
from embedx.repair.records import Gain
from embedx.statistics import CrossedMean, Sample, holm


@dataclass(frozen=True, eq=False)
class GroupReport:
    """Every candidate, in the order of `GroupProblem.tries`; before: the original head, after: each candidate."""

    problem: GroupProblem
    changes: Sequence[Change]
    before: Answers
    after: Sequence[Answers]

    @classmethod
    def of(cls, problem: GroupProblem, changes: Sequence[Change], progress: Progress) -> GroupReport:
        """Measure every candidate."""
        test = problem.test
        before, _ = original(problem.start, test.Z, test.y)
        return cls(problem, changes, before, answers(problem.start, changes, test.Z, test.y, progress))

    @cached_property
    def shares(self) -> np.ndarray:
        """(g,) shares of the groups of the training rows."""
        groups = self.problem.train.groups
        return np.bincount(groups, minlength=len(self.problem.weak)) / len(groups)

    def figures(self, right: np.ndarray) -> GroupFigures:
        """Of a head that gets test rows right or wrong, (n,) bool."""
        names, groups = self.problem.manifest.group_names, self.problem.test.groups
        seen, codes = np.unique(groups, return_inverse=True)
        sample, shares = Sample(right, self.clusters), self.shares[seen]
        each = [sample.take(groups == g).proportion() for g in seen]
        return GroupFigures(
            sample.minimum_over(codes, len(seen)), names[seen[np.argmin([one.value for one in each])]],
            sample.mean_over(codes, shares / shares.sum()), sample.proportion(),
            {names[g]: one for g, one in zip(seen, each, strict=True)},
        )  # fmt: skip

    @property
    def clusters(self) -> np.ndarray | None:
        """(n,) whose the test rows are, where the manifest names a cluster."""
        subjects = self.problem.manifest.subjects
        return None if subjects is None else subjects.codes[self.problem.test.at]

    @cached_property
    def outcomes(self) -> tuple[GroupOutcome, ...]:
        """A record of every candidate."""
        return tuple(self._each())

    def _each(self) -> Iterator[GroupOutcome]:
        grid, was = self.problem.grid, self.before.right
        for i, (change, after) in enumerate(zip(self.changes, self.after, strict=True)):
            hits, n = _by_group(self.problem.val, change.right)
            yield GroupOutcome(
                setting=grid[i % len(grid)], seed=i // len(grid), steps=change.steps, reached=change.reached,
                worst_val=float((hits[n > 0] / n[n > 0]).min()), average_val=float(change.right.mean()),
                figures=self.figures(after.right), lost=int(np.count_nonzero(was & ~after.right)),
                gained=int(np.count_nonzero(~was & after.right)), kl=float(after.forward.mean(dtype=np.float64)),
                weight=float(np.linalg.norm(change.weight)),
            )  # fmt: skip

    def best(self, settings: Sequence[GroupSetting]) -> GroupSetting:
        """The setting whose worst group on validation is the most accurate, and of equal ones the most accurate."""

        def worth(setting: GroupSetting) -> tuple[float, float]:
            of = [o for o in self.outcomes if o.setting == setting]
            return float(np.mean([o.worst_val for o in of])), float(np.mean([o.average_val for o in of]))

        return max(settings, key=worth)

    def by_shots(self) -> tuple[OfShots, ...]:
        """For every k the chosen setting, and what it brings."""
        grid = self.problem.grid
        chosen = [self.best([s for s in grid if s.shots == k]) for k in self.problem.settings.shots]
        masks = (self.problem.test.groups == self.problem.worst, np.ones(len(self.problem.test.groups), bool))
        means = [[CrossedMean.of(self._differences(s)[:, m], taken(self.clusters, m)) for m in masks] for s in chosen]
        above = [m.p_above(0.0) for pair in means for m in pair]
        p = holm(above + [1 - one for one in above])
        gains = [_gain(m, *of) for m, *of in zip([m for pair in means for m in pair], p, p[len(above) :], strict=False)]
        return tuple(OfShots(s, *gains[2 * i : 2 * i + 2]) for i, s in enumerate(chosen))

    def _differences(self, setting: GroupSetting) -> np.ndarray:
        """(seeds, n) right after minus right before, of the test rows."""
        grid = self.problem.grid
        places = [seed * len(grid) + grid.index(setting) for seed in range(self.problem.settings.seeds)]
        return np.stack([self.after[i].right.astype(float) - self.before.right for i in places])


def sentence(by_shots: Sequence[OfShots], chosen: GroupSetting, worst: str, rates: Sequence[float]) -> str:
    """The answer: with which k the worst of the weak groups surely gains, and what the chosen k brings."""
    (best,) = (o for o in by_shots if o.setting == chosen)
    last = chosen.rate in (min(rates), max(rates)) and len(set(rates)) > 1
    edge = "largest" if chosen.rate == max(rates) else "smallest"
    beyond = f" It is the {edge} learning rate that was tried; others beyond may bring more (--lr)." if last else ""
    return (
        f"{_sure(by_shots, worst)} Validation chooses {chosen}: {worst}, the weak group that the original head gets "
        f"right least often there, gains {in_words(best.worst)}, all test rows {in_words(best.average)}.{beyond}"
    )


def _sure(by_shots: Sequence[OfShots], worst: str) -> str:
    every = [one.setting.shots for one in by_shots]
    sure = [one.setting.shots for one in by_shots if one.worst.above < LEVEL]
    if by_shots[0].worst.seeds < 2:
        return f"One seed cannot tell whether {worst} gains: ask for several (--seeds)."
    if not sure:
        return f"Up to {every[-1]:,} image{'s' * (every[-1] > 1)} of each group, {worst} does not surely gain."
    if sure == [k for k in every if k >= sure[0]]:
        return f"From {sure[0]:,} image{'s' * (sure[0] > 1)} of each group on, {worst} surely gains."
    others = ", ".join(f"{k:,}" for k in every if k not in sure)
    some = f"{', '.join(f'{k:,}' for k in sure)} image{'s' * (sure[-1] > 1)}"
    return f"With {some} of each group {worst} surely gains, with {others} not."


def _gain(mean: CrossedMean, above: float, below: float) -> Gain:
    interval = mean.interval
    return Gain(mean.value, interval.low, interval.high, mean.images, mean.seeds, above, below)


def _by_group(rows: Rows, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(g,) right rows and (g,) rows of every group."""
    size = int(rows.groups.max()) + 1
    n = np.bincount(rows.groups, minlength=size)
    return np.bincount(rows.groups, weights=right, minlength=size).astype(int), n
