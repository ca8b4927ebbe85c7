"""How long it takes to see whether the images of a cache changed, beside what the file system itself takes to answer.

`python -m benchmarks.changed [--rows 1000000]` (part of `make bench-extract`): so many empty files in folders of 1,000,
a cache with a row for each, and `extract`, which finds it complete. The limit is `os.stat` of every file, one after
the other; the alternative, as there is no other way to be sure, is to read and hash every file.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.data.sources import Folder
from embedx.extract import Settings, extract, load_backbone
from embedx.extract.encoding import conditions
from embedx.extractors import Backbone
from embedx.store import CacheWriter, Header, Rows
from embedx.workspace import Workspace

SPEC, TOGETHER, IN_FOLDER, GOAL = "raw:vector-16", 8192, 1000, 10.0
LONG_AGO = 10**18 + 1  # ns: a time after which nothing can have changed unnoticed


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def files(root: Path, n: int) -> list[str]:
    ids = [f"{i // IN_FOLDER:05d}/{i % IN_FOLDER:03d}.npy" for i in range(n)]
    for start in range(0, n, IN_FOLDER):
        (root / ids[start]).parent.mkdir(parents=True)
    for row_id in ids:
        path = f"{root}/{row_id}"
        os.close(os.open(path, os.O_CREAT))
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return ids


def cache(workspace: Workspace, manifest: Manifest, source: Folder, backbone: Backbone) -> None:
    n = len(manifest)
    provenance = {
        "spec": SPEC, "identity": {**backbone.identity, "dataset_version": ""}, "licence": "none", "created": "",
        "conditions": conditions("cpu", [backbone], compiled=False) | {"batch": 32, "threads": 1},
    }  # fmt: skip
    header = Header(SPEC, backbone.dim, "float32", manifest.ids_digest, 0, n, n, provenance)
    empty = np.frombuffer(hashlib.sha256(b"").digest(), np.uint8)
    with CacheWriter(workspace.cache(manifest.name, SPEC), header, manifest.ids) as writer:
        for start in range(0, n, TOGETHER):
            ids = manifest.ids[start : start + TOGETHER]
            k = len(ids)
            features = np.ones((k, backbone.dim), np.float32)
            writer.append(Rows(ids, features, np.zeros(k, np.uint8), np.tile(empty, (k, 1)), {}, source.stamps(ids)))


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(rows: int, repeats: int) -> None:
    """Print seconds for a tenth of the rows and for all of them, and the ratios."""
    backbone = load_backbone(SPEC)
    for n in (rows // 10, rows):
        with tempfile.TemporaryDirectory() as folder:
            root, workspace = Path(folder) / "files", Workspace(Path(folder) / "cache")
            ids = files(root, n)
            columns = {"id": ids, "label": ["a", "b"] * (n // 2), "split": ["train"] * n}
            manifest, source = manifests.build("big", columns), Folder(root)
            cache(workspace, manifest, source, backbone)

            def check(manifest: Manifest = manifest, source: Folder = source, workspace: Workspace = workspace) -> None:
                (found,), _ = extract(manifest, source, {SPEC: backbone}, workspace, Settings(batch=32))
                assert (found.computed, found.written) == (0, False)

            def stat(root: Path = root, ids: list[str] = ids) -> None:
                for row_id in ids:
                    os.stat(f"{root}/{row_id}")  # noqa: PTH116

            def read(root: Path = root, ids: list[str] = ids) -> None:
                for row_id in ids:
                    hashlib.sha256((root / row_id).read_bytes()).digest()

            runs = [(seconds(check), seconds(stat), seconds(read)) for _ in range(repeats)]
            checked, limit, hashed = (statistics.median(column) for column in zip(*runs, strict=True))
            print(
                f"{n:>9,} rows: {checked:.2f} s (goal for a million: {GOAL:g} s), {checked / limit:.1f} times as long "
                f"as asking the file system alone, {hashed / checked:.1f} times as fast as reading the (empty) files"
            )


if __name__ == "__main__":
    main()
