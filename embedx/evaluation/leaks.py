"""Images and subjects that lie in more than one split: what is seen while fitting or choosing flatters the report.

Images are equal when their files have the same bytes, whatever their ids; the cache keeps a digest of each. Subjects
are those of the column that the manifest names as the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.data.status import Status
from embedx.data.units import units
from embedx.evaluation.split import rows_in
from embedx.store import FeatureCache

PAIRS = ((0, 1), (0, 2), (1, 2))
Pair = tuple[str, str]


@dataclass(frozen=True)
class Leaks:
    """By pair of splits, earlier first: rows of the later one that show what the earlier one has.

    images    (id there, id here) of rows with the same bytes
    subjects  (subject, id) of rows of a subject that the earlier split has too; `column` says what a subject is
    without   (n,) bool rows of the manifest that are left out, so that none of these is left; None: they are kept
    dropped   {split: rows left out of it}; None where they are kept
    """

    images: Mapping[Pair, Sequence[tuple[str, str]]] = field(default_factory=dict)
    subjects: Mapping[Pair, Sequence[tuple[str, str]]] = field(default_factory=dict)
    column: str = ""
    without: np.ndarray | None = None
    dropped: Mapping[str, int] | None = None

    def facts(self) -> dict[str, Mapping[str, int]]:
        """For the record of a run: what is left, or how many rows were left out."""
        if self.dropped is not None:
            return {"dropped": self.dropped}
        counts = ({"/".join(p): len(rows) for p, rows in by.items()} for by in (self.images, self.subjects))
        return dict(zip(("shared_images", "shared_subjects"), counts, strict=True))

    def remarks(self) -> list[str]:
        """For the user, a line each."""
        lines = [
            f"{len(pairs):,} images of {b} are in {a} as well (for example {pairs[0][1]} = {pairs[0][0]})"
            for (a, b), pairs in self.images.items()
        ]
        lines += [
            f"{len(pairs):,} images of {b} are of subjects ({self.column}) in {a} as well (for example "
            f"{pairs[0][1]}: {pairs[0][0]})"
            for (a, b), pairs in self.subjects.items()
        ]
        if self.dropped is None:
            return [f"note: {line}; they flatter every head, so leave them out with --drop-leaks" for line in lines]
        gone = ", ".join(f"{n:,} of {split}" for split, n in self.dropped.items() if n) or "none, as there are no leaks"
        return [*(f"note: {line}" for line in lines), f"note: rows left out by --drop-leaks: {gone}"]


def leaks(manifest: Manifest, cache: FeatureCache, *, drop: bool = False) -> Leaks:
    """What lies in two splits, of the rows with features; looks at ids and hashes and reads no features.

    drop  leave it out of the earlier split; test stays as it is
    """
    images = shared_images(manifest, cache)
    subjects = {} if manifest.subjects is None else shared_subjects(manifest, cache)
    column = "" if manifest.subjects is None else manifest.subjects.column
    if not drop:
        return Leaks(images, subjects, column)
    without = leaking(manifest, cache)
    counts = {split: int(np.count_nonzero(without & (manifest.splits == s))) for s, split in enumerate(SPLITS[:2])}
    return Leaks(images, subjects, column, without, counts)


def leaking(manifest: Manifest, cache: FeatureCache) -> np.ndarray:
    """(n,) bool rows to leave out, so that no image and no subject lies in two splits: test stays as it is.

    A row of train goes when its unit, of equal bytes and equal subjects and all that these link, has a row in val or
    test, a row of val when it has one in test. Rows without features count for nothing.
    """
    content, usable = _contents(manifest, cache)
    columns = [content]
    if manifest.subjects is not None:
        columns.append(np.where(usable, manifest.subjects.codes, -1))
    unit = units(columns, len(manifest))
    last = np.zeros(int(unit.max(initial=0)) + 1, dtype=np.int64)
    np.maximum.at(last, unit[usable], manifest.splits[usable])
    return usable & (manifest.splits < last[unit])


def shared_images(manifest: Manifest, cache: FeatureCache) -> dict[Pair, list[tuple[str, str]]]:
    """Images that lie in two splits under different ids: {("train", "test"): [(id, id), ...]}, by their bytes' digest.

    Every row of the later split is counted once. Rows without bytes on record (zeros) are left out.
    """
    content, _ = _contents(manifest, cache)
    return {
        pair: [(str(manifest.ids[i]), str(manifest.ids[j])) for i, j in rows]
        for pair, rows in _in_both(manifest, content)
    }


def shared_subjects(manifest: Manifest, cache: FeatureCache) -> dict[Pair, list[tuple[str, str]]]:
    """Rows whose subject lies in two splits: {("train", "test"): [(subject, id in test), ...]}; a cluster is named."""
    subjects = manifest.subjects
    assert subjects is not None
    codes = np.where(cache.status[rows_in(manifest, cache)] == Status.OK, subjects.codes, -1)
    return {
        pair: [(subjects.names[subjects.codes[j]], str(manifest.ids[j])) for _, j in rows]
        for pair, rows in _in_both(manifest, codes)
    }


def _in_both(manifest: Manifest, codes: np.ndarray) -> list[tuple[Pair, list[tuple[int, int]]]]:
    """Pairs of splits with a code in common, and (a row of the earlier, row of the later) for each of the latter."""
    pairs = []
    for a, b in PAIRS:
        earlier, later = (np.flatnonzero((manifest.splits == s) & (codes >= 0)) for s in (a, b))
        row_of = np.full(int(codes.max(initial=0)) + 1, -1)
        row_of[codes[earlier]] = earlier
        if len(twins := later[row_of[codes[later]] >= 0]):
            rows = zip(row_of[codes[twins]].tolist(), twins.tolist(), strict=True)
            pairs.append(((SPLITS[a], SPLITS[b]), list(rows)))
    return pairs


def _contents(manifest: Manifest, cache: FeatureCache) -> tuple[np.ndarray, np.ndarray]:
    """(n,) one code for equal bytes, -1 where none are on record or the row has no features; and which rows have."""
    rows = rows_in(manifest, cache)
    digest, usable = cache.content_hash[rows], cache.status[rows] == Status.OK
    words = np.ascontiguousarray(digest).view("<u8")
    order, codes = np.lexsort(words.T), np.zeros(len(words), dtype=np.int64)
    codes[order[1:]] = np.cumsum((words[order[1:]] != words[order[:-1]]).any(axis=1))
    return np.where(digest.any(axis=1) & usable, codes, -1), usable
