"""One head on one backbone, its seeds joined, every figure in percent with spread, interval and n."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev

from embedx.evaluation.runs import Run
from embedx.probes import supervision_in_words
from embedx.report.text import count, tally
from embedx.statistics import Interval


@dataclass(frozen=True)
class SeedMean:
    """In percent: mean over the seeds, their range, and from the lowest to the highest end of their intervals.

    spread  standard deviation over the seeds; None for a single one
    rows    n of each seed
    """

    mean: float
    first: float
    last: float
    low: float
    high: float
    spread: float | None
    rows: tuple[int, ...]

    @classmethod
    def of(cls, figures: Sequence[Interval]) -> SeedMean:
        """The same figure of several seeds, in fractions, as one."""
        values = [100 * x.value for x in figures]
        low, high = 100 * min(x.low for x in figures), 100 * max(x.high for x in figures)
        spread = stdev(values) if len(values) > 1 else None
        return cls(fmean(values), min(values), max(values), low, high, spread, tuple(x.n for x in figures))

    def without_interval(self) -> SeedMean:
        """The mean alone, as a point."""
        return replace(self, low=self.mean, high=self.mean, first=self.mean, last=self.mean)


@dataclass(frozen=True)
class HeadResult:
    """One head on one backbone: its runs differ in the seed only.

    name  of the head; one that was chosen by several rules is as many heads, named with the rule
    """

    backbone: str
    name: str
    runs: tuple[Run, ...]

    @property
    def head(self) -> str:
        """The head's own name, without a rule."""
        return self.runs[0].head

    @property
    def supervision(self) -> str:
        """What was used beyond class labels, in words."""
        return supervision_in_words(self.runs[0].supervision)

    @property
    def selection(self) -> str:
        """The rule that chose the head on validation."""
        return self.runs[0].selection

    @property
    def uses_groups(self) -> bool:
        """Whether any group label went into it."""
        return self.runs[0].uses_groups

    @property
    def seeds(self) -> int:
        """How many runs."""
        return len(self.runs)

    @property
    def converged(self) -> int:
        """How many of the seeds did."""
        return sum(run.converged for run in self.runs)

    @property
    def all_converged(self) -> str:
        """`yes` or `no`, of several seeds how many: `9 of 10`."""
        if self.seeds == 1:
            return "yes" if self.converged else "no"
        return f"{self.converged} of {self.seeds}"

    @property
    def tried(self) -> str:
        """Configurations per seed."""
        return count([run.configurations for run in self.runs])

    @property
    def worst_group_name(self) -> str:
        """The worst group's name, or how often it was which among the seeds."""
        return tally([run.metrics.worst_group_name for run in self.runs])

    def mean_of(self, figure: Callable[[Run], Interval]) -> SeedMean:
        """A figure of every run as one."""
        return SeedMean.of([figure(run) for run in self.runs])

    @cached_property
    def worst_group(self) -> SeedMean:
        """Smallest accuracy over the groups."""
        return self.mean_of(lambda run: run.metrics.worst_group)

    @cached_property
    def average(self) -> SeedMean:
        """correct / n."""
        return self.mean_of(lambda run: run.metrics.average)

    @cached_property
    def adjusted_average(self) -> SeedMean:
        """Group accuracies, weighted by the groups' shares of train."""
        return self.mean_of(lambda run: run.metrics.adjusted_average)

    @cached_property
    def worst_class(self) -> SeedMean:
        """Smallest recall over the classes."""
        return self.mean_of(lambda run: run.metrics.worst_class)

    def group_mean(self, name: str) -> float:
        """Accuracy of one group in percent, mean over the seeds; NaN without test rows."""
        accuracies = [
            group.accuracy
            for run in self.runs
            for group in run.metrics.groups
            if group.name == name and group.accuracy is not None
        ]
        return 100 * sum(accuracies) / len(accuracies) if accuracies else float("nan")

    def groups(self) -> list[tuple[str, SeedMean | None, str]]:
        """(name, accuracy or None without test rows, n) of every group, the seeds joined."""
        by_seed = [{group.name: group for group in run.metrics.groups} for run in self.runs]
        rows = []
        for name in by_seed[0]:
            same = [groups[name] for groups in by_seed if name in groups]
            figures = [Interval(g.accuracy, g.low, g.high, g.n) for g in same if g.n]  # type: ignore[arg-type]
            rows.append((name, SeedMean.of(figures) if figures else None, count([g.n for g in same])))
        return rows

    def attribute(self, name: str) -> SeedMean | None:
        """How well the backbone tells an attribute; None where that was not asked."""
        told = [run.attributes[name] for run in self.runs if name in run.attributes]
        return SeedMean.of(told[:1]) if told else None  # a fact of the backbone, the same for every seed


def by_backbone(runs: Sequence[Run]) -> dict[str, tuple[HeadResult, ...]]:
    """{backbone: its heads}, runs of the same backbone and head together; both in the order of their first run."""
    rules: dict[str, set[str]] = {run.head: set() for run in runs}
    for run in runs:
        rules[run.head].add(run.selection)
    names = [run.head if len(rules[run.head]) == 1 else f"{run.head}, {run.selection}" for run in runs]
    grouped: dict[str, dict[str, list[Run]]] = {
        backbone: {name: [] for name in names} for backbone in dict.fromkeys(run.backbone for run in runs)
    }
    for run, name in zip(runs, names, strict=True):
        grouped[run.backbone][name].append(run)
    return {
        backbone: tuple(HeadResult(backbone, name, tuple(same)) for name, same in heads.items() if same)
        for backbone, heads in grouped.items()
    }


def result_of(results: Sequence[HeadResult], head: str, *, groups: bool) -> HeadResult | None:
    """The result of a head; of one chosen by several rules the first that uses group labels, or does not."""
    own = [result for result in results if result.head == head]
    return next((result for result in own if result.uses_groups == groups), own[0] if own else None)
