"""The difference of the smallest accuracies over groups of two heads, on the same rows, and of the best of several.

With p_g and r_g the true accuracies of a first and a second head in group g, the difference of the minima is

    D = min_h r_h - min_g p_g        against a margin M.

D >= M says that for some g (where the first head is worst) r_h - p_g >= M for every h. To refute it, these have to be
refuted for every g: across g nothing is lost, as all have to be (Berger 1982, intersection-union tests); within one g
they are tested together (`moment_inequalities`), paired for h = g and of different rows otherwise, with what they
share, the estimate of p_g, as their common factor. D <= M goes the same way round, with p_g and r_h exchanged.

No order of the groups is assumed, and a bootstrap, which is biased for minima, is not needed. `benchmarks/README.md`
has coverages, errors and power by simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from embedx.statistics.corrections import simes
from embedx.statistics.intervals import LEVEL, Interval
from embedx.statistics.moment_inequalities import Inequalities

SAME = 0.4
"""Share of the level for the paired comparison within a group, the likeliest to decide; the others share the rest."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two heads group by group: rows n, mean correctness p of the first and r of the second, each (..., g) float.

    Axes before the last are cases of their own: rivals of the first head, simulated test sets.

    gain, loss  (..., g) mean of the positive and of the negative part of the difference r - p of a row
    square      (..., g) mean square of that difference
    paired      (..., g) rows that this difference is worth; None: n
    """

    n: np.ndarray
    p: np.ndarray
    r: np.ndarray
    gain: np.ndarray
    loss: np.ndarray
    square: np.ndarray
    paired: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        first: np.ndarray,
        second: np.ndarray,
        sizes: np.ndarray,
        worth: np.ndarray | None = None,
        paired: np.ndarray | None = None,
    ) -> Pairs:
        """From the correctness in 0..1 of a head (n,) and of others (..., n) on the same rows, in the order of groups.

        sizes  (g,) rows of each group; empty groups count for nothing
        worth  (..., g) independent rows that the rows of each group are worth, where they are fewer; by default
               `sizes`. All variances come from it, those of differences of the same rows from `paired`
        paired (..., g) likewise what their differences are worth; by default `worth`
        """
        worth = sizes if worth is None else worth
        paired = worth if paired is None else paired
        paired, worth, sizes = paired[..., sizes > 0], worth[..., sizes > 0], sizes[sizes > 0]
        first, second = np.broadcast_arrays(first, second)
        d, starts = second - first, np.concatenate([[0], np.cumsum(sizes)[:-1]])
        columns = (first, second, np.maximum(d, 0), np.maximum(-d, 0), d * d)
        means = [np.add.reduceat(x.astype(float), starts, axis=-1) / sizes for x in columns]
        n, same = (np.broadcast_to(rows.astype(float), means[0].shape) for rows in (worth, paired))
        return cls(n, *means, paired=same)

    def differences(self, level: float = LEVEL) -> list[Interval]:
        """D of every case along the axis before the last, or of the only one, and what of -1..1 the tests leave.

        That is what `p_values` do not refute at `level`. n is that of the smaller of the two worst groups.
        """
        value, tail = self.r.min(axis=-1) - self.p.min(axis=-1), (1 - level) / 2
        low = _turn(lambda M: self.refuted(M, tail)[1], np.full_like(value, -1.0), value)
        high = _turn(lambda M: ~self.refuted(M, tail)[0], value, np.ones_like(value))
        rows = [np.take_along_axis(self.n, x.argmin(axis=-1)[..., None], -1)[..., 0] for x in (self.p, self.r)]
        columns = (np.ravel(x).tolist() for x in (value, low, high, np.minimum(*rows).astype(int)))
        return [Interval(*row) for row in zip(*columns, strict=True)]

    def difference(self, level: float = LEVEL) -> Interval:
        """As `differences` of the best of them: the largest D, with an interval as wide as picking it asks for."""
        each = self.differences(level)
        best, tail = max(each, key=lambda interval: interval.value), (1 - level) / 2
        stacked = self if self.r.ndim > 1 else Pairs(*(x[None] for x in vars(self).values()))
        low = _turn(lambda M: stacked.best_refuted(M, tail)[1], np.array(-1.0), np.array(best.value))
        return replace(best, low=float(low), high=max(interval.high for interval in each))

    def p_values(self, margin: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(...,) each, of D >= margin and of D <= margin; a margin for all, or (...,) one for every case."""
        at_least, at_most = (side.p_values().max(axis=-1) for side in self._sides(margin))
        return at_least, at_most

    def refuted(self, margin: float | np.ndarray, level: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(...,) whether D >= margin and whether D <= margin is refuted at a level of error: p-values up to it."""
        level = np.asarray(level, dtype=float)[..., None]
        at_least, at_most = (np.asarray(side.refuted(level).all(axis=-1)) for side in self._sides(margin))
        return at_least, at_most

    def best_refuted(
        self, margin: float | np.ndarray, level: float, rivals: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(...,) as `refuted` of the best of the heads along the axis before the last: `best_of` of their p-values.

        rivals  how many heads there are, where the worst of them are left out here
        """
        (at_least, at_most), k = self._sides(np.asarray(margin)[..., None]), self.r.shape[-2]
        of = level / (rivals or k)
        some = [at_most.refuted(np.array(i * of)).all(axis=-1).sum(axis=-1) >= i for i in range(1, k + 1)]
        return np.asarray(at_least.refuted(level).all(axis=(-1, -2))), np.any(some, axis=0)

    def _sides(self, margin: float | np.ndarray) -> tuple[Inequalities, Inequalities]:
        """What D >= margin says, (..., g, h) of every g, and what D <= margin says, (..., h, g) of every h."""
        k, M = self.n.shape[-1], np.asarray(margin, dtype=float)[..., None]
        D = self.r[..., None, :] - self.p[..., :, None] - M[..., None]
        smallest = 0.5 / np.maximum(self.n[..., None, :], self.n[..., :, None])
        first, second, same = self._variances()
        s = np.sqrt(self._largest(first, second, same, M))
        share = np.full((k, k), (1 - SAME) / max(k - 1, 1))
        np.fill_diagonal(share, SAME if k > 1 else 1.0)
        common = (first + second - same) / 2
        turned, back = np.swapaxes(D, -1, -2), np.swapaxes(s, -1, -2)
        at_least = Inequalities((D + smallest) / s, D / s, _loadings(first, common, s), share)
        at_most = Inequalities((smallest - turned) / back, -turned / back, _loadings(second, common, back), share)
        return at_least, at_most

    def _variances(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(..., g) each, of the estimates of p_g, r_g and r_g - p_g, with two rows added, one in favour of each side.

        Agresti and Caffo 2000; paired, Bonett and Price 2012.
        """
        more, n = self.n + 2, self._same_rows
        p, r = (self.p * self.n + 1) / more, (self.r * self.n + 1) / more
        mean = (self.gain - self.loss) * n / (n + 2)
        return p * (1 - p) / more, r * (1 - r) / more, ((self.square * n + 2) / (n + 2) - mean**2) / (n + 2)

    @property
    def _same_rows(self) -> np.ndarray:
        return self.n if self.paired is None else self.paired

    def _largest(self, first: np.ndarray, second: np.ndarray, same: np.ndarray, margin: np.ndarray) -> np.ndarray:
        """(..., g, h) variance of the estimate of r_h - p_g: the larger of two.

        One is that of `_variances`. The other is what it would be if the difference were the margin: that of Farrington
        and Manning 1990 for different rows, of Tango 1998 for the same. Either alone errs too often, on opposite sides.
        """
        p, r, n, m = self.p[..., :, None], self.r[..., None, :], self.n[..., None, :], self.n[..., :, None]
        at = _different(*np.broadcast_arrays(r, n, p, m, margin[..., None]))
        variance, i = np.maximum(second[..., None, :] + first[..., :, None], at), np.arange(self.n.shape[-1])
        variance[..., i, i] = np.maximum(same, _same(self.gain, self.loss, self._same_rows, margin))
        return variance


def best_of(at_least: np.ndarray, at_most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values for the best of several heads, along the last axis of theirs: of D >= and D <= margin.

    That the best gains the margin or more is refuted where that is of every head, so the largest counts. That the best
    gains the margin at most is refuted where that is of any head: Simes 1986.
    """
    return at_least.max(axis=-1), simes(at_most)


def _loadings(variance: np.ndarray, common: np.ndarray, s: np.ndarray) -> np.ndarray:
    """(..., g, h) correlation of the differences with the estimate that those of one g share, of such a variance.

    common  (..., g) covariance of the two heads' estimates in a group
    s       (..., g, h) standard errors
    """
    of, i = np.broadcast_to(variance[..., None], s.shape).copy(), np.arange(s.shape[-1])
    of[..., i, i] -= common
    return of / (np.sqrt(variance)[..., None] * s)


def _turn(holds: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where `holds`, true at first, ceases to be, to a millionth, case by case; `low` where it never was."""
    for _ in range(20):
        half = (low + high) / 2
        held = holds(half)
        low, high = np.where(held, half, low), np.where(held, high, half)
    return (low + high) / 2


def _same(gain: np.ndarray, loss: np.ndarray, n: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Variance of gain - loss if its mean were the margin: the likeliest loss q then solves a quadratic equation."""
    B, C = -gain - loss + (2 - gain + loss) * margin, -loss * margin * (1 - margin)
    q = (np.sqrt(np.maximum(B * B - 8 * C, 0.0)) - B) / 4
    return np.maximum(2 * q + margin * (1 - margin), 0.0) / n


def _different(r: np.ndarray, n: np.ndarray, p: np.ndarray, m: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Variance of r - p, of n and m rows, if its mean were the margin: the likeliest r then solves a cubic equation."""
    t = m / n
    a, b = 1 + t, -(1 + t + r + t * p + margin * (t + 2))
    c, d = margin**2 + margin * (2 * r + t + 1) + r + t * p, -r * margin * (1 + margin)
    v = b**3 / (27 * a**3) - b * c / (6 * a**2) + d / (2 * a)
    u = np.copysign(np.sqrt(np.maximum(b * b / (9 * a * a) - c / (3 * a), 0.0)), v)
    cosine = np.divide(v, u**3, out=np.ones_like(v), where=u != 0)
    w = (np.pi + np.arccos(np.clip(cosine, -1, 1))) / 3
    x = np.clip(2 * u * np.cos(w) - b / (3 * a), np.maximum(margin, 0.0), np.minimum(1.0, 1 + margin))
    y = np.clip(x - margin, 0.0, 1.0)
    return x * (1 - x) / n + y * (1 - y) / m
