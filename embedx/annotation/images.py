"""What people say of images: decisions on the queue of the review, and values of an attribute that they name.

Both are journals beside the annotations: `image-decisions.jsonl` and `group-labels.jsonl`. A later line of one person
on one image replaces the earlier one; an empty answer takes it back. What most people say counts.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from embedx import journal
from embedx.data.manifest import UNWRITABLE, tidy
from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.journal import Follower
from embedx.plugins import nearest
from embedx.spuriosity.annotations.votes import blank

DECISIONS, GROUPS = "image-decisions.jsonl", "group-labels.jsonl"
ANSWERS = ("label error", "several objects", "fine")
"""The label is wrong; it is one of several that the image shows; it is right."""
UNKNOWN = "unknown"
"""The value, in a copy with an attribute, of rows that nobody gave one."""
T = TypeVar("T", "Decision", "GroupLabel")


def _named(record: Any, *names: str) -> None:
    for name in names:
        if blank(getattr(record, name)):
            raise ValueError(f"{name} is {getattr(record, name)!r}, expected a name")
    if record.seconds is not None and not 0 <= record.seconds < math.inf:
        raise ValueError(f"seconds is {record.seconds!r}, expected 0 or more, or null")


@dataclass(frozen=True)
class Decision:
    """One person's answer on the label of one image.

    id         of the image; class_name: its label when it was looked at
    annotator  who answered; answer: one of `ANSWERS`, or "" where it is taken back
    right      for a label error the class that is right; "" where none of the classes is
    note       what was written beside it; seconds: that it took, where known

    Raises `ValueError` for a value that cannot be.
    """

    dataset: str
    id: str
    class_name: str
    annotator: str
    answer: str
    right: str = ""
    note: str = ""
    seconds: int | float | None = None

    def __post_init__(self) -> None:
        _named(self, "dataset", "id", "class_name", "annotator")
        if self.answer and self.answer not in ANSWERS:
            raise ValueError(f"the answer is {self.answer!r}; {nearest(self.answer, ANSWERS)}")
        if self.right and self.answer != ANSWERS[0]:
            raise ValueError(f"right is {self.right!r} beside {self.answer!r}; it goes with {ANSWERS[0]!r} alone")
        if self.right == self.class_name:
            raise ValueError(f"right is {self.right!r}, the label that it has; name another class, or say 'fine'")

    @property
    def item(self) -> str:
        """What is answered on."""
        return self.id

    @property
    def said(self) -> tuple[str, str]:
        """What has to agree for two people to say the same."""
        return self.answer, self.right


@dataclass(frozen=True)
class GroupLabel:
    """One person's value of an attribute for one image.

    attribute  as the person named it; value: "" where it is taken back. Both become words of a manifest
    id, annotator, seconds  as of a `Decision`

    Raises `ValueError` for a value that cannot be.
    """

    dataset: str
    id: str
    attribute: str
    annotator: str
    value: str
    seconds: int | float | None = None

    def __post_init__(self) -> None:
        _named(self, "dataset", "id", "attribute", "annotator")
        for name in ("attribute", "value"):
            word = getattr(self, name)
            if UNWRITABLE.search(word) or word != tidy(word):
                raise ValueError(f"{name} is {word!r}, expected a word without control characters or blanks around it")
        if self.value == UNKNOWN:
            raise ValueError(f"value is {UNKNOWN!r}, which stands for images without one; leave those out")

    @property
    def item(self) -> tuple[str, str]:
        """What is answered on."""
        return self.attribute, self.id

    @property
    def answer(self) -> str:
        """The value."""
        return self.value

    @property
    def said(self) -> str:
        """What has to agree for two people to say the same."""
        return self.value


def _kind(record: type[T], file: str) -> Kind[T]:
    return Kind(record, file, "embedx annotate", SpuriosityError, version=1, key="schema",
                again="mend the line or remove it", indent=None, ascii=False)  # fmt: skip


DECISION, GROUP = _kind(Decision, DECISIONS), _kind(GroupLabel, GROUPS)


@dataclass
class Book(Generic[T]):
    """A journal of answers on images as it is by now. `refresh` reads what was added."""

    path: Path
    kind: Kind[T]
    dataset: str
    _follower: Follower[T] = field(init=False)
    _said: dict[Any, dict[str, T]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._follower = Follower(self.path, self.kind)

    @property
    def problems(self) -> list[str]:
        """What is wrong with lines that are left out."""
        return list(self._follower.problems.values())

    def refresh(self) -> None:
        """Take in what was added to the file."""
        anew, lines = self._follower.news()
        if anew:
            self._said.clear()
        for _, line in lines:
            if line.dataset == self.dataset:
                self._said.setdefault(line.item, {})[line.annotator] = line

    def of(self, item: Any) -> list[T]:
        """All answers on an image that hold."""
        return [line for line in self._said.get(item, {}).values() if line.answer]

    def mine(self, item: Any, annotator: str) -> T | None:
        """One person's answer on an image."""
        return next((line for line in self.of(item) if line.annotator == annotator), None)

    def items(self) -> list[Any]:
        """What somebody has answered on."""
        return [item for item in self._said if self.of(item)]

    def decided(self, item: Any) -> T | None:
        """An answer that most people give on an image; None where two are given as often."""
        lines = self.of(item)
        ranked = Counter(line.said for line in lines).most_common(2)
        if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
            return None
        return next(line for line in lines if line.said == ranked[0][0])

    def append(self, line: T) -> None:
        """Add a line, safe on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        journal.append(self.path, self.kind, line)


def books(folder: Path, dataset: str) -> tuple[Book[Decision], Book[GroupLabel]]:
    """The two journals in the folder of an analysis, read."""
    found = Book(folder / DECISIONS, DECISION, dataset), Book(folder / GROUPS, GROUP, dataset)
    for book in found:
        book.refresh()
    return found
