"""In which order classes come, and which of them: by what an answer is worth, by name, or by index."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from embedx.annotation.board import Board
from embedx.spuriosity.annotations.votes import Vote

ORDERS = {"value": "what an answer is worth", "name": "name", "index": "index"}
SHOWN = {"all": "all classes", "todo": "to do", "done": "done", "disputed": "disputed"}
PAGE = 100
"""Classes on one page of the list."""


@dataclass(frozen=True)
class Asked:
    """What of the list is asked for.

    order  one of `ORDERS`; show: one of `SHOWN`; query: words that a name holds, or an index; page: from 1
    """

    order: str = "value"
    show: str = "all"
    query: str = ""
    page: int = 1

    @classmethod
    def of(cls, values: dict[str, str]) -> Asked:
        """As an address gives it; what it cannot be counts as not given."""
        order, show, page = values.get("order", ""), values.get("show", ""), values.get("page", "")
        return cls(
            order if order in ORDERS else "value", show if show in SHOWN else "all", values.get("q", "")[:200],
            max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
        )  # fmt: skip

    def address(self, **changes: str | int) -> str:
        """The query of an address, with changes; what is the default is left out."""
        values = {"order": self.order, "show": self.show, "q": self.query} | changes
        plain = {"order": "value", "show": "all", "q": "", "page": 1}
        words = {k: v for k, v in values.items() if v != plain[k]}
        return f"?{urlencode(words, errors='replace')}" if words else ""


State = Literal["todo", "part", "done"]


@dataclass(frozen=True)
class Row:
    """One class in the list.

    done, features  how many of its features the annotator has answered
    worth           sum over its features of |gap on validation| x share of the logit
    disputed        whether votes of several people differ on one of its features
    """

    label: int
    name: str
    size: int
    done: int
    features: int
    worth: float
    disputed: bool

    @property
    def state(self) -> State:
        """How far the annotator is."""
        return "done" if self.done >= self.features else "part" if self.done else "todo"


def worth(board: Board, label: int, *, blind: bool = False) -> float:
    """sum over the features of a class of |gap on validation| x share of the logit: what naming them may change.

    For a blind annotator the share alone, as the order would tell the gaps.
    """
    of = board.discovery.of[label]
    if blind:
        return sum(max(c.share, 0.0) for c in of)
    return sum(abs(c.gap.value) * max(c.share, 0.0) for c in of if c.gap is not None)


def rows(board: Board, annotator: str, *, blind: bool = False) -> list[Row]:
    """All classes with features, by index. blind: whether others differ is not told."""
    d, votes = board.discovery, board.votes
    found = []
    for label, name in enumerate(d.classes):
        if not (candidates := d.of[label]):
            continue
        said = [a.votes for c in candidates if (a := votes.of(label, c.feature)) and a.votes]
        found.append(Row(
            label, name, d.sizes[label], sum(any(v.annotator == annotator for v in of) for of in said), len(candidates),
            worth(board, label, blind=blind), not blind and any(len(of) > 1 and _differ(of) for of in said),
        ))  # fmt: skip
    return found


def disputed(board: Board, label: int, feature: int) -> bool:
    """Whether people call a feature core and spurious."""
    said = board.votes.of(label, feature)
    return bool(said) and _differ(said.votes)


def _differ(votes: Sequence[Vote]) -> bool:
    return len({v.spurious for v in votes if v.answer != "unsure"}) > 1


def ordered(found: Sequence[Row], asked: Asked, *, todo_first: bool = True) -> list[Row]:
    """The rows that are asked for, in their order; by worth, those that are not done come first."""
    kept = [r for r in found if _matches(r, asked)]
    if asked.order == "name":
        return sorted(kept, key=lambda r: (_flat(r.name), r.label))
    if asked.order == "index":
        return sorted(kept, key=lambda r: r.label)
    return sorted(kept, key=lambda r: (todo_first and r.state == "done", -r.worth, r.label))


def _matches(row: Row, asked: Asked) -> bool:
    state = {"todo": row.state != "done", "done": row.state == "done", "disputed": row.disputed}.get(asked.show, True)
    words = _flat(asked.query).split()
    return state and (asked.query.strip() == str(row.label) or all(word in _flat(row.name) for word in words))


def _flat(text: str) -> str:
    """Without accents and capitals."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).casefold()


@dataclass(frozen=True)
class Way:
    """Where a class lies among those asked for: the classes before and after it, its place from 1, and how many."""

    before: Row | None
    after: Row | None
    place: int
    n: int


def way(found: Sequence[Row], asked: Asked, label: int) -> Way:
    """Before: the class before in the order. After: the next one that fits what is asked for, round the end."""
    line = ordered(found, Asked(asked.order), todo_first=False)
    at = next(i for i, row in enumerate(line) if row.label == label)
    rest = [*line[at + 1 :], *line[:at]]
    wanted = [row for row in rest if _matches(row, asked)]
    if asked.show == "all":  # what is left to do, until nothing is
        wanted = [row for row in wanted if row.state != "done"] or wanted
    return Way(line[at - 1] if at else None, wanted[0] if wanted else None, at + 1, len(line))


def resume(board: Board, found: Sequence[Row], asked: Asked, annotator: str) -> Row | None:
    """Where an annotator goes on: the class of the last answer until it is done, then the first that is not."""
    todo = [row for row in ordered(found, asked, todo_first=False) if row.state != "done"]
    last = board.votes.last(annotator)
    return next((row for row in todo if last and row.label == last[0]), todo[0] if todo else None)
