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
    """What a page posts of the maps of a feature: as a `Validation`; elsewhere: numbers of the pictures."""

    annotator: str
    label: int
    feature: int
    answer: str | None
    elsewhere: tuple[int, ...] = ()
    confidence: int | None = None
    note: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Reviewed:
    """What a page posts of an image in the queue of the review: as a `Decision`."""

    annotator: str
    id: str
    answer: str | None
    right: str = ""
    note: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Grouped:
    """What a page posts of an image's group: as a `GroupLabel`, of a row of the dataset."""

    annotator: str
    row: int
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


async def posted(request: Request, kind: type[T]) -> T:
    """What a request holds. Raises `Refused`."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            raise Refused(413, f"more than {LARGEST:,} bytes, expected less")
    return fit(lambda: built(decoded(data), kind))
