"""Open the annotation page: bind, tell the address, serve until asked to end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from embedx.annotation.background import Background
from embedx.annotation.board import Board, FileValue, PageSettings
from embedx.annotation.guard import App, own_names
from embedx.annotation.pictures import Rows
from embedx.annotation.server import Site, app
from embedx.annotation.work import Place
from embedx.data.manifest import TABLE
from embedx.data.prepare import source_of
from embedx.errors import EmbedxError, SpuriosityError
from embedx.workspace import Workspace, slug

LOOPBACK, PORT = "127.0.0.1", 8642
PORTS = 20
"""Ports after the first that are tried where that is taken."""
PATIENCE = 2
"""Seconds that answers under way are given at the end."""


@dataclass(frozen=True)
class Address:
    """Where to listen. port  None: the first free one from `PORT` on; 0: any free one."""

    host: str = LOOPBACK
    port: int | None = None


def serve(
    place: Place,
    settings: PageSettings,
    address: Address = Address(),
    *,
    ready: Callable[[str], None],
    notice: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve the page of an analysis until Ctrl-C or SIGTERM.

    ready  is told the address, which holds the token, once it answers; notice, what a person should know
    Raises `SpuriosityError` where nothing was discovered or the address cannot be had.
    """
    try:
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SpuriosityError("the page needs Starlette and uvicorn: install `embedx[web]`") from error
    board = Board(place.folder, settings)
    board.refresh()
    for note in board.notes:
        notice(f"note: a line is left out: {note}")
    _require_same(board, place)
    listening = _bound(address)
    token, port = secrets.token_urlsafe(24), listening.getsockname()[1]
    images, background = _at_hand(place, settings, notice)
    site = Site(board, token, port, images)
    if background:
        site.background = Background(place, site.finished)
        site.background.look()
    loopback = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    if not loopback:
        notice("note: others on the network reach this page, and what it sends is not encrypted: `ssh -L` is safer")
    host = f"[{address.host}]" if ":" in address.host else address.host
    shown = host if loopback else own_names()[0]
    try:
        asyncio.run(
            _until_asked(app(site, port, () if loopback else own_names()), listening,
                         lambda: ready(f"http://{shown}:{port}/?token={token}"))
        )  # fmt: skip
    finally:
        listening.close()
        if site.background:
            site.background.close()


def _require_same(board: Board, place: Place) -> None:
    """Refuse the name of another dataset or backbone than that of the discovery in the folder."""
    found = board.discovery
    if (slug(found.dataset), slug(found.backbone)) != (slug(place.dataset), slug(place.backbone)):
        raise SpuriosityError(
            f"{place.folder} holds a discovery on {found.dataset} with {found.backbone}, asked for was {place.dataset} "
            f"with {place.backbone}; name those, or another folder with -o"
        )


def _at_hand(
    place: Place, settings: PageSettings, notice: Callable[[str], None]
) -> tuple[FileValue[Rows | None] | None, bool]:
    """Pictures of rows, and whether steps can be run: not to read only, nor where the dataset is elsewhere."""

    def load(table: Path) -> Rows | None:
        analysis = place.open(lambda text: None)
        return Rows(analysis.manifest, source_of(Workspace(place.cache), analysis.manifest))

    try:
        analysis = place.open(lambda text: None)
        found = FileValue(analysis.workspace.dataset(analysis.manifest.name) / TABLE, load, None)
        found.get()
        return found, not settings.read_only and analysis.is_cached
    except EmbedxError as error:
        notice(f"note: votes are taken, but nothing can be computed from here: {error}")
        return None, False


def _bound(address: Address) -> socket.socket:
    """A socket that listens. Raises `SpuriosityError` for an address that cannot be had."""
    try:
        family, *_, (host, *_) = socket.getaddrinfo(address.host, 0, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SpuriosityError(f"--host {address.host}: {error.strerror}; name an address of this machine") from error
    first = PORT if address.port is None else address.port
    for port in range(first, first + (PORTS if address.port is None else 1)):
        # The protocol by its number: only then asyncio sends what it has at once (TCP_NODELAY).
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE and address.port is None:
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                raise SpuriosityError(
                    f"--host {address.host}: this machine has no such address; 127.0.0.1 is for itself, 0.0.0.0 for all"
                ) from error
            raise SpuriosityError(
                f"port {port} of {address.host} cannot be had ({error.strerror}); choose another one with --port"
            ) from error
        return listening
    raise SpuriosityError(f"ports {first} to {first + PORTS - 1} are taken; choose another one with --port")


async def _until_asked(application: App, listening: socket.socket, ready: Callable[[], None]) -> None:
    import uvicorn

    class Quiet(uvicorn.Server):
        """Leaves signals to us: uvicorn would end the process by them."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        application, http="h11", ws="none", lifespan="off", access_log=False, log_level="error", server_header=False,
        timeout_graceful_shutdown=PATIENCE, h11_max_incomplete_event_size=1 << 16,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_no_fault_of_the_client)
    server, loop = Quiet(config), asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError, RuntimeError):  # not in the main thread, as in a test
            loop.add_signal_handler(number, end)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if not serving.done():
        ready()
    await serving


def _no_fault_of_the_client(record: logging.LogRecord) -> bool:
    """Not to be told: a connection that became useless, by noise after a request, before that was answered."""
    import h11

    return not (record.exc_info and isinstance(record.exc_info[1], h11.LocalProtocolError))


@contextmanager
def in_browser(url: str) -> Iterator[bool]:
    """Open the address in the user's browser, where there is one with a screen; whether it was.

    Through a file that only the user can read: the arguments of a program, the token among them, are for all to see.
    """
    import webbrowser

    screen = os.name == "nt" or os.uname().sysname == "Darwin" or os.environ.get("DISPLAY")
    if not screen and not os.environ.get("WAYLAND_DISPLAY"):
        yield False
        return
    with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="embedx-", delete=False, encoding="utf-8") as file:
        file.write(f'<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={escape(url)}">')
    try:
        yield webbrowser.open(Path(file.name).as_uri())
    finally:
        Path(file.name).unlink(missing_ok=True)
