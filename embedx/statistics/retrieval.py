"""How many of the rows that are sought stand at the top of an order, beside what a random order would find there.

n rows are ordered, m of them are sought, and `found` of these are among the first k. Precision at k is found / k, the
base rate m / n, and the lift their ratio.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom

from embedx.statistics.intervals import LEVEL, Interval, percentile_limits, wilson


def random_precision(n: int, sought: int, k: int, level: float = LEVEL) -> tuple[float, float]:
    """The range that holds the precision at k of a random order with probability `level` at least, exactly.

    Of a random order, found follows the hypergeometric law P(found = a) = C(m, a) C(n - m, k - a) / C(n, k).
    """
    law = hypergeom(n, sought, k)
    return float(law.ppf((1 - level) / 2) / k), float(law.ppf((1 + level) / 2) / k)


def random_p(n: int, sought: int, k: int, found: int) -> float:
    """Chance that the first k rows of a random order hold `found` of those sought or more, exactly (Fisher 1935)."""
    return float(hypergeom.sf(found - 1, n, sought, k))


def lift(found: int, k: int, sought: int, n: int) -> Interval:
    """Precision at k over the base rate, with an interval; n are the first k rows. Some row has to be sought.

    With p = found / k of the first rows, q = (m - found) / (n - k) of all others, w = k / n and r = q / p, the lift is
    1 / (w + (1 - w) r), which falls with r: the limits are those of r, a ratio of two independent proportions (see
    `ratio_limits`). It lies between 0 and n / k.
    """
    if k == n:
        return Interval(1.0, 1.0, 1.0, k)
    w, value = k / n, (found / k) / (sought / n)
    least, most = ratio_limits(sought - found, n - k, found, k)
    return Interval(value, 1 / (w + (1 - w) * most), 1 / (w + (1 - w) * least), k)


def ratio_limits(a: int, n: int, b: int, m: int, level: float = LEVEL) -> tuple[float, float]:
    """Limits of (a / n) / (b / m), a ratio of independent proportions; the upper one is infinite where b is 0.

    MOVER-R of Wilson's limits l, u of both (Donner and Zou 2012, with the roots written so that nothing is divided by a
    difference near 0): with p = a / n, q = b / m,

        low = l_p (2p - l_p) / (p q + sqrt((p q)^2 - l_p u_q (2p - l_p) (2q - u_q)))
        high = (p q + sqrt((p q)^2 - u_p l_q (2p - u_p) (2q - l_q))) / (l_q (2q - l_q))
    """
    p, q = a / n, b / m
    (low_p, high_p), (low_q, high_q) = wilson(a, n, level), wilson(b, m, level)
    below = p * q + np.sqrt(max(0.0, (p * q) ** 2 - low_p * high_q * (2 * p - low_p) * (2 * q - high_q)))
    above = p * q + np.sqrt(max(0.0, (p * q) ** 2 - high_p * low_q * (2 * p - high_p) * (2 * q - low_q)))
    low = float(low_p * (2 * p - low_p) / below) if a else 0.0
    return low, float(above / (low_q * (2 * q - low_q))) if b else np.inf


def found_at(sought: np.ndarray, scores: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """(m,) how many of the rows sought (n,) are among the k of the highest scores (n,), for each k; ties in order."""
    return np.cumsum(sought[np.argsort(-scores, kind="stable")])[ks - 1]


def precision_ratios(
    sought: np.ndarray, scores: tuple[np.ndarray, np.ndarray], ks: np.ndarray, rng: np.random.Generator, draws: int
) -> list[Interval | None]:
    """For each k, precision at k by the first of two scores over that by the second, of the same n rows.

    Limits: percentiles of a bootstrap of the rows, in which both orders are cut at k again; half a row is added to
    either count, so that no draw divides by 0, and the value lies within them. None where the second finds no row.
    """
    orders = [np.argsort(-s, kind="stable") for s in scores]
    n, drawn = len(sought), np.empty((draws, 2, len(ks)))
    for i in range(draws):
        times = np.bincount(rng.integers(n, size=n), minlength=n)
        for j, order in enumerate(orders):
            drawn[i, j] = _found_in_sample(times[order], sought[order], ks)
    counts = [found_at(sought, s, ks) for s in scores]
    ratios: list[Interval | None] = []
    for at, k in enumerate(ks):
        a, b = (int(c[at]) for c in counts)
        if not b:
            ratios.append(None)
            continue
        low, high = percentile_limits((drawn[:, 0, at] + 0.5) / (drawn[:, 1, at] + 0.5))
        ratios.append(Interval(a / b, min(low, a / b), max(high, a / b), int(k)))
    return ratios


def _found_in_sample(times: np.ndarray, sought: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """(m,) rows sought among the first k of a sample that holds each row of an order so many `times`."""
    rows, hits = np.cumsum(times), np.cumsum(times * sought)
    at = np.searchsorted(rows, ks)  # the row in which k is reached; of its copies, not all may be needed
    return hits[at] - (rows[at] - ks) * sought[at]
