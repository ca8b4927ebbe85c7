"""One analysis as its pages share it: who asks, what was computed, and the frame that every page stands in."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from embedx.annotation.background import Background, Task
from embedx.annotation.board import Board, FileValue
from embedx.annotation.effects import Effect, Strip
from embedx.annotation.image_views import CHOICES
from embedx.annotation.images import books
from embedx.annotation.pictures import Rows
from embedx.annotation.views import Person
from embedx.errors import EmbedxError
from embedx.html import environment
from embedx.spuriosity.pages import page as gallery
from embedx.statistics import Interval, proportion

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request
    from starlette.responses import Response

HERE = Path(__file__).parent
WHO, BLIND = "embedx-annotator", "embedx-blind"
"""Cookies with the annotator's name, and whether gaps and others' answers are hidden."""
PAGES = (
    ("/", "Classes", "list"), ("/heatmaps", "Heatmaps", "heatmaps"), ("/review", "Review", "review"),
    ("/groups", "Groups", "groups"), ("/agreement", "Agreement", "agreement"), ("/effects", "Effects", "effects"),
)  # fmt: skip


class Site:
    """The pages of one analysis.

    rows        pictures of the dataset's rows, where the images are at hand; background: where steps can be run
    writing     one answer is written after the other, in the order in which they came
    of          the digest of the discovery: what pages post has to be of it
    """

    def __init__(self, board: Board, token: str, port: int, images: FileValue[Rows | None] | None = None) -> None:
        self.board, self.token, self._port, self._images = board, token, port, images
        self.background: Background | None = None
        self.writing = asyncio.Lock()
        self._renew()

    def _renew(self) -> None:
        """Forget what was of another discovery."""
        self._discovery, self.of = self.board.discovery, self.board.of
        self.decisions, self.labels = books(self.board.folder, self._discovery.dataset)
        self.strips: dict[int, Strip] = {}
        self.effects: dict[int, Effect] = {}
        self.chosen: dict[str, list[int]] = {}
        self._measured, self.rows = self.board.measured, self._rows()
        if self.background is not None:
            self.background.look()

    def _rows(self) -> Rows | None:
        try:
            return self._images and self._images.get()
        except EmbedxError:
            return None

    def cookie(self, name: str) -> str:
        """The name of a cookie of this port; of this start, where it was started for a name."""
        start = hashlib.sha256(self.token.encode()).hexdigest()[:8] if self.board.settings.named else ""
        return f"{name}-{self._port}{start and '-'}{start}"

    def person(self, request: Request) -> Person:
        """Who asks, by the cookies of the browser."""
        settings = self.board.settings
        name = unquote(request.cookies.get(self.cookie(WHO), ""), errors="replace").strip()[:80] or settings.annotator
        return Person(name, settings.blind or request.cookies.get(self.cookie(BLIND)) == "1")

    def finished(self, task: Task) -> None:
        """Take in what a task has found."""
        if task.kind == "facts":
            self.board.accuracy = {c: proportion(right, of) for c, (right, of) in task.value.accuracy.items()}
            self.strips = dict(task.value.strips)
        elif task.kind == "effects":
            self.strips, self.effects = task.value, {}
        elif task.kind == "effect":
            self.effects[int(task.about or 0)] = task.value
        elif task.kind in CHOICES:
            self.chosen[task.kind] = task.value

    def refresh(self) -> None:
        """Take in what changed on the disk."""
        self.board.refresh()
        if self.board.discovery is not self._discovery:
            self._renew()
        if (rows := self._rows()) is not self.rows:  # the dataset was prepared again: a row may be another image
            self.rows, self.chosen = rows, {}
        if (measured := self.board.measured) is not self._measured:
            self._measured, self.effects = measured, {}
            if self.background is not None and not self.background.busy("effects"):
                self.background.look()
        self.decisions.refresh()
        self.labels.refresh()

    def page(self, request: Request, template: str, here: str, status: int = 200, **values: Any) -> Response:
        """A page with what all of them show."""
        from starlette.responses import HTMLResponse

        d, settings = self.board.discovery, self.board.settings
        person = values.pop("person", None) or self.person(request)
        text = _templates().get_template(template).render(
            token=self.token, of=self.of, person=person, dataset=d.dataset, backbone=d.backbone,
            read_only=settings.read_only, forced_blind=settings.blind, notes=self._notes(blind=person.blind),
            nav=PAGES, here=here, can=self.background is not None, **values,
        )  # fmt: skip
        return HTMLResponse(text, status)

    def _notes(self, *, blind: bool) -> list[str]:
        """What is wrong with the files; a blind annotator is told how much, as the lines are of others."""
        found = [*self.board.notes, *self.decisions.problems, *self.labels.problems]
        return (
            [f"{len(found):,} lines of the files; who does not answer blind sees which"] if blind and found else found
        )

    def effect(self, label: int) -> Effect | None:
        """What the answers change for a class: as it was just computed, else as the files have it."""
        return self.effects.get(label) or self.board.effect(label, self.strips.get(label))


def accuracy_in_words(x: Interval) -> str:
    """An accuracy in percent, with its interval and n."""
    return f"{gallery.percent(x.value)} ({gallery.percent(x.low)}–{gallery.percent(x.high)}), n = {x.n:,}"


def duration(minutes: float) -> str:
    """Minutes in words."""
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


@cache
def _templates() -> Environment:
    made = environment(HERE / "templates")
    made.filters |= {
        "percent": gallery.percent, "points": gallery.points, "share": gallery.share, "p": gallery.p_value,
        "count": "{:,}".format, "significant": lambda x: f"{x:#.3g}".rstrip("."), "breakable": gallery.breakable,
        "answer": lambda name: gallery.WORDS.get(name, name), "because": gallery.because, "decided": gallery.decided,
        "whisker": gallery.whisker, "duration": duration, "accuracy": accuracy_in_words,
    }  # fmt: skip
    return made
