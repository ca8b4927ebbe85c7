"""Who may ask: only pages that this server sent to the browser of the person who started it.

Host     of a request is an address, `localhost` or this machine's name: a stranger's name that leads here (DNS
         rebinding) is refused
token    random, in the address that is printed at the start; from then on in a cookie that other sites' requests
         do not carry (SameSite=Strict) and scripts cannot read. A port has its own, as browsers send cookies to all
changes  need the token once more in a header, which no form of another site can set, and the page's own origin
content  no page takes anything from elsewhere, runs a script that is not a file of ours, or shows in a frame
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}  # fmt: skip
TOKEN_HEADER = "x-embedx-token"  # noqa: S105  its name
LARGEST = 1 << 16
"""Bytes of a request that may be one of ours."""
ENTER = (
    '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>embedx</title>'
    '<link rel="icon" href="/static/icon.svg">'
    '<meta http-equiv="refresh" content="0;url=/"><p><a href="/">To the page</a>'
)
"""After the start: a page of ours leads on, as a redirect of a stranger's link would not carry the cookie."""


class Guard:
    """Lets through what this page asks and answers all else itself; adds the headers that keep pages to themselves.

    token  the secret; names: further names of this machine, besides addresses and `localhost`
    """

    def __init__(self, app: App, *, token: str, port: int, names: tuple[str, ...] = ()) -> None:
        self._app, self._token = app, token
        self._cookie = f"embedx-{port}"
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            return
        headers = _headers(scope)

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                extra = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in given]
                if b"cache-control" not in given:
                    extra.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        status, text, cookie = self._judged(scope, headers)
        if status:
            await _answer(guarded, status, text, cookie)
            return
        await self._app(scope, receive, guarded)

    def _judged(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str]:
        """(status, text, cookie) where the guard answers; a status of 0 where the page does."""
        if not self._is_here(headers.get("host", "")):
            return 421, "This server answers to its own address only; open the address that it printed.", ""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=None)
        asked = query.get("token", [""])[0] if scope["path"] == "/" else ""
        if scope["method"] == "GET" and asked and self._is_token(asked):
            return 200, ENTER, f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        if not self._is_token(_cookie(headers.get("cookie", ""), self._cookie)):
            text = "Open the address that `embedx annotate` printed when it was started: this one lacks its token."
            return 403, text, ""
        if scope["method"] in ("GET", "HEAD"):
            return 0, "", ""
        own = {f"http://{headers.get('host', '')}"}
        foreign = headers.get("origin", "") not in own or headers.get("sec-fetch-site", "same-origin") != "same-origin"
        if foreign or not self._is_token(headers.get(TOKEN_HEADER, "")):
            return 403, "Only pages of this server may change anything; reload the page.", ""
        return 0, "", ""

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "surrogateescape"), self._token.encode())

    def _is_here(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return name.lower() in self._names
        return True


def own_names() -> tuple[str, ...]:
    """What this machine is called on its network, for a server that others may reach."""
    return (socket.gethostname(), socket.getfqdn())


def _headers(scope: Scope) -> dict[str, str]:
    """The headers of a request; of one that is there twice, none: whom to believe is not known."""
    found: dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        found[name] = "" if name in found else value.decode("latin-1")
    return found


def _cookie(header: str, name: str) -> str:
    try:
        cookies = SimpleCookie(header)
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


async def _answer(send: Send, status: int, text: str, cookie: str) -> None:
    kind = "text/html" if text == ENTER else "text/plain"
    headers = [(b"content-type", f"{kind}; charset=utf-8".encode())]
    if cookie:
        headers.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
