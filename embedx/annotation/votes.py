"""The votes of an analysis as the file has them by now, whoever adds to it, and what follows for an annotator."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedx import journal
from embedx.data.manifest import tidy
from embedx.journal import Follower
from embedx.spuriosity import annotations
from embedx.spuriosity.annotations import KIND, Annotation
from embedx.spuriosity.annotations.votes import Vote, blank, decide, misnamed
from embedx.spuriosity.records.discovery import Candidate, Discovery

Pair = tuple[int, int]
"""Class code and feature."""
PACE = 20
"""Latest answers that the pace of a person is taken from."""


@dataclass(frozen=True)
class Ballot:
    """What a page posts: one answer on one pair. `answer` null withdraws it; the rest as of a `Vote`."""

    annotator: str
    label: int
    feature: int
    answer: str | None
    confidence: int | None = None
    cue: str = ""
    note: str = ""
    seconds: float | None = None


@dataclass
class Votes:
    """annotations.jsonl of an analysis, read as it grows.

    problems  {line: why it is left out}
    """

    path: Path
    discovery: Discovery
    _follower: Follower[Annotation] = field(init=False)
    _pairs: dict[tuple[Any, ...], Annotation] = field(default_factory=dict, init=False)
    _foreign: dict[int, str] = field(default_factory=dict, init=False)
    _times: dict[str, dict[Pair, float | None]] = field(default_factory=dict, init=False)
    """{annotator: {pair: seconds}} of the votes that hold, the latest last."""

    def __post_init__(self) -> None:
        self._follower = Follower(self.path, KIND)

    @property
    def problems(self) -> dict[int, str]:
        """Lines that are left out, and why."""
        return dict(sorted({**self._follower.problems, **self._foreign}.items()))

    def refresh(self) -> None:
        """Take in what was added to the file."""
        anew, lines = self._follower.news()
        if anew:
            for of in (self._pairs, self._foreign, self._times):
                of.clear()
        for number, line in lines:
            if problem := self._unfit(line) or annotations.include(self._pairs, line):
                self._foreign[number] = f"{self.path}, line {number}: {problem}; {KIND.advice}"
            elif line.feature is not None:
                self._note(line, (line.class_index, line.feature))

    def _note(self, line: Annotation, pair: Pair) -> None:
        for name in (*line.withdrawn, *(v.annotator for v in line.votes)):
            self._times.get(name, {}).pop(pair, None)
        for vote in line.votes:
            self._times.setdefault(vote.annotator, {})[pair] = vote.seconds

    def _unfit(self, line: Annotation) -> str:
        """Why a line is none of this discovery, or ""."""
        d = self.discovery
        if line.weights != d.weights:
            return f"it is of weights {line.weights[:12]}, the features are of {d.weights[:12]}"
        if (line.dataset, line.backbone) != (d.dataset, d.backbone):
            return f"it is of {line.backbone} on {line.dataset}, the features are of {d.backbone} on {d.dataset}"
        return misnamed(line.class_index, line.class_name, d.classes)

    def of(self, label: int, feature: int) -> Annotation | None:
        """What is said of a pair; None for nothing."""
        d = self.discovery
        found = self._pairs.get((d.dataset, d.backbone, d.weights, label, feature, ""))
        return None if found is None or found.empty else found

    def all(self) -> list[Annotation]:
        """What is said of features, all pairs."""
        return [a for a in self._pairs.values() if a.feature is not None and not a.empty]

    def vote(self, annotator: str, label: int, feature: int) -> Vote | None:
        """One annotator's answer on a pair."""
        said = self.of(label, feature)
        return next((v for v in said.votes if v.annotator == annotator), None) if said else None

    def done(self, annotator: str, candidates: Iterable[Candidate]) -> int:
        """How many of some features an annotator has answered."""
        return sum(self.vote(annotator, c.label, c.feature) is not None for c in candidates)

    def last(self, annotator: str) -> Pair | None:
        """The pair of the latest vote of an annotator that holds."""
        return next(reversed(self._times.get(annotator, {})), None)

    def pace(self, annotator: str) -> float | None:
        """Seconds that an annotator takes for a feature: the median of the latest votes that hold."""
        times = [s for s in self._times.get(annotator, {}).values() if s is not None][-PACE:]
        return statistics.median(times) if times else None

    def cues(self, annotator: str = "") -> list[str]:
        """Names of cues given so far, sorted; those of one annotator alone where one is named."""
        every = self.all()
        own = {v.cue for a in every for v in a.votes if not annotator or v.annotator == annotator}
        return sorted({*own, *(a.cue for a in every if not annotator)} - {""}, key=str.casefold)

    def line(self, ballot: Ballot, candidate: Candidate) -> Annotation:
        """The line of an answer. Raises `ValueError` for one that cannot be."""
        d, pair = self.discovery, (candidate.label, candidate.feature)
        said = self.of(*pair)
        start = Annotation(
            d.dataset, d.backbone, d.weights, candidate.label, candidate.class_name, candidate.feature, "unsure",
            "local", said.class_id if said else "", candidate.rank, candidate.importance,
            rule=said.rule if said else "majority",
        )  # fmt: skip
        if ballot.answer is None:
            if blank(ballot.annotator):
                raise ValueError(f"the annotator is {ballot.annotator!r}, expected a name")
            return replace(start, withdrawn=(ballot.annotator,))
        vote = Vote(
            ballot.annotator, ballot.answer, ballot.confidence, ballot.note, ballot.seconds, tidy(ballot.cue)
        )  # fmt: skip
        label, kind = decide([vote], start.rule)
        return replace(start, votes=(vote,), label=label, kind=kind, cue=vote.cue)

    def append(self, line: Annotation) -> None:
        """Add a line, safe on disk when this returns. Raises `OSError`, also for a full disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        journal.append(self.path, KIND, line)
