"""One pass over a feature cache: verified blocks of rows, means of features by class, single columns of every row.

A thread reads and verifies the next blocks while one is worked on: memory stays at a few blocks of 4 MiB, whatever the
size of the file. Blocks that hold no wanted row are not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from embedx.data.manifest import Manifest
from embedx.data.status import Status
from embedx.errors import SpuriosityError
from embedx.evaluation.split import rows_in
from embedx.store import FeatureCache, Rows

AHEAD = 3
"""Blocks that are read while one is worked on."""

Progress = Callable[[int, int, str], None]
Codes = Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]


def silent(done: int, total: int, what: str = "") -> None:
    """No progress."""


def stream(
    manifest: Manifest, cache: FeatureCache, wanted: np.ndarray | None = None, progress: Progress = silent
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows (m,), X (m, dim)) of all wanted rows that are ok, in order: indices into the manifest, features as stored.

    wanted  (n,) bool over the rows of the manifest, by default all
    Raises `CacheError` for a damaged block, or when a row of the manifest is not in the cache.
    """
    at = rows_in(manifest, cache)
    usable = cache.status[at] == Status.OK
    rows = np.flatnonzero(usable if wanted is None else usable & wanted)
    at, size = at[rows], cache.header.block_rows  # increasing, as the ids of both are sorted
    blocks = np.unique(at // size)
    ends, first = np.searchsorted(at, (blocks + 1) * size).tolist(), 0
    with _ahead(cache.chunks(at)) as chunks:
        for done, (block, last, chunk) in enumerate(zip(blocks.tolist(), ends, chunks, strict=True)):
            progress(done, len(blocks), "")
            offsets = at[first:last] - block * size
            yield rows[first:last], chunk.features if len(offsets) == len(chunk.features) else chunk.features[offsets]
            first = last
    progress(len(blocks), len(blocks), "")


@contextmanager
def _ahead(chunks: Iterator[Rows]) -> Iterator[Iterator[Rows]]:
    """The same, of which the next few are read by a thread."""
    with ThreadPoolExecutor(1) as pool:
        following = deque(pool.submit(next, chunks, None) for _ in range(AHEAD))

        def read() -> Iterator[Rows]:
            while (chunk := following.popleft().result()) is not None:
                following.append(pool.submit(next, chunks, None))
                yield chunk

        yield read()


@dataclass(frozen=True, eq=False)
class Means:
    """Mean features of groups of rows, for m groupings by k classes.

    means  (m, k, dim) float64, NaN for a group without rows
    sizes  (m, k) rows
    """

    means: np.ndarray
    sizes: np.ndarray


def class_means(
    manifest: Manifest, cache: FeatureCache, wanted: np.ndarray, codes: Codes, progress: Progress = silent
) -> Means:
    """Means over the wanted rows, grouped by `codes`; sums are in float64.

    codes  (rows (m,), X (m, dim) float32) -> for each grouping (m,) class of every row, -1 for none
    Raises `SpuriosityError` when there is no row.
    """
    import torch

    k, sums, sizes = len(manifest.classes), [], []
    for rows, stored in stream(manifest, cache, wanted, progress):
        X = torch.from_numpy(stored).float()
        given, X = codes(rows, X.numpy()), X.double()
        if not sums:
            sums = [torch.zeros((k + 1, X.shape[1]), dtype=torch.float64) for _ in given]  # the last is for no class
            sizes = [np.zeros(k + 1, dtype=np.int64) for _ in given]
        for j, of in enumerate(given):
            sums[j].index_add_(0, torch.from_numpy(np.where(of < 0, k, of)), X)
            sizes[j] += np.bincount(np.where(of < 0, k, of), minlength=k + 1)
    if not sums:
        raise SpuriosityError(f"{cache.path} has no usable row of those to be averaged; extract {manifest.name} again")
    n = np.array(sizes)[:, :-1]
    total = np.stack([s.numpy()[:-1] for s in sums])
    return Means(np.divide(total, n[:, :, None], out=np.full_like(total, np.nan), where=n[:, :, None] > 0), n)


def columns(
    manifest: Manifest,
    cache: FeatureCache,
    table: np.ndarray,
    wanted: np.ndarray | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """(n, m) float32: of every row the features that `table` (k, m) lists for its label; NaN where there are none.

    `table` is padded with -1. Rows that are not wanted or not ok are NaN.
    """
    values = np.full((len(manifest), table.shape[1]), np.nan, dtype=np.float32)
    for rows, X in stream(manifest, cache, wanted, progress):
        values[rows] = gathered(X, table[manifest.labels[rows]])
    return values


def gathered(X: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(n, m) float32: X[i, features[i, j]], NaN where a feature is -1."""
    values = np.take_along_axis(X, np.maximum(features, 0), axis=1).astype(np.float32)
    values[features < 0] = np.nan
    return values


def table(listed: Sequence[Sequence[int]]) -> np.ndarray:
    """(k, m) of lists of features, one per class, padded with -1."""
    padded = np.full((len(listed), max(map(len, listed), default=0)), -1, dtype=np.int64)
    for row, features in zip(padded, listed, strict=True):
        row[: len(features)] = features
    return padded
