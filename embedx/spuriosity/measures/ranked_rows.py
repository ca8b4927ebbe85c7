"""Rows of one split by class and rising spuriosity, and what models make of them.

Everything here is counts at the two ends of each class, taken from running sums, so that a thousand classes and a
hundred models are a few array operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedx.data.manifest import SPLITS
from embedx.errors import SpuriosityError
from embedx.spuriosity.measures.predictions import Predictions
from embedx.statistics import codes_of, spearman_by_class

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking


@dataclass(frozen=True, eq=False)
class RankedRows:
    """n rows that the ranking places and that all m models answered, class by class, least spurious first.

    labels     (c,) classes with at least two rows; `sizes` (c,) their rows; `single` those with one row, left out
    ids        (n,); `scores` (n,), never falling within a class
    predicted  (m, n) codes
    clusters   (n,) codes from 0, whose the rows are; None where each is its own, as far as is known
    """

    labels: np.ndarray
    sizes: np.ndarray
    ids: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray
    single: tuple[int, ...] = ()
    clusters: np.ndarray | None = None

    @classmethod
    def of(cls, ranking: Ranking, answers: Sequence[Predictions], among: np.ndarray | None = None) -> RankedRows:
        """Join by id, the classes `among` those given only.

        Raises `SpuriosityError` where labels or splits differ, or where no class has two rows.
        """
        split = answers[0].split
        for a in answers:
            if (a.dataset, a.split) != (ranking.dataset, split):
                raise SpuriosityError(
                    f"answers of {a.model} are of {a.dataset}, split {a.split}, expected {ranking.dataset}, split "
                    f"{split}; take all of one split of the dataset that was ranked"
                )
        wanted = (ranking.splits == SPLITS.index(split)) & (ranking.positions >= 0)
        placed = np.flatnonzero(wanted if among is None else wanted & np.isin(ranking.labels, among))
        placed = placed[np.lexsort((ranking.positions[placed], ranking.labels[placed]))]
        at = _joined(ranking.ids[placed], answers)
        whole = (at >= 0).all(axis=0)
        rows, at = placed[whole], at[:, whole]
        y = ranking.labels[rows]
        for a, of in zip(answers, at, strict=True):
            if len(odd := np.flatnonzero(a.y[of] != y)):
                raise SpuriosityError(
                    f"{ranking.ids[rows[odd[0]]]} has another label in the ranking than in the manifest "
                    f"({len(odd):,} such rows); rank again with `embedx spuriosity rank`"
                )
        labels, inverse, sizes = np.unique(y, return_inverse=True, return_counts=True)
        if not (sizes > 1).any():
            raise SpuriosityError(
                f"{ranking.dataset}: no class has two rows in {split} that are ranked and answered "
                f"({len(rows):,} such rows); annotate features as spurious, or choose another split"
            )
        keep = sizes[inverse] > 1
        predicted = np.stack([a.predicted[of[keep]] for a, of in zip(answers, at, strict=True)])
        single = tuple(int(c) for c in labels[sizes < 2])
        rows = rows[keep]
        clusters = None if ranking.subjects is None else codes_of(ranking.subjects.codes, rows)
        about = (ranking.ids[rows], ranking.scores[rows], predicted, single, clusters)
        return cls(labels[sizes > 1], sizes[sizes > 1], *about)

    @cached_property
    def hits(self) -> np.ndarray:
        """(m, n) bool: right or wrong."""
        return self.predicted == self.row_labels

    @property
    def row_labels(self) -> np.ndarray:
        """(n,) class of every row."""
        return np.repeat(self.labels, self.sizes)

    @property
    def starts(self) -> np.ndarray:
        """(c,) where each class begins."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def totals(self) -> np.ndarray:
        """(m, c) right answers in each class."""
        return np.add.reduceat(self.hits, self.starts, axis=1, dtype=np.int64)

    def places(self, k: float) -> np.ndarray:
        """(c,) rows at each end: k itself, or that fraction of the class, at least 1 and at most half of the class.

        Raises `ValueError` for a k that is neither a whole number from 1 nor a fraction up to 0.5.
        """
        if isinstance(k, float | np.floating):
            if not 0 < k <= 0.5:
                raise ValueError(f"k = {k:g}, expected a fraction of the class up to 0.5, or the ends would meet")
            wanted = np.floor(k * self.sizes + 1e-9).astype(np.int64)
        else:
            if k < 1:
                raise ValueError(f"k = {k}, expected one row at each end at least")
            wanted = np.full(len(self.sizes), k, dtype=np.int64)
        return np.minimum(np.maximum(wanted, 1), self.sizes // 2)

    def tails(self, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, c) right answers among the k (c,) most and among the k least spurious rows of each class."""
        sums, starts, stops = _running(self.hits), self.starts, self.starts + self.sizes
        return sums[:, stops] - sums[:, stops - k], sums[:, starts + k] - sums[:, starts]

    def clustered(self, c: int) -> bool:
        """Whether the c-th class has two rows of one cluster."""
        rows = np.arange(self.starts[c], self.starts[c] + self.sizes[c])
        return codes_of(self.clusters, rows) is not None

    def tied(self, k: np.ndarray) -> np.ndarray:
        """(c,) bool: whether rows of equal score lie on both sides of a border, so that their ids decided."""
        low, high = self.starts + k, self.starts + self.sizes - k
        return (self.scores[low - 1] == self.scores[low]) | (self.scores[high - 1] == self.scores[high])

    def end(self, label: int, k: int, *, most: bool) -> np.ndarray:
        """(k,) numbers of the rows of a class that are most spurious, or least."""
        c = int(np.searchsorted(self.labels, label))
        start, stop = int(self.starts[c]), int(self.starts[c] + self.sizes[c])
        return np.arange(stop - k, stop) if most else np.arange(start, start + k)

    def by_position(self, bins: int) -> np.ndarray:
        """(m, c, bins) accuracy by relative position: row j of n is spread over j/n .. (j + 1)/n, cut into equal bins.

        With n = bins it is row j's correctness; the mean over bins is the accuracy of the class for every n.
        """
        sums = _running(self.hits)
        at = np.linspace(0, 1, bins + 1)[None, :] * self.sizes[:, None]
        whole = np.minimum(at.astype(np.int64), self.sizes[:, None] - 1)
        left = self.starts[:, None] + whole
        reached = sums[:, left] + (at - whole) * (sums[:, left + 1] - sums[:, left])
        return np.diff(reached, axis=2) * (bins / self.sizes[:, None])

    def spearman(self) -> np.ndarray:
        """(m, c) rank correlation of correctness with spuriosity; NaN where either is constant."""
        return spearman_by_class(self.scores, self.hits, self.sizes)


def _running(hits: np.ndarray) -> np.ndarray:
    """(m, n + 1) running sums from 0."""
    sums = np.zeros((len(hits), hits.shape[1] + 1), dtype=np.int64)
    np.cumsum(hits, axis=1, out=sums[:, 1:])
    return sums


def _joined(ids: np.ndarray, answers: Sequence[Predictions]) -> np.ndarray:
    """(m, n) where each id stands in each of the answers, -1 where it does not."""
    places: list[np.ndarray] = []
    for i, a in enumerate(answers):
        if i and np.array_equal(a.ids, answers[i - 1].ids):  # as a rule all models answered the same rows
            places.append(places[-1])
            continue
        index = {row: j for j, row in enumerate(a.ids)}
        places.append(np.fromiter((index.get(row, -1) for row in ids), dtype=np.int64, count=len(ids)))
    return np.stack(places)
