"""What each page holds, as values for its template: what an annotator may see, and nothing that is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedx.annotation.board import Board
from embedx.annotation.order import ORDERS, PAGE, SHOWN, Asked, Row, ordered, resume, rows, way
from embedx.annotation.votes import Pair
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.annotations.votes import Vote
from embedx.spuriosity.records.discovery import Candidate
from embedx.spuriosity.records.panel import Panel


@dataclass(frozen=True)
class Person:
    """Who looks: the name under which answers are kept, and whether gaps and others' answers are hidden."""

    name: str
    blind: bool


@dataclass(frozen=True)
class Progress:
    """How far an annotator is: features answered of all, in the class at hand and everywhere; minutes left, or None."""

    done: int
    features: int
    class_done: int = 0
    class_features: int = 0
    minutes: float | None = None


def progress(board: Board, person: Person, found: Sequence[Row], label: int | None = None) -> Progress:
    """The progress of an annotator, the time left by the annotator's own pace."""
    done, n = sum(r.done for r in found), sum(r.features for r in found)
    row = next((r for r in found if r.label == label), None)
    pace = board.votes.pace(person.name)
    minutes = None if pace is None else (n - done) * pace / 60
    return Progress(done, n, row.done if row else 0, row.features if row else 0, minutes)


@dataclass(frozen=True)
class Shown:
    """One picture of a feature: its number among the shots, the id of its image, and how strong the feature is."""

    number: int
    id: str
    activation: float
    attacked: float | None


@dataclass(frozen=True)
class Feature:
    """One feature of a class, as a page shows it.

    mine     the annotator's own vote; said: what all say together, None for a blind annotator
    shots    {"most", "least"}: the pictures; version: changes with the pictures, so that a browser keeps them
    elsewhere  (code, name, role) of other classes with this feature
    """

    candidate: Candidate
    panel: Panel | None
    mine: Vote | None
    said: Annotation | None
    shots: dict[str, list[Shown]]
    version: str
    elsewhere: list[tuple[int, str, str]]

    @property
    def others(self) -> list[Vote]:
        """The votes of everybody else."""
        mine = self.mine.annotator if self.mine else None
        return [v for v in self.said.votes if v.annotator != mine] if self.said else []


def feature(board: Board, person: Person, candidate: Candidate) -> Feature:
    """All of one feature."""
    pair: Pair = (candidate.label, candidate.feature)
    panel, shots = board.panel(*pair), {}
    for number, s in enumerate(panel.shots if panel else ()):
        shots.setdefault(s.end, []).append(Shown(number, s.id, s.activation, s.attacked))
    names = board.discovery.classes
    return Feature(
        candidate, panel, board.votes.vote(person.name, *pair), None if person.blind else board.votes.of(*pair), shots,
        panel.identity[:16] if panel else "",
        [(c, names[c], "" if person.blind else board.role(c, candidate.feature)) for c in candidate.elsewhere],
    )  # fmt: skip


def class_page(board: Board, person: Person, asked: Asked, label: int) -> dict[str, Any]:
    """One class: what is known of it, and its features, the most important first."""
    found = rows(board, person.name, blind=person.blind)
    gaps = [] if person.blind else board.gaps(label)
    return {
        "label": label, "name": board.discovery.classes[label], "size": board.discovery.sizes[label],
        "accuracy": board.accuracy.get(label), "gaps": gaps,
        "features": [feature(board, person, c) for c in board.discovery.of[label]],
        "way": way(found, asked, label), "asked": asked, "progress": progress(board, person, found, label),
        "cues": board.votes.cues(person.name if person.blind else ""),
    }  # fmt: skip


def list_page(board: Board, person: Person, asked: Asked) -> dict[str, Any]:
    """The list of classes, a page of it, and where to go on."""
    found = rows(board, person.name, blind=person.blind)
    fit = ordered(found, asked)
    pages = max(1, -(-len(fit) // PAGE))
    page = min(asked.page, pages)
    shown = fit[(page - 1) * PAGE : page * PAGE]
    models = board.measured.models
    gap = {} if person.blind or not models else {c.label: c.gap for c in models[0].classes}
    return {
        "rows": [(row, gap.get(row.label), _said(board, person, row)) for row in shown], "n": len(fit),
        "page": page, "pages": pages, "asked": asked, "orders": ORDERS, "states": SHOWN, "measured": bool(gap),
        "resume": resume(board, found, Asked(asked.order), person.name), "started": board.votes.last(person.name),
        "progress": progress(board, person, found),
    }  # fmt: skip


def _said(board: Board, person: Person, row: Row) -> list[tuple[int, str, str]]:
    """(rank, label, cue) of the features of a class that were answered: by all, or by a blind annotator alone."""
    told = []
    for c in board.discovery.of[row.label]:
        if person.blind:
            mine = board.votes.vote(person.name, c.label, c.feature)
            answer = mine and ("spurious" if mine.spurious else "core" if mine.answer == "main_object" else "unsure")
            told += [(c.rank, answer, mine.cue)] if mine and answer else []
        elif said := board.votes.of(c.label, c.feature):
            told.append((c.rank, said.label, said.cue))
    return told
