"""Ranking and gap at the size of ImageNet, against reading the file: 1,281,000 rows x 2,048 features, 1,000 classes.

`python -m benchmarks.spuriosity [--rows 1281000] [--repeats 3]` (`make bench-spuriosity`) writes a simulated cache
(10.5 GB of float32; it is deleted in the end), measures in a process of its own, prints every measure with its goal
and writes `results/bench/spuriosity.json`: `{measure: {"ratio", "goal", "runs", "what", "all"}}`.

ratio    seconds to read the file, divided by seconds of `rank`, `answers` of a stored head on the test rows, and `gaps`
reading  one thread, 4 MiB at a time into one buffer, nothing checked: what `rank` has to do and more, as it verifies
cold     the file was dropped from the page cache before each of both; warm: each of both follows a whole reading
memory   the largest resident set of the process, the manifest of all rows in it

Of the rows 50,000 are test and 1,000 validation. Each class has one to five spurious features.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest, build
from embedx.evaluation.model import pretrained
from embedx.files import write_text
from embedx.spuriosity.measures.gaps import gaps
from embedx.spuriosity.measures.predictions import predictions
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.store import CacheWriter, FeatureCache, Header
from embedx.store.writer import zeros

STEP = 1 << 22
GOAL_SPEED, GOAL_MEMORY = 0.5, 4.0


def drawn(rows: int, classes: int) -> Manifest:
    """As many rows of each class as of any other; of 1,281, 50 are test and one is validation."""
    each = max(4, rows // classes)
    test, names = max(2, round(each * 50 / 1281)), [f"n{c:04d}" for c in range(classes)]
    splits = ["test"] * test + ["train"] * (each - test - 1) + ["val"]
    ids = [f"{split}/{name}/{i:05d}.jpg" for name in names for i, split in enumerate(splits)]
    labels = [name for name in names for _ in splits]
    return build("bench", {"id": ids, "label": labels, "split": splits * classes})


def write(path: Path, manifest: Manifest, dim: int, dtype: str) -> None:
    """Features as of a network with a ReLU, and a head."""
    rng = np.random.default_rng(0)
    n, facts = len(manifest), {"identity": {"weights": "bench"}, "conditions": {}}
    header = Header("bench", dim, dtype, manifest.ids_digest, 0, n, n, facts)
    pool = np.maximum(rng.standard_normal((4096, dim), dtype=np.float32), 0)
    with CacheWriter(path, header, manifest.ids) as writer:
        for start in range(0, n, 8192):
            part = zeros(manifest.ids[start : start + 8192], header)
            scale = rng.uniform(0.5, 1.5, (len(part.status), 1)).astype(np.float32)
            part.features[:] = pool[rng.integers(0, len(pool), len(part.status))] * scale
            writer.append(part)
        k = len(manifest.classes)
        writer.attach("head/weight", rng.standard_normal((k, dim), dtype=np.float32))
        writer.attach("head/bias", np.zeros(k, dtype=np.float32))


def read(path: Path) -> None:
    buffer = memoryview(bytearray(STEP))
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def drop(path: Path) -> None:
    """Let the page cache forget the file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """In the process that is measured: seconds of each part, cold and warm by turns, and the memory it took."""
    began = time.perf_counter()
    manifest, _ = manifests.load(folder)
    loading, path = time.perf_counter() - began, folder / "bench.h5"
    cache, rng = FeatureCache.open_complete(path), np.random.default_rng(1)
    cues = {
        c: tuple(rng.choice(cache.header.dim, rng.integers(1, 6), replace=False).tolist())
        for c in range(len(manifest.classes))
    }
    runs: list[dict[str, float]] = []
    load = os.getloadavg()[0]
    for state, ready in (("cold", drop), ("warm", read)):
        for _ in range(repeats):
            ready(path)
            reading, marks = seconds(lambda: read(path)), {}
            ready(path)
            at = time.perf_counter()
            ranking = rank_by_features(manifest, cache, cues)
            marks["rank"] = time.perf_counter()
            said = predictions(manifest, cache, pretrained(manifest, cache), "test")
            marks["answers"] = time.perf_counter()
            gaps(ranking, said, 10)
            marks["gaps"] = time.perf_counter()
            parts, before = {}, at
            for name, mark in marks.items():
                parts[name], before = mark - before, mark
            runs.append({"state": state, "read": reading, **parts, "all": marks["gaps"] - at})  # type: ignore[dict-item]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"runs": runs, "peak": peak, "manifest": loading, "bytes": path.stat().st_size, "load": load}


def speed(found: dict[str, Any], state: str) -> dict[str, Any]:
    runs = [r for r in found["runs"] if r["state"] == state]
    ratios = [r["read"] / r["all"] for r in runs]
    what = f"reading the file / rank and gap, {state} page cache for both"
    return {"ratio": statistics.median(ratios), "goal": GOAL_SPEED, "runs": ratios, "what": what, "all": runs}


@click.command()
@click.option("--rows", default=1_281_000, show_default=True)
@click.option("--classes", default=1000, show_default=True)
@click.option("--dim", default=2048, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where the cache is written.")
@click.option("--out", type=click.Path(path_type=Path), default="results/bench/spuriosity.json", show_default=True)
@click.option("--child", type=click.Path(path_type=Path), hidden=True)
def main(
    rows: int, classes: int, dim: int, dtype: str, repeats: int, folder: Path | None, out: Path, child: Path | None
) -> None:
    """Measure and print."""
    if child is not None:
        print(json.dumps(measure(child, repeats)))
        return
    with tempfile.TemporaryDirectory(dir=folder) as made:
        place = Path(made)
        manifest = drawn(rows, classes)
        manifests.save(manifest, place)
        write(place / "bench.h5", manifest, dim, dtype)
        line = [sys.executable, "-m", "benchmarks.spuriosity", "--child", made, "--repeats", str(repeats)]
        found = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
    memory = found["peak"] / 2**30
    report: dict[str, Any] = {
        "size": {"rows": len(manifest), "dim": dim, "classes": classes, "dtype": dtype, "bytes": found["bytes"]},
        "machine": {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine(),
                    "load before": found["load"]},
        "cold": speed(found, "cold"), "warm": speed(found, "warm"),
        "memory": {"gibibytes": memory, "goal": GOAL_MEMORY, "what": "largest resident set, at most"},
        "manifest": {"seconds": found["manifest"], "what": "reading the manifest, not part of the ratios"},
    }  # fmt: skip
    size = found["bytes"] / 1e9
    for state in ("cold", "warm"):
        one = report[state]
        parts = {k: statistics.median(r[k] for r in one["all"]) for k in ("read", "rank", "answers", "gaps")}
        print(
            f"{state:7} {one['ratio']:5.2f} (goal {GOAL_SPEED}; {min(one['runs']):.2f} to {max(one['runs']):.2f})  "
            f"read {parts['read']:.2f} s ({size / parts['read']:.2f} GB/s), rank {parts['rank']:.2f} s, "
            f"answers {parts['answers']:.2f} s, gaps {parts['gaps']:.2f} s"
        )
    print(f"memory  {memory:5.2f} GiB (goal: under {GOAL_MEMORY:g});  manifest read in {found['manifest']:.1f} s")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
