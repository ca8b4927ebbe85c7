"""What a repair found, as `repair.json` holds it: every candidate, what it costs, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from embedx.documents import Kind
from embedx.errors import ResultsError
from embedx.repair.settings import RepairSettings, Setting
from embedx.statistics import Interval

FILE = "repair.json"
Verdict = Literal["class", "concept", "says the target more", "no repair", "cannot tell"]


@dataclass(frozen=True)
class Figures:
    """A head on rows that nothing was fitted, stopped or chosen on.

    concept       accuracy on test images of the concept; concept_rank: the median rank of the target there
    top1, top5    accuracy on all other test rows
    others        accuracy on those of the target's class, None where there are none; said_target: the share of those of
                  other classes for which the target is predicted
    worst_class   the smallest accuracy of a class, and worst_class_name the class
    """

    concept: Interval
    concept_rank: float
    top1: Interval
    top5: Interval
    others: Interval | None
    said_target: Interval
    worst_class: float
    worst_class_name: str


@dataclass(frozen=True)
class Moved:
    """How far a head is from the original one, on the same test rows without the concept.

    kl            mean KL(p0 || p) in nats, p0 the original predictions; kl_95: its 95th percentile
    reverse       mean KL(p || p0); reverse_95: its 95th percentile
    lost          rows that were right and are wrong; gained: the other way round
    worst_drop    the largest loss of accuracy of a class, and worst_drop_class the class
    weight        Frobenius norm of the change of W; target_weight: norm of the change of the target's row of it
    target_bias   change of the target's bias
    """

    kl: float
    kl_95: float
    reverse: float
    reverse_95: float
    lost: int
    gained: int
    worst_drop: float
    worst_drop_class: str
    weight: float
    target_weight: float
    target_bias: float


@dataclass(frozen=True)
class BiasOnly:
    """The original head with another bias of the target and nothing else: what saying the target more gives.

    shift        of the bias
    concept, others, said_target, top1: as in Figures
    """

    shift: float
    concept: Interval
    others: Interval | None
    said_target: Interval
    top1: Interval


@dataclass(frozen=True)
class Outcome:
    """A candidate: one setting of the sweep with one seed.

    setting          of the sweep
    seed             of the draws
    steps            of the descent; reached: whether the validation images of the concept came to the threshold
    validation       accuracy on these; validation_top1: on the validation rows without the concept
    figures          on test
    moved            from the original head
    matched          the bias-only head that says the target as often on rows of other classes
    """

    setting: Setting
    seed: int
    steps: int
    reached: bool
    validation: float
    validation_top1: float
    figures: Figures
    moved: Moved
    matched: BiasOnly


@dataclass(frozen=True)
class Gain:
    """A mean difference of accuracies over test images and seeds, its 95 % interval, and p-values after Holm.

    value, low, high  the mean and its interval
    images, seeds     that it is the mean over
    above             p of the test that it is not above 0; within: p of the test that it is not below the margin
    """

    value: float
    low: float
    high: float
    images: int
    seeds: int
    above: float
    within: float


@dataclass(frozen=True)
class Answer:
    """Which of three hypotheses the data support, for the chosen setting.

    verdict      class: it learned the class; concept: it learned the concept and not more of the class; says the target
                 more: what it gained comes with the bias of the target alone; no repair: the concept gained nothing
    sentence     the same in words, with the figures that decide
    repaired     accuracy on the concept, after minus before
    concept      the same, repaired head minus the bias-only head that says the target as often; others: that of other
                 images of the target's class, None where there are none
    said_target  share of rows of other classes for which the target is predicted, after minus before
    """

    verdict: Verdict
    sentence: str
    repaired: Gain
    concept: Gain
    others: Gain | None
    said_target: Gain


@dataclass(frozen=True)
class RepairRecord:
    """A repair: a sweep of few-shot changes of one head, judged on test rows that had no part in it.

    dataset     whose rows were used
    model       the head that was repaired
    target      the class that images of the concept should get
    concept     as it was given
    rows        {what: how many}: images of the concept that fit, stop and report, rows that choose and report
    divided     how the images of the concept were divided
    settings    of the sweep, with N as it was taken
    before      the original head
    bias_only   for each seed the smallest shift of the bias that reaches the threshold on the validation images
    outcomes    every candidate
    chosen      the setting that was chosen on validation
    answer      what it learned
    inputs      {"manifest": digest, "weights": SHA-256}
    versions    {library: version} that the numbers depend on
    seconds     that it took
    """

    dataset: str
    model: str
    target: str
    concept: str
    rows: Mapping[str, int]
    divided: str
    settings: RepairSettings
    before: Figures
    bias_only: tuple[BiasOnly, ...]
    outcomes: tuple[Outcome, ...]
    chosen: Setting
    answer: Answer
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    seconds: float

    @property
    def grid(self) -> tuple[Setting, ...]:
        """The settings, in order."""
        return tuple(dict.fromkeys(o.setting for o in self.outcomes))

    def of(self, setting: Setting) -> tuple[Outcome, ...]:
        """The candidates of one setting, a seed each."""
        return tuple(o for o in self.outcomes if o.setting == setting)


KIND = Kind(
    RepairRecord, FILE, "embedx repair", ResultsError, "embedx-repair", 1,
    again="move it away, or name another folder with -o",
)  # fmt: skip
