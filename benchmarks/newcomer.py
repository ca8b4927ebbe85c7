"""How long a newcomer's hands and the page take to label a class: keys pressed and seconds waited, on real analyses.

`python -m benchmarks.newcomer DATASET -b BACKBONE [-o FOLDER]` (needs chromium, Playwright, and the panels of an
analysis) opens `embedx annotate` on a copy of the folder and labels each class as a newcomer does, who names one cue in
each: an answer and `j` for each feature, `c`, the name and Enter for one of them, `n` for the next class.

keys     pressed in a class; waits: seconds until the page of the class could be used, and until each answer was saved
seconds  keys x 0.28 + waits: 0.28 s is a key of an average typist (Card, Moran and Newell, "The keystroke-level model
         for user performance time", Communications of the ACM 23, 1980)
left     of 40 seconds, for looking, by feature
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import click

from embedx.spuriosity.analysis import default_folder
from embedx.spuriosity.annotations import FILE
from embedx.spuriosity.records.discovery import Discovery

KEY, GOAL = 0.28, 40.0
CUE = "small mark"


@click.command()
@click.argument("dataset")
@click.option("-b", "--backbone", required=True)
@click.option("-o", "--out", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(dataset: str, backbone: str, out: Path | None) -> None:
    """Keys and waits to label each class."""
    with tempfile.TemporaryDirectory(prefix="newcomer-") as place:
        folder = Path(place) / "analysis"
        shutil.copytree(out or default_folder(dataset), folder)
        (folder / FILE).unlink(missing_ok=True)
        line = [sys.executable, "-m", "embedx", "annotate", dataset, "-b", backbone, "-o", str(folder), "--port", "0"]
        running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert running.stdout
        found = re.search(r"http://\S+", running.stdout.readline())
        if not found:
            raise click.ClickException("the server did not start")
        try:
            counted = labelled(found[0], Discovery.load(folder))
        finally:
            running.terminate()
            running.wait()
            running.stdout.close()
    for name, features, keys, waits in counted:
        taken = keys * KEY + sum(waits)
        left = (GOAL - taken) / features
        print(
            f"{name}: {features} features, {keys} keys, {sum(waits):.2f} s of waiting (page {waits[0]:.2f}): "
            f"{taken:.1f} s; {left:.1f} s left to look at each"
        )
    totals = [keys * KEY + sum(waits) for _, _, keys, waits in counted]
    print(f"median {statistics.median(totals):.1f} s, at most {max(totals):.1f} s (goal: {GOAL:g})")


def labelled(url: str, discovery: Discovery) -> list[tuple[str, int, int, list[float]]]:
    """(class, features, keys, waits) of each class, in the order in which the page brings them."""
    from playwright.sync_api import Page, sync_playwright

    def wait(page: Page, selector: str) -> float:
        start = time.perf_counter()
        page.locator(selector).first.wait_for(state="attached")
        return time.perf_counter() - start

    counted = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.wait_for_url(f"http://{urlsplit(url).netloc}/")
        for _ in range(sum(bool(of) for of in discovery.of.values())):
            start = time.perf_counter()
            with page.expect_navigation(wait_until="commit"):
                page.keyboard.press("n")
            keys, waits = 1, [time.perf_counter() - start + wait(page, "html[data-ready]")]
            name = page.locator("h1").inner_text()
            features = page.locator(".feature").count()
            for number in range(features):
                for key in ["3", *(["c", *CUE, "Enter"] if number == 0 else [])]:
                    page.keyboard.press("Space" if key == " " else key)
                    keys += 1
                waits.append(wait(page, ".feature.current .saved:text-is('saved')"))
                page.keyboard.press("j")
                keys += 1
            counted.append((name, features, keys, waits))
        browser.close()
    return counted


if __name__ == "__main__":
    main()
