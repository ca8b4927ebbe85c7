"""What requests hold: typed values, and a refusal in words for all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from embedx.annotation.guard import LARGEST
from embedx.documents import built, decoded

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")


@dataclass(frozen=True)
class Who:
    """What a page posts when the annotator is another."""

    annotator: str
    blind: bool = False


@dataclass(frozen=True)
class Job:
    """What a page posts to have work done: one of the kinds, for a class or for all; or for an attribute, by name."""

    kind: str
    label: int | None = None
    name: str = ""


@dataclass(frozen=True)
class Check:
    """What a page posts of the maps of a feature: as a `Validation`."""

    annotator: str
    label: int
    feature: int
    answer: str | None
    elsewhere: tuple[str, ...] = ()
    confidence: int | None = None
    note: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Reviewed:
    """What a page posts of an image in the queue of the review: as a `Decision`."""

    annotator: str
    id: str
    class_name: str
    answer: str | None
    right: str = ""
    note: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Grouped:
    """What a page posts of an image's group: as a `GroupLabel`."""

    annotator: str
    id: str
    attribute: str
    answer: str | None
    seconds: float | None = None


class Refused(Exception):
    """What a request asks for cannot be: a status, and why in words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def fit(make: Callable[[], T]) -> T:
    """What is made of a request. Raises `Refused` for what cannot be."""
    try:
        return make()
    except (ValueError, RecursionError) as error:
        raise Refused(400, str(error)) from error


def number(request: Request, name: str) -> int:
    """A whole number in an address. Raises `Refused`."""
    text = request.path_params[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(404, "There is no such page.")
    return int(text)


async def posted(request: Request, kind: type[T], of: str = "") -> T:
    """What a request holds; of: the digest of what its page has to be of. Raises `Refused`."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            raise Refused(413, f"more than {LARGEST:,} bytes, expected less")
    values = fit(lambda: decoded(data))
    if of and (not isinstance(values, dict) or values.pop("of", None) != of):
        raise Refused(409, "this page is of another discovery than the one that is there now; reload it")
    return fit(lambda: built(values, kind))
