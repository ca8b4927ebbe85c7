"""How far annotators agree, where they do not, and how each does on what is known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from embedx.annotation.board import Board
from embedx.annotation.order import disputed
from embedx.spuriosity.annotations import Agreement, agreement
from embedx.spuriosity.annotations.validations import Validated, validated
from embedx.spuriosity.annotations.votes import Vote
from embedx.statistics import Interval, proportion


@dataclass(frozen=True)
class Annotator:
    """One person.

    answers  how many, spurious of them; seconds: median of those that took a known time, None without any
    gold     accuracy on items whose answer is known, None where none was answered; missed: (class, feature) of those
             answered otherwise
    """

    name: str
    answers: int
    spurious: int
    seconds: float | None
    gold: Interval | None
    missed: tuple[tuple[int, int], ...]


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
    checked = validated(board.validations)
    return Agreed(
        agreement(entries), agreement(entries, binary=True),
        tuple(_annotator(board, name, [(a.class_index, int(a.feature or 0), v) for a in entries
                                       for v in a.votes if v.annotator == name]) for name in board.votes.annotators()),
        disputes, tuple((names[c], f, v) for (c, f), v in sorted(checked.items())),
    )  # fmt: skip


def _annotator(board: Board, name: str, votes: Sequence[tuple[int, int, Vote]]) -> Annotator:
    gold = board.settings.gold
    asked = [(c, f, v) for c, f, v in votes if (c, f) in gold and v.answer != "unsure"]
    wrong = [(c, f) for c, f, v in asked if v.spurious != (gold[c, f] == "spurious")]
    times = [v.seconds for _, _, v in votes if v.seconds is not None]
    return Annotator(
        name, len(votes), sum(v.spurious for _, _, v in votes), statistics.median(times) if times else None,
        proportion(len(asked) - len(wrong), len(asked)) if asked else None, tuple(wrong),
    )  # fmt: skip
