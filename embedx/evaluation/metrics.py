"""Accuracy by group and what follows from it, with an interval beside every accuracy.

One group: `proportion`; the minimum over groups: `minimum`; means over groups: `mean_proportion`, of
`embedx.statistics`; where rows come in clusters, each for the rows that they are worth, by `Sample`.
`benchmarks/README.md` has their simulated coverage, and that of the percentile bootstrap, which is recorded too but is
off where groups are about equally hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedx import html
from embedx.evaluation.figures import interval, percent
from embedx.statistics import Interval, Sample, auroc, difference


def dependence(column: str, rows: int, subjects: int, split: str = "test") -> str:
    """That rows are no independent draws, in words, where a subject (of the column) has several; else nothing."""
    if subjects == rows:
        return ""
    return f"{split} holds {rows:,} rows of {subjects:,} subjects ({column}), which are no independent draws"


@dataclass(frozen=True)
class GroupAccuracy:
    """One group on the test split; accuracy and interval (Wilson's) are None for a group without rows.

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

    def _repr_html_(self) -> str:
        """What a notebook shows: every figure and every group with its interval and n."""
        figures = {
            f"worst group: {self.worst_group_name}": self.worst_group, "average": self.average,
            "adjusted average": self.adjusted_average, "gap": self.gap, "balanced accuracy": self.balanced_accuracy,
            f"worst class: {self.worst_class_name}": self.worst_class,
        }  # fmt: skip
        rows = [(name, percent(x.value), interval(x), f"{x.n:,}") for name, x in figures.items()]
        rows += [(f"group {g.name}", percent(g.accuracy), interval(g), f"{g.n:,}") for g in self.groups]
        headings = ("on test", "%", "95 % interval", "n")
        return html.table(headings, rows, numbers=headings[1:])


def evaluate(  # noqa: PLR0913
    y: np.ndarray,
    proba: np.ndarray,
    groups: np.ndarray,
    *,
    classes: tuple[str, ...],
    group_names: tuple[str, ...],
    group_labels: np.ndarray,
    train_shares: np.ndarray,
    clusters: np.ndarray | None = None,
    seed: int = 0,
) -> Metrics:
    """Metrics of class probabilities proba (n, k) for labels y (n,) and groups (n,).

    group_labels (g,) is the label of each group, train_shares (g,) its share of the training rows; clusters (n,) are
    the subjects of the rows, of which several may be one's (None: independent rows); seed is that of the bootstrap.
    """
    hit = proba.argmax(axis=1) == y
    sample = Sample(hit, clusters)
    each = [_group(name, sample.take(groups == g)) for g, name in enumerate(group_names)]
    seen, group = np.unique(groups, return_inverse=True)
    labels, label = np.unique(group_labels[groups], return_inverse=True)
    lowest, lowest_class = (sample.minimum_over(of, int(of.max()) + 1) for of in (group, label))
    adjusted = sample.mean_over(group, train_shares[seen] / train_shares[seen].sum())
    return Metrics(
        average=sample.proportion(),
        adjusted_average=adjusted,
        worst_group=lowest,
        worst_group_name=group_names[seen[_worst(hit, group)]],
        worst_group_bootstrap=sample.bootstrap_minimum(group, len(seen), np.random.default_rng(seed)),
        gap=difference(adjusted, lowest, adjusted.n),  # of the same rows, so it is rather too wide
        balanced_accuracy=sample.mean_over(label, np.full(len(labels), 1 / len(labels))),
        worst_class=lowest_class,
        worst_class_name=classes[labels[_worst(hit, label)]],
        log_loss=_log_loss(y, proba),
        ece=expected_calibration_error(proba, hit),
        auroc=_auroc(y, proba),
        groups=tuple(each),
    )


def expected_calibration_error(proba: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """sum over bins of (rows in bin / n) * |mean confidence - accuracy|, confidence = probability of the prediction."""
    confidence = proba.max(axis=1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    off = np.bincount(index, weights=confidence - hit, minlength=bins)
    return float(np.abs(off).sum() / len(hit))


def _group(name: str, sample: Sample) -> GroupAccuracy:
    n = len(sample.hits)
    if not n:
        return GroupAccuracy(name, 0, 0, None, None, None)
    share = sample.proportion()
    return GroupAccuracy(name, n, int(np.count_nonzero(sample.hits)), share.value, share.low, share.high)


def _worst(hit: np.ndarray, codes: np.ndarray) -> int:
    """The code (n,), of which none is without rows, with the smallest share of right ones."""
    return int((np.bincount(codes, weights=hit) / np.bincount(codes)).argmin())


def _log_loss(y: np.ndarray, proba: np.ndarray) -> float:
    p = proba[np.arange(len(y)), y]
    return float(-np.log(np.maximum(p, np.finfo(np.float64).tiny)).mean())


def _auroc(y: np.ndarray, proba: np.ndarray) -> float | None:
    k = proba.shape[1]
    if len(np.unique(y)) < k:
        return None
    return float(np.mean([auroc(y == c, proba[:, c]) for c in ([1] if k == 2 else range(k))]))
