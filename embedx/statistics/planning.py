"""What a test set can find: test sets drawn from rates that are taken as true, of any size and with any difference.

Means of a group's rows are drawn as normal variables, with the heads' variances and correlations in that group; all
sizes and differences are met with the same draws, so that shares of them change smoothly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from embedx.statistics.intervals import wilson
from embedx.statistics.paired_minima import Pairs

LEADING = 3
"""Rivals, those that gain most, that are drawn; the others, which hardly decide, only count."""
DRAWS, FEWER, GROUPS = 1000, 200, 8
"""Test sets that are drawn, and the least that are: fewer with more than so many groups, whose pairs go with k^2."""
POWER = 0.8
"""Share of test sets in which so many rows are to decide."""
CLEAR = 0.99
"""Level of the intervals that tell a group apart from the worst."""
MOST = 100
"""Times the rows of a group that are asked for at most."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Rates that are taken as true, of a head and after it its rivals, m heads in all.

    n            (g,) independent rows that each group's are worth, its `rows` where they are independent
    rates        (m, g) accuracies
    correlation  (g, m, m) of the heads' answers to one row of a group
    rivals       how many there are, those included that are left out here
    rows         (g,) rows of each group; None: n
    """

    n: np.ndarray
    rates: np.ndarray
    correlation: np.ndarray
    rivals: int
    rows: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        first: np.ndarray,
        rivals: np.ndarray,
        sizes: np.ndarray,
        worth: np.ndarray | None = None,
        paired: np.ndarray | None = None,
    ) -> Truth:
        """As found: correctness in 0..1 of a head (n,) and of its rivals (j, n), rows in the order of their groups.

        Rates are those with two rows added, one right and one wrong, and correlations likewise: see `Pairs`, also for
        what rows are worth (j, g) where they come in clusters.
        """
        rows = sizes[sizes > 0].astype(float)
        starts = np.concatenate([[0], np.cumsum(rows.astype(int))[:-1]])
        gains = np.add.reduceat(rivals, starts, axis=1) / rows
        leading = np.argsort(-gains.min(axis=1), kind="stable")[:LEADING]
        hits = np.vstack([first, rivals[leading]]).astype(float)
        means = np.add.reduceat(hits, starts, axis=1) / rows
        square = np.add.reduceat((hits[:, None] - hits[None]) ** 2, starts, axis=2) / rows
        n = rows if worth is None else worth[leading][:, sizes > 0].min(axis=0)
        more, apart = n + 2, means[:, None] - means[None]
        rates = (means * n + 1) / more
        own = rates * (1 - rates)
        differing = (square * n + 2) / more - (apart * n / more) ** 2
        if paired is not None:  # of one row of the worth of accuracies
            differing[0, 1:] *= n / paired[leading][:, sizes > 0]
            differing[1:, 0] = differing[0, 1:]
        together = (own[:, None] + own[None] - differing) / 2 / np.sqrt(own[:, None] * own[None])
        i = np.arange(len(hits))
        together[i, i] = 1.0
        return cls(n, rates, np.moveaxis(np.clip(together, -1, 1), -1, 0), len(rivals), rows)

    @property
    def difference(self) -> float:
        """The largest of the rivals' minima minus the head's."""
        least = self.rates.min(axis=1)
        return float(least[1:].max() - least[0])

    def shifted(self, difference: float) -> Truth | None:
        """The same with all rivals better or worse by as much as makes the best gain `difference`; None if none can."""
        rates = self.rates.copy()
        rates[1:] = np.clip(rates[1:] + difference - self.difference, 0.0, 1.0)
        moved = replace(self, rates=rates, correlation=_possible(self.correlation, rates))
        return moved if abs(moved.difference - difference) < 1e-9 else None

    def found(self, margin: float, level: float) -> tuple[float, float]:
        """Shares of test sets that refute, at a level, that the best gains the margin or more, and that at most."""
        values, vectors = np.linalg.eigh(self.correlation)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
        draws = int(np.clip(DRAWS * (GROUPS / len(self.n)) ** 2, FEWER, DRAWS))
        noise = np.random.default_rng(0).standard_normal((draws, len(self.n), len(self.rates)))
        spread = np.sqrt(self.rates * (1 - self.rates))
        drawn = self.rates + np.einsum("gij,rgj->rig", root, noise) * spread / np.sqrt(self.n)
        drawn = np.clip(drawn, 0.0, 1.0)
        first, rivals = np.broadcast_arrays(drawn[:, :1], drawn[:, 1:])
        apart, d = self.rates[1:] - self.rates[0], rivals - first
        covariance = self.correlation[:, 0, 1:].T * spread[0] * spread[1:]
        square = np.maximum(spread[0] ** 2 + spread[1:] ** 2 - 2 * covariance + apart**2, np.abs(d))
        pairs = Pairs(np.broadcast_to(self.n, d.shape), first, rivals, (square + d) / 2, (square - d) / 2, square)
        at_least, at_most = pairs.best_refuted(margin, level, self.rivals)
        return float(at_least.mean()), float(at_most.mean())

    def rows_needed(self, margin: float, level: float, power: float = POWER) -> np.ndarray | None:
        """(g,) rows to add to each group so that so many test sets decide between the sides of the margin.

        Every group that may be the worst of the head or of the best rival gets the same number of rows, where it has
        fewer; those that are clearly better, by `wilson`, keep theirs. None where `MOST` times the rows do not do.
        Where rows come in clusters, those added are of further clusters, as large as those that there are.
        """
        side = int(self.difference > margin)
        best = 1 + int(self.rates[1:].min(axis=1).argmax())
        near = np.zeros(len(self.n), bool)
        for rates in self.rates[[0, best]]:
            low = np.array([wilson(rate * n, n, CLEAR)[0] for rate, n in zip(rates, self.n, strict=True)])
            near |= low <= rates.min()
        least, most = np.log(self.n[near].min()), np.log(MOST * self.n[near].max())

        def sizes(log: float) -> np.ndarray:
            return np.where(near, np.maximum(self.n, np.round(np.exp(log))), self.n)

        def enough(log: float) -> bool:
            return replace(self, n=sizes(log)).found(margin, level)[side] >= power

        if enough(least):
            return np.zeros(len(self.n), int)
        if not enough(most):
            return None
        while most - least > 0.02:
            half = (least + most) / 2
            least, most = (least, half) if enough(half) else (half, most)
        each = 1.0 if self.rows is None else self.rows / self.n
        return np.ceil((sizes(most) - self.n) * each - 1e-9).astype(int)


def _possible(correlation: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Correlations (g, m, m) of answers as near as answers of such rates (m, g) can have them."""
    p, r = rates.T[:, :, None], rates.T[:, None, :]
    spread = np.sqrt(p * (1 - p) * r * (1 - r))
    both = np.clip(p * r + correlation * spread, np.maximum(p + r - 1, 0.0), np.minimum(p, r))
    return np.divide(both - p * r, spread, out=np.zeros_like(both), where=spread > 0)
