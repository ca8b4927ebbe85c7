"""One analysis as its pages share it: who asks, what was computed, and the frame that every page stands in."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from embedx.annotation.background import Background, Task
from embedx.annotation.board import Board
from embedx.annotation.effects import Effect, Strip
from embedx.annotation.image_views import CHOICES
from embedx.annotation.images import books
from embedx.annotation.pictures import Rows
from embedx.annotation.views import Person
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

    rows  pictures of the dataset's rows, where the images are at hand; background: where steps can be run
    """

    def __init__(
        self, board: Board, token: str, rows: Rows | None = None, background: Background | None = None
    ) -> None:
        self.board, self.token, self.rows, self.background = board, token, rows, background
        self.decisions, self.labels = books(board.folder, board.discovery.dataset)
        self.strips: dict[int, Strip] = {}
        self.effects: dict[int, Effect] = {}
        self.chosen: dict[str, list[int]] = {}

    def person(self, request: Request) -> Person:
        """Who asks, by the cookies of the browser."""
        settings = self.board.settings
        name = unquote(request.cookies.get(WHO, ""), errors="replace").strip()[:80] or settings.annotator
        return Person(name, settings.blind or request.cookies.get(BLIND) == "1")

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
        self.decisions.refresh()
        self.labels.refresh()

    def page(self, request: Request, template: str, here: str, status: int = 200, **values: Any) -> Response:
        """A page with what all of them show."""
        from starlette.responses import HTMLResponse

        d, settings = self.board.discovery, self.board.settings
        text = _templates().get_template(template).render(
            token=self.token, person=values.pop("person", None) or self.person(request), dataset=d.dataset,
            backbone=d.backbone, read_only=settings.read_only, forced_blind=settings.blind,
            notes=[*self.board.notes, *self.decisions.problems, *self.labels.problems], nav=PAGES, here=here,
            can=self.background is not None, **values,
        )  # fmt: skip
        return HTMLResponse(text, status)

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
