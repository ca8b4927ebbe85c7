"""The server of the annotation page: routes in, pages and saved answers out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

from embedx.annotation import pictures, views
from embedx.annotation.background import Background, Task
from embedx.annotation.board import Board
from embedx.annotation.guard import LARGEST, TOKEN_HEADER, App, Guard
from embedx.annotation.order import Asked, rows
from embedx.annotation.pictures import Picture, Rows
from embedx.annotation.views import Person
from embedx.annotation.votes import Ballot
from embedx.annotation.work import KINDS, interval_of
from embedx.documents import built, decoded
from embedx.errors import EmbedxError
from embedx.html import environment
from embedx.spuriosity.pages import page as gallery

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")
HERE = Path(__file__).parent
STATIC = {"page.css": gallery.HERE / "page.css"} | {p.name: p for p in sorted((HERE / "static").iterdir())}
STATIC_TYPES = {".svg": "image/svg+xml", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
WHO, BLIND = "embedx-annotator", "embedx-blind"
"""Cookies with the annotator's name, and whether gaps and others' answers are hidden."""
PAGES = (("/", "Classes", "list"), ("/agreement", "Agreement", "agreement"))


@dataclass(frozen=True)
class Who:
    """What a page posts when the annotator is another."""

    annotator: str
    blind: bool = False


@dataclass(frozen=True)
class Job:
    """What a page posts to have work done: one of the kinds, for a class or for all."""

    kind: str
    label: int | None = None


class Refused(Exception):
    """What a request asks for cannot be: a status, and why in words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Site:
    """The pages of one analysis.

    rows  pictures of the dataset's rows, where the images are at hand; background: where steps can be run
    """

    def __init__(
        self, board: Board, token: str, rows: Rows | None = None, background: Background | None = None
    ) -> None:
        self.board, self.token, self.rows, self.background = board, token, rows, background

    def person(self, request: Request) -> Person:
        """Who asks, by the cookies of the browser."""
        settings = self.board.settings
        name = unquote(request.cookies.get(WHO, ""), errors="replace").strip()[:80] or settings.annotator
        return Person(name, settings.blind or request.cookies.get(BLIND) == "1")

    def finished(self, task: Task) -> None:
        """Take in what a task has found."""
        if task.kind == "accuracy":
            self.board.accuracy = {c: interval_of(right, of) for c, (right, of) in task.value.items()}

    # Pages

    def page(self, request: Request, template: str, here: str, status: int = 200, **values: Any) -> Response:
        """A page with what all of them show."""
        from starlette.responses import HTMLResponse

        d, settings = self.board.discovery, self.board.settings
        text = _templates().get_template(template).render(
            token=self.token, person=values.pop("person", None) or self.person(request), dataset=d.dataset,
            backbone=d.backbone, read_only=settings.read_only, forced_blind=settings.blind, notes=self.board.notes,
            nav=PAGES, here=here, **values,
        )  # fmt: skip
        return HTMLResponse(text, status)

    async def list(self, request: Request) -> Response:
        """All classes."""
        person = self.person(request)
        values = views.list_page(self.board, person, Asked.of(dict(request.query_params)))
        return self.page(request, "list.html.j2", "list", person=person, **values)

    async def one_class(self, request: Request) -> Response:
        """One class."""
        label = self._class(request)
        person = self.person(request)
        values = views.class_page(self.board, person, Asked.of(dict(request.query_params)), label)
        missing = sum(f.panel is None for f in values["features"]) if self.background else 0
        return self.page(
            request, "class.html.j2", "list", person=person, orders=views.ORDERS, missing=missing, **values
        )  # fmt: skip

    # Pictures

    async def shot(self, request: Request) -> Response:
        """A picture of a panel."""
        label, feature, number = (self._number(request, name) for name in ("label", "feature", "shot"))
        found = label < len(self.board.discovery.classes) or None
        return _picture(found and pictures.shot(self.board, label, feature, number, request.path_params["kind"]))

    async def histogram(self, request: Request) -> Response:
        """The histogram of a panel."""
        label, feature = (self._number(request, name) for name in ("label", "feature"))
        found = label < len(self.board.discovery.classes) or None
        return _picture(found and pictures.histogram(self.board, label, feature))

    async def flagged(self, request: Request) -> Response:
        """The picture of an image to review."""
        return _picture(pictures.flagged(self.board, self._number(request, "place"), request.path_params["kind"]))

    async def row(self, request: Request) -> Response:
        """The picture of a row of the dataset."""
        from starlette.concurrency import run_in_threadpool

        number = self._number(request, "row")
        return _picture(await run_in_threadpool(self.rows.get, number) if self.rows else None)

    async def static(self, request: Request) -> Response:
        """A style or a script of ours."""
        from starlette.responses import Response

        path = STATIC.get(request.path_params["name"])
        if path is None:
            raise Refused(404, "There is no such file.")
        return Response(path.read_bytes(), media_type=STATIC_TYPES[path.suffix])

    # Answers

    async def vote(self, request: Request) -> Response:
        """One answer: on the disk before it is called saved."""
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        ballot = await self._posted(request, Ballot)
        of = self.board.discovery.of.get(ballot.label, ())
        candidate = next((c for c in of if c.feature == ballot.feature), None)
        if candidate is None:
            raise Refused(404, f"class {ballot.label} has no feature {ballot.feature} here; reload the page")
        votes = self.board.votes
        line = _fit(lambda: votes.line(ballot, candidate))
        await run_in_threadpool(votes.append, line)
        votes.refresh()
        person = Person(ballot.annotator, blind=False)
        told = views.progress(self.board, person, rows(self.board, person.name), ballot.label)
        left = "" if told.minutes is None or told.done == told.features else f", about {duration(told.minutes)} left"
        return JSONResponse({
            "saved": True, "label": self.board.role(ballot.label, ballot.feature),
            "progress": {"done": told.done, "left": left and f"{left} at your pace"},
        })  # fmt: skip

    async def who(self, request: Request) -> Response:
        """Another name, or blind or not."""
        from starlette.responses import JSONResponse

        posted = await self._posted(request, Who)
        name = posted.annotator.strip()
        if not name or len(name) > 80:
            raise Refused(400, "the name is empty or longer than 80 characters; give another one")
        response = JSONResponse({"saved": True})
        for cookie, value in ((WHO, quote(name, safe="", errors="replace")), (BLIND, "1" if posted.blind else "0")):
            response.set_cookie(cookie, value, max_age=31_536_000, samesite="strict", httponly=True)
        return response

    async def job(self, request: Request) -> Response:
        """Have work done in the background."""
        from starlette.responses import JSONResponse

        posted = await self._posted(request, Job)
        classes = self.board.discovery.classes
        if posted.kind not in KINDS or (posted.label is not None and not 0 <= posted.label < len(classes)):
            raise Refused(404, "there is no such work, or no such class")
        if self.background is None:
            raise Refused(409, "the images and features of the dataset are not at hand, so nothing can be computed")
        of = "all classes" if posted.label is None else classes[posted.label]
        return JSONResponse(self.background.add(posted.kind, posted.label, f"{posted.kind} of {of}").summary())

    async def jobs(self, request: Request) -> Response:
        """How the work goes."""
        from starlette.responses import JSONResponse

        return JSONResponse([task.summary() for task in self.background.tasks()] if self.background else [])

    # What requests hold

    def _number(self, request: Request, name: str) -> int:
        text = request.path_params[name]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise Refused(404, "There is no such page.")
        return int(text)

    def _class(self, request: Request) -> int:
        label = self._number(request, "label")
        if not self.board.discovery.of.get(label):
            raise Refused(404, f"There is no class {label} with features.")
        return label

    async def _posted(self, request: Request, kind: type[T]) -> T:
        """What a request holds. Raises `Refused`."""
        if self.board.settings.read_only:
            raise Refused(403, "this page was opened to read only")
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > LARGEST:
                raise Refused(413, f"more than {LARGEST:,} bytes, expected less")
        return _fit(lambda: built(decoded(data), kind))


def _fit(make: Callable[[], T]) -> T:
    try:
        return make()
    except (ValueError, RecursionError) as error:
        raise Refused(400, str(error)) from error


def _picture(found: Picture | None) -> Response:
    from starlette.responses import Response

    if found is None:
        raise Refused(404, "There is no such picture.")
    return Response(found.data, media_type=found.type, headers={"cache-control": "private, max-age=86400"})


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
        "whisker": gallery.whisker, "duration": duration,
    }  # fmt: skip
    return made


def app(site: Site, port: int, names: tuple[str, ...] = ()) -> App:
    """The pages behind their guard, as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    def get(path: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
        async def fresh(request: Request) -> Response:
            site.board.refresh()
            return await handler(request)

        return Route(path, fresh, methods=["GET"])

    def post(path: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
        async def fresh(request: Request) -> Response:
            site.board.refresh()
            return await handler(request)

        return Route(path, fresh, methods=["POST"])

    async def refused(request: Request, error: Exception) -> Response:
        return _told(site, request, *_status(error))

    handlers: Mapping[Any, Any] = dict.fromkeys((Refused, HTTPException, EmbedxError, OSError), refused)
    made = Starlette(
        routes=[
            get("/", site.list), get("/class/{label}", site.one_class), get("/jobs", site.jobs),
            get("/picture/{label}/{feature}/{shot}/{kind}", site.shot), get("/row/{row}", site.row),
            get("/histogram/{label}/{feature}", site.histogram), get("/flagged/{place}/{kind}", site.flagged),
            get("/static/{name}", site.static),
            post("/vote", site.vote), post("/who", site.who), post("/job", site.job),
        ],
        exception_handlers=handlers,
    )  # fmt: skip
    return Guard(made, token=site.token, port=port, names=names)


def _status(error: Exception) -> tuple[int, str]:
    """Status and words of what went wrong: 507 for a full disk, 503 for other faults of the disk or the files."""
    from embedx.files import FULL

    if isinstance(error, Refused):
        return error.status, error.text
    if isinstance(error, OSError):
        return (507 if error.errno in FULL else 503), f"{error.filename or 'a file'}: {error.strerror or error}"
    if isinstance(error, EmbedxError):
        return 503, str(error)
    status = getattr(error, "status_code", 400)
    return status, {404: "There is no such page.", 405: "That is not done this way."}.get(status, "Not understood.")


def _told(site: Site, request: Request, status: int, text: str) -> Response:
    """An error as the one who asked understands it: JSON for a script, a page for a person."""
    from starlette.responses import JSONResponse

    if request.method != "GET" or TOKEN_HEADER in request.headers:
        return JSONResponse({"error": text}, status)
    headline = "Not here" if status == 404 else "This cannot be shown"
    return site.page(request, "error.html.j2", "", status, headline=headline, text=text)
