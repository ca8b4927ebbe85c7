"""What is swept: images of the concept, classes that are kept, learning rates, pulls to the original head, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from embedx.errors import HeadError
from embedx.plugins import nearest

KINDS = ("none", "l2", "kl")
SHARES = (0.0, 0.25, 0.5, 1.0)
"""Shares of all classes that are kept, where nobody says how many."""


@dataclass(frozen=True)
class Restraint:
    """What is added to the loss to keep the head near the original one.

    kind      none; l2: strength / 2 x (|W - W0|^2 + |b - b0|^2); kl: strength x the mean over the images that are kept
              of KL(p0 || p), p0 the original predictions
    strength  its factor, above 0; 0 for none
    """

    kind: Literal["none", "l2", "kl"] = "none"
    strength: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Restraint:
        """`none`, `l2:STRENGTH` or `kl:STRENGTH`. Raises `HeadError` for anything else."""
        kind, _, strength = text.strip().partition(":")
        if kind not in KINDS:
            raise HeadError(f"{text!r} is no pull: {nearest(kind, KINDS)}; expected none, l2:STRENGTH or kl:STRENGTH")
        if kind == "none" and not strength:
            return cls()
        try:
            value = float(strength)
        except ValueError:
            value = 0.0
        if kind == "none" or not 0 < value < float("inf"):
            raise HeadError(f"{text!r} is no pull; expected none, or l2 or kl with a number above 0, such as kl:1")
        return cls(kind, value)  # type: ignore[arg-type]  one of KINDS

    def __str__(self) -> str:
        short = f"{self.strength:g}"
        exact = short if float(short) == self.strength else repr(self.strength)
        return f"{self.kind}:{exact}" if self.strength else self.kind


@dataclass(frozen=True, order=True)
class Setting:
    """One point of the sweep.

    shots    images of the concept that are fitted on
    classes  N: of so many classes one image each is fitted on
    rate     the learning rate
    pull     to the original head, as it is spelled
    """

    shots: int
    classes: int
    rate: float
    pull: str

    def __str__(self) -> str:
        words = f"{self.shots} image{'s' * (self.shots > 1)}, {self.classes:,} classes, learning rate {self.rate:g}"
        return words if self.pull == "none" else f"{words}, pull {self.pull}"


@dataclass(frozen=True)
class RepairSettings:
    """The sweep. Every combination is a candidate, for each seed.

    shots      images of the concept that are fitted on
    classes    N: of so many classes one training image each is fitted on as well; empty: shares of all of them
    rates      learning rates of full-batch gradient descent on the mean cross-entropy
    pulls      to the original head; kl only where N is above 0
    seeds      how often all draws are repeated
    threshold  accuracy on the validation images of the concept at which the descent stops
    steps      after which it stops in any case
    margin     a difference of accuracies that counts as none, for the answer
    """

    shots: tuple[int, ...] = (1, 2, 5, 10)
    classes: tuple[int, ...] = ()
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    pulls: tuple[Restraint, ...] = (Restraint(),)
    seeds: int = 5
    threshold: float = 0.9
    steps: int = 10_000
    margin: float = 0.05

    def __post_init__(self) -> None:
        if any(n < 0 for n in self.classes):
            raise HeadError(f"classes are {_listed(self.classes)}, expected whole numbers from 0")
        require_sweep(self.shots, self.rates, self.pulls, self.seeds, self.steps)
        if not 0 < self.threshold <= 1:
            raise HeadError(f"the threshold is {self.threshold:g}, expected a number above 0, up to 1")

    def resolved(self, known: Sequence[str]) -> tuple[int, ...]:
        """N for a head that knows these classes. Raises `HeadError` for more classes than there are."""
        k = len(known)
        if too_many := [n for n in self.classes if n > k]:
            raise HeadError(f"one image of each of {too_many[0]:,} classes: the head knows {k:,}; ask for up to {k:,}")
        return tuple(sorted(set(self.classes or (round(share * k) for share in SHARES))))

    def grid(self, known: Sequence[str]) -> tuple[Setting, ...]:
        """All settings, in order; raises as `resolved`."""
        pulls = dict.fromkeys(map(str, self.pulls))
        axes = (sorted(set(self.shots)), self.resolved(known), sorted(set(self.rates)), pulls)
        every = tuple(Setting(*point) for point in product(*axes))
        # A kl pull is to what the head said of the images that are kept; without any it is none.
        if not (able := tuple(s for s in every if s.classes or not s.pull.startswith("kl"))):
            raise HeadError("a kl pull needs images that are kept: ask for classes above 0, or for another pull")
        return able


def require_sweep(
    shots: Sequence[int], rates: Sequence[float], pulls: Sequence[Restraint], seeds: int, steps: int
) -> None:
    """Raise `HeadError` for a sweep that has no candidate, or numbers that none can have."""
    if not shots or not rates or not pulls:
        raise HeadError("shots, learning rates and pulls: expected one at least of each")
    if any(k < 1 for k in shots):
        raise HeadError(f"shots are {_listed(shots)}, expected whole numbers from 1")
    if not all(0 < r < float("inf") for r in rates):
        raise HeadError(f"learning rates are {_listed(rates)}, expected numbers above 0")
    if seeds < 1 or steps < 1:
        raise HeadError(f"{seeds} seeds, {steps} steps; expected 1 at least of both")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)
