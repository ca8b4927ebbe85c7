"""Several methods on several datasets: mean ranks, whether the methods differ at all, and which pairs do.

Demsar 2006, "Statistical comparisons of classifiers over multiple data sets", with what came after: pairs are told
apart by Wilcoxon's signed ranks and Holm's correction, not by mean ranks, because the difference of two mean ranks
changes with the other methods that are compared (Benavoli, Corani and Mangili 2016).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
from scipy.stats import rankdata, studentized_range, wilcoxon

from embedx.statistics.corrections import holm
from embedx.statistics.nulls import p_from_draws

LEVEL = 0.05
"""A p-value below it tells methods apart."""
COUNTED, DRAWN = 50_000, 20_000
"""So many orders of the ranks, or fewer, are counted one by one for Friedman's test; of more, so many are drawn."""


@dataclass(frozen=True)
class PairOfMethods:
    """Two methods over all datasets.

    first, second  columns of the scores, first < second
    difference     mean over datasets of the score of the first minus that of the second
    wins, losses   datasets where the first is above, below
    p              of Wilcoxon's signed ranks, two-sided; exact up to 13 datasets, and up to 50 without ties
    holm           p, corrected for all pairs
    """

    first: int
    second: int
    difference: float
    wins: int
    losses: int
    p: float
    holm: float


@dataclass(frozen=True)
class RanksOverDatasets:
    """k methods on n datasets.

    mean_ranks           (k,) mean over datasets of the rank among the methods: 1 is the best, ties share their mean
    friedman             Friedman's statistic chi^2_F, corrected for ties
    iman_davenport       F_F = (n - 1) chi^2_F / (n (k - 1) - chi^2_F), infinite where all datasets have one order
    p                    that no method differs, by the orders of the ranks within datasets: all of them up to
                         `COUNTED`, else `DRAWN` random ones; the F distribution of F_F finds too much for few datasets
                         (6 to 7 % of null tables at 5 %, for 2 to 6 datasets)
    critical_difference  of two mean ranks, by Nemenyi at 5 %: q sqrt(k (k + 1) / 6 n)
    pairs                every pair of methods, in the order of the columns
    """

    datasets: int
    mean_ranks: tuple[float, ...]
    friedman: float
    iman_davenport: float
    p: float
    critical_difference: float
    pairs: tuple[PairOfMethods, ...]

    @property
    def least_p(self) -> float:
        """The smallest p that Friedman's test can give here, k!^(1 - n): all datasets have one order."""
        return math.exp((1 - self.datasets) * math.lgamma(len(self.mean_ranks) + 1))

    @property
    def least_holm(self) -> float:
        """The smallest corrected p that a pair can have: 2^(1 - n) times the number of pairs, at most 1."""
        return min(1.0, len(self.pairs) * 2.0 ** (1 - self.datasets))

    @property
    def too_few_for_pairs(self) -> bool:
        """No pair can be told apart from so few datasets, whatever their scores: 5 or fewer, for two methods."""
        return self.least_holm >= LEVEL

    @property
    def best_first(self) -> tuple[int, ...]:
        """The columns by mean rank; equal ones in their order."""
        return tuple(int(j) for j in np.argsort(self.mean_ranks, kind="stable"))

    @property
    def alike(self) -> tuple[tuple[int, ...], ...]:
        """Neighbours by mean rank of which no pair is told apart (Holm's p at 5 % or above), as long as can be."""
        told = {(pair.first, pair.second) for pair in self.pairs if pair.holm < LEVEL}
        order, stretches, reached = self.best_first, [], 0
        for start in range(len(order)):
            end = start + 1
            while end < len(order) and not any(
                (min(a, order[end]), max(a, order[end])) in told for a in order[start:end]
            ):
                end += 1
            if end > max(reached, start + 1):
                stretches.append(order[start:end])
                reached = end
        return tuple(stretches)


def ranks_over_datasets(scores: np.ndarray) -> RanksOverDatasets:
    """Compare the methods of scores (n_datasets, n_methods), of which higher are better.

    Datasets are the units: give one score for each, such as a mean over seeds. Raises `ValueError` for fewer than two
    methods, no dataset, or a score that is missing or not finite.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or scores.shape[0] < 1 or scores.shape[1] < 2:
        raise ValueError(f"scores have the shape {scores.shape}; expected one or more datasets x two or more methods")
    if not np.isfinite(scores).all():
        i, j = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(f"method {j} has no finite score on dataset {i} (counted from 0); leave one of them out")
    n, k = scores.shape
    ranks = rankdata(-scores, axis=1)
    statistic = _friedman(ranks.sum(axis=0), ranks)
    rest = n * (k - 1) - statistic
    ratio = float((n - 1) * statistic / rest) if rest > 1e-9 * n else math.inf
    return RanksOverDatasets(
        n, tuple(float(r) for r in ranks.mean(axis=0)), statistic, ratio, _friedman_p(ranks, statistic),
        critical_difference(n, k), _pairs(scores),
    )  # fmt: skip


def critical_difference(n: int, k: int) -> float:
    """Nemenyi's at 5 % for mean ranks of k methods on n datasets; q is the studentised range over sqrt(2)."""
    q = studentized_range.ppf(1 - LEVEL, k, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(k * (k + 1) / (6 * n)))


def _friedman(sums: np.ndarray, ranks: np.ndarray) -> np.ndarray | float:
    """(k - 1) sum_j (R_j - n (k + 1) / 2)^2 / (sum_ij r_ij^2 - n k (k + 1)^2 / 4), of rank sums R (..., k)."""
    n, k = ranks.shape
    spread = float((ranks**2).sum() - n * k * (k + 1) ** 2 / 4)
    if spread < 1e-9:  # every dataset has all methods alike
        return np.zeros(sums.shape[:-1]) if sums.ndim > 1 else 0.0
    value = (k - 1) * ((sums - n * (k + 1) / 2) ** 2).sum(axis=-1) / spread
    return value if sums.ndim > 1 else float(value)


def _friedman_p(ranks: np.ndarray, statistic: float) -> float:
    """Chance of such a statistic, or a larger one, when every dataset has its ranks in a random order."""
    n, k = ranks.shape
    if (n - 1) * math.lgamma(k + 1) > math.log(COUNTED) + 1e-9:
        orders = np.random.default_rng(0).permuted(np.broadcast_to(ranks, (DRAWN, n, k)), axis=2)
        return p_from_draws(statistic, np.asarray(_friedman(orders.sum(axis=1), ranks)))
    sums = ranks[:1]  # the first dataset may keep its order: only orders relative to each other count
    for row in ranks[1:]:
        sums = (sums[:, None] + np.array(list(permutations(row)))).reshape(-1, k)
    return float(np.mean(_friedman(sums, ranks) >= statistic - 1e-9))


def _pairs(scores: np.ndarray) -> tuple[PairOfMethods, ...]:
    columns = list(combinations(range(scores.shape[1]), 2))
    differences = [scores[:, a] - scores[:, b] for a, b in columns]
    p = [_wilcoxon_p(d) for d in differences]
    return tuple(
        PairOfMethods(a, b, float(d.mean()), int((d > 0).sum()), int((d < 0).sum()), one, corrected)
        for (a, b), d, one, corrected in zip(columns, differences, p, holm(p), strict=True)
    )


def _wilcoxon_p(d: np.ndarray) -> float:
    """Two-sided; ranks of differences of zero are shared by both signs, as Demsar does."""
    if not d.any():
        return 1.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sample size too small for normal approximation")
        outcome: Any = wilcoxon(d, zero_method="zsplit")
        return float(outcome.pvalue)
