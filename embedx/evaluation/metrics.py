"""Accuracy by group and what follows from it, with an interval beside every accuracy.

One group: Wilson. The minimum over groups: exact, from Clopper-Pearson limits. Means over groups: Wilson limits
combined (MOVER, Zou and Donner 2008). `docs/intervals.md` has their coverage by simulation, and that of the percentile
bootstrap, which is recorded too but is off where groups are about equally hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import beta, rankdata

LEVEL = 0.95
REPLICATES = 10_000


def dependence(column: str, rows: int, subjects: int, split: str = "test") -> str:
    """That rows are no independent draws, in words, where a subject (of the column) has several; else nothing."""
    if subjects == rows:
        return ""
    return (
        f"{split} holds {rows:,} rows of {subjects:,} subjects ({column}); intervals and p-values take rows as "
        "independent, so that intervals are too narrow"
    )


@dataclass(frozen=True)
class Interval:
    """A figure in 0..1 (the gap: -1..1) from n test rows, with its 95 % interval.

    value     the figure
    low, high its interval
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class GroupAccuracy:
    """One group on the test split; accuracy and Wilson interval are None for a group without rows.

    correct   rows that are right, of n; accuracy: correct / n
    low, high 95 % interval of the accuracy
    """

    name: str
    n: int
    correct: int
    accuracy: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Metrics:
    """Everything reported of one head on the test split.

    average           raw: correct / n
    adjusted_average  group accuracies weighted by the groups' shares of the training split (Sagawa et al. 2020)
    worst_group       smallest accuracy over the groups that occur, `worst_group_name` says whose
    worst_group_bootstrap  the same figure with the percentile interval of a bootstrap stratified by group
    gap               adjusted average minus worst group
    balanced_accuracy mean recall over the classes that occur; worst_class the smallest, `worst_class_name` says whose
    log_loss          mean of -log p(label), natural logarithm
    ece               expected calibration error: 10 equal bins of the predicted class's probability
    auroc             of p(second class); for more classes the mean over one-against-rest; None with one class in test
    groups            every group, in the order of the manifest
    """

    average: Interval
    adjusted_average: Interval
    worst_group: Interval
    worst_group_name: str
    worst_group_bootstrap: Interval
    gap: Interval
    balanced_accuracy: Interval
    worst_class: Interval
    worst_class_name: str
    log_loss: float
    ece: float
    auroc: float | None
    groups: tuple[GroupAccuracy, ...]


def evaluate(
    y: np.ndarray,
    proba: np.ndarray,
    groups: np.ndarray,
    *,
    classes: tuple[str, ...],
    group_names: tuple[str, ...],
    group_labels: np.ndarray,
    train_shares: np.ndarray,
    seed: int = 0,
) -> Metrics:
    """Metrics of class probabilities proba (n, k) for labels y (n,) and groups (n,).

    group_labels (g,) is the label of each group, train_shares (g,) its share of the training rows; seed is that of the
    bootstrap.
    """
    g = len(group_names)
    hit = proba.argmax(axis=1) == y
    n = np.bincount(groups, minlength=g)
    correct = np.bincount(groups, weights=hit, minlength=g).astype(int)
    seen = np.flatnonzero(n)
    classes_seen = np.unique(group_labels[seen])
    recalled = np.array([correct[group_labels == c].sum() for c in classes_seen])
    of_class = np.array([n[group_labels == c].sum() for c in classes_seen])
    worst = int(seen[(correct[seen] / n[seen]).argmin()])
    worst_class = int((recalled / of_class).argmin())
    lowest = minimum(correct[seen], n[seen])
    adjusted = mean(correct[seen], n[seen], train_shares[seen] / train_shares[seen].sum())
    return Metrics(
        average=_wilson(int(correct.sum()), int(n.sum())),
        adjusted_average=adjusted,
        worst_group=lowest,
        worst_group_name=group_names[worst],
        worst_group_bootstrap=_bootstrap(correct[seen], n[seen], seed),
        gap=_difference(adjusted, lowest),
        balanced_accuracy=mean(recalled, of_class, np.full(len(of_class), 1 / len(of_class))),
        worst_class=minimum(recalled, of_class),
        worst_class_name=classes[classes_seen[worst_class]],
        log_loss=_log_loss(y, proba),
        ece=expected_calibration_error(proba, hit),
        auroc=_auroc(y, proba),
        groups=tuple(_group(name, int(k), int(c)) for name, k, c in zip(group_names, n, correct, strict=True)),
    )


def minimum(correct: np.ndarray, n: np.ndarray, level: float = LEVEL) -> Interval:
    """Smallest of k accuracies correct / n, with an interval for the smallest of the true ones; n is of the smallest.

    With Clopper-Pearson limits L(a), U(a) at one-sided error a and t = (1 - level) / 2:

        low = min_g L_g(t)        high = min_g U_g(1 - (1 - t)^(1 / k))

    The truly worst group's own L is above the true minimum with probability t at most; all k upper limits hold at once
    with probability 1 - t. So it covers with probability `level` at least, however close the groups are.
    """
    t = (1 - level) / 2
    each = 1 - (1 - t) ** (1 / len(n))
    low = np.where(correct > 0, beta.ppf(t, np.maximum(correct, 1), n - correct + 1), 0.0)
    high = np.where(correct < n, beta.ppf(1 - each, correct + 1, np.maximum(n - correct, 1)), 1.0)
    worst = (correct / n).argmin()
    return Interval(float(correct[worst] / n[worst]), float(low.min()), float(high.min()), int(n[worst]))


def mean(correct: np.ndarray, n: np.ndarray, weights: np.ndarray) -> Interval:
    """v = sum_g w_g p_g, p_g = correct_g / n_g, with limits v -+ sqrt(sum_g w_g^2 (p_g - Wilson limit_g)^2)."""
    p = correct / n
    low, high = np.array([wilson(int(c), int(k)) for c, k in zip(correct, n, strict=True)]).T
    value = float(np.clip(weights @ p, 0, 1))  # the weights sum to 1 up to rounding
    below, above = (float(np.sqrt((weights**2) @ (p - limit) ** 2)) for limit in (low, high))
    return Interval(value, max(0.0, value - below), min(1.0, value + above), int(n.sum()))


def _difference(a: Interval, b: Interval) -> Interval:
    """a - b, their limits combined as if independent; both are of the same rows, so it is rather too wide."""
    value = a.value - b.value
    low = value - np.hypot(a.value - a.low, b.high - b.value)
    high = value + np.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, max(-1.0, float(low)), min(1.0, float(high)), a.n)


def _bootstrap(correct: np.ndarray, n: np.ndarray, seed: int) -> Interval:
    """Smallest accuracy with the percentile interval of the smallest accuracy in the resamples."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile((resample(correct, n, seed) / n).min(axis=1), [tail, 1 - tail])
    worst = (correct / n).argmin()
    return Interval(float(correct[worst] / n[worst]), float(low), float(high), int(n[worst]))


def resample(correct: np.ndarray, n: np.ndarray, seed: int, replicates: int = REPLICATES) -> np.ndarray:
    """(replicates, g) correct answers per group in bootstrap samples stratified by group.

    Drawing n_g rows with replacement from a group of which correct_g are right is drawing from Binomial(n_g,
    correct_g / n_g), so no row needs to be touched.
    """
    share = np.divide(correct, n, out=np.zeros(len(n)), where=n > 0)
    return np.random.default_rng(seed).binomial(n, share, size=(replicates, len(n)))


def wilson(correct: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion: ((p + z^2/2n) -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    Its ends are exactly 0 for none and exactly 1 for all correct, which rounding would miss.
    """
    z = float(ndtri((1 + level) / 2))
    p, shrink = correct / n, 1 + z * z / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = float((centre - half) / shrink), float((centre + half) / shrink)
    return low if correct else 0.0, high if correct < n else 1.0


def expected_calibration_error(proba: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """sum over bins of (rows in bin / n) * |mean confidence - accuracy|, confidence = probability of the prediction."""
    confidence = proba.max(axis=1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    off = np.bincount(index, weights=confidence - hit, minlength=bins)
    return float(np.abs(off).sum() / len(hit))


def _wilson(correct: int, n: int) -> Interval:
    low, high = wilson(correct, n)
    return Interval(correct / n, low, high, n)


def _group(name: str, n: int, correct: int) -> GroupAccuracy:
    if not n:
        return GroupAccuracy(name, 0, 0, None, None, None)
    return GroupAccuracy(name, n, correct, correct / n, *wilson(correct, n))


def _log_loss(y: np.ndarray, proba: np.ndarray) -> float:
    p = proba[np.arange(len(y)), y]
    return float(-np.log(np.maximum(p, np.finfo(np.float64).tiny)).mean())


def _auroc(y: np.ndarray, proba: np.ndarray) -> float | None:
    k = proba.shape[1]
    if len(np.unique(y)) < k:
        return None
    return float(np.mean([_area(y == c, proba[:, c]) for c in ([1] if k == 2 else range(k))]))


def _area(positive: np.ndarray, score: np.ndarray) -> float:
    """Chance that a positive row scores above a negative one, ties counted half: Mann and Whitney's U, by ranks."""
    p = int(np.count_nonzero(positive))
    return float((rankdata(score)[positive].sum() - p * (p + 1) / 2) / (p * (len(positive) - p)))
