"""The answers: what a POST request adds to the journals, on the disk before it is called saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from embedx.annotation import views
from embedx.annotation.background import KINDS, NAMES, OPEN, QUIET
from embedx.annotation.image_views import row_of
from embedx.annotation.images import ANSWERS as IMAGE_ANSWERS
from embedx.annotation.images import Decision, GroupLabel
from embedx.annotation.order import rows
from embedx.annotation.posted import Check, Grouped, Job, Refused, Reviewed, Who, fit, posted
from embedx.annotation.site import BLIND, WHO, Site, duration
from embedx.annotation.views import Person
from embedx.annotation.votes import Ballot
from embedx.plugins import nearest
from embedx.spuriosity.annotations.validations import Validation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def vote(site: Site, request: Request) -> Response:
    """One answer: on the disk before it is called saved."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse

    ballot = await posted(request, Ballot, site.of)
    of = site.board.discovery.of.get(ballot.label, ())
    candidate = next((c for c in of if c.feature == ballot.feature), None)
    if candidate is None:
        raise Refused(404, f"class {ballot.label} has no feature {ballot.feature} here; reload the page")
    votes = site.board.votes
    line = fit(lambda: votes.line(ballot, candidate))
    async with site.writing:
        await run_in_threadpool(votes.append, line)
    votes.refresh()
    person = Person(ballot.annotator, blind=True)
    told = views.progress(site.board, person, rows(site.board, person.name, blind=True), ballot.label)
    left = ""
    if told.minutes is not None and told.done < told.features:
        left = f", about {duration(told.minutes)} left at your pace"
    return JSONResponse({"saved": True, "progress": {"done": told.done, "class": told.class_done, "left": left}})


async def validation(site: Site, request: Request) -> Response:
    """One answer on the maps of a feature."""
    told = await posted(request, Check, site.of)
    panel = None
    if told.label < len(site.board.discovery.classes) and min(told.label, told.feature) >= 0:
        panel = site.board.panel(told.label, told.feature)
    if panel is None or not {*told.elsewhere} <= {shot.id for shot in panel.shots}:
        raise Refused(404, "there are no such pictures here; reload the page")
    d, ids = site.board.discovery, tuple(dict.fromkeys(told.elsewhere))
    line = fit(lambda: Validation(
        d.dataset, d.backbone, d.weights, told.label, panel.class_name, told.feature, told.annotator,
        told.answer or "", ids, told.confidence, told.note, told.seconds,
    ))  # fmt: skip
    return await _kept(site, lambda: site.board.validate(line))


async def decision(site: Site, request: Request) -> Response:
    """One answer on an image in the queue of the review."""
    told = await posted(request, Reviewed, site.of)
    flag = next((f for f in site.board.flags if f.id == told.id), None)
    if flag is None or flag.class_name != told.class_name:
        raise Refused(404, "this image is not listed any more, or not with this label; reload the page")
    right = told.right.strip() if told.answer == IMAGE_ANSWERS[0] else ""
    if right and right not in site.board.discovery.classes:
        raise Refused(400, f"{right!r} is no class; {nearest(right, site.board.discovery.classes)}")
    line = fit(lambda: Decision(
        site.board.discovery.dataset, flag.id, flag.class_name, told.annotator, told.answer or "", right,
        told.note, told.seconds,
    ))  # fmt: skip
    return await _kept(site, lambda: site.decisions.append(line))


async def group(site: Site, request: Request) -> Response:
    """One value of an attribute."""
    told = await posted(request, Grouped, site.of)
    if site.rows is None or row_of(site.rows.manifest, told.id) is None:
        raise Refused(404, "there is no such image here; reload the page")
    line = fit(lambda: GroupLabel(
        site.board.discovery.dataset, told.id, told.attribute.strip(), told.annotator,
        (told.answer or "").strip(), told.seconds,
    ))  # fmt: skip
    return await _kept(site, lambda: site.labels.append(line))


async def _kept(site: Site, append: Callable[[], None]) -> Response:
    """Saved, once a line is on the disk."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse

    async with site.writing:
        await run_in_threadpool(append)
    return JSONResponse({"saved": True})


async def who(site: Site, request: Request) -> Response:
    """Another name, or blind or not."""
    from starlette.responses import JSONResponse

    told = await posted(request, Who)
    name = told.annotator.strip()
    if not name or len(name) > 80:
        raise Refused(400, "the name is empty or longer than 80 characters; give another one")
    response = JSONResponse({"saved": True})
    for cookie, value in ((site.cookie(WHO), quote(name, safe="")), (site.cookie(BLIND), "1" if told.blind else "0")):
        response.set_cookie(cookie, value, max_age=31_536_000, samesite="strict", httponly=True)
    return response


async def job(site: Site, request: Request) -> Response:
    """Have work done in the background."""
    from starlette.responses import JSONResponse

    told = await posted(request, Job)
    classes = site.board.discovery.classes
    if told.kind not in KINDS or told.kind in QUIET or (told.label is not None and not 0 <= told.label < len(classes)):
        raise Refused(404, "there is no such work, or no such class")
    if site.background is None:
        raise Refused(409, "the images and features of the dataset are not at hand, so nothing can be computed")
    about = told.name.strip()[:80] if told.kind == "grouped" else told.label
    if about == "" or (told.kind == "effect" and about is None):
        raise Refused(400, "name the attribute, or the class")
    if site.person(request).blind and told.kind not in OPEN:
        raise Refused(403, "you answer blind, and this would tell what others answered")
    of = about if isinstance(about, str) else "all classes" if about is None else classes[about]
    return JSONResponse(site.background.add(told.kind, about, NAMES[told.kind].format(of)).summary())
