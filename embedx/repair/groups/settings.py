"""What is swept in a repair of groups: images of each group, learning rates, pulls to the original head, seeds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from embedx.errors import HeadError
from embedx.repair.settings import Restraint, require_sweep

SHOTS = (1, 2, 5, 10, 25)
"""Images of each group, where nobody says how many; those of them that the smallest weak group has."""


@dataclass(frozen=True, order=True)
class GroupSetting:
    """One point of the sweep.

    shots  k: training images of each group that are fitted on
    rate   the learning rate
    pull   to the original head, as it is spelled
    """

    shots: int
    rate: float
    pull: str

    def __str__(self) -> str:
        words = f"{self.shots:,} image{'s' * (self.shots > 1)} of each group, learning rate {self.rate:g}"
        return words if self.pull == "none" else f"{words}, pull {self.pull}"


@dataclass(frozen=True)
class GroupRepairSettings:
    """The sweep. Every combination is a candidate, for each seed.

    shots  k: training images of each group that are fitted on; empty: 1, 2, 5, 10 and 25, as far as there are so many
    rates  learning rates of full-batch gradient descent on the mean cross-entropy
    pulls  to the original head
    seeds  how often all draws are repeated
    steps  after which the descent stops in any case
    """

    shots: tuple[int, ...] = ()
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    pulls: tuple[Restraint, ...] = (Restraint(),)
    seeds: int = 5
    steps: int = 10_000

    def __post_init__(self) -> None:
        require_sweep(self.shots or (1,), self.rates, self.pulls, self.seeds, self.steps)

    def resolved(self, most: int, whose: str) -> tuple[int, ...]:
        """k where the smallest group to repair, `whose`, has so many training images. Raises `HeadError` for more."""
        if too_many := [k for k in self.shots if k > most]:
            raise HeadError(
                f"{max(too_many):,} images of each group: {whose} has {most:,} in train with features; ask for up to "
                f"{most:,}"
            )
        return tuple(sorted(set(self.shots or [k for k in SHOTS if k <= most])))

    def grid(self) -> tuple[GroupSetting, ...]:
        """All settings, in order."""
        axes = (sorted(set(self.shots)), sorted(set(self.rates)), dict.fromkeys(map(str, self.pulls)))
        return tuple(GroupSetting(*point) for point in product(*axes))
