"""Votes on one pair of a class and a feature, what they decide, and how far annotators agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedx.data.manifest import UNWRITABLE, tidy
from embedx.plugins import nearest

ANSWERS = ("main_object", "separate_object", "background", "unsure")
"""Where the feature looks: at the object of the class, at another object, behind it; or the annotator cannot tell."""
LABELS = ("core", "spurious", "unsure")
CONFIDENCE = (1.0, 5.0)
Rule = int | Literal["majority", "unanimous"]
"""What it takes to call a feature spurious: more than half of the votes, all of them, or so many at least."""


@dataclass(frozen=True)
class Vote:
    """One annotator's answer.

    annotator   who answered
    answer      one of `ANSWERS`
    confidence  from 1 to 5, where it is known
    note        what the annotator wrote beside it, or ""
    seconds     that it took, where they are known
    cue         what the annotator calls that which the feature shows, or ""

    Raises `ValueError` for a value that cannot be.
    """

    annotator: str
    answer: str
    confidence: int | float | None = None
    note: str = ""
    seconds: int | float | None = None
    cue: str = ""

    def __post_init__(self) -> None:
        if blank(self.annotator):
            raise ValueError(f"the annotator is {self.annotator!r}, expected a name")
        if self.answer not in ANSWERS:
            raise ValueError(f"the answer of {self.annotator} is {self.answer!r}; {nearest(str(self.answer), ANSWERS)}")
        low, high = CONFIDENCE
        for name, least, most in (("confidence", low, high), ("seconds", 0.0, math.inf)):
            value = getattr(self, name)
            if value is not None and not (least <= value <= most and value < math.inf):
                limits = f"{least:g} to {most:g}" if most < math.inf else "0 or more"
                raise ValueError(f"the {name} of {self.annotator} is {value!r}, expected a number, {limits}, or null")

    @property
    def spurious(self) -> bool:
        """Whether the annotator sees something else than the object of the class."""
        return self.answer in ("separate_object", "background")


def blank(word: str) -> bool:
    """Whether nothing of a word can be seen: it is blanks, invisible signs and control characters alone."""
    return not tidy(UNWRITABLE.sub("", word))


def misnamed(class_index: int, class_name: str, classes: Sequence[str]) -> str:
    """Why a line that names a class so is none of a discovery with these classes, or ""."""
    name = classes[class_index] if class_index < len(classes) else None
    if name == class_name:
        return ""
    return f"it calls class {class_index} {class_name!r}, the discovery calls it {name!r}"


def rule_of(value: object) -> Rule:
    """A rule as it was written: a word, or a number of votes, also in digits. Raises `ValueError`."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    for word in ("majority", "unanimous"):
        if value == word:
            return word
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f"the rule is {value!r}, expected majority, unanimous or a number of votes from 1 on")


def decide(votes: Sequence[Vote], rule: Rule = "majority") -> tuple[str, str]:
    """(label, kind) of n votes, s of them for something else than the object of the class.

    spurious  s > n / 2 for "majority", s = n for "unanimous", s >= m for a number m
    core      else, and more than half name the object of the class; "unsure" for all that is left, ties among it
    kind      the answer that more than half of all votes give and that goes with the label, else ""

    For five votes and m = 3, this is the decision of the published annotations.
    """
    if not votes:
        raise ValueError("there are no votes to decide by")
    n, s = len(votes), sum(v.spurious for v in votes)
    named = next((a for a in ANSWERS if 2 * sum(v.answer == a for v in votes) > n), "")
    if 2 * s > n if rule == "majority" else s == n if rule == "unanimous" else s >= rule:
        return "spurious", named if named in ("separate_object", "background") else ""
    return ("core", named) if named == "main_object" else ("unsure", "")
