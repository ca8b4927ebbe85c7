"""What the foundation costs over the bare work: reading and writing caches, decoding, starting, fitting.

`python -m benchmarks.foundation [--repeats 5]` prints the table and writes `results/bench/foundation.json`: for every
measure the median ratio, what is divided by what, and all runs. Above 1 is faster than the yardstick.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import numpy as np
from PIL import Image

from embedx import manifest as manifests
from embedx.extract import Settings, extract, load_backbone
from embedx.files import write_text
from embedx.home import Home
from embedx.manifest import ids_digest
from embedx.store import CacheWriter, FeatureCache, Header, Rows

ROWS, DIM = 50_000, 1024
IMAGES = 1_600


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def storage(folder: Path) -> dict[str, tuple[str, Callable[[], float]]]:
    """A cache of 50,000 x 1,024 float32 (205 MB) against the same bytes in a bare file."""
    ids = np.array([f"{i:07d}.jpg" for i in range(ROWS)], dtype=object)
    features = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    rows = Rows(ids, features, np.zeros(ROWS, np.uint8), np.zeros((ROWS, 32), np.uint8))
    provenance = {"identity": {}, "conditions": {}}
    header = Header("bench", DIM, "float32", ids_digest(ids), 0, ROWS, ROWS, provenance)

    def ours() -> None:
        with CacheWriter(folder / "cache.h5", header, ids) as writer:
            writer.append(rows)

    def bare() -> None:
        with (folder / "bare.bin").open("wb") as file:
            features.tofile(file)
            os.fsync(file.fileno())

    def read() -> np.ndarray:
        return FeatureCache.open_complete(folder / "cache.h5").features()

    def bare_read() -> np.ndarray:
        return np.fromfile(folder / "bare.bin", dtype=np.float32)

    return {
        "write": ("tofile + fsync / CacheWriter (checksums and fsync included)", lambda: seconds(bare) / seconds(ours)),
        "read": (
            "fromfile / FeatureCache.features (every checksum verified)",
            lambda: seconds(bare_read) / seconds(read),
        ),
    }


def decode_bare(path: Path) -> int:
    """What anybody would write: open, convert, resize, to an array."""
    with Image.open(path) as image:
        return int(np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))[0, 0, 0])


def pipeline(folder: Path) -> dict[str, tuple[str, Callable[[], float]]]:
    """1,600 JPEGs of 500 x 375 through a backbone that costs nothing, so that decoding is the limit."""
    root = folder / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for i in range(IMAGES):
        noise = np.roll(noise, 1, axis=1)
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(root / f"{i:04d}.jpg", quality=90)
    ids = sorted(p.name for p in root.iterdir())
    splits = [("train", "val", "test")[i % 3] for i in range(IMAGES)]
    manifest = manifests.build("bench", {"id": ids, "label": ["a", "b"] * (IMAGES // 2), "split": splits})
    cores = os.cpu_count() or 1
    backbones = {f"raw:{m}": load_backbone(f"raw:{m}") for m in ("32x32", "24x24", "16x16", "8x8")}
    count = iter(range(10**9))

    def ours(names: list[str]) -> float:
        home = Home(folder / f"cache-{next(count)}")
        chosen = {n: backbones[n] for n in names}
        return seconds(lambda: extract(manifest, root, chosen, home, Settings(batch=32, workers=cores)))

    def bare() -> float:
        with ProcessPoolExecutor(cores) as pool:
            list(pool.map(int, range(cores)))  # the pool is up before the clock starts, unlike ours
            return seconds(lambda: list(pool.map(decode_bare, [root / i for i in ids], chunksize=8)))

    def shared() -> float:
        return sum(ours([n]) for n in backbones) / ours(list(backbones))

    return {
        "extract": ("bare decode-and-resize on all cores / embedx extract", lambda: bare() / ours(["raw:16x16"])),
        "shared decode": ("four backbones in four runs / in one run", shared),
    }


@click.command()
@click.option("--repeats", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="results/bench/foundation.json", show_default=True)
def main(repeats: int, out: Path) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measures = storage(folder) | pipeline(folder)
        report = {}
        for measure, (what, ratio) in measures.items():
            ratio()  # once to warm the page cache and the imports
            runs = [ratio() for _ in range(repeats)]
            report[measure] = {"ratio": statistics.median(runs), "what": what, "runs": runs}
            print(f"{measure:14} {report[measure]['ratio']:6.2f}  ({min(runs):.2f} to {max(runs):.2f})  {what}")
    out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    write_text(out, json.dumps({"machine": machine, "measures": report}, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
