"""The annotation page among strangers: they get nothing, malformed requests break nothing, kills lose nothing."""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from labelling import HOSTILE, NAMES, PATIENCE, Server, Stable, answers, gallery, lines, stable

from embedx.annotation.guard import LARGEST
from embedx.spuriosity import annotations
from embedx.spuriosity.panels import record_of
from embedx.spuriosity.records.panel import ONE

SECRET = "the secret beside the pictures"
FEW_REQUESTS, REQUESTS = 1_500, 5_000
MOMENT = 0.05
"""Seconds that a reply may take to begin before the server is told that nothing more comes."""
KILLS = int(os.environ.get("EMBEDX_KILLS", "30"))
PAGES = (
    "/",
    "/?q=otter",
    "/class/0",
    "/heatmaps/0",
    "/review",
    "/groups",
    "/agreement",
    "/effects",
    "/jobs",
    "/picture/0/7/0/image",
    "/histogram/0/7",
    "/static/page.css",
)
PROTECTED = {
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
}  # fmt: skip


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stable]:
    with stable(tmp_path_factory.mktemp("servers")) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with secrets beside it, and records and links that lead to them."""
    outside = tmp_path_factory.mktemp("outside")
    for name in ("secret.txt", "secret.jpg", "secret.svg"):
        (outside / name).write_text(SECRET)
    made = gallery(outside / "analysis", (*NAMES, *HOSTILE))
    (made / "panels" / "secret.jpg").write_text("a file that no record names")
    way = made / record_of(0, NAMES[0], 7)
    (way.parent / "link.jpg").symlink_to(outside / "secret.jpg")
    (way.parent / "up").symlink_to(outside)
    (way.parent / "folder.jpg").mkdir()
    beside = way.parent.relative_to(made).as_posix()
    panel, places = ONE.read(way), leading_out(outside, beside)
    shots = tuple(replace(panel.shots[0], image=p, overlay=p, attack=p, attacked=None) for p in places)
    ONE.write(made / record_of(1, NAMES[1], 7), replace(panel, shots=shots, histogram=str(outside / "secret.svg")))
    return made


def leading_out(outside: Path, beside: str) -> tuple[str, ...]:
    """What a foreign record may call a picture."""
    return (
        "../secret.jpg", "../../secret.jpg", "panels/../../secret.jpg", str(outside / "secret.jpg"),
        f"{beside}/link.jpg", f"{beside}/up/secret.jpg", f"{beside}/folder.jpg", "..\\secret.jpg", "%2e%2e/secret.jpg",
        "file:///etc/passwd.jpg", "/etc/passwd", "../secret.txt", "annotations.jsonl", "discovery.json", "", ".", "..",
        "\x00.jpg", "../secret.jpg\x00.jpg", "a" * 5000 + ".jpg", "~/secret.jpg", "//secret.jpg",
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(servers: Stable, folder: Path) -> Iterator[Server]:
    made = servers.start(folder)
    yield made
    made.end()


# Who may ask


def test_every_answer_keeps_itself_to_itself(server: Server) -> None:
    """Pages, pictures, scripts, what is not there, and what is refused."""
    asked = [("GET", path, None) for path in (*PAGES, "/nowhere", "/class/99", "/static/nothing.js")]
    asked += [("POST", "/vote", {}), ("PUT", "/", None), ("GET", "/vote", None)]
    for headers in (None, {}, {"Host": "evil.example"}):
        for method, path, body in asked:
            _, found, _ = server.ask(method, path, body, headers)
            assert {name: found.get(name) for name in PROTECTED} == PROTECTED, (path, found)
            policy = dict(part.split(" ", 1) for part in found["content-security-policy"].split("; "))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert {v for k, v in policy.items() if k not in ("default-src", "frame-ancestors", "base-uri")} == {
                "'self'"
            }
            assert "no-store" in found["cache-control"] or found["content-type"].startswith("image/")
            assert not [name for name in found if name.startswith("access-control-")]


def test_the_cookie_is_of_one_port_and_out_of_reach(server: Server) -> None:
    status, found, data = server.ask("GET", f"/?token={server.token}", headers={})
    name, _, rest = found["set-cookie"].partition("=")
    assert status == 200 and name == f"embedx-{server.port}" and rest.startswith(server.token)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(rest.split("; ")[1:])
    assert "Domain" not in rest and server.token not in data.decode()
    _, found, _ = server.ask("POST", "/who", {"annotator": "one"})
    assert "HttpOnly" in found["set-cookie"] and "samesite=strict" in found["set-cookie"].lower()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example:{port}", "", "[",
             "localhost:{port}@evil.example", "127.0.0.1, evil.example", "xn--localhost", "2130706433"],
)  # fmt: skip
def test_a_strangers_name_for_this_machine_is_refused(server: Server, host: str) -> None:
    """DNS rebinding: the browser takes the page for one of the stranger's own."""
    for method, path in (
        ("GET", "/"),
        ("GET", f"/?token={server.token}"),
        ("GET", "/static/page.css"),
        ("POST", "/vote"),
    ):
        headers = server.headers(Host=host.format(port=server.port))
        assert server.ask(method, path, headers=headers)[0] == 421


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}", "localhost"]
)
def test_this_machine_is_itself(server: Server, host: str) -> None:
    assert server.ask("GET", "/", headers=server.headers(Host=host.format(port=server.port)))[0] == 200


def wrong_headers(server: Server) -> list[dict[str, str]]:
    """Headers that lack something of what a change takes."""
    whole, other = server.headers(), f"http://127.0.0.1:{server.port + 1}"
    lacking = [{k: v for k, v in whole.items() if k != name} for name in whole]
    bad = [
        {"Origin": other}, {"Origin": "null"}, {"Origin": "http://evil.example"},
        {"Origin": f"{server.home}.evil.example"},
        {"Origin": server.home.replace("http", "https")}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Embedx-Token": ""}, {"X-Embedx-Token": server.token[:-1]}, {"X-Embedx-Token": server.token.upper()},
        {"X-Embedx-Token": "ÿ"}, {"Cookie": f"embedx-{server.port}={server.token}x"}, {"Cookie": "\x7f=;;=,"},
        {"Cookie": f"embedx-{server.port + 1}={server.token}"}, {"Cookie": f"embedx-{server.port}=ÿ"},
        {"Origin": f"http://localhost:{server.port}"},
    ]  # fmt: skip
    return [*lacking, *({**whole, **more} for more in bad)]


def test_a_change_takes_the_cookie_the_token_and_the_own_origin(server: Server, folder: Path) -> None:
    before = lines(folder)
    ballot = {"annotator": "stranger", "label": 0, "feature": 7, "answer": "background"}
    for headers in wrong_headers(server):
        assert server.ask("POST", "/vote", ballot, headers)[0] == 403, headers
        assert server.ask("POST", "/who", {"annotator": "x"}, headers)[0] == 403, headers
    assert lines(folder) == before
    assert server.ask("GET", f"/?token={server.token}&token=x", headers={})[0] in (200, 403)
    assert server.ask("GET", "/class/0?token=" + server.token, headers={})[0] == 403


def test_of_a_header_that_is_there_twice_neither_counts(server: Server) -> None:
    for name, value in (("Host", "evil.example"), ("Origin", "http://evil.example"), ("X-Embedx-Token", "x")):
        own = {"Host": f"127.0.0.1:{server.port}", **server.headers()}
        for pair in ((own[name], value), (value, own[name])):
            head = "".join(f"{k}: {v}\r\n" for k, v in own.items() if k != name)
            head += "".join(f"{name}: {v}\r\n" for v in pair)
            assert status_of(sent(server, f"POST /vote HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n{{}}".encode())) in (
                400, 403, 421,
            )  # fmt: skip


# What pictures there are


def test_no_record_leads_out_of_the_folder(server: Server, folder: Path) -> None:
    """A foreign panel.json names whatever it likes."""
    shots = ONE.read(folder / record_of(1, NAMES[1], 7)).shots
    assert len(shots) > 20
    for i in range(len(shots)):
        for kind in ("image", "overlay", "attack"):
            status, _, data = server.ask("GET", f"/picture/1/7/{i}/{kind}")
            assert status == 404 and SECRET.encode() not in data, shots[i]
    assert server.ask("GET", "/histogram/1/7")[0] == 404
    assert server.ask("GET", "/picture/0/7/0/image")[0] == 200
    assert server.ask("GET", "/class/1")[0] == 200


# Malformed requests

NUMBERS = ("0", "1", "-1", "7", "99", "0x7", "1e3", "١", "½", "²", "00", "9" * 9, "9" * 10, "9" * 5000, "1.0", " 1", "",
           "+1", "NaN", "%00", "0%00", "1;2", "1%2f2")  # fmt: skip
PARTS = ("..", ".", "%2e%2e", "%2e%2e%2f%2e%2e%2fsecret.txt", "..%5c", "%00", "%ff", "%", "%zz", "secret.jpg", "~",
         "//", "étc", "panels", "static", "%c0%ae%c0%ae", "?", "#", "a" * 3000, "*", "<script>",
         "{{7*7}}", "\\")  # fmt: skip
STARTS = (
    "/", "/class/", "/heatmaps/", "/review", "/groups", "/agreement", "/effects", "/picture/", "/histogram/", "/row/",
    "/flagged/", "/static/", "/jobs", "/vote", "/validation", "/decision", "/group", "/who", "/job",
)  # fmt: skip
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "FOO", "GET\x00", "")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 10**30, -(10**30), 1.5, float("nan"), float("inf"), 1e308, "", " ", "one", "\x00",
    "\ud800", "\u202e", "x" * 300, "main_object", "background", "unsure", "\n", [], [[]], {}, {"a": None},
    [1, "x"], "🔑", "\\", "'",
)  # fmt: skip
BALLOT = {"annotator": "fuzz", "label": 0, "feature": 7, "answer": "background", "confidence": 3, "cue": "", "note": "",
          "seconds": 1.0}  # fmt: skip
POSTED: tuple[dict[str, Any], ...] = (
    {"annotator": "fuzz", "label": 0, "feature": 7, "answer": "same", "elsewhere": ["row0"], "note": ""},
    {"annotator": "fuzz", "id": "1", "class_name": "otter", "answer": "fine", "right": "", "note": ""},
    {"annotator": "fuzz", "id": "row0", "attribute": "water", "answer": "yes", "seconds": 1},
    {"annotator": "fuzz", "blind": True},
    {"kind": "effect", "label": 0, "name": ""},
    BALLOT,
)
BODIES = (
    b"", b"{", b"}", b"null", b"true", b"0", b'"x"', b"[]", b"{}", b"[" * 40_000, b'{"a":' * 10_000, b"\xff\xfe",
    b"\xef\xbb\xbf{}", b"NaN", b"-Infinity", b"1" * 6000, b'{"annotator": "a", "annotator": "b"}',
    "{}".encode("utf-16"), b"\x1f\x8b\x08\x00", b"annotator=a&label=0", b"x" * (LARGEST - 1), b"x" * (LARGEST + 1),
    b"\x00" * 9, b'{"label": 1e999}', b'"\\ud800"',
    b'{"annotator": "\\ud800", "label": 0, "feature": 7, "answer": "background"}',
    b'{"annotator": "a", "label": 0, "feature": 7, "answer": "background", "note": "\\udfff"}',
    b'{"annotator": "a\\u0000", "label": 0, "feature": 7, "answer": null}',
)  # fmt: skip


def path_of(draw: random.Random) -> str:
    """An address, mostly one that comes near a page."""
    if draw.random() < 0.15:
        return draw.choice(PAGES)
    start = draw.choice(STARTS)
    raw = draw.random() < 0.05  # most are addresses that a browser may send
    parts = "/".join(
        draw.choice((*NUMBERS, *PARTS, *NUMBERS, "image", "overlay", "crop")) for _ in range(draw.randint(0, 4))
    )
    words = ("order", "show", "q", "page", "token", "v", draw.choice(PARTS))
    given = "&".join(
        f"{draw.choice(words)}={draw.choice((*NUMBERS, *PARTS, 'value'))}" for _ in range(draw.randint(0, 3))
    )
    path = start + parts + (f"?{given}" if given and draw.random() < 0.4 else "")
    return path if raw else quote(path, safe="/?&=%;+*<>{}\\#~")


def body_of(draw: random.Random, of: str) -> bytes:
    """What may be posted: noise, JSON of every type, a ballot with a value or a name that is wrong."""
    way = draw.random()
    if way < 0.35:
        return draw.choice(BODIES)
    if way < 0.45:
        return draw.randbytes(draw.randint(0, 200))
    if way < 0.55:
        return json.dumps(draw.choice(VALUES)).encode()
    base: dict[str, Any] = (
        draw.choice(POSTED)
        if way < 0.8
        else draw.choice((BALLOT, BALLOT, {"annotator": "fuzz", "blind": True}, {"kind": "panels", "label": 0}))
    )
    values = dict(base) if base.keys() & {"blind", "kind"} else {"of": of, **base}
    for _ in range(draw.randint(1, 2)):
        name = draw.choice((*values, "more", "")) if values else "more"
        if draw.random() < 0.2:
            values.pop(name, None)
        else:
            values[name] = draw.choice(VALUES)
    text = json.dumps(values, ensure_ascii=draw.random() < 0.7).encode("utf-8", "surrogatepass")
    return text[: draw.randint(0, len(text))] if draw.random() < 0.2 else text


def header_lines(draw: random.Random, server: Server, size: int) -> list[bytes]:
    """Headers, all as they should be for a large part, so that what lies behind the guard is reached."""
    headers = {"Host": f"127.0.0.1:{server.port}", **server.headers(), "Content-Length": str(size)}
    found = [f"{k}: {v}".encode("latin-1") for k, v in headers.items()]
    if draw.random() < 0.8:
        found.append(b"Connection: close")
    for _ in range(draw.choice((0, 0, 0, 0, 0, 0, 1, 2))):
        found += draw.choice((
            [b"Host: evil.example"], [b"Cookie: \xff=\xfe; =;;,"], [b"Content-Length: 5"], [b"Content-Length: -1"],
            [b"Content-Length: 99999999999999999999"], [b"Transfer-Encoding: chunked"], [b"Expect: 100-continue"],
            [b"Cookie: embedx-annotator=%ff%00%f0%9f; embedx-blind=1"], [b"X-Embedx-Token: \xff"], [b"Origin: null"],
            [b"Range: bytes=0-5,2-99"], [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: x"],
            [b"Connection: close"], [b"X: " + b"y" * 70_000], [b"\x00: x"], [b"no colon"], [b": empty"],
            [b"Content-Encoding: gzip"], [b"Content-Type: multipart/form-data"], [b"Sec-Fetch-Site: cross-site"],
        ))  # fmt: skip
    if draw.random() < 0.1:
        found.pop(draw.randrange(len(found)))
    if draw.random() < 0.1:
        draw.shuffle(found)
    if draw.random() < 0.1:  # cookies that are broken, beside the one that counts
        cookie = draw.choice(
            ('embedx-annotator="', "embedx-annotator=%F0%9F", "a" * 4000, "\x01=\x02", "embedx-blind=;;")
        )
        found = [line + b"; " + cookie.encode() if line.startswith(b"Cookie") else line for line in found]
    return found


def request_of(draw: random.Random, server: Server) -> bytes:
    """The bytes of one request."""
    if draw.random() < 0.03:
        return draw.randbytes(draw.randint(0, 500)) + b"\r\n\r\n"
    posts = draw.random() < 0.45
    method = "POST" if posts else draw.choice(("GET",) * 20 + METHODS)
    path = (
        draw.choice(("/vote", "/validation", "/decision", "/group", "/who", "/job"))
        if posts and draw.random() < 0.8
        else path_of(draw)
    )
    body = body_of(draw, server.of) if posts or draw.random() < 0.1 else b""
    size = len(body) + (draw.choice((-1, 1, 5)) if draw.random() < 0.08 else 0)
    version = draw.choice(("HTTP/1.1",) * 30 + ("HTTP/1.0", "HTTP/2.0", "HTTP/9", ""))
    if draw.random() < 0.02:
        path = f"http://evil.example{path}"
    line = f"{method} {path} {version}".encode("utf-8", "surrogatepass")
    end = draw.choice((b"\r\n",) * 90 + (b"\n",) * 9 + (b"\r",))
    return end.join((line, *header_lines(draw, server, size), b"", body))


def sent(server: Server, data: bytes) -> bytes:
    """What the server answers to these bytes: one reply, or what comes until our side's end is seen.

    A server that still waits for the rest of a request sees the end after a moment.
    """
    found = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection,
        suppress(ConnectionError),  # it may have refused already and closed
    ):
        connection.sendall(data)
        while not is_whole(found):
            if not select.select([connection], [], [], MOMENT)[0]:
                connection.shutdown(socket.SHUT_WR)
            if not (part := connection.recv(1 << 16)):
                break
            found += part
    return found


def is_whole(reply: bytes) -> bool:
    """Whether a reply is there with as many bytes as it says."""
    head, end, body = reply.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return is_whole(body)
    size = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return bool(end) and size is not None and len(body) >= int(size[1])


def status_of(reply: bytes) -> int:
    """The status of a reply; 0 where the connection was closed without one."""
    start = reply[:20].split(b" ")
    return int(start[1]) if len(start) > 1 and start[0].startswith(b"HTTP/") else 0


@pytest.mark.parametrize("many", [FEW_REQUESTS, pytest.param(REQUESTS, marks=pytest.mark.slow)])
def test_no_malformed_request_breaks_the_server_or_reads_what_is_not_a_picture(
    servers: Stable, folder: Path, many: int
) -> None:
    """Most come with the cookie and the token, so that they reach the handlers."""
    draw, server = random.Random(0), servers.start(folder)
    requests = [request_of(draw, server) for _ in range(many)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda request: sent(server, request), requests))
    for request, reply in zip(requests, replies, strict=True):
        assert status_of(reply) < 500, (request[:2000], reply[:500], server.complaints())
        assert SECRET.encode() not in reply and b"Traceback" not in reply, request[:2000]
    seen = Counter(map(status_of, replies))
    assert server.ask("GET", "/class/0")[0] == 200
    assert server.end() == 0
    assert server.complaints() == ""
    assert {200, 400, 403, 404, 409} <= seen.keys(), seen
    assert many < REQUESTS or {413, 421} <= seen.keys(), seen
    assert seen[200] > many / 50, f"few requests reached what lies behind the guard: {seen}"
    assert {line.weights for line in lines(folder)} <= {"0123456789abcdef" * 4}, "all that was saved can be read"
    assert all(name.strip() for name, _, _ in answers(folder))


# Kills


class Poster(threading.Thread):
    """Posts votes until the server is gone, and keeps those that were called saved."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__()
        self.server, self.name, self.saved, self.first = server, name, 0, threading.Event()

    def run(self) -> None:
        """Answer n is known by its confidence and its note."""
        with suppress(OSError, HTTPException):
            while True:
                note = f"{self.name} {self.saved + 1}"
                if self.server.vote(0, 7, "background", self.name, note=note) != 200:
                    break
                self.saved += 1
                self.first.set()
        self.first.set()


def kill(servers: Stable, folder: Path, times: int, seed: int) -> int:
    """Kill as many servers while two people vote; how many votes were called saved, all of which are in the file."""
    draw, total = random.Random(seed), 0
    file = folder / annotations.FILE
    for number in range(times):
        server = servers.start(folder)
        posters = [Poster(server, f"{who}-{seed}-{number}") for who in ("a", "b")]
        for poster in posters:
            poster.start()
        for poster in posters:
            assert poster.first.wait(PATIENCE)
        threading.Event().wait(draw.uniform(0, 0.04))  # the kill falls anywhere in a vote
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        for poster in posters:
            poster.join()
        whole = file.read_text(encoding="utf-8")
        for poster in posters:
            lost = [n for n in range(1, poster.saved + 1) if f'"{poster.name} {n}"' not in whole]
            assert not lost, f"votes that were called saved are not in the file: {lost}"
            total += poster.saved
    return total


def test_a_kill_costs_no_vote_that_was_called_saved(servers: Stable, tmp_path: Path) -> None:
    folder = gallery(tmp_path / "analysis")
    assert kill(servers, folder, 6, 0) >= 6
    assert len({name for name, _, _ in answers(folder)}) == 12, "each vote is there when the file is read"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_kills_cost_no_vote_that_was_called_saved(servers: Stable, tmp_path: Path) -> None:
    """Also where one kill follows another in the same file, in which lines were cut short."""
    folder = gallery(tmp_path / "analysis")
    saved = kill(servers, folder, KILLS, 1)
    assert saved >= KILLS
    said: list[str] = []
    entries = annotations.read(folder / annotations.FILE, said.append)
    assert len({v.annotator for e in entries for v in e.votes}) == 2 * KILLS
    assert len(said) <= 1, said
