"""The planted demo, labelled through the page: ranking, gaps and tuning are those of the automatic annotation."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from labelling import PATIENCE, answers, chromium, stable

from embedx.spuriosity import annotations

BACKBONE = "tiny:broad"
KEYS = {("core", "main_object"): "1", ("core", ""): "1", ("spurious", "background"): "2", ("spurious", ""): "2",
        ("spurious", "separate_object"): "3", ("unsure", ""): "4"}  # fmt: skip
FIGURES = ("gaps.json", "tuning.json")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(chromium() is None, reason="no chromium on this machine"),
]


def embedx(place: Path, *line: str) -> None:
    """Run a command on the planted demo in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "embedx", *line, "-b", BACKBONE], cwd=place, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def figures(place: Path) -> dict[str, Any]:
    """What follows from the annotations: S(c), the scores of the ranking, gaps and tuning, as the files have them."""
    for step in ("rank", "gap", "tune"):
        embedx(place, "spuriosity", step, "planted")
    cache, results = place / "cache" / "planted", place / "results" / "planted" / "spuriosity"
    found: dict[str, Any] = {name: json.loads((results / name).read_text()) for name in FIGURES}
    for model in found["tuning.json"]["models"]:
        del model["ranked_by"]  # whether people or attributes said so
    found["cues"] = {c: sorted(f) for c, f in found["gaps.json"]["ranking"]["features"].items()}
    found["scores"] = (cache / "tiny-broad.spuriosity.csv").read_text()
    return found


def test_answers_in_the_page_give_what_the_automatic_annotation_gives(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    place.mkdir()
    embedx(place, "extract", "planted")
    for step in ("discover", "panels"):
        embedx(place, "spuriosity", step, "planted")
    embedx(place, "spuriosity", "annotate", "planted", "--from", "attributes=mark,ground,companion")
    folder = place / "results" / "planted" / "spuriosity"
    known = annotations.read(folder / annotations.FILE)
    automatic = figures(place)
    assert automatic["cues"] and len(known) == 25
    for name in (annotations.FILE, *FIGURES):
        (folder / name).unlink()
    for left in (place / "cache" / "planted").glob("*.spuriosity.*"):
        left.unlink()

    label_all(tmp_path, place, known)
    said = {(c, f): a for (_, c, f), a in answers(folder).items()}
    assert len(said) == len(known)
    assert [e.source for e in annotations.read(folder / annotations.FILE)] == ["local"] * len(known)
    by_hand = figures(place)
    for name in ("cues", "scores", *FIGURES):
        assert by_hand[name] == automatic[name], name


def label_all(tmp_path: Path, place: Path, known: tuple[annotations.Annotation, ...]) -> None:
    """Answer every feature by keyboard as is known, then end the server while it works in the background."""
    from playwright.sync_api import expect, sync_playwright

    folder = place / "results" / "planted" / "spuriosity"
    of = {(e.class_index, e.feature): e for e in known}
    with stable(tmp_path) as servers, sync_playwright() as driver:
        server = servers.start(folder, place=(str(place / "cache"), "planted", BACKBONE))
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_url(f"{server.home}/")
        for label in sorted({e.class_index for e in known}):
            page.goto(f"{server.home}/class/{label}")
            page.locator("html[data-ready]").wait_for(state="attached")
            for feature in page.locator(".feature").all():
                entry = of[label, int(feature.get_attribute("data-feature") or -1)]
                page.keyboard.press(KEYS[entry.label, entry.kind])
                if entry.cue:
                    page.keyboard.press("c")
                    page.keyboard.insert_text(entry.cue)
                    page.keyboard.press("Enter")
                page.keyboard.press("j")
            expect(page.locator("#status")).to_have_text("Saved")
            expect(page.locator(".saved")).to_have_text(["saved"] * page.locator(".feature").count())
        shutil.rmtree(folder / "panels")
        status, _, _ = server.ask("POST", "/job", {"kind": "panels"})
        assert status == 200
        page.goto(f"{server.home}/class/0")
        expect(page.locator("#jobs")).to_contain_text("pictures", timeout=1000 * PATIENCE)
        assert server.end(signal.SIGINT) == 0, "also while it works, and with a browser that asks how far it is"
        assert "Traceback" not in server.complaints()
        browser.close()
