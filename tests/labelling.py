"""Servers of the annotation page for tests: started at little cost, asked over loopback, stopped and killed.

A server imports for seconds and then starts in a tenth of one. `Stable` is a process that has imported everything and
forks off a server each time it is asked to, so that each server is still a process of its own, with its own standard
error, signals and limits.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from galleries import analysis

from embedx.spuriosity import annotations
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.panels import place_of

HERE = Path(__file__).parent
NAMES = ("otter", "shore", "lamp", "wheel")
DATASET, BACKBONE = "made", "ranker"
HOSTILE = (
    '<script>window.ran = 1</script>', "\"><img src=x onerror='window.ran = 2'>", "</script><b>a'b&amp;{{ 7*7 }}",
    "../../etc/passwd", "ключ / 钥匙 🔑 " + "ß" * 80, "\u202ereversed\u2066",
)  # fmt: skip
"""Names that would run, break out or turn around where a page does not escape them."""
IMPORTED = (
    "embedx.annotation.serve", "starlette.applications", "starlette.concurrency", "starlette.responses", "uvicorn",
    "uvicorn.lifespan.off", "uvicorn.loops.auto", "uvicorn.protocols.http.h11_impl", "filelock", "jinja2",
)  # fmt: skip
"""What a server needs in the end."""
PATIENCE = 30
"""Seconds after which a test gives up what it waits for."""


def gallery(folder: Path, names: Sequence[str] = NAMES, *, votes: bool = False, note: str = "a note") -> Path:
    """An analysis with pictures, of three features a class, and without any answer unless `votes`."""
    analysis(folder, names, note, place_of=place_of)
    if not votes:
        (folder / annotations.FILE).unlink()
    return folder


def lines(folder: Path) -> list[Annotation]:
    """What the annotation file holds, line by line, as far as it can be read."""
    file = folder / annotations.FILE
    found = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [annotations.KIND.parse(line.encode(), "line") for line in found if line.strip()]


def answers(folder: Path) -> dict[tuple[str, int, int], str]:
    """{(annotator, class, feature): answer} as the file has it in the end."""
    file = folder / annotations.FILE
    entries = annotations.read(file, lambda text: None) if file.is_file() else ()
    return {(v.annotator, e.class_index, e.feature): v.answer for e in entries for v in e.votes}


@dataclass
class Server:
    """A server that runs: its address with the token, and its process."""

    url: str
    pid: int
    errors: Path
    stable: Stable = field(repr=False)

    @property
    def token(self) -> str:
        """The secret of the address."""
        return parse_qs(urlsplit(self.url).query)["token"][0]

    @property
    def port(self) -> int:
        """Where it listens."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    @property
    def home(self) -> str:
        """The address without the token, which a browser may ask for once it has the cookie."""
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def of(self) -> str:
        """What its pages say that they are of, which all that they post has to repeat."""
        found = re.search(r'data-of="(\w+)"', self.get("/"))
        assert found
        return found[1]

    def headers(self, **more: str) -> dict[str, str]:
        """What a page of this server sends along."""
        own = {"Cookie": f"embedx-{self.port}={self.token}", "X-Embedx-Token": self.token, "Origin": self.home}
        return own | {name.replace("_", "-"): value for name, value in more.items()}

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request with all that a page sends, or with other headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, dict(self.headers() if headers is None else headers))
            reply = connection.getresponse()
            return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
        finally:
            connection.close()

    def get(self, path: str) -> str:
        """The text of a page, which must be there."""
        status, _, data = self.ask("GET", path)
        assert status == 200, (status, data)
        return data.decode()

    def vote(self, label: int, feature: int, answer: str | None, annotator: str = "one", **more: Any) -> int:
        """The status of an answer."""
        ballot = {"of": self.of, "annotator": annotator, "label": label, "feature": feature, "answer": answer, **more}
        return self.ask("POST", "/vote", ballot)[0]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code, negative for a signal that ended it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return self.stable.wait(self.pid)

    def limit(self, size: int) -> None:
        """How large a file of it may grow, as on a device that is full; -1 lifts it."""
        most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size if size >= 0 else most, most))

    def complaints(self) -> str:
        """What it said on standard error."""
        return self.errors.read_text(encoding="utf-8", errors="replace")


class Stable:
    """The process that servers are forked from."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count, self._running = folder, 0, set[int]()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE.parent), str(HERE)))}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "labelling.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=folder, env=environment,
        )  # fmt: skip

    def start(
        self, analysis: Path, port: int | None = 0, place: Sequence[str] | None = None, **settings: Any
    ) -> Server:
        """A server of an analysis; settings as of `PageSettings`, the annotator is "one".

        place  folder of the caches, dataset and backbone, where they are not made up
        """
        self._count += 1
        errors = self._folder / f"errors-{self._count}.txt"
        asked = {"folder": str(analysis), "port": port, "errors": str(errors)}
        asked["place"] = list(place or (str(analysis / "cache"), DATASET, BACKBONE))
        told = self._ask({**asked, "settings": {"annotator": "one", **settings}})
        self._running.add(told["pid"])
        if not told["url"]:
            self.wait(told["pid"])
            raise AssertionError(f"no server: {errors.read_text()}")
        return Server(told["url"], told["pid"], errors, self)

    def wait(self, pid: int) -> int:
        """The exit code of a server that was asked to end."""
        self._running.discard(pid)
        told = self._ask({"wait": pid})
        assert told["code"] is not None, f"the server did not end within {PATIENCE} s"
        return told["code"]

    def close(self) -> None:
        """End it, and what servers it still has."""
        for pid in tuple(self._running):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 4 * PATIENCE)
        assert ready, "the process that servers are forked from is silent"
        return json.loads(self._process.stdout.readline())


@contextmanager
def stable(folder: Path) -> Iterator[Stable]:
    """A `Stable`, ended with all its servers."""
    made = Stable(folder)
    try:
        yield made
    finally:
        made.close()


def screenshots(default: Path) -> Path:
    """Where pictures of pages are kept: EMBEDX_SCREENSHOTS, or a folder that goes."""
    folder = Path(os.environ.get("EMBEDX_SCREENSHOTS") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def chromium() -> str | None:
    """The browser of this machine, None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# In the other process


def main() -> None:
    """Fork a server for each line that asks for one, and say how each ended."""
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        told = {"code": _waited(asked["wait"])} if "wait" in asked else _forked(asked)
        sys.stdout.write(f"{json.dumps(told)}\n")
        sys.stdout.flush()


def _waited(pid: int) -> int | None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _forked(asked: dict[str, Any]) -> dict[str, Any]:
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ours)
        code = 1
        try:
            _serve(asked, theirs)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours, encoding="utf-8") as pipe:
        return {"pid": pid, "url": pipe.readline().strip()}


def _serve(asked: dict[str, Any], ready: int) -> None:
    from embedx.annotation.board import PageSettings
    from embedx.annotation.serve import Address, serve
    from embedx.annotation.work import Place

    errors = os.open(asked["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(errors, 2)
    cache, dataset, backbone = asked["place"]

    def told(url: str) -> None:
        os.write(ready, f"{url}\n".encode())
        os.close(ready)

    try:
        serve(
            Place(Path(cache), dataset, backbone, Path(asked["folder"])), PageSettings(**asked["settings"]),
            Address(port=asked["port"]), ready=told, notice=lambda text: os.write(1, text.encode()) and None,
        )  # fmt: skip
    except BaseException:
        import traceback

        traceback.print_exc()
        raise


if __name__ == "__main__":
    main()
