"""The application: which address leads to which page, and how faults are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from embedx.annotation import answers, pages
from embedx.annotation.guard import TOKEN_HEADER, App, Guard
from embedx.annotation.posted import Refused
from embedx.annotation.site import Site
from embedx.errors import EmbedxError
from embedx.files import FULL

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Handler = Callable[[Site, "Request"], Awaitable["Response"]]
GET: Mapping[str, Handler] = {
    "/": pages.all_classes, "/class/{label}": pages.one_class, "/heatmaps": pages.first_heatmaps,
    "/heatmaps/{label}": pages.heatmaps, "/review": pages.review, "/groups": pages.groups,
    "/agreement": pages.agreement, "/effects": pages.effects_page, "/jobs": pages.jobs,
    "/accuracy/{label}": pages.accuracy,
    "/picture/{label}/{feature}/{shot}/{kind}": pages.shot, "/histogram/{label}/{feature}": pages.histogram,
    "/flagged/{place}/{kind}": pages.flagged, "/row/{row}": pages.row, "/static/{name}": pages.static,
}  # fmt: skip
POST: Mapping[str, Handler] = {
    "/vote": answers.vote, "/validation": answers.validation, "/decision": answers.decision, "/group": answers.group,
    "/who": answers.who, "/job": answers.job,
}  # fmt: skip


def app(site: Site, port: int, names: tuple[str, ...] = ()) -> App:
    """The pages behind their guard, as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.routing import Route

    def route(path: str, handler: Handler, method: str) -> Route:
        async def fresh(request: Request) -> Response:
            if method == "POST" and site.board.settings.read_only:
                raise Refused(403, "this page was opened to read only")
            site.refresh()
            return await handler(site, request)

        return Route(path, fresh, methods=[method])

    async def refused(request: Request, error: Exception) -> Response:
        return _told(site, request, *_status(error))

    faults = (Refused, HTTPException, ClientDisconnect, EmbedxError, OSError)
    handlers: Mapping[Any, Any] = dict.fromkeys(faults, refused)
    routes = [*(route(path, handler, "GET") for path, handler in GET.items()),
              *(route(path, handler, "POST") for path, handler in POST.items())]  # fmt: skip
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token=site.token, port=port, names=names)


def _status(error: Exception) -> tuple[int, str]:
    """Status and words of what went wrong: 507 for a full disk, 503 for other faults of the disk or the files."""
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
