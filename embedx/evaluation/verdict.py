"""Is a good embedding enough? The plain head against the best group-aware head, on the same test rows, per backbone.

With p_g and r_g the true accuracies of the plain head and its rival in group g, the question is about

    D = min_h r_h - min_g p_g        against a margin M.

D >= M says that for some g (where the plain head is worst) r_h - p_g >= M for every h. To refute it, every g needs an
h with r_h - p_g < M. Each of these is a comparison of two means, paired for h = g and of different rows otherwise;
within one g the level is shared among the h (Bonferroni), across g nothing is lost, as all have to be refuted (Berger
1982, intersection-union tests). D <= M goes the same way round, and limits for D come from turning the tests about:

    D < max_g min_h U_gh,        D > min_h max_g L_gh.

No order of the groups is assumed, so the error stays in bounds however close they are, where the bootstrap of a
minimum fails: `docs/verdict.md` has both by simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from embedx import html
from embedx.evaluation.metrics import LEVEL, Interval
from embedx.evaluation.runs import Run, unpack

MARGIN = 0.02
ERROR = 0.05
SAME = 0.5
"""Share of the level for the paired comparison within a group, the likeliest to decide; the others share the rest."""


@dataclass(frozen=True)
class Verdict:
    """What the test rows say about one backbone.

    plain, rival  names of the plain head, chosen without group labels, and of the best group-aware head (by validation)
    difference    worst group of the rival minus worst group of the plain head, as a fraction, with its 95 % interval
    margin        up to which the plain head may fall behind and still suffice
    p_suffices    of "the difference is at least the margin", p_not of "the difference is at most the margin"; adjusted
                  over backbones (Holm)
    verdict       "suffices", "does not suffice" or "undecided"
    """

    backbone: str
    plain: str
    rival: str
    difference: Interval
    margin: float
    p_suffices: float
    p_not: float
    verdict: str

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, the difference with its interval, and both p-values."""
        d = self.difference
        return html.facts(
            f"{self.backbone}: is the plain head enough?",
            {
                "verdict": f"{self.plain} {self.verdict}" if self.verdict != "undecided" else self.verdict,
                "best head with group labels": self.rival,
                "worst group gained, points": f"{100 * d.value:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})",
                "rows of the smaller worst group": f"{d.n:,}",
                "margin, points": f"{100 * self.margin:g}",
                "p suffices": f"{self.p_suffices:.3g}",
                "p does not": f"{self.p_not:.3g}",
            },
        )


def verdicts(runs: Sequence[Run], margin: float = MARGIN) -> list[Verdict]:
    """One verdict for every backbone that has a plain head chosen without group labels and a group-aware head.

    The rival is the head with the best worst group on the validation rows that chose it, on average over its seeds;
    test rows have no part in that. A head of several seeds counts with its mean correctness on each row.
    """
    found = [v for backbone in dict.fromkeys(run.backbone for run in runs) if (v := _of(runs, backbone, margin))]
    enough, short = (holm([getattr(v, name) for v in found]) for name in ("p_suffices", "p_not"))
    return [
        replace(v, p_suffices=a, p_not=b, verdict=_word(a, b)) for v, a, b in zip(found, enough, short, strict=True)
    ]


def _of(runs: Sequence[Run], backbone: str, margin: float) -> Verdict | None:
    """The verdict as if there were no other backbone; None where there is nothing to compare."""
    here = [run for run in runs if run.backbone == backbone and run.correct]
    plain = [run for run in here if run.head == "plain" and not run.uses_groups]
    by_head: dict[str, list[Run]] = {}
    for run in here:
        if run.uses_groups and run.validation_worst_group is not None:
            by_head.setdefault(run.head, []).append(run)
    if not plain or not by_head:
        return None
    rival = max(by_head, key=lambda head: np.mean([r.validation_worst_group or 0.0 for r in by_head[head]]))
    sizes = np.array([g.n for g in plain[0].metrics.groups])
    a, b = (np.mean([unpack(r.correct, sizes.sum()) for r in of], axis=0) for of in (plain, by_head[rival]))
    difference, p_suffices, p_not = compare_minima(a, b, sizes, margin)
    return Verdict(backbone, plain[0].head, rival, difference, margin, p_suffices, p_not, _word(p_suffices, p_not))


def _word(p_suffices: float, p_not: float) -> str:
    if p_suffices <= ERROR:
        return "suffices"
    return "does not suffice" if p_not <= ERROR else "undecided"


def compare_minima(
    a: np.ndarray, b: np.ndarray, sizes: np.ndarray, margin: float = MARGIN
) -> tuple[Interval, float, float]:
    """Difference of the worst groups, b's minus a's, with its interval and two p-values.

    a, b   (n,) correctness in 0..1 of two heads on the same rows, which lie in the order of their groups
    sizes  (g,) rows of each group; empty groups count for nothing
    Returns D with its 95 % interval, the p-value of D >= margin and that of D <= margin.
    """
    pairs = Pairs.of(a, b, sizes[sizes > 0])
    worst_a, worst_b = int(pairs.p.argmin()), int(pairs.r.argmin())
    value, tail = float(pairs.r[worst_b] - pairs.p[worst_a]), (1 - LEVEL) / 2
    low = _turn(lambda M: pairs.p_values(M)[1] <= tail, -1.0, value)
    high = _turn(lambda M: pairs.p_values(M)[0] > tail, value, 1.0)
    interval = Interval(value, low, high, int(min(pairs.n[worst_a], pairs.n[worst_b])))
    return interval, *pairs.p_values(margin)


def _turn(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where `holds`, true at first, ceases to be; `low` where it never was."""
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two heads group by group: rows n, mean correctness p (plain) and r (rival), each (g,) float.

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
    def of(cls, a: np.ndarray, b: np.ndarray, sizes: np.ndarray) -> Pairs:
        """From the correctness of every row, in the order of groups of these sizes."""
        d, starts = b - a, np.concatenate([[0], np.cumsum(sizes)[:-1]])
        columns = (a, b, np.maximum(d, 0), np.maximum(-d, 0), d * d)
        return cls(sizes.astype(float), *(np.add.reduceat(x.astype(float), starts) / sizes for x in columns))

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


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: the smallest times m, the next times m - 1, ..., never falling, at most 1 (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(x) for x in adjusted]
