"""Sums over strata of weight x mean of the rows in it, such as the gap between two ends of a ranking: intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedx.statistics.clusters import difference_rows, effective_rows
from embedx.statistics.differences import difference, effective_difference
from embedx.statistics.intervals import Interval, effective_proportion, percentile_limits
from embedx.statistics.linearised import Clustered, codes_of
from embedx.statistics.resampling import REPLICATES, Stratum, rows_of, stratified_draws


def stratified_sum(
    values: np.ndarray, strata: Sequence[Stratum], rng: np.random.Generator, replicates: int = REPLICATES, *,
    clusters: np.ndarray | None = None, changes: bool = False,
) -> Interval:  # fmt: skip
    """sum over strata of weight x mean of the values (n,) in it, with percentiles of `stratified_draws`.

    clusters  (n,) of any kind, whose the rows are; None: each is its own. Where several are of one, that which counts
              upwards and that which counts downwards each by `end_of_clusters`, put together by `difference` with
              their `correlation`
    changes   values are differences in -1..1 of what is in 0..1 else
    """
    total, at = float(sum(weight * values[rows].mean() for rows, weight in strata)), rows_of(strata)[0]
    if clusters is None or codes_of(clusters, at) is None:
        low, high = percentile_limits(stratified_draws(values[None], strata, rng, replicates)[0])
        return Interval(total, min(low, total), max(high, total), len(at))
    up, down = ([(rows, sign * w) for rows, w in strata if sign * w > 0] for sign in (1, -1))
    high, low = (end_of_clusters(values, of, clusters, changes=changes) for of in (up, down))
    together = correlation(values, up, down, clusters) if up and down else 0.0
    return difference(high, low, value=total, correlation=together, most=2.0 if changes else 1.0)


def end_of_clusters(
    values: np.ndarray, strata: Sequence[Stratum], clusters: np.ndarray, *, changes: bool = False
) -> Interval:
    """A sum over strata of weights above 0, of rows in clusters, with the interval for the rows that it is worth.

    As `Sample` has it, or of changes as `paired_rows`; 0 without strata.
    """
    if not strata:
        return Interval(0.0, 0.0, 0.0, 0)
    at, w, stratum = rows_of(strata)
    x, whole, of_cluster = values[at].astype(float), float(w.sum()), clusters[at]
    w /= whole
    value, n = float(sum(weight * values[rows].mean() for rows, weight in strata)) / whole, len(at)
    if changes:
        rows = difference_rows(x, w, of_cluster, stratum)
        one = effective_difference(value, float(w @ x**2), rows, n)
    else:
        value = float(np.clip(value, 0, 1))
        one = effective_proportion(value, effective_rows(x, w, of_cluster, stratum), n)
    return Interval(whole * one.value, whole * one.low, whole * one.high, n)


def correlation(values: np.ndarray, up: Sequence[Stratum], down: Sequence[Stratum], clusters: np.ndarray) -> float:
    """Of what clusters add to two sums; 0 where it is above 0, as few clusters are no ground for narrower intervals.

    A cluster with rows in both ends, right in one and wrong in the other, moves their difference twice.
    """
    codes, sums = np.unique(clusters, return_inverse=True)[1], []
    for strata in (up, down):
        at, w, stratum = rows_of(strata)
        rows = Clustered(w, codes[at], stratum, int(codes.max()) + 1)
        sums.append(rows.totals(values[None, at].astype(float))[0])
    size = float(np.linalg.norm(sums[0]) * np.linalg.norm(sums[1]))
    return float(np.clip(sums[0] @ sums[1] / size, -1, 0)) if size > 0 else 0.0
