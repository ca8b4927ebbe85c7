"""Bootstrap samples, stratified, without touching rows: what is drawn is how often each value comes.

Where strata are small, m - 1 of m rows are drawn and scaled up (Rao and Wu 1988), as m of m underestimate the variance
by 1 - 1/m. A stratum of one row has no variance of its own: such strata are collapsed, as in surveys (Cochran 1977,
section 5A.12). Those of one weight are drawn from all of them together; one that is the only one of its weight is drawn
from all rows that count the same way, up or down. Drawn 1 of 1, they would have no variance, and an interval no width.

Where several rows are of one cluster, clusters are drawn in place of rows: what each adds to the linearised sum, times
a normal variable of its own, all over one that makes them Student's, so that draws have the covariance of the sums
between clusters (`linearised` has the formula).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from embedx.statistics.linearised import Clustered, codes_of, freedom

REPLICATES = 10_000

Stratum = tuple[np.ndarray, float]
"""Rows (m,), and the weight that their mean has."""


def resampled_counts(
    correct: np.ndarray, n: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES
) -> np.ndarray:
    """(replicates, g) correct answers per group in bootstrap samples stratified by group.

    Drawing n_g rows with replacement from a group of which correct_g are right is drawing from Binomial(n_g,
    correct_g / n_g), so no row needs to be touched.
    """
    share = np.divide(correct, n, out=np.zeros(len(n)), where=n > 0)
    return rng.binomial(n, share, size=(replicates, len(n)))


def resampled_sums(
    right: np.ndarray, k: np.ndarray, weights: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES
) -> np.ndarray:
    """(replicates,) sums of weights (c,) x right answers (c,) in bootstrap samples of the k (c,) rows of each class.

    The law of `stratified_draws` for right and wrong. Classes that are alike are drawn at once: their sum is binomial.
    """
    draws, lone = np.zeros(replicates), k == 1
    kinds, counts = np.unique(np.stack([k, right / k, weights])[:, ~lone], axis=1, return_counts=True)
    drawn = kinds[0] - 1
    sums = rng.binomial((drawn * counts).astype(np.int64), kinds[1], size=(replicates, len(counts)))
    draws += sums @ (kinds[2] * kinds[0] / np.maximum(drawn, 1))
    for weight in np.unique(weights[lone]):
        mine = lone & (weights == weight)
        L, pool = int(mine.sum()), mine if mine.sum() > 1 else np.ones(len(k), bool)
        share = right[pool].sum() / k[pool].sum()
        draws += weight * (right[mine].sum() + _scale(L) * (rng.binomial(L, share, replicates) - L * share))
    return draws


def stratified_draws(
    values: np.ndarray, strata: Sequence[Stratum], rng: np.random.Generator, replicates: int = REPLICATES,
    clusters: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """(m, replicates): sums over strata of weight x mean of values (m, n) in bootstrap samples of the rows in them.

    All m share the rows that are drawn. Weights may be negative. Rows of equal values are drawn at once, so that for
    few levels the cost does not grow with the rows.

    clusters  (n,) of any kind, whose the rows are; None: each is its own. One may lie in several strata
    """
    at, w, stratum = rows_of(strata)
    if (cluster := codes_of(clusters, at)) is not None:
        return _draws_of_clusters(values[:, at], Clustered.of(w, cluster, stratum), rng, replicates)
    draws = np.zeros((replicates, len(values)))
    for rows, weight in strata:
        if (size := len(rows)) > 1:
            levels, counts = _levels(values[:, rows])
            if len(counts) > 1:
                times = rng.multinomial(size - 1, counts / size, size=replicates)
                draws += times @ levels.T * (weight / (size - 1))
                continue
        draws += weight * values[:, rows].mean(axis=1)
    for mine, pool, weight in _collapsed(strata):
        levels, counts = _levels(values[:, pool])
        times = rng.multinomial(len(mine), counts / len(pool), size=replicates) - len(mine) * counts / len(pool)
        draws += times @ levels.T * (weight * _scale(len(mine)))
    return draws.T


def rows_of(strata: Sequence[Stratum]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) each, of the rows of all strata: their numbers, their weights in the sum, the number of their stratum."""
    sizes = [len(rows) for rows, _ in strata]
    w = [weight / size for size, (_, weight) in zip(sizes, strata, strict=True)]
    return np.concatenate([rows for rows, _ in strata]), np.repeat(w, sizes), np.repeat(np.arange(len(sizes)), sizes)


def _draws_of_clusters(values: np.ndarray, rows: Clustered, rng: np.random.Generator, replicates: int) -> np.ndarray:
    """(m, replicates) sums of values (m, n), with the degrees of freedom of their mean."""
    totals, mean = rows.totals(values), values.mean(axis=0)
    degrees = max(1.0, freedom(np.abs(rows.w), rows.residuals(mean), rows.cluster))
    student = np.sqrt(degrees / rng.chisquare(degrees, replicates))
    return (values @ rows.w)[:, None] + totals @ rng.standard_normal((rows.count, replicates)) * student


def _collapsed(strata: Sequence[Stratum]) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """For each weight of strata of one row: their rows, the rows that are drawn in place of these, and the weight."""
    lone = [(int(rows[0]), weight) for rows, weight in strata if len(rows) == 1]
    for weight in dict.fromkeys(w for _, w in lone):
        mine = np.array([row for row, w in lone if w == weight])
        alike = [rows for rows, w in strata if (w > 0) == (weight > 0)]
        yield mine, mine if len(mine) > 1 else np.concatenate(alike), weight


def _levels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns of values (m, n) that differ, and how often each comes."""
    return np.unique(np.round(values.astype(np.float64), 9), axis=1, return_counts=True)


def _scale(drawn: int) -> float:
    """What a deviation of so many rows drawn from themselves is multiplied by; one is drawn from others."""
    return float(np.sqrt(drawn / (drawn - 1))) if drawn > 1 else 1.0
