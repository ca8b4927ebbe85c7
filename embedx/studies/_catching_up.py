"""By how much the best group-aware head is ahead of the plain one, and from which quality on it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from embedx.evaluation.runs import Run
from embedx.evaluation.verdict import MARGIN, verdicts
from embedx.statistics import half_width, percentile

RESAMPLED = 1000


@dataclass(frozen=True)
class Gap:
    """Worst group of the best group-aware head minus that of the plain one, as a fraction, with a 95 % interval.

    rival        the head that gains most on test, on average over the draws
    plain, best  worst groups, means over the draws
    draws        training sets that the heads were fitted on; n: rows of the smaller of the two worst groups
    """

    backbone: str
    rival: str
    plain: float
    best: float
    value: float
    low: float
    high: float
    draws: int
    n: int

    @property
    def closed(self) -> bool:
        """Whether the plain head has caught up: all of the interval lies below the margin."""
        return self.high < MARGIN


@dataclass(frozen=True)
class Crossing:
    """The quality at which a gap that falls with quality reaches the margin; infinite limits where it may never do."""

    value: float
    low: float
    high: float


def gaps(draws: Sequence[Sequence[Run]]) -> list[Gap]:
    """One gap for every backbone, from the runs of each draw of the training set; all draws have the same test rows.

    The value is of the mean correctness of each row (`verdicts`). Draws share the test rows, so each end lies

        sqrt(t^2 s^2 / k + r^2)

    from it: s the standard deviation of the gap over k draws, t the 97.5 % quantile of Student's t with k - 1 degrees
    of freedom (0 for one draw), r the distance of that end of the interval over rows.
    """
    found = []
    for v in verdicts([run for runs in draws for run in runs]):
        plain = [_worst(runs, v.backbone, v.plain, aware=False) for runs in draws]
        best = [_worst(runs, v.backbone, v.rival, aware=True) for runs in draws]
        k, d, spread = len(draws), v.difference, half_width(np.array(best) - np.array(plain))
        low, high = d.value - np.hypot(spread, d.value - d.low), d.value + np.hypot(spread, d.high - d.value)
        found.append(
            Gap(v.backbone, v.rival, fmean(plain), fmean(best), d.value, float(low), float(high), k, d.n)
        )  # fmt: skip
    return found


def _worst(runs: Sequence[Run], backbone: str, head: str, *, aware: bool) -> float:
    """Worst group of a head, the mean over its seeds."""
    return fmean(
        run.metrics.worst_group.value
        for run in runs
        if (run.backbone, run.head, run.uses_groups) == (backbone, head, aware)
    )


def certified(closed: Sequence[bool], quality: Sequence[float]) -> list[int]:
    """The embeddings, from the best down, on which the plain head has caught up, to the first on which it has not.

    Tests in an order that other rows have fixed, ended by the first that fails, err with 2.5 % at most in all of them
    together, without a correction (Maurer, Hothorn and Lehmacher 1995).
    """
    order = sorted(range(len(quality)), key=lambda i: -quality[i])
    end = next((place for place, i in enumerate(order) if not closed[i]), len(order))
    return order[:end]


def crossing(quality: np.ndarray, gap: np.ndarray, margin: float = MARGIN, draws: int = RESAMPLED) -> Crossing:
    """Where the gap, as a function of quality that never rises (isotonic regression), falls to the margin.

    quality, gap  (n,) of the embeddings

    Percentile interval of as many `draws` of embeddings with replacement.
    """
    rng = np.random.default_rng(0)
    drawn = [_crosses(quality[some], gap[some], margin) for some in rng.integers(len(gap), size=(draws, len(gap)))]
    low, high = (percentile(np.array(drawn), share, nearest=True) for share in (0.025, 0.975))  # it may be infinite
    return Crossing(_crosses(quality, gap, margin), low, high)


def _crosses(quality: np.ndarray, gap: np.ndarray, margin: float) -> float:
    from scipy.optimize import isotonic_regression

    levels, places, counts = np.unique(quality, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=gap) / counts
    fitted = isotonic_regression(means, weights=counts, increasing=False).x
    below = np.flatnonzero(fitted <= margin)
    if not len(below):
        return float("inf")
    if (i := below[0]) == 0:
        return float(levels[0])
    share = (fitted[i - 1] - margin) / (fitted[i - 1] - fitted[i])
    return float(levels[i - 1] + share * (levels[i] - levels[i - 1]))
