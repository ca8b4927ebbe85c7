"""How far annotators agree, where they do not, and how each does on what is known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from embedx.annotation.board import Board
from embedx.annotation.order import disputed
from embedx.spuriosity.annotations import Agreement, Annotation, agreement
from embedx.spuriosity.annotations.validations import Validated, validated
from embedx.spuriosity.annotations.votes import Vote
from embedx.statistics import Interval, proportion


@dataclass(frozen=True)
class Annotator:
    """One person.

    answers  how many, spurious of them; seconds: median of those that took a known time, None without any
    gold     accuracy on the items whose answer is known that were called core or spurious, None without any; "unsure"
             is no answer, so that known says of how many items it is
    known    items whose answer is known; missed: (class, its name, feature) of those answered otherwise
    """

    name: str
    answers: int
    spurious: int
    seconds: float | None
    gold: Interval | None
    known: int
    missed: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Dispute:
    """One feature on which people differ: core for some, spurious for others."""

    label: int
    class_name: str
    feature: int
    rank: int | None
    decided: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Agreed:
    """All of it: Fleiss' kappa for the three answers and for core or spurious, people, disputes, validations."""

    three: Agreement
    two: Agreement
    people: tuple[Annotator, ...]
    disputes: tuple[Dispute, ...]
    validated: tuple[tuple[str, int, Validated], ...]


def agreed(board: Board) -> Agreed:
    """What the votes of everybody say by now."""
    entries = board.votes.all()
    names = board.discovery.classes
    disputes = tuple(
        Dispute(a.class_index, a.class_name, int(a.feature or 0), a.rank, a.label, a.votes)
        for a in entries if disputed(board, a.class_index, int(a.feature or 0))
    )  # fmt: skip
    of: dict[str, list[tuple[Annotation, Vote]]] = {}
    for a in entries:
        for v in a.votes:
            of.setdefault(v.annotator, []).append((a, v))
    checked = validated(board.validations)
    return Agreed(
        agreement(entries), agreement(entries, binary=True),
        tuple(_annotator(board, name, votes) for name, votes in of.items()), disputes,
        tuple((names[c], f, v) for (c, f), v in sorted(checked.items())),
    )  # fmt: skip


def _annotator(board: Board, name: str, votes: Sequence[tuple[Annotation, Vote]]) -> Annotator:
    gold = board.settings.gold
    asked = [(a, v) for a, v in votes if (a.class_index, a.feature) in gold and v.answer != "unsure"]
    missed = tuple(
        (a.class_index, a.class_name, a.feature) for a, v in asked
        if a.feature is not None and v.spurious != (gold[a.class_index, a.feature] == "spurious")
    )  # fmt: skip
    times = [v.seconds for _, v in votes if v.seconds is not None]
    return Annotator(
        name, len(votes), sum(v.spurious for _, v in votes), statistics.median(times) if times else None,
        proportion(len(asked) - len(missed), len(asked)) if asked else None, len(gold), missed,
    )  # fmt: skip
