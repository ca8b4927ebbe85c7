"""How long `embedx compare` takes at the size of Waterbirds, in fits of scikit-learn's on the same machine.

`python -m benchmarks.comparison [--labels noisy] [--labels separable] [--backbones 6] [--seeds 10]` writes simulated
caches with Waterbirds' counts by group and split, compares every head on them, and prints the duration over that of one
`LogisticRegression` fit on the training rows (the mean over the 13 values of C that the heads try), and what each head
took. `results/bench/comparison.json`.

Noisy labels, and places, are those of `benchmarks.probes`: a few directions plus as much noise; the rows of every group
are taken from a larger pool. Separable ones have a direction each that nearly tells them, so that scikit-learn needs
few iterations.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.probes import drawn, labels
from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.evaluation.compare import ComparisonSettings, compare
from embedx.evaluation.heads import every_head
from embedx.evaluation.split import join
from embedx.evaluation.verdict import verdicts
from embedx.files import write_text
from embedx.probes import CS
from embedx.store import CacheWriter, Header, Rows, open_cache
from embedx.workspace import Workspace

COUNTS = {"train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}
GOAL = 300
POOL = 40_000
"""Rows of which those of every group are drawn, some 10,000 of each; the largest group has 6,220."""


def waterbirds() -> Manifest:
    """Ids, labels, places and splits in Waterbirds' numbers."""
    kinds = [(label, place) for label in ("landbird", "waterbird") for place in ("land", "water")]
    rows = [
        (*kind, split)
        for split, counts in COUNTS.items()
        for kind, n in zip(kinds, counts, strict=True)
        for _ in range(n)
    ]
    label, place, split = zip(*rows, strict=True)
    ids = [f"{i:05d}.jpg" for i in range(len(rows))]
    return manifests.build("simulated", {"id": ids, "label": label, "place": place, "split": split})


def noisy(manifest: Manifest, dim: int, seed: int) -> np.ndarray:
    """Rows whose labels and places a few directions tell, up to noise."""
    rng = np.random.default_rng(seed)
    X, label = drawn(POOL, dim, 2, seed)
    place, rows = labels(X, 2, rng), np.empty(len(manifest), int)
    for bird, water in product((0, 1), repeat=2):
        wanted = (manifest.labels == bird) & (manifest.codes["place"] == water)
        rows[wanted] = rng.choice(np.flatnonzero((label == bird) & (place == water)), wanted.sum(), replace=False)
    return X[rows]


def separable(manifest: Manifest, dim: int, seed: int) -> np.ndarray:
    """Rows whose bulk is `drawn`, with a direction for the label and a stronger one for the place."""
    rng = np.random.default_rng(seed)
    n = len(manifest)
    X, _ = drawn(n, dim, 2, seed)
    for codes, strength in ((manifest.labels, 2.5), (manifest.codes["place"], 4.0)):
        along = strength * (2 * codes - 1) * rng.normal(1, 0.5, n)  # some rows look like the other class
        X += np.outer(along, rng.standard_normal(dim) / np.sqrt(dim)).astype(np.float32)
    return X


KINDS = {"noisy": noisy, "separable": separable}


def simulate(workspace: Workspace, manifest: Manifest, name: str, X: np.ndarray) -> None:
    """Write a cache of rows in the manifest's order."""
    n, digest = len(manifest), manifest.ids_digest
    header = Header(name, X.shape[1], "float32", digest, 0, n, n, {"identity": {}, "conditions": {}})
    hashes = np.random.default_rng(0).integers(0, 256, (n, 32), dtype=np.uint8)
    with CacheWriter(workspace.cache(manifest.name, name), header, manifest.ids) as writer:
        writer.append(Rows(manifest.ids, X, np.zeros(n, np.uint8), hashes))


@click.command()
@click.option("--backbones", default=6, show_default=True)
@click.option("--seeds", default=10, show_default=True)
@click.option("--dim", default=2048, show_default=True)
@click.option("--labels", "kinds", type=click.Choice(tuple(KINDS)), multiple=True, default=tuple(KINDS))
@click.option("--out", type=click.Path(path_type=Path), default="results/bench/comparison.json", show_default=True)
def main(backbones: int, seeds: int, dim: int, kinds: tuple[str, ...], out: Path) -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")  # scikit-learn's on convergence
    report = {kind: measured(kind, backbones, seeds, dim) for kind in kinds}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"wrote {out}")


def measured(kind: str, backbones: int, seeds: int, dim: int) -> dict[str, Any]:
    """One comparison on one kind of labels: the entry of the report."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, manifest = Workspace(Path(folder)), waterbirds()
        names = [f"simulated-{i}" for i in range(backbones)]
        for i, name in enumerate(names):
            simulate(workspace, manifest, name, KINDS[kind](manifest, dim, i))
        train = join(manifest, open_cache(workspace, manifest, names[0])).train
        X, fits = StandardScaler().fit_transform(train.X), []
        for C in CS:
            began = time.perf_counter()
            LogisticRegression(C=C, max_iter=5000).fit(X, train.y)
            fits.append(time.perf_counter() - began)
        one = statistics.mean(fits)
        heads = every_head(manifest)
        began = time.perf_counter()
        runs = compare(
            workspace, manifest, names, heads,
            ComparisonSettings(seeds=seeds, folder=Path(folder) / "results", lenient=True),
            notice=print,
        )  # fmt: skip
        whole = time.perf_counter() - began
        found = verdicts(runs)
    spent: dict[str, float] = defaultdict(float)  # by the process that fitted
    for run in runs:
        spent[run.head] += sum(run.timings.values())
    ratio = whole / one
    print(f"{kind}: {len(runs):,} runs of {len(heads)} heads on {backbones} backbones: {whole:.0f} s")
    print(f"that is {ratio:.0f} fits of {one:.2f} s (goal: at most {GOAL})")
    for head, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {head:22} {seconds:7.1f} s")
    for v in found:
        print(f"  {v.backbone}: {v.verdict} ({v.difference.value:+.3f} by {v.rival})")
    return {"ratio": ratio, "goal": GOAL, "runs": [ratio], "seconds": whole, "fit": one, "heads": spent}


if __name__ == "__main__":
    main()
