"""What a repair of groups found, as `repair-groups.json` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedx.documents import Kind
from embedx.errors import ResultsError
from embedx.repair.groups.settings import GroupRepairSettings, GroupSetting
from embedx.repair.records import Gain
from embedx.statistics import Interval

FILE = "repair-groups.json"


@dataclass(frozen=True)
class GroupFigures:
    """A head on the test rows.

    worst_group       the smallest accuracy of a group, and worst_group_name the group
    adjusted_average  accuracies of the groups, weighted by their shares of the training rows
    average           accuracy on all rows
    groups            {name: accuracy} of every group that has test rows
    """

    worst_group: Interval
    worst_group_name: str
    adjusted_average: Interval
    average: Interval
    groups: Mapping[str, Interval]


@dataclass(frozen=True)
class GroupOutcome:
    """A candidate: one setting of the sweep with one seed.

    setting   of the sweep
    seed      of the draws
    steps     of the descent; reached: whether the weak groups came level with others on validation
    worst_val smallest accuracy of a group on validation; average_val: accuracy on all of its rows
    figures   on test
    lost      test rows that were right and are wrong; gained: the other way round
    kl        mean KL(p0 || p) in nats on test rows, p0 the original predictions
    weight    Frobenius norm of the change of W
    """

    setting: GroupSetting
    seed: int
    steps: int
    reached: bool
    worst_val: float
    average_val: float
    figures: GroupFigures
    lost: int
    gained: int
    kl: float
    weight: float


@dataclass(frozen=True)
class OfShots:
    """What k images of each group bring, with the learning rate and the pull that validation chose for k.

    setting  that was chosen
    worst    accuracy on the worst of the weak groups, after minus before; the margin of its tests is 0
    average  accuracy on all test rows, the same
    """

    setting: GroupSetting
    worst: Gain
    average: Gain


@dataclass(frozen=True)
class GroupRepairRecord:
    """A repair of groups: a sweep of few-shot changes of one head, judged on test rows that had no part in it.

    dataset      whose rows were used
    model        the head that was repaired
    supervision  the labels that it took beyond those of classes
    weak         groups that the head gets right less often on validation than the mean group of their class
    worst        the least accurate of these on validation, whose gain is tested
    rows         {what: how many}: training rows that could be drawn, rows that stop and choose, rows that report
    settings     of the sweep, with k as it was taken
    before       the original head
    outcomes     every candidate
    by_shots     for every k what it brings; p-values are corrected over all of these (Holm)
    chosen       the setting that was chosen on validation
    sentence     the answer in words
    inputs       {"manifest": digest, "weights": SHA-256}
    versions     {library: version} that the numbers depend on
    seconds      that it took
    """

    dataset: str
    model: str
    supervision: str
    weak: tuple[str, ...]
    worst: str
    rows: Mapping[str, int]
    settings: GroupRepairSettings
    before: GroupFigures
    outcomes: tuple[GroupOutcome, ...]
    by_shots: tuple[OfShots, ...]
    chosen: GroupSetting
    sentence: str
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    seconds: float

    @property
    def grid(self) -> tuple[GroupSetting, ...]:
        """The settings, in order."""
        return tuple(dict.fromkeys(o.setting for o in self.outcomes))

    def of(self, setting: GroupSetting) -> tuple[GroupOutcome, ...]:
        """The candidates of one setting, a seed each."""
        return tuple(o for o in self.outcomes if o.setting == setting)


KIND = Kind(
    GroupRepairRecord, FILE, "embedx repair --groups", ResultsError, "embedx-group-repair", 1,
    again="move it away, or name another folder with -o",
)  # fmt: skip
