"""The pages: what a GET request is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedx.annotation import image_views, pictures, views
from embedx.annotation.agreement import agreed
from embedx.annotation.background import OPEN
from embedx.annotation.copies import corrected_name, grouped_name
from embedx.annotation.effects import LOW
from embedx.annotation.image_views import GroupsAsked
from embedx.annotation.images import ANSWERS as IMAGE_ANSWERS
from embedx.annotation.order import Asked, ordered, rows
from embedx.annotation.pictures import Picture
from embedx.annotation.posted import Refused, number
from embedx.annotation.site import HERE, Site, accuracy_in_words
from embedx.spuriosity.annotations.validations import validated
from embedx.spuriosity.pages import page as gallery

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = {"page.css": gallery.HERE / "page.css"} | {p.name: p for p in sorted((HERE / "static").iterdir())}
STATIC_TYPES = {".svg": "image/svg+xml", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
EFFECTS = 20
"""Classes on one page of effects."""


async def all_classes(site: Site, request: Request) -> Response:
    """All classes."""
    person = site.person(request)
    values = views.list_page(site.board, person, Asked.of(dict(request.query_params)))
    return site.page(request, "list.html.j2", "list", person=person, **values)


async def one_class(site: Site, request: Request) -> Response:
    """One class."""
    label = _class(site, request)
    person = site.person(request)
    values = views.class_page(site.board, person, Asked.of(dict(request.query_params)), label)
    missing = sum(f.panel is None for f in values["features"]) if site.background else 0
    return site.page(
        request, "class.html.j2", "list", person=person, orders=views.ORDERS, missing=missing,
        effect=None if person.blind else site.effect(label), pictures=site.rows is not None, **values,
    )  # fmt: skip


async def first_heatmaps(site: Site, request: Request) -> Response:
    """The heatmaps of the class that comes first."""
    from starlette.responses import RedirectResponse

    found = ordered(rows(site.board, site.person(request).name), Asked(), todo_first=False)
    if not found:
        raise Refused(404, "No class has features.")
    return RedirectResponse(f"/heatmaps/{found[0].label}", 303)


async def heatmaps(site: Site, request: Request) -> Response:
    """Whether the pictures of the features of a class show the same thing."""
    label = _class(site, request)
    person = site.person(request)
    values = views.class_page(site.board, person, Asked.of(dict(request.query_params)), label)
    features = [f.candidate.feature for f in values["features"]]
    answers = site.board.validations
    checks = {f: next((v for v in answers if v.pair == (label, f) and v.annotator == person.name), None)
              for f in features}  # fmt: skip
    verdicts = {} if person.blind else validated(answers)
    missing = sum("following" not in f.shots for f in values["features"]) if site.background else 0
    return site.page(
        request, "heatmaps.html.j2", "heatmaps", person=person, missing=missing, checks=checks,
        drawn=any("following" in f.shots for f in values["features"]),
        verdicts={f: verdicts.get((label, f)) for f in features}, **values,
    )  # fmt: skip


async def review(site: Site, request: Request) -> Response:
    """The images whose labels may be wrong."""
    person, page = site.person(request), Asked.of(dict(request.query_params)).page
    manifest = site.rows.manifest if site.rows else None
    flags, dataset = site.board.flags, site.board.discovery.dataset
    values = image_views.review(flags, site.decisions, manifest, person.name, page, blind=person.blind)
    return site.page(
        request, "review.html.j2", "review", person=person, answers=IMAGE_ANSWERS, post="/decision",
        classes=site.board.discovery.classes, question="The label is", copy=corrected_name(dataset),
        **{"with": {}}, **values,
    )  # fmt: skip


async def groups(site: Site, request: Request) -> Response:
    """The images whose group would decide most."""
    person, asked = site.person(request), GroupsAsked.of(dict(request.query_params))
    manifest = site.rows.manifest if site.rows else None
    values = image_views.groups(asked, site.chosen.get(asked.by), site.labels, manifest, person.name)
    return site.page(
        request, "groups.html.j2", "groups", person=person, answers=asked.values, post="/group", classes=(),
        question=asked.attribute, copy=grouped_name(site.board.discovery.dataset, asked.attribute),
        **{"with": {"attribute": asked.attribute}}, n=len(values["items"]), **values,
    )  # fmt: skip


async def agreement(site: Site, request: Request) -> Response:
    """How far annotators agree; a blind one sees it at the end."""
    person = site.person(request)
    told = views.progress(site.board, person, rows(site.board, person.name))
    return site.page(
        request, "agreement.html.j2", "agreement", person=person, agreed=agreed(site.board),
        hidden=person.blind and told.done < told.features, gold=bool(site.board.settings.gold),
    )  # fmt: skip


async def effects_page(site: Site, request: Request) -> Response:
    """What the answers change for all classes."""
    page = Asked.of(dict(request.query_params)).page
    measured, tuned = site.board.measured.models, site.board.tuned
    labels = [c.label for c in measured[0].classes] if measured else []
    pages = max(1, -(-len(labels) // EFFECTS))
    page = min(page, pages)
    names = site.board.discovery.classes
    shown = [
        {"label": c, "name": names[c], "effect": site.board.effect(c, site.strips.get(c))}
        for c in labels[(page - 1) * EFFECTS : page * EFFECTS]
    ]
    low = tuned and next((r for r in tuned.results if r.rows == LOW), None)
    return site.page(
        request, "effects.html.j2", "effects", before=measured[0] if measured else None, rows=shown, page=page,
        tuned=(tuned.results[0], low) if tuned and low else None, pages=pages, pictures=site.rows is not None,
    )  # fmt: skip


async def jobs(site: Site, request: Request) -> Response:
    """How the work goes."""
    from starlette.responses import JSONResponse

    tasks = site.background.tasks() if site.background else []
    blind = site.person(request).blind
    return JSONResponse([task.summary() for task in tasks if not blind or task.kind in OPEN])


async def accuracy(site: Site, request: Request) -> Response:
    """The accuracy on a class in words, once it is known; null before."""
    from starlette.responses import JSONResponse

    found = site.board.accuracy.get(_class(site, request))
    return JSONResponse({"text": found and accuracy_in_words(found)})


async def shot(site: Site, request: Request) -> Response:
    """A picture of a panel."""
    label, feature, place = (number(request, name) for name in ("label", "feature", "shot"))
    found = label < len(site.board.discovery.classes) or None
    return _picture(found and pictures.shot(site.board, label, feature, place, request.path_params["kind"]), kept=True)


async def histogram(site: Site, request: Request) -> Response:
    """The histogram of a panel."""
    label, feature = (number(request, name) for name in ("label", "feature"))
    found = label < len(site.board.discovery.classes) or None
    return _picture(found and pictures.histogram(site.board, label, feature), kept=True)


async def flagged(site: Site, request: Request) -> Response:
    """The picture of an image to review."""
    return _picture(pictures.flagged(site.board, number(request, "place"), request.path_params["kind"]))


async def row(site: Site, request: Request) -> Response:
    """The picture of a row of the dataset."""
    from starlette.concurrency import run_in_threadpool

    row_number = number(request, "row")
    return _picture(await run_in_threadpool(site.rows.get, row_number) if site.rows else None)


async def static(site: Site, request: Request) -> Response:
    """A style or a script of ours."""
    from starlette.responses import Response

    path = STATIC.get(request.path_params["name"])
    if path is None:
        raise Refused(404, "There is no such file.")
    return Response(path.read_bytes(), media_type=STATIC_TYPES[path.suffix])


def _class(site: Site, request: Request) -> int:
    label = number(request, "label")
    if not site.board.discovery.of.get(label):
        raise Refused(404, f"There is no class {label} with features.")
    return label


def _picture(found: Picture | None, *, kept: bool = False) -> Response:
    """A picture. kept: in the browser for a day, where the address changes with the picture."""
    from starlette.responses import Response

    if found is None:
        raise Refused(404, "There is no such picture.")
    headers = {"cache-control": "private, max-age=86400"} if kept else {}
    return Response(found.data, media_type=found.type, headers=headers)
