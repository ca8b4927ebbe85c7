"""The annotation page in a browser: labelled by keyboard and by touch, and no answer lost, whatever happens."""

from __future__ import annotations

import http.server
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from labelling import HOSTILE, NAMES, Server, Stable, answers, chromium, gallery, lines, screenshots, stable

from embedx.data.manifest import tidy
from embedx.spuriosity import annotations

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PAGES = {
    "classes": "/", "class": "/class/0", "heatmaps": "/heatmaps/0", "review": "/review", "groups": "/groups",
    "agreement": "/agreement", "effects": "/effects", "missing": "/class/99",
}  # fmt: skip
FEATURES = (7, 100, 2000)
"""Of the first class, the most important first."""
WAIT = 20_000
"""Milliseconds that something may take to appear."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


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


@pytest.fixture
def person(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """A function that makes a browser of its own for somebody: with other cookies and another memory."""
    made: list[BrowserContext] = []

    def new(**options: Any) -> BrowserContext:
        context = browser.new_context(**{**DESKTOP, **options})
        context.set_default_timeout(WAIT)
        made.append(context)
        return context

    yield new
    for context in made:
        context.close()


def entered(context: BrowserContext, server: Server, path: str = "/") -> Page:
    """A page of a server, after its address with the token."""
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_url(f"{server.home}/")
    if path != "/":
        page.goto(server.home + path)
    ready(page)
    return page


def ready(page: Page) -> None:
    """Wait until the keys of a page work."""
    if "/class/" in page.url and page.locator(".feature").count():
        page.locator("html[data-ready]").wait_for(state="attached")


def expect(found: Any) -> Any:
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=WAIT)
    return expected(found)


def is_saved(page: Page, feature: int, text: str = "saved") -> None:
    expect(page.locator(f"#f-{feature} .saved")).to_have_text(text)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that no page shows."""
    end = time.monotonic() + WAIT / 1000
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def current(page: Page) -> int:
    """The feature that keys speak of."""
    return int(page.locator(".feature.current").get_attribute("data-feature") or -1)


def called(page: Page, name: str, blind: bool = False) -> None:
    """Give another name in the list of classes."""
    page.locator("#who [name=annotator]").fill(name)
    page.locator("#who [name=blind]").set_checked(blind)
    with page.expect_navigation():
        page.locator("#who button").click()


# Labelling


def test_a_class_is_labelled_by_keyboard_alone(
    person: Callable[..., BrowserContext], server: Server, folder: Path
) -> None:
    page, faults = entered(person(), server), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.keyboard.press("n")
    page.wait_for_url("**/class/*")
    ready(page)
    label = int(page.url.split("/class/")[1].split("?")[0])
    first, second, third = (int(f.get_attribute("data-feature") or 0) for f in page.locator(".feature").all())
    assert current(page) == first
    page.keyboard.press("2")
    is_saved(page, first)
    page.keyboard.press("c")
    page.keyboard.type("green 草 grass")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Digit5")
    page.keyboard.press("j")
    page.keyboard.press("1")
    page.keyboard.press("j")
    page.keyboard.press("3")
    page.keyboard.press("j")  # there is no further one
    for feature in (first, second, third):
        is_saved(page, feature)
    assert {f: a for (_, _, f), a in answers(folder).items()} == {
        first: "background", second: "main_object", third: "separate_object",
    }  # fmt: skip
    (vote,) = [v for e in annotations.read(folder / annotations.FILE, print) if e.feature == first for v in e.votes]
    assert (vote.annotator, vote.cue, vote.confidence) == ("one", "green 草 grass", 5)
    page.keyboard.press("u")
    is_saved(page, third, "taken back")
    assert ("one", label, third) not in answers(folder)
    page.keyboard.press("k")
    assert current(page) == second
    page.keyboard.press("4")
    page.keyboard.press("u")  # at once: the answer before holds again
    expect(page.locator(f"#f-{second} [value=main_object]")).to_be_checked()
    page.reload()
    ready(page)
    expect(page.locator(f"#f-{first} [value=background]")).to_be_checked()
    expect(page.locator(f"#f-{first} [name=cue]")).to_have_value("green 草 grass")
    expect(page.locator(f"#f-{second} [value=main_object]")).to_be_checked()
    assert page.locator(f"#f-{third} [name=answer]:checked").count() == 0
    assert current(page) == third, "it opens where an answer is lacking"
    assert faults == []


@pytest.mark.slow
def test_labelling_goes_on_after_a_restart_where_it_stopped(
    person: Callable[..., BrowserContext], servers: Stable, folder: Path
) -> None:
    server, label = servers.start(folder), 1
    for feature, given in ((7, "background"), (101, "main_object")):
        assert server.vote(label, feature, given) == 200
    page = entered(person(), server)
    assert server.end(signal.SIGINT) == 0
    again = servers.start(folder, port=server.port)
    page.goto(again.url)
    page.wait_for_url(f"{again.home}/")
    expect(page.locator("#resume")).to_contain_text(f"Continue with {NAMES[label]}")
    page.keyboard.press("n")
    page.wait_for_url(f"**/class/{label}")
    ready(page)
    assert current(page) == 2001, "the first without an answer"
    page.keyboard.press("4")
    is_saved(page, 2001)
    page.keyboard.press("n")
    page.wait_for_url(lambda url: "/class/" in url and f"/class/{label}" not in url)
    assert answers(folder) == {
        ("one", label, 7): "background", ("one", label, 101): "main_object", ("one", label, 2001): "unsure",
    }  # fmt: skip
    again.end()


@pytest.mark.slow
def test_an_answer_of_another_class_is_taken_back_there(
    person: Callable[..., BrowserContext], server: Server, folder: Path
) -> None:
    page = entered(person(), server, "/class/0")
    page.keyboard.press("1")
    is_saved(page, FEATURES[0])
    page.goto(f"{server.home}/class/1")
    ready(page)
    page.keyboard.press("u")
    page.wait_for_url("**/class/0#f-7")
    ready(page)
    assert answers(folder) == {} and page.locator("[name=answer]:checked").count() == 0
    page.keyboard.press("u")
    expect(page.locator("#status")).to_have_text("Nothing to undo")


@pytest.mark.slow
def test_two_people_who_differ_are_shown_so(
    person: Callable[..., BrowserContext], server: Server, folder: Path
) -> None:
    one, two = entered(person(), server), entered(person(), server)
    called(two, "two ☂")
    for page, key in ((one, "2"), (two, "1")):
        page.goto(f"{server.home}/class/1")
        ready(page)
        page.keyboard.press(key)
        is_saved(page, 7)
    assert answers(folder) == {("one", 1, 7): "background", ("two ☂", 1, 7): "main_object"}
    one.goto(f"{server.home}/?show=disputed")
    expect(one.locator("#classes tbody tr")).to_have_count(1)
    expect(one.locator("#classes")).to_contain_text("disputed")
    one.goto(f"{server.home}/class/1")
    expect(one.locator("#f-7 .others")).to_contain_text("two ☂: ")
    two.goto(f"{server.home}/class/1")
    ready(two)
    two.keyboard.press("k")  # it opened where an answer is lacking
    two.keyboard.press("2")
    expect(two.locator("#status")).to_have_text("Saved")
    one.goto(f"{server.home}/?show=disputed")
    expect(one.locator("main")).to_contain_text("No class fits")
    one.goto(f"{server.home}/agreement")
    expect(one.locator("main")).to_contain_text("two ☂")


@pytest.mark.slow
def test_the_zoom_shows_one_picture_in_all_ways_and_goes_through_them(
    person: Callable[..., BrowserContext], server: Server
) -> None:
    page = entered(person(), server, "/class/0")
    zoom, told = page.locator("#zoom"), page.locator("#zoom p")
    page.keyboard.press("z")
    expect(zoom).to_be_visible()
    expect(told).to_have_text("1 of 3")
    expect(zoom.locator("img:visible")).to_have_count(3)  # the image, its map, and with the feature amplified
    page.keyboard.press("h")
    expect(zoom.locator("img:visible")).to_have_count(2)
    page.keyboard.press("h")
    for key, text in (
        ("ArrowRight", "2 of 3"),
        ("ArrowRight", "3 of 3"),
        ("ArrowRight", "1 of 3"),
        ("ArrowLeft", "3 of 3"),
    ):
        page.keyboard.press(key)
        expect(told).to_have_text(text)
    page.keyboard.press("1")  # is no answer while a picture is enlarged
    page.keyboard.press("Escape")
    expect(zoom).to_be_hidden()
    assert page.locator("[name=answer]:checked").count() == 0 and current(page) == 7
    page.locator("#f-100 .shot").nth(1).click()
    expect(told).to_have_text("2 of 3")
    assert current(page) == 100
    page.keyboard.press("z")
    expect(zoom).to_be_hidden()


@pytest.mark.slow
def test_overlays_search_and_help_have_their_keys(person: Callable[..., BrowserContext], server: Server) -> None:
    page = entered(person(), server, "/class/0")
    overlay, help_ = page.locator("#f-7 .row.overlay").first, page.locator("#help")
    expect(overlay).to_be_visible()
    page.keyboard.press("h")
    expect(overlay).to_be_hidden()
    page.reload()
    ready(page)
    expect(overlay).to_be_hidden()
    page.keyboard.press("h")
    expect(overlay).to_be_visible()
    page.keyboard.press("?")
    expect(help_).to_be_visible()
    page.keyboard.press("2")
    page.keyboard.press("?")
    expect(help_).to_be_hidden()
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    assert page.locator("[name=answer]:checked").count() == 0
    page.keyboard.press("/")
    page.keyboard.type("lamp1?")  # letters of the search are no keys
    expect(page.locator("#query")).to_have_value("lamp1?")
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?*q=lamp*")
    expect(page.locator("#classes tbody tr")).to_have_count(1)
    expect(page.locator("#classes tbody")).to_contain_text("lamp")


@pytest.mark.slow
def test_a_blind_annotator_sees_neither_gaps_nor_the_votes_of_others(
    person: Callable[..., BrowserContext], servers: Stable, tmp_path: Path
) -> None:
    server = servers.start(gallery(tmp_path / "analysis", votes=True, note="told by somebody"))
    page = entered(person(), server)
    assert "gap" in page.content()
    called(page, "three", blind=True)
    for path in ("/", "/class/0", "/heatmaps/0", "/agreement"):
        page.goto(server.home + path)
        text = page.content()
        found = [w for w in ("told by somebody", "gap on validation", "gap of", "gap, points", "voter-0") if w in text]
        assert found == [], path
    server.end()


@pytest.mark.slow
def test_a_phone_shows_all_at_its_width_and_takes_answers_by_touch(
    person: Callable[..., BrowserContext], servers: Stable, tmp_path: Path
) -> None:
    folder = gallery(tmp_path / "analysis", (*NAMES, "a name that is long, " * 6, "W" * 80), votes=True)
    server = servers.start(folder)
    page = entered(person(**PHONE), server)
    for path in (*PAGES.values(), "/class/4", "/class/5", "/heatmaps/5"):
        page.goto(server.home + path)
        ready(page)
        width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width[0] <= width[1] <= 390, f"{path} scrolls sideways"
        for target in page.locator("main button:visible, main .choice:visible, main select:visible, .top button").all():
            box = target.bounding_box()
            assert box and min(box["width"], box["height"]) >= 24, (path, target.inner_text(), box)
    page.goto(f"{server.home}/class/2")
    ready(page)
    for choice in page.locator("#f-7 .choice").all():
        box = choice.bounding_box()
        assert box and box["height"] >= 44 and box["width"] >= 120, box
    page.locator("#f-7 .choice").nth(1).tap()
    is_saved(page, 7)
    assert answers(folder)["one", 2, 7] == "background"
    page.locator("#f-7 .shot").first.tap()
    expect(page.locator("#zoom")).to_be_visible()
    server.end()


# Nothing is lost


def test_answers_wait_in_the_browser_while_the_server_is_away(
    person: Callable[..., BrowserContext], servers: Stable, folder: Path
) -> None:
    """Whatever is tried meanwhile; the server comes back on its port, with another token."""
    server = servers.start(folder)
    context = person()
    page = entered(context, server, "/class/0")
    page.keyboard.press("1")
    is_saved(page, FEATURES[0])
    assert server.end() == 0
    page.keyboard.press("j")
    page.keyboard.press("2")
    page.keyboard.press("j")
    page.keyboard.press("3")
    expect(page.locator("#status")).to_contain_text("No connection to the server. 2 answers wait in this browser.")
    with pytest.raises(Exception, match="ERR_CONNECTION_REFUSED"):
        page.goto(f"{server.home}/class/1")
    assert answers(folder) == {("one", 0, FEATURES[0]): "main_object"}
    again = servers.start(folder, port=server.port)
    page = context.new_page()
    page.goto(f"{again.home}/class/0")  # the old cookie is worth nothing
    expect(page.locator("body")).to_contain_text("Open the address")
    page.goto(again.url)
    page.wait_for_url(f"{again.home}/")
    expect(page.locator("#status")).to_have_text("Saved")
    page.goto(f"{again.home}/class/0")
    for feature, answer in zip(FEATURES, ("main_object", "background", "separate_object"), strict=True):
        expect(page.locator(f"#f-{feature} [value={answer}]")).to_be_checked()
        assert answers(folder)["one", 0, feature] == answer
    again.end()


@pytest.mark.slow
def test_a_page_that_stays_open_over_a_restart_says_what_to_do(
    person: Callable[..., BrowserContext], servers: Stable, folder: Path
) -> None:
    server = servers.start(folder)
    context = person()
    page = entered(context, server, "/class/0")
    assert server.end() == 0
    again = servers.start(folder, port=server.port)
    page.keyboard.press("2")
    expect(page.locator("#status")).to_contain_text("Open the address that it printed. 1 answer waits")
    assert answers(folder) == {}
    other = entered(context, again)
    expect(other.locator("#status")).to_have_text("Saved")
    assert answers(folder) == {("one", 0, FEATURES[0]): "background"}
    again.end()


@pytest.mark.slow
def test_a_full_device_is_shown_and_the_answer_is_saved_once_there_is_room(
    person: Callable[..., BrowserContext], server: Server, folder: Path
) -> None:
    page = entered(person(), server, "/class/0")
    page.keyboard.press("1")
    is_saved(page, FEATURES[0])
    server.limit((folder / annotations.FILE).stat().st_size + 9)
    page.keyboard.press("j")
    page.keyboard.press("2")
    status = page.locator("#status.bad")
    expect(status).to_contain_text("Not saved")
    expect(status).to_contain_text("full")
    expect(status).to_contain_text("1 answer waits in this browser")
    server.limit(-1)
    is_saved(page, FEATURES[1])
    assert len(lines(folder)) == 2 and answers(folder)["one", 0, FEATURES[1]] == "background"


@pytest.mark.slow
def test_two_tabs_at_once_lose_no_answer(person: Callable[..., BrowserContext], servers: Stable, folder: Path) -> None:
    """Also where both wait for the server."""
    server = servers.start(folder)
    context = person()
    tabs = [entered(context, server, f"/class/{label}") for label in (0, 1)]
    answer(tabs, "2")
    for page in tabs:
        expect(page.locator(".saved")).to_have_text(["saved"] * 3)
    assert {key[1:] for key in answers(folder)} == {(c, f) for c in (0, 1) for f in (7, 100 + c, 2000 + c)}
    assert server.end() == 0
    answer(tabs, "1")
    for page in tabs:
        expect(page.locator("#status")).to_contain_text("No connection")
    again = servers.start(folder, port=server.port)
    home = entered(context, again)
    until(lambda: not home.evaluate("localStorage.length"))
    assert set(answers(folder).values()) == {"main_object"} and len(answers(folder)) == 6
    again.end()


@pytest.mark.slow
def test_a_tab_shows_what_another_one_answered_and_takes_nothing_back_that_it_did_not_see(
    person: Callable[..., BrowserContext], servers: Stable, folder: Path
) -> None:
    server, context = servers.start(folder), person()
    one, two = (entered(context, server, "/class/0") for _ in range(2))
    one.keyboard.press("2")
    one.keyboard.press("c")
    one.keyboard.insert_text("snow")
    one.keyboard.press("Enter")
    expect(two.locator("#f-7 [name=cue]")).to_have_value("snow")
    expect(two.locator("#f-7 [value=background]")).to_be_checked()
    two.keyboard.press("3")
    is_saved(two, 7)
    assert annotations.read(folder / annotations.FILE)[0].cue == "snow"  # it stays
    called(entered(context, server), "bob")
    one.goto(f"{server.home}/class/0")
    ready(one)
    one.keyboard.press("u")  # bob has answered nothing
    expect(one.locator("#status")).to_have_text("Nothing to undo")
    assert answers(folder) == {("one", 0, 7): "separate_object"}
    server.end()


@pytest.mark.slow
def test_keys_by_their_place_one_at_a_time_and_only_where_they_are_wanted(
    person: Callable[..., BrowserContext], server: Server, folder: Path
) -> None:
    page = entered(person(), server, "/class/0")
    pressed = "given => document.body.dispatchEvent(new KeyboardEvent('keydown', {bubbles: true, ...given}))"
    page.evaluate(pressed, {"code": "Digit2", "key": "é", "repeat": False})  # as on a French keyboard
    is_saved(page, 7)
    assert answers(folder)["one", 0, 7] == "background"
    for _ in range(3):
        page.evaluate(pressed, {"code": "KeyU", "key": "u", "repeat": True})  # held down
    page.keyboard.press("Numpad3")
    until(lambda: answers(folder)["one", 0, 7] == "separate_object")
    page.locator("[data-act=undo]").click()
    until(lambda: answers(folder)["one", 0, 7] == "background")
    page.keyboard.press("?")
    page.locator("#letters").uncheck()
    page.keyboard.press("Escape")
    for key in "1u2?":
        page.keyboard.press(key)
    expect(page.locator("#help")).not_to_be_visible()
    page.locator("#f-7 [value=main_object]").check()  # the mouse still answers
    until(lambda: answers(folder)["one", 0, 7] == "main_object")


@pytest.mark.slow
def test_an_answer_by_mouse_takes_the_time_since_the_one_before(
    person: Callable[..., BrowserContext], server: Server, folder: Path
) -> None:
    page = entered(person(), server, "/class/0")
    page.wait_for_timeout(1200)
    page.locator("#f-100 [value=background]").check()
    is_saved(page, 100)
    (vote,) = annotations.read(folder / annotations.FILE)[0].votes
    assert vote.seconds is not None and vote.seconds >= 1


def answer(tabs: list[Page], key: str) -> None:
    """Answer all three features in each tab, in turn, without waiting for anything."""
    for page in tabs:
        page.keyboard.press("k")
        page.keyboard.press("k")
    for _ in range(3):
        for page in tabs:
            page.keyboard.press(key)
            page.keyboard.press("j")


@pytest.mark.slow
def test_a_broken_line_is_shown_with_its_number(
    person: Callable[..., BrowserContext], server: Server, folder: Path
) -> None:
    (folder / annotations.FILE).write_text("no JSON\n")
    page = entered(person(), server, "/class/0")
    expect(page.locator(".callout").first).to_contain_text(f"{annotations.FILE}, line 1")
    page.keyboard.press("2")
    is_saved(page, FEATURES[0])
    page.reload()
    expect(page.locator("[value=background]:checked")).to_have_count(1)


@pytest.mark.slow
def test_a_page_to_read_only_takes_nothing(
    person: Callable[..., BrowserContext], servers: Stable, folder: Path
) -> None:
    server = servers.start(folder, read_only=True)
    context, posted = person(), list[str]()
    context.on("request", lambda request: posted.append(request.url) if request.method != "GET" else None)
    page = entered(context, server, "/class/0")
    for key in ("1", "Shift+Digit3", "u", "j", "2"):
        page.keyboard.press(key)
    assert current(page) == FEATURES[1] and page.locator("[name=answer]:checked").count() == 0
    expect(page.locator("#status")).to_have_text("Read only: answers are not taken")
    assert posted == [] and not (folder / annotations.FILE).exists()
    server.end()


# Strangers


@pytest.mark.slow
def test_hostile_names_are_words_and_run_nothing(
    person: Callable[..., BrowserContext], servers: Stable, tmp_path: Path
) -> None:
    server = servers.start(gallery(tmp_path / "analysis", HOSTILE, votes=True, note=HOSTILE[0]))
    context, faults = person(), list[str]()
    page = entered(context, server)
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    called(page, HOSTILE[1])
    assert page.locator("#who [name=annotator]").input_value() == HOSTILE[1].strip()
    for i, name in enumerate(HOSTILE):
        page.goto(f"{server.home}/class/{i}")
        ready(page)
        seen = "".join(c if c.isprintable() else "\ufffd" for c in name)
        assert page.locator("h1").text_content() == seen
        page.keyboard.press("2")
        is_saved(page, 7)
        page.keyboard.press("c")
        page.keyboard.insert_text(name)
        page.keyboard.press("Enter")
        page.keyboard.press("j")
        page.keyboard.press("k")
        expect(page.locator("#f-7 .saved")).to_have_text("saved")
        page.reload()
        ready(page)
        assert page.locator("#f-7 [name=cue]").input_value() == tidy(name)  # without what shows nothing at either end
        page.keyboard.press("z")
        page.keyboard.press("Escape")
        assert page.evaluate("window.ran") is None
    for path in ("/", "/heatmaps/0", "/review", "/agreement", "/effects"):
        page.goto(server.home + path)
        assert page.evaluate("window.ran") is None
    assert faults == [] and server.complaints() == ""
    server.end()


ATTACK = """<!DOCTYPE html><meta charset="utf-8"><title>at work</title><body><script>
const body = JSON.stringify({annotator: "stranger", label: 0, feature: 7, answer: "background"});
const tries = [
  () => fetch("URL/vote", {method: "POST", credentials: "include", mode: "no-cors", body}),
  () => fetch("URL/vote", {method: "POST", credentials: "include", body, headers: {"x-other": "x"}}),
  () => fetch("URL/vote", {method: "POST", credentials: "include", body, headers: {"x-embedx-token": "x"}}),
  () => fetch("URL/who", {method: "POST", credentials: "include", mode: "no-cors", body: '{"annotator": "stranger"}'}),
  () => Promise.resolve(navigator.sendBeacon("URL/vote", body)),
];
const read = async () => { const r = await fetch("URL/class/0", {credentials: "include"}); return r.text(); };
const load = (kind, path) => new Promise(done => {
  const made = document.createElement(kind);
  made.onload = () => done(kind + " loaded"); made.onerror = () => done(kind + " blocked");
  made.src = "URL" + path; document.body.append(made);
});
(async () => {
  for (const go of tries) await go().catch(() => 0);
  const got = [await read().then(() => "read", () => "unread")];
  got.push(await load("img", "/picture/0/7/0/image"), await load("script", "/static/saving.js"));
  const frame = document.createElement("iframe"), form = document.createElement("form");
  frame.name = "hidden"; document.body.append(frame);
  form.method = "post"; form.enctype = "text/plain"; form.action = "URL/vote"; form.target = "hidden";
  const field = document.createElement("input");
  field.name = body.slice(0, -1) + ', "note": "'; field.value = '"}';
  form.append(field); document.body.append(form); form.submit();
  await new Promise(done => { frame.onload = done; setTimeout(done, 3000); });
  document.title = got.join(", ");
})();
</script>"""


@contextmanager
def attacker(page: str) -> Iterator[int]:
    """A server of somebody else, on another port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made.server_port
        finally:
            made.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_pages_of_others_change_and_read_nothing(
    person: Callable[..., BrowserContext], server: Server, folder: Path, host: str
) -> None:
    """Of another port, which the browser holds for the same site and sends the cookie along, and of another site."""
    context = person()
    own = entered(context, server, "/class/0")
    with attacker(ATTACK.replace("URL", server.home)) as port:
        page = context.new_page()
        page.goto(f"http://{host}:{port}/")
        expect(page).to_have_title("unread, img blocked, script blocked")
    own.keyboard.press("1")
    is_saved(own, 7)
    assert answers(folder) == {("one", 0, 7): "main_object"} and len(lines(folder)) == 1
    own.goto(f"{server.home}/")
    expect(own.locator("#who [name=annotator]")).to_have_value("one")


@pytest.mark.slow
def test_a_link_from_elsewhere_carries_no_cookie(person: Callable[..., BrowserContext], server: Server) -> None:
    context = person()
    entered(context, server)
    with attacker(f'<!DOCTYPE html><a href="{server.home}/">to the page</a>') as port:
        page = context.new_page()
        page.goto(f"http://localhost:{port}/")
        page.locator("a").click()
        expect(page.locator("body")).to_contain_text("Open the address")


@pytest.mark.slow
def test_two_servers_in_one_browser_leave_each_other_alone(
    person: Callable[..., BrowserContext], servers: Stable, tmp_path: Path
) -> None:
    folders = [gallery(tmp_path / name) for name in ("one", "two")]
    both, context = [servers.start(f) for f in folders], person()
    pages = [entered(context, server, "/class/0") for server in both]
    for page, key in zip(pages, ("1", "2"), strict=True):
        page.keyboard.press(key)
        is_saved(page, 7)
    assert [list(answers(f).values()) for f in folders] == [["main_object"], ["background"]]
    for page, server in zip(pages, both, strict=True):
        page.reload()
        expect(page.locator("[name=answer]:checked")).to_have_count(1)
        assert server.end() == 0, "also while a browser holds connections open"
        assert server.complaints() == ""


# How it looks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "dark"),
        (390, "light"),
        (1280, "light"),
        (390, "dark"),
    ],
)
def test_every_page_is_accessible_and_kept_as_a_picture(
    person: Callable[..., BrowserContext], servers: Stable, tmp_path: Path, width: int, scheme: str
) -> None:
    """By the rules of axe: no serious and no critical violation, with dialogs open too."""
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    server = servers.start(gallery(tmp_path / "analysis", votes=True))
    context = person(**(PHONE if width < 500 else DESKTOP), color_scheme=scheme, bypass_csp=True)
    page, found, place = entered(context, server), list[str](), screenshots(tmp_path)
    for name, path in {**PAGES, "help": "/", "zoom": "/class/0"}.items():
        page.goto(server.home + path)
        ready(page)
        if name in ("help", "zoom"):
            page.keyboard.press({"help": "?", "zoom": "z"}[name])
            expect(page.locator(f"#{name}")).to_be_visible()
        page.screenshot(path=place / f"{name}-{width}-{scheme}.png", full_page=name not in ("help", "zoom"))
        page.evaluate(axe)
        told = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for v in told["violations"]:
            if v["impact"] in ("serious", "critical"):
                found.append(f"{name}: {v['id']} {v['help']}: {[n['html'][:200] for n in v['nodes'][:3]]}")
    server.end()
    assert found == [], "\n".join(found)
    assert len(list(place.glob(f"*-{width}-{scheme}.png"))) >= len(PAGES)
