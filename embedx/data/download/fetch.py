"""One file over http(s): goes on after an interruption, tries again, and gets its name only when its content is right.

What has come so far lies in `NAME.XXXXXXXX.part`, one for every address, so that two mirrors are never mixed; its
`.json` remembers what the server said of the file. A server is asked to go on only if the file is still the same
(`If-Range`), and its answer is held against what was remembered, as not every server heeds the question.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedx.data.download.content import HEAD, foreign, problem
from embedx.data.download.item import Download, Progress, amount, silent
from embedx.documents import Kind
from embedx.errors import DownloadError
from embedx.files import publish

TIMEOUT = 30  # seconds without a byte
TRIES = 4  # in a row that brought nothing new
LONGEST_PAUSE = 60
PASSING = (408, 425, 429, 500, 502, 503, 504)


class _Refused(Exception):
    """This address does not give the file; another one may."""


def fetch(
    item: Download, folder: Path, progress: Progress = silent, pause: Callable[[float], None] = time.sleep
) -> Path:
    """The file in `folder`, from the first address that gives it; a file that is there already is only checked.

    Raises `DownloadError`; what has come until then is kept, and the next call goes on from there.
    """
    target = folder / item.name
    if target.exists():
        if wrong := problem(target, item):
            raise DownloadError(f"{target}: {wrong}; move it away, and the same command fetches it again")
        return target
    refused = []
    for url in item.urls:
        part = _Part.of(folder, item, url)
        try:
            _persist(url, part, item, progress, pause)
            if wrong := problem(part.path, item):
                part.path.replace(aside := folder / f"{item.name}.wrong")
                part.clear()
                raise _Refused(f"{wrong}; kept as {aside}")
        except _Refused as error:
            refused.append(f"{url}: {error}")
            continue
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DownloadError(
                f"{folder}: the disk is full after {amount(part.size)} of {item.name}; they are kept: make room and "
                "give the same command again"
            ) from error
        publish(part.path, target)
        for left in folder.glob(f"{item.name}.????????.part*"):
            left.unlink()
        return target
    raise DownloadError(
        f"{item.name} cannot be fetched ({'; '.join(refused) or 'no address is known'}); what has come is kept: try "
        f"again later, or put the file into {folder} and give the same command again"
    )


@dataclass(frozen=True)
class Served:
    """What a server says of a whole file, as far as it says anything.

    etag      its ETag; modified: its date; "" where there is none
    total     bytes; null where that is not known
    """

    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """By which a server tells whether the file is still the same."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def same(self, now: Served) -> bool:
        """Nothing that was said both times differs, and the length does not."""
        pairs = ((self.etag, now.etag), (self.modified, now.modified))
        return self.total == now.total and all(a == b for a, b in pairs if a and b)


KIND = Kind(
    Served, "NAME.ADDRESS.part.json", "embedx data get", DownloadError, "embedx-part", 2, unmarked=1, indent=None,
    steps={1: lambda values: values},
)  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """What has come from one address so far, and what the server said of the whole."""

    path: Path

    @classmethod
    def of(cls, folder: Path, item: Download, url: str) -> _Part:
        return cls(folder / f"{item.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")

    @property
    def _said(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() and self._said.exists() else 0

    def facts(self) -> Served:
        try:
            return KIND.read(self._said)
        except DownloadError:
            return Served()

    def begin(self, facts: Served) -> None:
        """Start over with a file of which the server says `facts`; the old bytes go first, old facts vouch for none."""
        self.clear()
        KIND.write(self._said, facts)

    def clear(self) -> None:
        self._said.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _persist(url: str, part: _Part, item: Download, progress: Progress, pause: Callable[[float], None]) -> None:
    """Receive the whole file, in as many requests as it takes, as long as they bring something new."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    furthest, tries = part.size, 0
    while True:
        wait = 0.0
        try:
            if _receive(url, part, item, progress):
                return
            reason = f"the connection ended after {part.size:,} bytes"
        except HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            if error.code not in PASSING:
                raise _Refused(reason) from error
            retry_after = error.headers.get("Retry-After", "")
            wait = float(retry_after) if retry_after.isdecimal() else 0.0
        except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
            cause = getattr(error, "reason", error)
            reason = str(cause) or type(cause).__name__
            if type(cause).__name__ in ("gaierror", "SSLCertVerificationError"):
                raise _Refused(reason) from error
        tries = 0 if part.size > furthest else tries + 1
        furthest = max(furthest, part.size)
        if tries == TRIES:
            raise _Refused(f"{reason} ({TRIES} times in a row)")
        pause(min(max(wait, 2.0 ** max(tries - 1, 0)), LONGEST_PAUSE))


def _ask(url: str, part: _Part) -> Any:
    """The server's answer to a request for what is missing; None when that is nothing."""
    from urllib.error import HTTPError
    from urllib.request import Request

    have, before = part.size, part.facts()
    if have and have == before.total:
        return None
    headers = {"User-Agent": "embedx", "Accept-Encoding": "identity"}  # any other encoding has no lasting positions
    if have:
        headers["Range"] = f"bytes={have}-"
        if before.validator:
            headers["If-Range"] = before.validator
    try:
        return _opener().open(Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310  http(s) only, see _opener
    except HTTPError as error:
        if not have or error.code != 416:
            raise
        error.close()
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have) and before.total is None:
            return None
        part.clear()
        return _ask(url, part)


def _receive(url: str, part: _Part, item: Download, progress: Progress) -> bool:
    """One request; whether the file is whole now, as far as the server says how long it is."""
    answer = _ask(url, part)
    if answer is None:
        return True
    have, before = part.size, part.facts()
    with answer:
        start, facts = _facts(answer)
        if have and start and (start != have or not before.same(facts)):
            part.clear()
            return _receive(url, part, item, progress)
        if start and not have:
            raise _Refused(f"the server sends bytes from {start:,} on, expected all")
        total = item.size if facts.total is None else facts.total
        if item.size is not None and total != item.size:
            raise _Refused(f"the server offers {total:,} bytes, expected {item.size:,}")
        _room(part.path.parent, item, (total or 0) - start, total or 0)
        if not start:
            part.begin(replace(facts, total=total))
        done = start
        with part.path.open("ab") as file:
            while chunk := answer.read1(1 << 18):
                file.write(chunk)
                done += len(chunk)
                progress(done // 1_000_000, max(total or 0, done) // 1_000_000, item.name)
                if not start and done - len(chunk) < HEAD <= done:
                    file.flush()
                    if wrong := foreign(part.path, item.name):  # stop at once, not after gigabytes
                        part.clear()
                        raise _Refused(wrong)
    return total is None or done == total


def _opener() -> Any:
    """An opener of http and https alone, which no redirection leads from https to anything less."""
    from urllib import request

    class Redirect(request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if not newurl.startswith(("https://",) if req.type == "https" else ("https://", "http://")):
                raise _Refused(f"it leads on to {newurl}, expected {req.type}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, Redirect, request.HTTPErrorProcessor,
        request.HTTPDefaultErrorHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _facts(answer: Any) -> tuple[int, Served]:
    """Where the body starts, and what is said of the whole file: its length, ETag and date, as far as there are any."""
    length, start = answer.headers.get("Content-Length", ""), 0
    if answer.status == 206:
        span, _, length = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        start = int(first) if first.isdecimal() else -1
    etag, modified = (answer.headers.get(name) or "" for name in ("ETag", "Last-Modified"))
    return start, Served(etag, modified, int(length) if length.isdecimal() else None)


def _room(folder: Path, item: Download, rest: int, total: int) -> None:
    needed = rest + (item.unpacked or total if item.unpack else 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder} has {amount(free)} free; {item.name} takes {amount(needed)} more"
            f"{', unpacked' * bool(item.unpack)}; make room, or name another folder with -o"
        )
