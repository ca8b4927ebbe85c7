"""Which labels went into a head, beyond the class labels of the rows that it was fitted on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Labels(StrEnum):
    """What the rows were labelled with."""

    GROUPS = "group labels"
    SPURIOSITY = "spuriosity ranking"
    PROMPTS = "text prompts of the classes"
    OTHER = "other"
    """Something else, which `source` says in words."""


class On(StrEnum):
    """The split that labels are of; for a head, the split that it is fitted on."""

    TRAIN = "train"
    VALIDATION = "val"


class Purpose(StrEnum):
    """What the labels were for: to fit a head, to steer its fit, to choose among heads, to stop a fit."""

    FIT = "fit"
    STEER = "steer"
    CHOOSE = "choose"
    STOP = "stop"


@dataclass(frozen=True)
class Supervision:
    """Some labels, the split that they are of, and what they were for.

    labels   what the rows were labelled with; on: the split that these are of; purpose: what they were for
    source   what the labels themselves were made from, in words, or empty. For `Labels.OTHER` it is the whole
             description: "bounding boxes on train, to fit"

    The first three may be given as their text, `"val"` for `On.VALIDATION`. Raises `ValueError` for any other text, and
    for `Labels.OTHER` without a source.
    """

    labels: Labels
    on: On = On.TRAIN
    purpose: Purpose = Purpose.FIT
    source: str = ""

    def __post_init__(self) -> None:
        for name, kind in (("labels", Labels), ("on", On), ("purpose", Purpose)):
            value = getattr(self, name)
            if value not in [*kind]:  # not `in kind`, which takes no text before Python 3.12
                words = ", ".join(repr(member.value) for member in kind)
                raise ValueError(f"{name} of supervision is {value!r}, expected one of {words}")
            object.__setattr__(self, name, kind(value))
        if self.labels is Labels.OTHER and not self.source:
            raise ValueError("supervision by other labels needs a source that says which, in words; found none")

    def __str__(self) -> str:
        """As tables, reports and lists show it: "group labels on train, to fit"."""
        if self.labels is Labels.OTHER:
            return self.source
        words = str(self.labels)
        if self.labels is Labels.GROUPS:
            words += f" on {self._use}"
        elif (self.on, self.purpose) != (On.TRAIN, Purpose.FIT):
            words += f" of {self._use}"
        return f"{words} {self.source}".rstrip()

    @property
    def brief(self) -> str:
        """The same where group labels are what a column is about: "train, to fit"."""
        return self._use if self.labels is Labels.GROUPS else str(self)

    @property
    def _use(self) -> str:
        return f"{'train' if self.on is On.TRAIN else 'validation'}, to {self.purpose}"


def supervision_in_words(supervision: Iterable[Supervision]) -> str:
    """ "group labels on train, to fit; group labels on validation, to choose", or "none"."""
    return "; ".join(map(str, supervision)) or "none"


def supervision_of_record(value: str | Sequence[Mapping[str, Any] | Supervision]) -> tuple[Supervision, ...]:
    """The supervision that a JSON record holds: a list of objects with the fields of `Supervision`.

    Older records hold the words instead. These are read too: `supervision_in_words` of the result gives the same.
    Raises `ValueError`, `TypeError` or `KeyError` for what is neither.
    """
    if isinstance(value, str):
        return () if value == "none" else tuple(map(_parsed, value.split("; ")))
    return tuple(one if isinstance(one, Supervision) else _of_object(one) for one in value)


def uses_groups(supervision: Iterable[Supervision]) -> bool:
    """Whether any group label went into it, to fit, to steer or to choose."""
    return any(one.labels is Labels.GROUPS for one in supervision)


def _of_object(value: Mapping[str, Any]) -> Supervision:
    return Supervision(Labels(value["labels"]), On(value["on"]), Purpose(value["purpose"]), str(value["source"]))


WORDS = re.compile(
    rf"({Labels.GROUPS}|{Labels.SPURIOSITY}|{Labels.PROMPTS})"
    r"(?: (?:on|of) (train|validation), to (fit|steer|choose|stop))?(?: (.+))?"
)


def _parsed(words: str) -> Supervision:
    """The value that prints as these words; other words become the source of `Labels.OTHER`."""
    if match := WORDS.fullmatch(words):
        labels, split, purpose, source = match.groups()
        supervision = Supervision(
            Labels(labels), On.VALIDATION if split == "validation" else On.TRAIN, Purpose(purpose or "fit"),
            source or "",
        )  # fmt: skip
        if str(supervision) == words:
            return supervision
    return Supervision(Labels.OTHER, source=words)
