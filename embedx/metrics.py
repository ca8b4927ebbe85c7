"""Accuracy by group and what follows from it, with an interval beside every accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

LEVEL = 0.95
REPLICATES = 10_000


@dataclass(frozen=True)
class Interval:
    """A figure in 0..1 (the gap: -1..1) from n test rows, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class GroupAccuracy:
    """One group on the test split; accuracy and Wilson interval are None for a group without rows."""

    name: str
    n: int
    correct: int
    accuracy: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Metrics:
    """Everything reported of one head on the test split.

    average           raw: correct / n, Wilson interval
    adjusted_average  group accuracies weighted by the groups' shares of the training split (Sagawa et al. 2020)
    worst_group       smallest accuracy over the groups that occur, `worst_group_name` says whose
    gap               adjusted average minus worst group
    balanced_accuracy mean recall over the classes that occur; worst_class the smallest, `worst_class_name` says whose
    log_loss          mean of -log p(label), natural logarithm
    ece               expected calibration error: 10 equal bins of the predicted class's probability
    auroc             of p(second class); for more classes the mean over one-against-rest; None with one class in test
    """

    average: Interval
    adjusted_average: Interval
    worst_group: Interval
    worst_group_name: str
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

    group_labels (g,) is the label of each group, train_shares (g,) its share of the training rows. Intervals of
    figures over several groups come from a bootstrap stratified by group (`resample`).
    """
    g = len(group_names)
    hit = proba.argmax(axis=1) == y
    n = np.bincount(groups, minlength=g)
    correct = np.bincount(groups, weights=hit, minlength=g).astype(int)
    draws = np.vstack([correct[None], resample(correct, n, seed)])  # row 0: what was observed
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = draws / n
    present = n > 0
    members = {c: group_labels == c for c in np.unique(group_labels[present])}
    recall = np.column_stack([draws[:, mine].sum(1) / n[mine].sum() for mine in members.values()])
    adjusted = accuracy[:, present] @ (train_shares[present] / train_shares[present].sum())
    worst = accuracy[:, present].min(axis=1)
    worst_group = int(np.nanargmin(accuracy[0]))
    worst_class = list(members)[int(recall[0].argmin())]
    mine = members[worst_class]
    return Metrics(
        average=_wilson(int(correct.sum()), int(n.sum())),
        adjusted_average=_percentile(adjusted, int(n.sum())),
        worst_group=_worst(worst, correct[worst_group], n[worst_group]),
        worst_group_name=group_names[worst_group],
        gap=_percentile(adjusted - worst, int(n.sum())),
        balanced_accuracy=_percentile(recall.mean(axis=1), int(n.sum())),
        worst_class=_worst(recall.min(axis=1), correct[mine].sum(), n[mine].sum()),
        worst_class_name=classes[worst_class],
        log_loss=_log_loss(y, proba),
        ece=expected_calibration_error(proba, hit),
        auroc=_auroc(y, proba),
        groups=tuple(_group(name, int(k), int(c)) for name, k, c in zip(group_names, n, correct, strict=True)),
    )


def resample(correct: np.ndarray, n: np.ndarray, seed: int, replicates: int = REPLICATES) -> np.ndarray:
    """(replicates, g) correct answers per group in bootstrap samples stratified by group.

    Drawing n_g rows with replacement from a group of which correct_g are right is drawing from Binomial(n_g,
    correct_g / n_g), so no row needs to be touched.
    """
    share = np.divide(correct, n, out=np.zeros(len(n)), where=n > 0)
    return np.random.default_rng(seed).binomial(n, share, size=(replicates, len(n)))


def wilson(correct: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion: ((p + z^2/2n) -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    Its ends are exactly 0 for none and exactly 1 for all correct, which rounding would miss.
    """
    z = float(norm.ppf((1 + level) / 2))
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


def _percentile(draws: np.ndarray, n: int) -> Interval:
    """Observed value (row 0) and percentile interval of the bootstrap draws below it, widened to hold the value.

    Resampling a minimum over many close groups gives smaller ones than the observed, so this is sometimes needed.
    """
    tail = (1 - LEVEL) / 2
    value, (low, high) = float(draws[0]), np.quantile(draws[1:], [tail, 1 - tail])
    return Interval(value, min(value, float(low)), max(value, float(high)), n)


def _worst(draws: np.ndarray, correct: int, n: int) -> Interval:
    """Worst group or class: bootstrap; all right or all wrong leaves nothing to resample, there its Wilson interval."""
    return _wilson(int(correct), int(n)) if correct in (0, n) else _percentile(draws, int(n))


def _group(name: str, n: int, correct: int) -> GroupAccuracy:
    if not n:
        return GroupAccuracy(name, 0, 0, None, None, None)
    return GroupAccuracy(name, n, correct, correct / n, *wilson(correct, n))


def _log_loss(y: np.ndarray, proba: np.ndarray) -> float:
    p = proba[np.arange(len(y)), y]
    return float(-np.log(np.maximum(p, np.finfo(np.float64).tiny)).mean())


def _auroc(y: np.ndarray, proba: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    if len(np.unique(y)) < proba.shape[1]:
        return None
    return float(roc_auc_score(y, proba[:, 1]) if proba.shape[1] == 2 else roc_auc_score(y, proba, multi_class="ovr"))
