"""The other pages over HTTP: heatmaps, review, groups, agreement, effects, and the work that they start."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cards import BROAD, cache_of, prepare
from labelling import NAMES, PATIENCE, Server, Stable, gallery, stable
from pets import ONE, WHOLE, features, write

from embedx.annotation import serve as serving
from embedx.annotation.board import PageSettings
from embedx.annotation.images import DECISIONS, GROUPS
from embedx.annotation.work import UPPER, Place, settings_like
from embedx.data import manifest as manifests
from embedx.errors import SpuriosityError
from embedx.spuriosity import annotations
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotate import annotate
from embedx.spuriosity.annotations import validations
from embedx.spuriosity.discover import discover
from embedx.spuriosity.panels import PanelSettings, panels
from embedx.spuriosity.records import flags
from embedx.workspace import Workspace


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stable]:
    with stable(tmp_path_factory.mktemp("servers")) as made:
        yield made


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Pets with features and without images, discovered and annotated by the place."""
    folder = tmp_path_factory.mktemp("pets")
    workspace = Workspace(folder / "cache")
    manifests.save(WHOLE, workspace.dataset("pets"))
    write(workspace, WHOLE, ONE, features(WHOLE))
    analysis = Analysis.open(workspace, "pets", ONE, folder / "results")
    discover(analysis, k=2, seeds=1)
    annotate(analysis, attributes=["place"])
    return analysis


def start(servers: Stable, analysis: Analysis, **settings: Any) -> Server:
    place = (str(analysis.workspace.path), analysis.dataset, analysis.backbone)
    return servers.start(analysis.folder, place=place, **settings)


def refused(server: Server, path: str, body: Any) -> tuple[int, str]:
    status, _, data = server.ask("POST", path, body if path == "/job" else {"of": server.of, **body})
    return status, json.loads(data).get("error", "")


def done(server: Server, kind: str, **about: Any) -> dict[str, Any]:
    """Have work done, and wait for it: what a page is told of it in the end."""
    status, _, data = server.ask("POST", "/job", {"kind": kind, **about})
    assert status == 200, data
    number, until = json.loads(data)["id"], time.monotonic() + 4 * PATIENCE
    while time.monotonic() < until:
        (task,) = [t for t in json.loads(server.get("/jobs")) if t["id"] == number]
        if task["state"] not in ("waiting", "running"):
            return task
        time.sleep(0.05)
    raise AssertionError(f"{kind} is not done")


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_heatmaps_are_asked_for_and_kept(servers: Stable, tmp_path: Path) -> None:
    server = servers.start(gallery(tmp_path))
    status, headers, _ = server.ask("GET", "/heatmaps")
    assert status == 303 and headers["location"].startswith("/heatmaps/")
    assert "do the pictures show the same thing?" in server.get("/heatmaps/0")
    check = {
        "annotator": "one",
        "label": 0,
        "feature": 7,
        "answer": "same",
        "elsewhere": ["row1", "row0"],
        "confidence": 4,
    }
    assert server.ask("POST", "/validation", {"of": server.of, **check})[0] == 200
    (line,) = records(tmp_path / validations.FILE)
    assert (line["feature"], line["answer"], line["elsewhere"], line["class_name"]) == (
        7,
        "same",
        ["row1", "row0"],
        NAMES[0],
    )
    for change, code, words in (
        ({"elsewhere": ["row3"]}, 404, "no such pictures"), ({"label": 99}, 404, "no such pictures"),
        ({"feature": -1}, 404, "no such pictures"), ({"answer": "maybe"}, 400, "the answer is 'maybe'"),
        ({"confidence": 9}, 400, "confidence is 9"),
    ):  # fmt: skip
        status, error = refused(server, "/validation", check | change)
        assert status == code and words in error
    assert server.ask("POST", "/validation", check | {"of": server.of, "answer": None})[0] == 200
    assert validations.read(tmp_path / validations.FILE, line["weights"]) == ()
    for who in ("two", "three"):
        server.ask("POST", "/validation", check | {"of": server.of, "annotator": who, "elsewhere": []})
    assert "<td>yes</td>" in server.get("/agreement") or "Nobody has answered yet" in server.get("/agreement")
    assert server.complaints() == ""
    server.end()


def test_decisions_on_the_queue_are_kept_and_those_that_cannot_be_are_refused(servers: Stable, tmp_path: Path) -> None:
    server = servers.start(gallery(tmp_path))
    queue = flags.load(tmp_path)
    page = server.get("/review")
    assert all(f.predicted_name in page for f in queue) and f"of {len(queue)} answered" in page
    said = {
        "annotator": "one",
        "id": queue[0].id,
        "class_name": queue[0].class_name,
        "answer": "label error",
        "right": NAMES[1],
        "seconds": 1.5,
    }
    assert server.ask("POST", "/decision", {"of": server.of, **said})[0] == 200
    (line,) = records(tmp_path / DECISIONS)
    assert (line["id"], line["answer"], line["right"]) == (queue[0].id, "label error", NAMES[1])
    assert refused(server, "/decision", said | {"id": "../../etc/passwd"})[0] == 404
    status, error = refused(server, "/decision", said | {"right": NAMES[1][:-1]})
    assert status == 400 and f"did you mean '{NAMES[1]}'" in error
    assert (
        server.ask("POST", "/decision", said | {"of": server.of, "answer": "fine"})[0] == 200
    )  # right goes with a label error alone
    assert records(tmp_path / DECISIONS)[-1]["right"] == ""
    assert 'value="fine" checked' in server.get("/review")
    server.end()
    blind = servers.start(tmp_path, annotator="two", blind=True)
    assert "one: fine" not in blind.get("/review")
    blind.end()
    seeing = servers.start(tmp_path, annotator="two")
    assert "one: fine" in seeing.get("/review")
    seeing.end()


@pytest.mark.slow
def test_group_labels_and_the_copies_that_are_made_of_answers(servers: Stable, pets: Analysis) -> None:
    server = start(servers, pets)
    asked = "/groups?attribute=sky&values=light,dark&by=least-sure&n=6"
    assert "not chosen yet" in server.get(asked)
    assert done(server, "least-sure")["state"] == "done"
    page = server.get(asked)
    assert page.count('class="feature item"') == 6 and "not chosen yet" not in page
    for row in (3, 4):
        answer = {"of": server.of, "annotator": "one", "id": str(WHOLE.ids[row]), "attribute": "sky", "answer": "light"}
        assert server.ask("POST", "/group", answer)[0] == 200
    assert [r["id"] for r in records(pets.folder / GROUPS)] == [str(WHOLE.ids[r]) for r in (3, 4)]
    assert refused(server, "/group", {"annotator": "one", "id": "no.png", "attribute": "sky", "answer": "x"})[0] == 404
    task = done(server, "grouped", name="sky")
    assert task["state"] == "done" and "wrote" in task["text"] and "pets-by-sky" in task["text"]
    assert "sky" in manifests.load(pets.workspace.dataset("pets-by-sky"))[0].values
    for about, words in (({"name": "sun"}, "no value of 'sun'"), ({"name": "place"}, "has an attribute 'place'")):
        if "place" in about["name"]:
            refused(
                server, "/group", {"annotator": "one", "id": str(WHOLE.ids[0]), "attribute": "place", "answer": "x"}
            )
        failed = done(server, "grouped", **about)
        assert failed["state"] == "failed" and words in failed["text"]
    assert "no label error that is decided" in done(server, "corrected")["text"]
    assert refused(server, "/job", {"kind": "grouped"}) == (400, "name the attribute, or the class")
    for body in ({"kind": "facts"}, {"kind": "no such"}, {"kind": "panels", "label": 99}):
        assert refused(server, "/job", body)[0] == 404
    assert server.complaints() == ""
    server.end()


@pytest.mark.slow
def test_effects_are_computed_and_shown(servers: Stable, pets: Analysis) -> None:
    server = start(servers, pets)
    (label,) = annotations.spurious(pets.annotations())
    assert "gap before" not in server.get(f"/class/{label}")
    assert done(server, "effect", label=label)["state"] == "done"
    page = server.get(f"/class/{label}")
    assert "gap before" in page and "after tuning" in page and page.count('<img src="/row/') == 12
    assert not (pets.folder / "gaps.json").exists()
    failed = done(server, "effect", label=1 - label)
    assert failed["state"] == "failed" and "is called spurious" in failed["text"]
    assert refused(server, "/job", {"kind": "effect"})[0] == 400
    assert done(server, "effects")["state"] == "done"
    assert (pets.folder / "gaps.json").exists() and (pets.folder / "tuning.json").exists()
    page = server.get("/effects")
    assert "gap of the classes tuned on" in page and WHOLE.classes[label] in page
    until = time.monotonic() + PATIENCE
    while (text := json.loads(server.get(f"/accuracy/{label}"))["text"]) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert text and text.endswith("n = 80") and text in server.get(f"/class/{label}")
    assert server.complaints() == ""
    server.end()
    blind = start(servers, pets, blind=True)
    for path in ("/effects", f"/class/{label}", "/"):
        assert "gap before" not in blind.get(path) and "gap of" not in blind.get(path)
    blind.end()


@pytest.mark.slow
def test_pictures_of_a_class_are_drawn_when_they_are_asked_for(
    servers: Stable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cards")
    workspace, manifest = prepare(folder)
    assert cache_of(workspace).header.backbone == BROAD
    analysis = Analysis.open(workspace, manifest, BROAD, folder / "results")
    discover(analysis, k=1, seeds=1)
    place = Place(workspace.path, "cards", BROAD, folder / "results")
    assert settings_like(place.folder, 0, None) == PanelSettings()
    panels(analysis, PanelSettings(1, attacks=True, steps=1), classes=(0,))
    assert settings_like(place.folder, 1, None) == PanelSettings(1, attacks=True)  # as those there are
    server = start(servers, analysis)
    assert "1 of 1 features have no pictures yet" in server.get("/class/1")
    assert done(server, "panels", label=1)["state"] == "done"
    page = server.get("/class/1")
    assert "have no pictures yet" not in page and "Feature amplified" in page
    (candidate,) = analysis.discovery().of[1]
    assert server.ask("GET", f"/picture/1/{candidate.feature}/0/image")[0] == 200
    status, headers, data = server.ask("GET", "/row/0")
    assert status == 200 and headers["content-type"] == "image/jpeg" and data.startswith(b"\xff\xd8")
    assert "lack the pictures for this" in server.get("/heatmaps/1")
    assert done(server, "heatmaps", label=1)["state"] == "done"
    assert settings_like(place.folder, 1, None).upper == UPPER and settings_like(place.folder, 0, None).upper is None
    assert server.complaints() == ""
    server.end()


def test_gold_items_and_agreement_are_shown_at_the_end(servers: Stable, tmp_path: Path) -> None:
    folder = gallery(tmp_path, votes=True)
    (folder / annotations.FILE).rename(tmp_path / "gold.jsonl")
    from embedx.annotation.gold import gold_answers

    known = gold_answers(tmp_path / "gold.jsonl", folder)
    assert known
    server = servers.start(folder)
    (label, feature), answer = next(iter(known.items()))
    right, wrong = ("background", "main_object") if answer == "spurious" else ("main_object", "background")
    server.vote(label, feature, right, "ann", seconds=3.0)
    server.vote(label, feature, wrong, "bob")
    page = server.get("/agreement")
    assert "Fleiss" in page and "Disputed features: 1" in page and "3.0" in page
    server.end()
    blind = servers.start(folder, annotator="eve", blind=True)
    page = blind.get("/agreement")
    assert "shown when you have answered every feature" in page and "ann" not in page.split("<main")[1]
    blind.end()


def test_without_the_extra_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    place = Place(tmp_path / "cache", "pets", ONE, tmp_path)
    with pytest.raises(SpuriosityError, match=r"install `embedx\[web\]`"):
        serving.serve(place, PageSettings("ann"), ready=lambda url: None)


def test_a_browser_is_opened_through_a_file_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is in no argument of a program, and the file goes again."""
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    with serving.in_browser("http://127.0.0.1:1/?token=secret") as there:
        assert there and "secret" not in opened[0]
        file = Path(opened[0].removeprefix("file://"))
        assert "?token=secret" in file.read_text() and file.stat().st_mode & 0o077 == 0
    assert not file.exists()
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with serving.in_browser("http://127.0.0.1:1/") as there:
        assert not there and len(opened) == 1


def test_a_dataset_that_is_elsewhere_can_still_be_labelled(servers: Stable, tmp_path: Path) -> None:
    server = servers.start(gallery(tmp_path))
    assert server.vote(0, 7, "background") == 200
    assert "nothing can be computed" in refused(server, "/job", {"kind": "effects"})[1]
    assert refused(server, "/job", {"kind": "effects"})[0] == 409
    server.end()


def test_an_annotation_line_is_written_as_the_commands_read_it(servers: Stable, pets: Analysis) -> None:
    server = start(servers, replace(pets))
    candidate = pets.discovery().candidates[0]
    assert server.vote(candidate.label, candidate.feature, "background", "zoe", cue=" a  place ") == 200
    entry = next(a for a in pets.annotations() if a.feature == candidate.feature and a.class_index == candidate.label)
    assert (entry.cue, entry.rank, entry.importance) == ("a  place", candidate.rank, candidate.importance)
    assert server.vote(candidate.label, candidate.feature, None, "zoe") == 200
    server.end()
