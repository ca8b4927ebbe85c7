"""What is said of one model tuned in every way: heads of a front, choices of rows, other heads, evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedx.evaluation.model import ModelName
from embedx.probes import Supervision
from embedx.spuriosity.measures.changes import Figure
from embedx.spuriosity.measures.evidence import Evidence
from embedx.spuriosity.measures.gaps import Gaps
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.statistics import Interval


@dataclass(frozen=True)
class Point:
    """One head of a front.

    setting   its settings; trial: its number, from 0
    stop_gap, stop_average  gap and average on the stop rows
    gap, average            the same on test
    """

    setting: Mapping[str, Any]
    trial: int
    stop_gap: float
    stop_average: float
    gap: float
    average: float


@dataclass(frozen=True)
class Result:
    """One choice of tuning rows, stopped on the stop rows, reported on test; or the head before tuning.

    rows       the choice of tuning rows, or "untouched"
    tuned_on   tuning rows of a trial; trials: how many, 1 where nothing is drawn; met: how many met the target
    settings   chosen in each trial, {} for the untouched head; stop_gap of each trial
    gap        mean over the classes tuned on; `untouched` is the accuracy on the other classes
    average, worst_class, worst_group  accuracies on test
    worst_class_name, worst_group_name  whose the worst are
    positions  mean over ranked classes of accuracy by relative position, least spurious first
    detail     the gaps of the first trial; front: all heads that there were to choose from
    """

    rows: str
    tuned_on: int
    trials: int
    met: int
    settings: tuple[Mapping[str, Any], ...]
    stop_gap: tuple[float, ...]
    gap: Figure
    average: Figure
    worst_class: Figure
    worst_class_name: str
    untouched: Figure | None
    worst_group: Figure | None
    worst_group_name: str
    positions: tuple[float, ...]
    detail: Gaps
    front: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Rival:
    """Another head on the same cache, with its supervision.

    worst_group, average  accuracies on test; worst_group_name: whose the worst is
    gap                   as in `Result`
    """

    head: str
    supervision: tuple[Supervision, ...]
    worst_group: Interval
    worst_group_name: str
    average: Interval
    gap: Figure


@dataclass(frozen=True)
class Tuning:
    """One model tuned in every way.

    ranker    the backbone that ranked; options: how it was tuned
    stop      the rows that stop, in words; rows: how many {"train", "stop", "test"}
    results   the untouched head first, then one for each choice of tuning rows; rivals: other heads
    ranked    classes that are tuned on and whose gap counts
    set_aside those with a ranking whose gap is not positive
    ranked_by what the choice of cues took, in words
    supervision of the head before tuning, in words; empty where it has no record
    evidence  what validation says of the first choice of rows, without group labels; None where it has too few rows,
              and where an earlier version tuned
    kept      whether the head was left as it was for that
    recovery  {class: AUROC of low spuriosity for its smallest group among the training rows}, where there are groups
    """

    dataset: str
    backbone: str
    head: str
    ranker: str
    options: TuningSettings
    stop: str
    rows: Mapping[str, int]
    ranked: tuple[str, ...]
    results: tuple[Result, ...]
    recovery: Mapping[str, Interval] = field(default_factory=dict)
    rivals: tuple[Rival, ...] = ()
    set_aside: tuple[str, ...] = ()
    ranked_by: str = ""
    supervision: str = ""
    evidence: Evidence | None = None
    kept: bool = False

    @property
    def model(self) -> str:
        """The name of the model that was tuned, as `--model` takes it."""
        return str(ModelName(self.backbone, self.head))

    @property
    def warning(self) -> str:
        """What speaks against tuning, in a line; empty where nothing does."""
        if self.evidence is None or not self.evidence.against:
            return ""
        what = (
            "so the head is left as it was (--anyway tunes it)" if self.kept else "and the head is tuned all the same"
        )
        return (
            f"warning: {self.model}: validation speaks against this tuning, {what}: {'; '.join(self.evidence.against)}"
        )
