"""The server of the annotation page: what it answers, what it keeps, how it starts and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import escape
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from labelling import BACKBONE, DATASET, HOSTILE, NAMES, PATIENCE, Server, Stable, answers, gallery, lines, stable

from embedx.cli import main
from embedx.spuriosity import annotations
from embedx.spuriosity.records.discovery import Discovery

UNWRITTEN = re.compile(r"<script>window|<img src=x|</script><b>|Traceback")

REPLACED = "\ufffd"
"""What stands for characters that show nothing, or turn what follows around."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stable]:
    with stable(tmp_path_factory.mktemp("servers")) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return gallery(tmp_path / "analysis")


@pytest.fixture
def server(servers: Stable, folder: Path) -> Iterator[Server]:
    made = servers.start(folder)
    yield made
    made.end(signal.SIGKILL)


def shown(server: Server, path: str = "/") -> str:
    """The words of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", server.get(path)))


# Answers


def test_an_answer_is_in_the_file_before_it_is_called_saved(server: Server, folder: Path) -> None:
    status, _, data = server.ask("POST", "/vote", {"of": server.of,
        "annotator": "one", "label": 0, "feature": 7, "answer": "background", "confidence": 5, "cue": " water ",
        "note": "n", "seconds": 2.5,
    })  # fmt: skip
    assert status == 200 and json.loads(data)["saved"] is True
    (line,) = lines(folder)
    (vote,) = line.votes
    assert (line.dataset, line.backbone, line.class_name, line.feature) == (DATASET, BACKBONE, NAMES[0], 7)
    assert (line.label, line.kind, line.cue) == ("spurious", "background", "water")
    assert (vote.annotator, vote.confidence, vote.note, vote.seconds) == ("one", 5, "n", 2.5)


def test_the_last_answer_counts_and_may_be_taken_back(server: Server, folder: Path) -> None:
    for answer in ("background", "main_object"):
        assert server.vote(0, 7, answer) == 200
    assert server.vote(0, 100, "unsure") == 200
    assert answers(folder) == {("one", 0, 7): "main_object", ("one", 0, 100): "unsure"}
    assert server.vote(0, 7, None) == 200
    assert answers(folder) == {("one", 0, 100): "unsure"}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"answer": "backgroun"}, 400, "background"),
        ({"confidence": 6}, 400, "1 to 5"),
        ({"confidence": "5"}, 400, "confidence"),
        ({"seconds": -1}, 400, "seconds"),
        ({"annotator": " "}, 400, "annotator"),
        ({"annotator": " ", "answer": None}, 400, "annotator"),
        ({"label": 99}, 404, "reload"),
        ({"label": -1}, 404, "reload"),
        ({"feature": 8}, 404, "reload"),
        ({"feature": True}, 400, "feature"),
        ({"more": 1}, 400, "more"),
        ({"note": "\ud800"}, 400, "half of a character"),
        ({"note": "x" * 70_000}, 413, "bytes"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_in_words(
    server: Server, folder: Path, change: dict[str, object], status: int, said: str
) -> None:
    ballot = {"annotator": "one", "label": 0, "feature": 7, "answer": "background"}
    code, headers, data = server.ask("POST", "/vote", {"of": server.of} | ballot | change)
    assert code == status and headers["content-type"] == "application/json"
    assert said in json.loads(data)["error"]
    assert lines(folder) == []


def test_people_who_answer_at_once_lose_nothing(servers: Stable, folder: Path) -> None:
    """Also on two servers of one folder."""
    both = [servers.start(folder), servers.start(folder)]
    pairs = [(c, f) for c in range(len(NAMES)) for f in (7, 100 + c, 2000 + c)]
    ballots = [(both[i % 2], who, *pair) for who in ("one", "two", "three") for i, pair in enumerate(pairs)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda b: b[0].vote(b[2], b[3], "background", b[1]), ballots))
    assert set(done) == {200}
    assert set(answers(folder)) == {(who, c, f) for _, who, c, f in ballots}
    for server in both:
        assert f'<b data-count="done">{len(pairs)}</b>' in server.get("/")
        assert server.end() == 0


def test_nobody_answers_a_page_that_is_opened_to_read_only(servers: Stable, folder: Path) -> None:
    server = servers.start(folder, read_only=True)
    for path, body in (("/vote", {"annotator": "one", "label": 0, "feature": 7, "answer": "background"}),
                       ("/who", {"annotator": "two"}), ("/job", {"kind": "panels", "label": 0})):  # fmt: skip
        status, _, data = server.ask("POST", path, body)
        assert status == 403 and "read only" in json.loads(data)["error"]
    page = server.get("/class/0")
    assert page.count("<fieldset disabled") == 3 and 'id="who"' not in server.get("/")
    assert not (folder / annotations.FILE).exists()
    server.end()


def test_a_full_device_is_told_and_costs_no_earlier_answer(servers: Stable, folder: Path) -> None:
    server = servers.start(folder)
    assert server.vote(0, 7, "background") == 200
    before = (folder / annotations.FILE).read_bytes()
    server.limit(len(before) + 20)
    status, _, data = server.ask(
        "POST", "/vote", {"of": server.of, "annotator": "one", "label": 0, "feature": 100, "answer": "unsure"}
    )
    assert status == 507 and "full" in json.loads(data)["error"]
    assert (folder / annotations.FILE).read_bytes() == before
    server.limit(-1)
    assert server.vote(0, 100, "unsure") == 200
    assert (folder / annotations.FILE).read_bytes().startswith(before)
    assert server.end() == 0


def test_a_broken_line_is_told_with_its_number_and_costs_itself_alone(server: Server, folder: Path) -> None:
    assert server.vote(0, 7, "background") == server.vote(1, 7, "main_object") == 200
    with (folder / annotations.FILE).open("a") as file:
        file.write('{"format": "embedx-annotation", "broken\n')
    assert server.vote(2, 7, "unsure") == 200
    for path in ("/", "/class/0"):
        assert "Left out" in shown(server, path) and f"{annotations.FILE}, line 3" in shown(server, path)
    assert "3 of 12 features answered by one" in shown(server)
    assert 'value="background" checked' in server.get("/class/0")


@pytest.mark.parametrize("damage", ["{", "", '{"format": "other"}', "\x00" * 50])
def test_a_damaged_analysis_is_told_and_the_server_goes_on(server: Server, folder: Path, damage: str) -> None:
    """A discovery that is being replaced, records of pictures, gaps and flags that cannot be read."""
    file = folder / "discovery.json"
    whole = file.read_text()
    file.write_text(damage)
    status, _, data = server.ask("GET", "/")
    assert status == 503 and b"discovery.json" in data
    file.write_text(whole)
    for other in (
        "gaps.json",
        "review.csv",
        *(p.relative_to(folder) for p in sorted(folder.glob("panels/0000*/*/panel.json"))),
    ):
        (folder / other).write_text(damage)
    assert "No pictures yet" in shown(server, "/class/0")
    assert server.ask("GET", "/picture/0/7/0/image")[0] == 404
    assert server.ask("GET", "/")[0] == 200
    assert server.complaints() == ""


# What pages show


def test_whatever_names_hold_is_text(servers: Stable, tmp_path: Path) -> None:
    """Names of classes, annotators, cues, notes, and what is searched for."""
    folder = gallery(tmp_path / "hostile", HOSTILE, votes=True, note=HOSTILE[0])
    server = servers.start(folder, annotator=HOSTILE[1])
    for i, name in enumerate(HOSTILE):
        assert server.vote(i, 7, "background", HOSTILE[(i + 1) % len(HOSTILE)], cue=name, note=HOSTILE[i - 1]) == 200
    for i, name in enumerate(HOSTILE):
        page = server.get(f"/class/{i}")
        seen = escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
        assert f"<h1>{''.join(c if c.isprintable() else REPLACED for c in seen)}</h1>" in page
        assert not UNWRITTEN.search(page) and not UNWRITTEN.search(server.get(f"/?q={quote(name)}"))
    assert server.complaints() == ""
    server.end()


def test_a_blind_annotator_is_sent_neither_gaps_nor_the_votes_of_others(servers: Stable, tmp_path: Path) -> None:
    """Not even in what a page does not show."""
    folder = gallery(tmp_path / "analysis", votes=True, note="told by somebody")
    seeing = servers.start(folder)
    blind = servers.start(folder, blind=True)
    hidden = (
        "told by somebody",
        "voter-0",
        "voter-1",
        "gap of",
        "gap on validation",
        "gap, points",
        "model0",
        "spurious</span>",
    )
    for path in ("/", "/class/0", "/class/1", "/?show=disputed"):
        sight, page = seeing.get(path), blind.get(path)
        assert any(word in sight for word in hidden)
        assert [word for word in hidden if word in page.replace("which features are spurious", "")] == []
    chosen = server_with_cookie(seeing, f"embedx-blind-{seeing.port}=1")
    assert [word for word in hidden if word in chosen] == []
    assert server_with_cookie(blind, f"embedx-blind-{blind.port}=0") == blind.get("/class/0"), (
        "the one who started it decides"
    )
    for server in (seeing, blind):
        server.end()


def server_with_cookie(server: Server, cookie: str) -> str:
    headers = server.headers()
    status, _, data = server.ask("GET", "/class/0", headers=headers | {"Cookie": f"{headers['Cookie']}; {cookie}"})
    assert status == 200
    return data.decode()


def test_the_list_is_sorted_filtered_and_searched(server: Server) -> None:
    def names(query: str) -> list[str]:
        return re.findall(r'<th scope="row"><a[^>]*>([^<]*)</a>', server.get(f"/{query}"))

    assert names("?order=name") == sorted(NAMES) and names("?order=index") == list(NAMES)
    assert names("?q=LAM") == ["lamp"] and names("?q=3") == ["wheel"] and names("?q=nobody") == []
    assert names("?order=nonsense&show=nonsense&page=nonsense") == names("")
    for feature in (7, 101, 2001):
        assert server.vote(1, feature, "unsure") == 200
    assert names("?show=done") == ["shore"] and set(names("?show=todo")) == {"otter", "lamp", "wheel"}
    assert names("")[-1] == "shore", "what is done comes last"


def test_people_who_differ_are_listed(server: Server) -> None:
    def disputed() -> bool:
        return ">otter</a>" in server.get("/?show=disputed")

    server.vote(0, 7, "background", "one")
    server.vote(0, 7, "unsure", "two")
    assert not disputed(), "one who cannot tell differs from nobody"
    server.vote(0, 7, "main_object", "three")
    assert disputed() and "disputed" in server.get("/")
    server.vote(0, 7, "separate_object", "three")
    assert not disputed(), "both say spurious"


# Start and end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_and_cleanly_when_asked(servers: Stable, folder: Path, number: int) -> None:
    """Also with connections that are open, one of them in the middle of a request."""
    server = servers.start(folder)
    idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    idle.request("GET", "/", headers=server.headers())
    idle.getresponse().read()
    half = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    half.sendall(b"POST /vote HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
    assert server.vote(0, 7, "background") == 200
    start = time.monotonic()
    assert server.end(number) == 0
    assert time.monotonic() - start < 10
    assert server.complaints() == ""
    for connection in (idle, half):
        connection.close()
    with pytest.raises(OSError):
        server.ask("GET", "/")


def test_a_port_that_is_taken_is_told_and_the_next_one_is_had(
    servers: Stable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedx.annotation import serve

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = CliRunner().invoke(
            main, ["annotate", DATASET, "-b", BACKBONE, "-o", str(folder), "--port", str(port)]
        )
        assert refused.exit_code == 1 and f"port {port}" in refused.output and "--port" in refused.output
        monkeypatch.setattr(serve, "PORT", port)
        found = serve._bound(serve.Address())
        assert port < found.getsockname()[1] < port + serve.PORTS
        found.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_and_ends_with_zero(folder: Path, number: int) -> None:
    line = [sys.executable, "-m", "embedx", "annotate", DATASET, "-b", BACKBONE, "-o", str(folder), "--port", "0"]
    running = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert running.stdout
    said = ""
    while "http://" not in said:
        said = running.stdout.readline()
        assert said, running.communicate()
    url = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{32}\s", said)
    assert url, said
    running.send_signal(number)
    _, complaints = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0 and "Traceback" not in complaints


def test_without_a_discovery_the_way_to_one_is_told(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["annotate", DATASET, "-b", BACKBONE, "-o", str(tmp_path)])
    assert said.exit_code == 1 and "embedx spuriosity discover" in said.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("other", "-b", BACKBONE), "asked for was other with ranker"),
        ((DATASET, "-b", "another"), "asked for was made with another"),
        ((DATASET, "-b", BACKBONE, "--annotator", " "), "expected a name"),
        ((DATASET, "-b", BACKBONE, "--host", "192.0.2.1"), "this machine has no such address"),
        ((DATASET, "-b", BACKBONE, "--host", "no such host"), "name an address of this machine"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_answers(folder: Path, words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["annotate", *words, "-o", str(folder)])
    assert result.exit_code in (1, 2) and said in result.output


# What changes while the page is open


def test_an_answer_of_another_discovery_is_refused(server: Server, folder: Path) -> None:
    before = server.of
    assert server.vote(0, 7, "background") == 200
    assert server.ask("GET", "/picture/0/7/0/image")[0] == 200
    found = Discovery.load(folder)
    changed = [replace(c, importance=c.importance * 2) if c.feature == 7 else c for c in found.candidates]
    replace(found, candidates=tuple(changed[:-1]), fitted=None).save(folder)
    del server.of
    assert server.of != before
    ballot = {"annotator": "one", "label": 0, "feature": 7, "answer": "unsure"}
    status, _, data = server.ask("POST", "/vote", {"of": before, **ballot})
    assert status == 409 and "another discovery" in json.loads(data)["error"]
    assert server.ask("POST", "/vote", ballot)[0] == 409
    assert server.vote(0, 7, "unsure") == 200
    # The pictures were drawn for another importance: of other weights, or of another head. They are drawn again.
    assert server.ask("GET", "/picture/0/7/0/image")[0] == 404
    assert server.ask("GET", "/picture/0/100/0/image")[0] == 200


def test_pictures_that_may_become_others_are_not_kept_by_the_browser(server: Server) -> None:
    """A panel's address changes with it; a place in a queue, or the row of a dataset, is another image later."""
    assert "max-age" in server.ask("GET", "/picture/0/7/0/image")[1]["cache-control"]
    assert server.ask("GET", "/flagged/1/image")[1]["cache-control"] == "no-store"
    assert server.ask("GET", "/row/0")[1]["cache-control"] == "no-store"


def test_the_name_that_it_was_started_for_counts(servers: Stable, folder: Path) -> None:
    """Unless that person gave another one since; a name from before, or for another port, does not."""
    for named, expected in ((True, "carol"), (False, "bob")):
        server = servers.start(folder, annotator="carol", named=named)
        old = server.headers(Cookie=f"embedx-{server.port}={server.token}; embedx-annotator-{server.port}=bob")
        page = server.ask("GET", "/", headers=old)[2].decode()
        assert f'data-annotator="{expected}"' in page
        _, given, _ = server.ask("POST", "/who", {"annotator": "dora"})
        name = given["set-cookie"].partition(";")[0]
        new = server.headers(Cookie=f"embedx-{server.port}={server.token}; {name}")
        assert "blind" in name or 'data-annotator="dora"' in server.ask("GET", "/", headers=new)[2].decode()
        assert str(server.port) in name
        server.end()


def test_a_wide_blank_in_a_name_stays(servers: Stable, folder: Path) -> None:
    server = servers.start(folder, annotator="山田\u3000太郎")
    assert 'data-annotator="山田\u3000太郎"' in server.get("/")
    assert server.vote(0, 7, "background", "山田\u3000太郎") == 200
    assert 'data-count="done">1</b>' in server.get("/")
    server.end()
