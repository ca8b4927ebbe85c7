"""The smallest of several proportions, and the difference of two such minima on the same rows.

A bootstrap of a minimum is biased, the more the closer the groups are: what is here assumes no order of the groups.

With p_g and r_g the true accuracies of a first and a second head in group g, the difference of the minima is

    D = min_h r_h - min_g p_g        against a margin M.

D >= M says that for some g (where the first head is worst) r_h - p_g >= M for every h. To refute it, every g needs an
h with r_h - p_g < M. Each of these is a comparison of two means, paired for h = g and of different rows otherwise;
within one g the level is shared among the h (Bonferroni), across g nothing is lost, as all have to be refuted (Berger
1982, intersection-union tests). D <= M goes the same way round, and limits for D come from turning the tests about:

    D < max_g min_h U_gh,        D > min_h max_g L_gh.

`benchmarks/README.md` has coverages and errors by simulation, beside those of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from embedx.statistics.intervals import LEVEL, Interval, clopper_pearson, percentile_limits
from embedx.statistics.resampling import REPLICATES, resampled_counts

SAME = 0.5
"""Share of the level for the paired comparison within a group, the likeliest to decide; the others share the rest."""


def minimum(correct: np.ndarray, n: np.ndarray, level: float = LEVEL, *, rows: np.ndarray | None = None) -> Interval:
    """Smallest of k proportions correct / n, with an interval for the smallest of the true ones; n is of the smallest.

    With Clopper-Pearson limits L(a), U(a) at one-sided error a and t = (1 - level) / 2:

        low = min_g L_g(t)        high = min_g U_g(1 - (1 - t)^(1 / k))

    The truly worst group's own L is above the true minimum with probability t at most; all k upper limits hold at once
    with probability 1 - t (Sidak 1967). So it covers with probability `level` at least, however close the groups are.

    rows  (k,) how many independent rows those of each group are worth, by default n
    """
    t, worth = (1 - level) / 2, n if rows is None else rows
    low, high = clopper_pearson(_worth(correct, n, rows), worth, t, 1 - (1 - t) ** (1 / len(n)))
    return _smallest(correct, n, float(low.min()), float(high.min()))


def bootstrap_minimum(
    correct: np.ndarray,
    n: np.ndarray,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
    *,
    rows: np.ndarray | None = None,
) -> Interval:
    """Smallest of the proportions with the percentiles of the smallest in bootstrap samples stratified by group.

    It misses the truth where groups are about equally hard; it is what the field reports.

    rows  (k,) how many independent rows those of each group are worth, by default n; to the next whole number
    """
    drawn = n if rows is None else np.rint(rows).astype(np.int64)
    right = _worth(correct, n, None if rows is None else drawn)
    draws = resampled_counts(right, drawn, rng, replicates) / drawn
    return _smallest(correct, n, *percentile_limits(draws.min(axis=1)))


def _worth(correct: np.ndarray, n: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Right answers of so many `rows` at the same accuracy: all where all are right, which rounding could miss."""
    return correct if rows is None else np.where(correct == n, rows, correct / n * rows)


def _smallest(correct: np.ndarray, n: np.ndarray, low: float, high: float) -> Interval:
    worst = (correct / n).argmin()
    return Interval(float(correct[worst] / n[worst]), low, high, int(n[worst]))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two heads group by group: rows n, mean correctness p of the first and r of the second, each (g,) float.

    gain, loss  (g,) mean of the positive and of the negative part of the difference r - p of a row
    square      (g,) mean square of that difference
    """

    n: np.ndarray
    p: np.ndarray
    r: np.ndarray
    gain: np.ndarray
    loss: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray, sizes: np.ndarray) -> Pairs:
        """From the correctness (n,) in 0..1 of two heads on the same rows, which lie in the order of their groups.

        sizes  (g,) rows of each group; empty groups count for nothing
        """
        sizes = sizes[sizes > 0]
        d, starts = second - first, np.concatenate([[0], np.cumsum(sizes)[:-1]])
        columns = (first, second, np.maximum(d, 0), np.maximum(-d, 0), d * d)
        return cls(sizes.astype(float), *(np.add.reduceat(x.astype(float), starts) / sizes for x in columns))

    def difference(self, level: float = LEVEL) -> Interval:
        """D, the second head's minimum minus the first's, and what of -1..1 the tests at `level` do not refute.

        n is that of the smaller of the two worst groups.
        """
        worst, other = int(self.p.argmin()), int(self.r.argmin())
        value, tail = float(self.r[other] - self.p[worst]), (1 - level) / 2
        low = _turn(lambda M: self.p_values(M)[1] <= tail, -1.0, value)
        high = _turn(lambda M: self.p_values(M)[0] > tail, value, 1.0)
        return Interval(value, low, high, int(min(self.n[worst], self.n[other])))

    def p_values(self, margin: float) -> tuple[float, float]:
        """Of D >= margin and of D <= margin."""
        k = len(self.n)
        D = self.r[None, :] - self.p[:, None] - margin
        smallest = 0.5 / np.maximum(self.n[None, :], self.n[:, None])
        se = np.sqrt(self._variance(margin))
        share = np.full((k, k), (1 - SAME) / max(k - 1, 1))
        np.fill_diagonal(share, SAME if k > 1 else 1.0)
        below, above = ndtr((D + smallest) / se) / share, ndtr((smallest - D) / se) / share
        return min(1.0, float(below.min(axis=1).max())), min(1.0, float(above.min(axis=0).max()))

    def _variance(self, margin: float) -> np.ndarray:
        """(g, h) variance of the estimate of r_h - p_g: the larger of two.

        One is estimated with two rows added, one in favour of each side (Agresti and Caffo 2000; paired, Bonett and
        Price 2012). The other is what it would be if the difference were the margin: that of Farrington and Manning
        1990 for different rows, of Tango 1998 for the same. Either alone errs too often, on opposite sides.
        """
        more = self.n + 2
        p, r = (self.p * self.n + 1) / more, (self.r * self.n + 1) / more
        shrunk = (r * (1 - r) / more)[None, :] + (p * (1 - p) / more)[:, None]
        variance = np.maximum(
            shrunk, _different(self.r[None, :], self.n[None, :], self.p[:, None], self.n[:, None], margin)
        )
        mean = (self.gain - self.loss) * self.n / more
        paired = ((self.square * self.n + 2) / more - mean**2) / more
        np.fill_diagonal(variance, np.maximum(paired, _same(self.gain, self.loss, self.n, margin)))
        return variance


def _turn(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where `holds`, true at first, ceases to be, to a millionth; `low` where it never was."""
    for _ in range(20):
        half = (low + high) / 2
        low, high = (half, high) if holds(half) else (low, half)
    return (low + high) / 2


def _same(gain: np.ndarray, loss: np.ndarray, n: np.ndarray, margin: float) -> np.ndarray:
    """Variance of gain - loss if its mean were the margin: the likeliest loss q then solves a quadratic equation."""
    B, C = -gain - loss + (2 - gain + loss) * margin, -loss * margin * (1 - margin)
    q = (np.sqrt(np.maximum(B * B - 8 * C, 0.0)) - B) / 4
    return np.maximum(2 * q + margin * (1 - margin), 0.0) / n


def _different(r: np.ndarray, n: np.ndarray, p: np.ndarray, m: np.ndarray, margin: float) -> np.ndarray:
    """Variance of r - p, of n and m rows, if its mean were the margin: the likeliest r then solves a cubic equation."""
    t = m / n
    a, b = 1 + t, -(1 + t + r + t * p + margin * (t + 2))
    c, d = margin**2 + margin * (2 * r + t + 1) + r + t * p, -r * margin * (1 + margin)
    v = b**3 / (27 * a**3) - b * c / (6 * a**2) + d / (2 * a)
    u = np.copysign(np.sqrt(np.maximum(b * b / (9 * a * a) - c / (3 * a), 0.0)), v)
    cosine = np.divide(v, u**3, out=np.ones_like(v), where=u != 0)
    w = (np.pi + np.arccos(np.clip(cosine, -1, 1))) / 3
    x = np.clip(2 * u * np.cos(w) - b / (3 * a), max(margin, 0.0), min(1.0, 1 + margin))
    y = np.clip(x - margin, 0.0, 1.0)
    return x * (1 - x) / n + y * (1 - y) / m
