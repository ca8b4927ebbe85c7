"""One file of a dataset, and what is published about it. Datasets list these as their `DOWNLOADS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Download:
    """A file to fetch.

    name      file name in the download folder
    urls      http(s) addresses of this very file, tried in order; none: the user has to put it there, and the plug-in
              says in `BY_HAND` where it comes from
    size      bytes, when published; likewise `sha256` and `md5`
    unpack    for an archive: the folder that its files end up in, below the download folder; empty: kept as it is
    unpacked  at most so many bytes come out of the archive; by default a bound made from its size
    licence   of the data, said before anything is fetched
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    unpack: str = ""
    unpacked: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        for name in filter(None, (self.name, self.unpack)):
            if "/" in name or name.startswith("."):
                raise ValueError(f"{name!r} is no plain name")
        if odd := [u for u in self.urls if not u.startswith(("https://", "http://"))]:
            raise ValueError(f"{odd[0]!r} is no http(s) address")


class Progress(Protocol):
    """Told of bytes done and bytes in all; `what` is the file or the step."""

    def __call__(self, done: int, total: int, what: str = "") -> None: ...


def silent(done: int, total: int, what: str = "") -> None:
    """No progress bar."""


def amount(size: float) -> str:
    """Bytes for people: `1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError
