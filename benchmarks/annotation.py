"""The annotation page in a browser: how soon a class can be answered, and what 1,000 classes cost against 10.

`python -m benchmarks.annotation [--classes 1000] [--repeats 7]` (needs chromium and Playwright) makes up two analyses,
starts `embedx annotate` on each, prints every measure with its goal and writes `results/bench/annotation.json`.

page         15 features of a class, each with 3 rows of 8 pictures: 360 JPEGs of 160 x 160 pixels
interactive  seconds from the start of the navigation until keys work and every picture in the window is there, in a
             window of 1280 x 900 pixels and a browser that has seen nothing before; medians
vote         seconds from the request until it is answered, the line on the disk, as the browser sees it
server       seconds of the server alone, over one connection: the list (of up to 100 classes), a class, a vote
ratio        the same with `--classes` classes divided by those with 10
answers      one half of all features has the answers of two people, as the file of annotations grows with the classes
"""

from __future__ import annotations

import http.client
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np
from PIL import Image

from embedx.files import write_text
from embedx.spuriosity import annotations
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.annotations.votes import Vote
from embedx.spuriosity.panels import place_of, record_of
from embedx.spuriosity.records.discovery import Candidate, Discovery
from embedx.spuriosity.records.panel import ONE, Panel, Shot
from embedx.statistics import Interval

FEATURES, ROW, SIDE, FEW, DRAWN = 15, 8, 160, 10, 10
GOAL_INTERACTIVE, GOAL_SERVER = 1.0, 0.25
WEIGHTS = "0123456789abcdef" * 4
WATCH = """
(() => {
  const box = image => image.getBoundingClientRect();
  const inWindow = image => box(image).bottom > 0 && box(image).top < innerHeight && box(image).width > 0;
  const look = () => {
    const root = document.documentElement, images = [...document.images].filter(inWindow);
    if (root?.dataset.ready && images.length && images.every(i => i.complete && i.naturalWidth))
      window.whenReady = [performance.now(), images.length];
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""
"""Runs in the page before anything else, and notes when it can be used."""
VOTES = "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/vote')).map(e => e.duration)"


def photograph(rng: np.random.Generator) -> bytes:
    """A JPEG with edges and some noise, as large as one of a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, dtype=np.int16) + rng.normal(0, 9, (SIDE, SIDE, 1)).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=88)
    return out.getvalue()


def analysis(folder: Path, classes: int) -> None:
    """The folder of an analysis; the first classes have pictures."""
    names = [f"class {c:04d}" for c in range(classes)]
    gap = Interval(0.1, -0.05, 0.25, 50)
    candidates = tuple(
        Candidate(c, name, 100 * (c % 20) + r, r, 1 / r, 0.1 / r, gap, 25, ())
        for c, name in enumerate(names) for r in range(1, FEATURES + 1)
    )  # fmt: skip
    Discovery(
        dataset="bench", backbone="bench", weights=WEIGHTS, recipe="convex", grouping="label", classes=tuple(names),
        sizes=(1300,) * classes, candidates=candidates, stability={},
    ).save(folder)  # fmt: skip
    rng = np.random.default_rng(0)
    for c in candidates:
        if c.label < DRAWN:
            draw(folder, c, rng)
    votes = (Vote("one", "background", seconds=3.0), Vote("two", "main_object", seconds=4.0))
    annotations.write(folder / annotations.FILE, [
        Annotation("bench", "bench", WEIGHTS, c.label, c.class_name, c.feature, "spurious", "local").voted(votes)
        for c in candidates if c.rank % 2
    ])  # fmt: skip


def draw(folder: Path, c: Candidate, rng: np.random.Generator) -> None:
    """The pictures of a feature, and their record."""
    place = place_of(c.label, c.class_name, c.feature)
    (folder / place).mkdir(parents=True)

    def file(name: str) -> str:
        (folder / place / name).write_bytes(photograph(rng))
        return f"{place}/{name}"

    shots = tuple(
        Shot(f"{end}{i}", end, 2.0, file(f"{end}-{i}.jpg"), file(f"{end}-{i}-map.jpg") if end == "most" else "")
        for end in ("most", "least") for i in range(ROW)
    )  # fmt: skip
    (folder / place / "histogram.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="320" height="120"/>')
    ONE.write(folder / record_of(c.label, c.class_name, c.feature), Panel(
        c.label, c.class_name, c.feature, c.rank, c.importance, c.share, c.gap, 1300, 1.0, (0.0, 1.0), (1300,), (),
        shots, f"{place}/histogram.svg", f"{place}/sheet.jpg", "0" * 32,
    ))  # fmt: skip


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server, with its token."""
    line = [sys.executable, "-m", "embedx", "--cache", str(folder / "cache"), "annotate", "bench", "-b", "bench"]
    line += ["-o", str(folder), "--port", "0", "--annotator", "one"]
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert running.stdout
    try:
        found = None
        while not found:
            said = running.stdout.readline()
            if not said:
                raise click.ClickException("the server did not start")
            found = re.search(r"http://\S+", said)
        yield found[0]
    finally:
        running.terminate()
        running.wait()
        running.stdout.close()


def seconds(repeats: int, what: Callable[[], Any]) -> float:
    """The median of some calls, after one that does not count."""
    what()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def asked(url: str, repeats: int) -> dict[str, float]:
    """Seconds of the server alone, over one connection: the list, a class, a vote."""
    parts = urlsplit(url)
    token, home = parts.query.removeprefix("token="), f"http://{parts.netloc}"
    headers = {"Cookie": f"embedx-{parts.port}={token}", "X-Embedx-Token": token, "Origin": home}
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)

    def get(path: str, body: dict[str, Any] | None = None) -> str:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        reply = connection.getresponse()
        if reply.status != 200:
            raise click.ClickException(f"{path}: {reply.status} {reply.read().decode()}")
        return reply.read().decode()

    (of,) = re.findall(r'data-of="(\w+)"', get("/"))
    ballot = {"of": of, "annotator": "one", "label": 0, "feature": 2, "answer": "background", "seconds": 2.0}
    found = {
        name: seconds(repeats, lambda path=path: get(path)) for name, path in (("list", "/"), ("class", "/class/0"))
    }
    found["vote"] = seconds(3 * repeats, lambda: get("/vote", ballot))
    connection.close()
    return found


def in_browser(url: str, repeats: int) -> dict[str, Any]:
    """Seconds as a person has them, each load in a browser that has seen nothing."""
    from playwright.sync_api import sync_playwright

    parts, found = urlsplit(url), {"interactive": list[float](), "list": list[float](), "vote": list[float]()}
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    pictures = 0
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for number in range(repeats + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.goto(url)
            page.wait_for_url(f"http://{parts.netloc}/")
            page.wait_for_load_state("load")
            page.goto(f"http://{parts.netloc}/")
            listed = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart") / 1000
            page.add_init_script(WATCH)
            page.goto(f"http://{parts.netloc}/class/{number % DRAWN}")
            until = time.monotonic() + 60
            while not (ready := page.evaluate("window.whenReady ?? null")) and time.monotonic() < until:
                time.sleep(0.02)
            page.keyboard.press("2")
            page.keyboard.press("1")
            page.locator("#status", has_text="Saved").wait_for()
            votes = page.evaluate(VOTES)
            context.close()
            if number:  # the first one warms the server
                pictures = ready[1]
                found["interactive"].append(ready[0] / 1000)
                found["list"].append(listed)
                found["vote"] += [v / 1000 for v in votes]
        browser.close()
    return {**{name: statistics.median(v) for name, v in found.items()}, "in_window": pictures, "all": found}


@click.command()
@click.option("--classes", default=1000, show_default=True)
@click.option("--repeats", default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="results/bench/annotation.json", show_default=True)
def main(classes: int, repeats: int, out: Path) -> None:
    """How soon a class can be answered, and what many classes cost against few."""
    found: dict[int, Any] = {}
    with tempfile.TemporaryDirectory(prefix="annotation-") as place:
        for n in (FEW, classes):
            analysis(Path(place) / str(n), n)
            with served(Path(place) / str(n)) as url:
                found[n] = {"server": asked(url, repeats), "browser": in_browser(url, repeats)}
            told = found[n]
            print(f"{n:,} classes, {told['browser']['in_window']} pictures in the window:")
            for where in ("server", "browser"):
                values = {k: v for k, v in told[where].items() if isinstance(v, float)}
                print(f"  {where}: " + ", ".join(f"{name} {v:.3f} s" for name, v in values.items()))
    slow = found[classes]["browser"]["interactive"]
    print(f"interactive within {slow:.2f} s (goal: {GOAL_INTERACTIVE:g})")
    ratios = {name: v / found[FEW]["server"][name] for name, v in found[classes]["server"].items()}
    print("ratios: " + ", ".join(f"{name} {v:.1f}" for name, v in ratios.items()))
    print(f"the server takes {max(found[classes]['server'].values()):.2f} s at most (goal: {GOAL_SERVER:g})")
    record = {
        "interactive": {"seconds": slow, "goal": GOAL_INTERACTIVE}, "ratios": ratios,
        "server": {**found[classes]["server"], "goal": GOAL_SERVER},
        "all": {str(n): v for n, v in found.items()},
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(record, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
