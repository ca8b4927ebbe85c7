"""From the answers of a head to its figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedx.repair.answers import Answers
from embedx.repair.descent import Change
from embedx.repair.records import Figures, Moved
from embedx.statistics import Interval, Sample, percentile


@dataclass(frozen=True, eq=False)
class Measured:
    """The test rows without the concept: (n,) labels, codes of `classes`; the target's code; the original's answers.

    clusters  (n,) whose these rows are, where several may be one's; None: each is its own
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    target: int
    before: Answers
    clusters: np.ndarray | None = None

    @property
    def of_target(self) -> np.ndarray:
        """(n,) bool."""
        return self.labels == self.target

    def figures(self, concept: Answers, rows: Answers, whose: np.ndarray | None = None) -> Figures:
        """Of one head, by its answers on the test images of the concept, with whose they are, and on these rows."""
        own, said = self.of_target, rows.said == self.target
        by_class = self._by_class(rows.right)
        worst = int(np.nanargmin(by_class))
        return Figures(
            concept=share(concept.right, whose), concept_rank=float(np.median(concept.rank)) + 1,
            top1=self._share(rows.right), top5=self._share(rows.rank < 5),
            others=self._share(rows.right, own) if own.any() else None,
            said_target=self._share(said, ~own), worst_class=float(by_class[worst]),
            worst_class_name=self.classes[worst],
        )  # fmt: skip

    def moved(self, rows: Answers, change: Change) -> Moved:
        """How far one head is from the original, by its answers on these rows."""
        before, weight = self.before.right, change.weight
        drop = self._by_class(before) - self._by_class(rows.right)
        worst = int(np.nanargmax(drop))
        return Moved(
            kl=float(rows.forward.mean(dtype=np.float64)), kl_95=percentile(rows.forward, 0.95),
            reverse=float(rows.reverse.mean(dtype=np.float64)), reverse_95=percentile(rows.reverse, 0.95),
            lost=int(np.count_nonzero(before & ~rows.right)), gained=int(np.count_nonzero(~before & rows.right)),
            worst_drop=float(drop[worst]), worst_drop_class=self.classes[worst],
            weight=float(np.linalg.norm(weight)), target_weight=float(np.linalg.norm(weight[self.target])),
            target_bias=float(change.beta[self.target]),
        )  # fmt: skip

    def _share(self, hits: np.ndarray, among: np.ndarray | slice = slice(None)) -> Interval:
        """The share of hits (n,) bool among some of the rows."""
        return share(hits[among], taken(self.clusters, among))

    def _by_class(self, right: np.ndarray) -> np.ndarray:
        """(k,) accuracy of every class, NaN without rows."""
        k = len(self.classes)
        n, hits = np.bincount(self.labels, minlength=k), np.bincount(self.labels, weights=right, minlength=k)
        return np.divide(hits, n, out=np.full(k, np.nan), where=n > 0)


def taken(clusters: np.ndarray | None, rows: np.ndarray | slice) -> np.ndarray | None:
    """Whose some of the rows are; None where each is its own."""
    return None if clusters is None else clusters[rows]


def share(hits: np.ndarray, clusters: np.ndarray | None = None) -> Interval:
    """The share of rows (n,) bool that are hits, with Wilson's interval, or that of `Sample` for rows in clusters."""
    return Sample(hits, clusters).proportion()
