"""Do the pictures of a feature show the same thing? Votes on the maps of a pair, `validations.jsonl`, one a line.

A feature is named after the few images that show it most. Whether its maps mark the same thing further down the list
is asked of people, after the second study of Salient ImageNet (Singla and Feizi, ICLR 2022; Moayeri et al., NeurIPS
2023, appendix I): of three rows of maps (the most activating images, those that follow, and the last ones of the upper
share of the class) annotators name the maps that look at something else, and say whether the rows show the same.

A pair is valid when at least `SHARE` of its annotators say so, and of no map as many say that it looks elsewhere: with
five annotators at least four, as in the paper. A later line of one annotator on one pair replaces the earlier one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedx import journal
from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.plugins import nearest
from embedx.spuriosity.annotations.votes import CONFIDENCE, blank, misnamed

FILE = "validations.jsonl"
ANSWERS = ("same", "different", "unclear")
"""The rows show the same thing; they do not; or one of them cannot be made out."""
SHARE = 0.8


@dataclass(frozen=True)
class Validation:
    """One annotator's answer on one pair.

    dataset, backbone, weights, class_index, class_name, feature  the pair, as of an annotation
    annotator   who answered; answer: one of `ANSWERS`, or "" where the annotator takes the answer back
    elsewhere         ids of the images whose map looks at something else than most of the others
    confidence  from 1 to 5, where it is known; note: what was written beside it; seconds: that it took, where known

    Raises `ValueError` for a value that cannot be.
    """

    dataset: str
    backbone: str
    weights: str
    class_index: int
    class_name: str
    feature: int
    annotator: str
    answer: str
    elsewhere: tuple[str, ...] = ()
    confidence: int | float | None = None
    note: str = ""
    seconds: int | float | None = None

    def __post_init__(self) -> None:
        for name in ("dataset", "backbone", "weights", "class_name", "annotator"):
            if blank(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a name")
        if self.answer and self.answer not in ANSWERS:
            raise ValueError(f"the answer is {self.answer!r}; {nearest(self.answer, ANSWERS)}")
        if min(self.class_index, self.feature) < 0:
            raise ValueError("class_index and feature are whole numbers from 0 on")
        low, high = CONFIDENCE
        if self.confidence is not None and not low <= self.confidence <= high:
            raise ValueError(f"confidence is {self.confidence!r}, expected {low:g} to {high:g}, or null")
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds is {self.seconds!r}, expected 0 or more, or null")

    @property
    def pair(self) -> tuple[int, int]:
        """Class code and feature."""
        return self.class_index, self.feature


KIND = Kind(Validation, FILE, "embedx annotate", SpuriosityError, version=1, key="schema",
            again="mend the line or remove it", indent=None, ascii=False)  # fmt: skip


@dataclass(frozen=True)
class Validated:
    """What annotators say of one pair.

    answers  {answer: annotators who gave it}; n of them in all
    elsewhere      {id: annotators who say that its map looks elsewhere}, those of none left out
    """

    answers: Mapping[str, int]
    elsewhere: Mapping[str, int]

    @property
    def n(self) -> int:
        """Annotators."""
        return sum(self.answers.values())

    @property
    def valid(self) -> bool:
        """Whether the pictures were found to show the same thing, see the module."""
        return (
            self.answers.get("same", 0) >= SHARE * self.n and max(self.elsewhere.values(), default=0) < SHARE * self.n
        )


def read(
    path: Path, weights: str, notice: journal.Notice | None = None, classes: Sequence[str] | None = None
) -> tuple[Validation, ...]:
    """The answers that hold, of features of the network with these weights; none where there is no file.

    notice   is told of each line that is left out, as it cannot be read or is of no such class; without it, such a line
             is an error
    classes  names by code that the answers have to be of; None: any
    """
    if not path.is_file():
        return ()
    lines = _fitting(path, weights, notice, classes)
    return tuple(v for v in journal.latest(lines, lambda v: (*v.pair, v.annotator)).values() if v.answer)


def _fitting(
    path: Path, weights: str, notice: journal.Notice | None, classes: Sequence[str] | None
) -> Iterator[tuple[int, Validation]]:
    for number, line in journal.read(path, KIND, notice):
        if line.weights != weights:
            continue
        if classes is None or not (problem := misnamed(line.class_index, line.class_name, classes)):
            yield number, line
            continue
        problem = f"{path}, line {number}: {problem}; {KIND.advice}"
        if notice is None:
            raise SpuriosityError(problem)
        notice(f"note: a line is left out: {problem}")


def validated(answers: Iterable[Validation]) -> dict[tuple[int, int], Validated]:
    """What annotators say, by pair."""
    of_pair: dict[tuple[int, int], list[Validation]] = {}
    for v in answers:
        of_pair.setdefault(v.pair, []).append(v)
    return {
        pair: Validated(Counter(v.answer for v in all_of), Counter(i for v in all_of for i in v.elsewhere))
        for pair, all_of in of_pair.items()
    }
