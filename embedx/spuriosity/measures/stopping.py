"""Where tuning stops, and the rows that decide it or report on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedx.evaluation.split import Part
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.statistics import Interval, Stratum, auroc_interval

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

BETWEEN = 15
"""Values of C that a step of the front is refined by."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows that heads are judged on.

    before   predictions of the head before tuning
    classes  those with a ranking and two rows at least
    strata   the two ends of each of them, weighted so that the sum of their means is the mean gap over classes
    """

    part: Part
    before: Predictions
    classes: tuple[int, ...]
    strata: tuple[Stratum, ...]

    @classmethod
    def of(cls, ranking: Ranking, part: Part, before: Predictions, measured: float) -> Judged:
        """Ends of `measured` rows, a number or a fraction. Raises `SpuriosityError` where no class has two rows."""
        ranked = RankedRows.of(ranking, [before])
        rows = np.searchsorted(part.ids, ranked.ids)
        strata: list[Stratum] = []
        for start, size, k in zip(ranked.starts, ranked.sizes, ranked.places(measured), strict=True):
            strata += [(rows[start + size - k : start + size], 1.0), (rows[start : start + k], -1.0)]
        each = 1 / len(ranked.sizes)
        return cls(part, before, tuple(map(int, ranked.labels)), tuple((r, w * each) for r, w in strata))

    @property
    def untouched(self) -> np.ndarray:
        """(1, n) codes that the head before tuning predicts."""
        return self.before.predicted[None]

    def gaps(self, hits: np.ndarray) -> np.ndarray:
        """(m,) mean gap over classes of heads that are right or wrong as in hits (m, n)."""
        return sum((w * hits[:, rows].mean(axis=1) for rows, w in self.strata), np.zeros(len(hits)))

    def not_positive(self) -> tuple[int, ...]:
        """Classes whose gap, of the head before tuning, is not above 0."""
        hits = self.hits(self.untouched)[0]
        ends = zip(self.strata[::2], self.strata[1::2], strict=True)
        gaps = [hits[high].mean() - hits[low].mean() for (high, _), (low, _) in ends]
        return tuple(c for c, gap in zip(self.classes, gaps, strict=True) if gap <= 0)

    def hits(self, codes: np.ndarray) -> np.ndarray:
        """Whether predicted codes (..., n) are right."""
        return codes == self.part.y


def halved(part: Part) -> tuple[Part, Part]:
    """Two halves of equal classes and spuriosity: the rows of a class in order of spuriosity go by turns.

    Where subjects are known, they go by turns with all their rows, by the mean spuriosity of these.
    """
    first = half_of(part)
    return part.take(np.flatnonzero(first)), part.take(np.flatnonzero(~first))


def half_of(part: Part) -> np.ndarray:
    """(n,) bool: the rows of the first of two halves, see `halved`."""
    assert part.spuriosity is not None
    if part.subjects is not None:
        _, subject, rows = np.unique(part.subjects, return_inverse=True, return_counts=True)
        label, score = (np.bincount(subject, of) / rows for of in (part.y, np.nan_to_num(part.spuriosity, nan=np.inf)))
        first = np.zeros(len(rows), dtype=bool)
        first[np.lexsort((score, label))[::2]] = True
        return first[subject]
    first = np.zeros(len(part), dtype=bool)
    first[np.lexsort((part.spuriosity, part.y))[::2]] = True
    return first


def stopped(gaps: Sequence[float] | np.ndarray, target: float) -> tuple[int, bool]:
    """Index of the first gap within the target on either side of 0, else of the nearest to 0; and whether one was."""
    near = np.abs(np.asarray(gaps))
    met = near <= target + 1e-12
    return int(met.argmax() if met.any() else near.argmin()), bool(met.any())


def finer(Cs: Sequence[float], fronts: Sequence[np.ndarray], target: float) -> list[float]:
    """More C between the last whose gap lies beyond the target and the next, where that has jumped over it.

    fronts  of every trial the gaps (1 + len(Cs),), that of the untouched head first
    """
    more: set[float] = set()
    for gaps in fronts:
        _, met = stopped(gaps, target)
        jumps = np.flatnonzero(np.sign(gaps[1:-1]) * np.sign(gaps[2:]) < 0)
        if not met and len(jumps):
            between = np.geomspace(Cs[jumps[0]], Cs[jumps[0] + 1], BETWEEN + 2)[1:-1]
            more.update(float(C) for C in between)
    return sorted(more)


def recovered(part: Part, classes: Sequence[str]) -> dict[str, Interval]:
    """{class: AUROC of low spuriosity for the rows of its smallest group}; classes of one group are left out."""
    areas, scores = {}, part.spuriosity
    assert scores is not None
    for c, name in enumerate(classes):
        rows = np.flatnonzero((part.y == c) & ~np.isnan(scores))
        groups, sizes = np.unique(part.groups[rows], return_counts=True)
        if len(groups) > 1:
            whose = None if part.subjects is None else part.subjects[rows]
            areas[name] = auroc_interval(part.groups[rows] == groups[sizes.argmin()], -scores[rows], whose)
    return areas
