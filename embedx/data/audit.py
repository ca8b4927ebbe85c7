"""What is wrong with a dataset: rows that cannot be read, counts not as published, values alike, equal images.

Every row is decoded under the policy of `embedx.data.images`, in all cores. Two rows are the same image when their
files have the same bytes: between splits that is a leak, with different labels a contradiction, and within a split a
mere repetition. Images that were encoded anew are not noticed. Where a column is named as the cluster, a subject of it
that lies in more than one split is a leak as well.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from embedx.data.images import decode
from embedx.data.manifest import SPLITS, Alike, Manifest, alike
from embedx.data.sources import Source
from embedx.data.status import Status
from embedx.errors import ManifestError
from embedx.files import landing

CHUNK = 128  # rows that a process decodes at a time
AHEAD = 4  # chunks under way per process, so that millions of rows are never all in flight
NAMED = 3  # equal images named in one finding

Chunk = tuple[np.ndarray, np.ndarray, dict[int, str]]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    kind  missing, unreadable, count, alike, leak, subject, contradiction or repetition
    """

    id: str
    kind: str
    detail: str


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found.

    status   (n,) uint8   `Status` of every row
    reasons  {row: why it failed}
    same     rows of equal bytes, one array of two or more for every such image
    hashes   (n, 32) uint8 SHA-256 of the bytes of every row, zeros where none could be read
    """

    manifest: Manifest
    status: np.ndarray
    reasons: dict[int, str]
    same: list[np.ndarray]
    hashes: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        """(k,) rows that could not be read."""
        return np.flatnonzero(self.status != Status.OK)

    @cached_property
    def leaks(self) -> list[np.ndarray]:
        """Equal images that lie in more than one split."""
        return [rows for rows in self.same if len(set(self.manifest.splits[rows].tolist())) > 1]

    @cached_property
    def subjects(self) -> list[np.ndarray]:
        """Rows of subjects that lie in more than one split, one array for each; none without a cluster."""
        if self.manifest.subjects is None:
            return []
        codes = self.manifest.subjects.codes
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
        return [rows for rows in parts if (self.manifest.splits[rows] != self.manifest.splits[rows[0]]).any()]

    @cached_property
    def contradictions(self) -> list[np.ndarray]:
        """Equal images with different labels."""
        return [rows for rows in self.same if len(set(self.manifest.labels[rows].tolist())) > 1]

    @cached_property
    def repetitions(self) -> dict[str, int]:
        """Rows of every split that repeat an earlier one of the same split."""
        splits = [self.manifest.splits[rows] for rows in self.same]
        return {
            name: sum(max(int(np.count_nonzero(s == code)) - 1, 0) for s in splits) for code, name in enumerate(SPLITS)
        }

    @cached_property
    def alike(self) -> list[Alike]:
        """Values that look alike and are told apart."""
        return alike(self.manifest)

    @property
    def sound(self) -> bool:
        """Nothing was found that makes results wrong; repetitions within a split do not."""
        wrong = (self.manifest.differences(), self.alike, self.leaks, self.subjects, self.contradictions)
        return not (len(self.failed) or any(wrong))

    def findings(self) -> Iterator[Finding]:
        """Everything, one at a time: counts, values alike, failed rows, then equal images and split subjects."""
        yield from (Finding("", "count", line) for line in self.manifest.differences())
        yield from (Finding("", "alike", str(pair)) for pair in self.alike)
        for row in self.failed:
            yield Finding(str(self.manifest.ids[row]), Status(self.status[row]).name.lower(), self.reasons[int(row)])
        for rows in self.same:
            splits, labels = self.manifest.splits[rows], self.manifest.labels[rows]
            for kind, codes in (("leak", splits), ("contradiction", labels)):
                for code in np.unique(codes):
                    others = rows[codes != code]
                    if len(others):
                        yield from (self._like(kind, row, others[:NAMED], len(others)) for row in rows[codes == code])
            for code in np.unique(splits):
                alike = rows[splits == code]
                if len(alike) > 1:
                    few = alike[: NAMED + 1]
                    yield from (self._like("repetition", r, few[few != r][:NAMED], len(alike) - 1) for r in alike)

        subjects = self.manifest.subjects
        if subjects is None:
            return
        for rows in self.subjects:
            splits, same = self.manifest.splits[rows], f"{subjects.column} {subjects.names[subjects.codes[rows[0]]]} as"
            for code in np.unique(splits):
                others = rows[splits != code]
                yield from (self._like("subject", r, others[:NAMED], len(others), same) for r in rows[splits == code])

    def _like(self, kind: str, row: int, others: np.ndarray, n: int, same: str = "bytes as") -> Finding:
        named = ", ".join(f"{self.manifest.ids[o]} ({self._place(o)})" for o in others)
        more = f" and {n - len(others):,} more" if n > len(others) else ""
        return Finding(str(self.manifest.ids[row]), kind, f"{self._place(row)}; same {same} {named}{more}")

    def _place(self, row: int) -> str:
        return f"{SPLITS[self.manifest.splits[row]]}, {self.manifest.classes[self.manifest.labels[row]]}"


def audit(
    manifest: Manifest, source: Source, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Audit:
    """Read and decode every row of a dataset, in as many processes as there are cores; 0: in this one."""
    n = len(manifest)
    hashes, status, reasons = np.zeros((n, 32), np.uint8), np.zeros(n, np.uint8), {}
    done = 0
    wordings: dict[str, str] = {}
    for start, (found_hashes, found_status, found_reasons) in _chunks(manifest.ids, source, workers):
        stop = start + len(found_status)
        hashes[start:stop], status[start:stop] = found_hashes, found_status
        # One string for all rows that failed alike: it may be all of them.
        reasons.update({start + row: wordings.setdefault(why, why) for row, why in found_reasons.items()})
        done += stop - start
        if progress is not None:
            progress(done, n)
    return Audit(manifest, status, reasons, same_bytes(hashes, status == Status.OK), hashes)


def same_bytes(hashes: np.ndarray, usable: np.ndarray) -> list[np.ndarray]:
    """Rows with equal hashes (n, 32), by the usable rows alone: ascending arrays of two or more, by their first row."""
    rows = np.flatnonzero(usable)
    words = np.ascontiguousarray(hashes).view("<u8")[rows]
    order = np.lexsort((rows, *words.T))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(order)))
    copies = [rows[order[s : s + k]] for s, k in zip(starts[lengths > 1], lengths[lengths > 1], strict=True)]
    return sorted(copies, key=lambda f: int(f[0]))


def write(report: Audit, path: Path) -> None:
    """All findings as a table: id, finding, detail."""
    with landing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("id", "finding", "detail"))
        table.writerows((f.id, f.kind, f.detail) for f in report.findings())
        file.flush()


def _chunks(ids: np.ndarray, source: Source, workers: int | None) -> Iterator[tuple[int, Chunk]]:
    """(first row, what was found) of every chunk, in order."""
    starts = range(0, len(ids), CHUNK)
    workers = min(len(starts), _cores() if workers is None else workers)
    if workers == 0 or len(starts) == 1:
        yield from ((s, _decoded(source, ids[s : s + CHUNK].tolist())) for s in starts)
        return
    # Not forked: a progress bar runs in a thread, and what it holds would be held in the copy for ever.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting: deque[tuple[int, Future[Chunk]]] = deque()
        try:
            for s in starts:
                waiting.append((s, pool.submit(_decoded, source, ids[s : s + CHUNK].tolist())))
                if len(waiting) == AHEAD * workers:
                    yield waiting[0][0], waiting.popleft()[1].result()
            while waiting:
                yield waiting[0][0], waiting.popleft()[1].result()
        except BrokenProcessPool as error:
            raise ManifestError(
                "a process died while it decoded images, for want of memory or by a defect of a decoder; try "
                "--workers 1, or --workers 0 to see it happen"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decoded(source: Source, ids: list[str]) -> Chunk:
    """Hashes (k, 32), status (k,) and {place: reason} of some rows."""
    hashes, status, reasons = np.zeros((len(ids), 32), np.uint8), np.zeros(len(ids), np.uint8), {}
    for place, row_id in enumerate(ids):
        row = decode(source, row_id, "vector" if row_id.endswith(".npy") else "image")
        hashes[place], status[place] = np.frombuffer(row.content_hash, np.uint8), row.status
        if row.status != Status.OK:
            reasons[place] = row.reason
    return hashes, status, reasons


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
