"""Laws of the metrics: published figures, naive loops, scikit-learn, and intervals beside every figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from embedx.evaluation.metrics import Metrics, evaluate, expected_calibration_error
from embedx.statistics import wilson

TRAIN, TEST = np.array([3498, 184, 56, 1057]), (2255, 2255, 642, 642)  # Waterbirds
NAMES = ("landbird/land", "landbird/water", "waterbird/land", "waterbird/water")
COUNTS = st.lists(
    st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=2, max_size=8
)
INTERVALS = ("average", "adjusted_average", "worst_group", "gap", "balanced_accuracy", "worst_class")
few = settings(deadline=None, max_examples=25)


def rows(correct: Sequence[int], n: Sequence[int], labels: Sequence[int], k: int = 2) -> tuple[np.ndarray, ...]:
    """y, proba, groups of n[g] rows per group with label labels[g], of which the first correct[g] are right."""
    groups = np.repeat(np.arange(len(n)), n)
    y = np.asarray(labels)[groups]
    right = np.concatenate([np.arange(m) < c for c, m in zip(correct, n, strict=True)])
    proba = np.full((len(y), k), 0.2 / (k - 1))
    proba[np.arange(len(y)), np.where(right, y, (y + 1) % k)] = 0.8
    return y, proba, groups


def report(y: np.ndarray, proba: np.ndarray, groups: np.ndarray, labels: Sequence[int], **changes: Any) -> Metrics:
    facts = {
        "classes": tuple("abcdefghij"[: proba.shape[1]]), "group_names": tuple(f"g{g}" for g in range(len(labels))),
        "group_labels": np.asarray(labels), "train_shares": np.full(len(labels), 1 / len(labels)),
    }  # fmt: skip
    return evaluate(y, proba, groups, **{**facts, **changes})


def predictions(seed: int, k: int, n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Random y, proba, groups and the label of each group: two groups a class, all classes present.

    Right at some levels of confidence and not at others, so that calibration errors have both signs.
    """
    rng = np.random.default_rng(seed)
    groups = np.r_[np.arange(0, 2 * k, 2), rng.integers(0, 2 * k, n)]
    y = groups // 2
    proba = rng.dirichlet(np.full(k, 0.5), len(y))
    for i in np.flatnonzero(np.isin((proba.max(axis=1) * 10).astype(int), rng.choice(10, 5))):
        proba[i] = np.roll(proba[i], y[i] - proba[i].argmax())
    return y, proba, groups, [g // 2 for g in range(2 * k)]


@pytest.mark.parametrize(
    ("correct", "raw", "adjusted", "worst", "name", "groups", "worst_class"),
    [
        ((2236, 1750, 409, 605), 86.30, 96.83, 63.71, NAMES[2], 83.68, 78.97),  # ResNet-50
        ((2253, 2164, 563, 615), 96.57, 98.71, 87.69, NAMES[2], 94.84, 91.74),  # DINOv2
        ((2255, 2096, 503, 621), 94.49, 98.76, 78.35, NAMES[2], 92.01, 87.54),  # RegNet
        ((2181, 1810, 598, 639), 90.23, 96.67, 80.27, NAMES[1], 92.42, 88.49),  # DINOv2 with JTT
        ((2255, 0, 0, 642), 50.0, 94.995, 0, NAMES[1], 50, 50),  # looks at the background only
        ((2255, 2255, 0, 0), 77.839, 76.788, 0, NAMES[2], 50, 0),  # always landbird
    ],
)
def test_published_figures(
    correct: tuple[int, ...], raw: float, adjusted: float, worst: float, name: str, groups: float, worst_class: float
) -> None:
    labels = [0, 0, 1, 1]
    m = report(*rows(correct, TEST, labels), labels, train_shares=TRAIN / TRAIN.sum(), group_names=NAMES)
    found = (m.average, m.adjusted_average, m.worst_group, m.balanced_accuracy, m.worst_class)
    expected = (raw, adjusted, worst, groups, worst_class)
    assert [100 * i.value for i in found] == pytest.approx(expected, abs=0.00501)
    assert m.worst_group_name == name
    assert m.gap.value == pytest.approx(m.adjusted_average.value - m.worst_group.value)
    assert m.balanced_accuracy.value == pytest.approx(np.mean([g.accuracy for g in m.groups]))
    class_rows = {"a": 4510, "b": 1284}[m.worst_class_name]
    assert [i.n for i in found] == [5794, 5794, TEST[NAMES.index(name)], 5794, class_rows]


@few
@given(seed=st.integers(0, 2**32 - 1), k=st.sampled_from([2, 3]))
def test_everything_equals_a_naive_loop(seed: int, k: int) -> None:
    y, proba, groups, labels = predictions(seed, k)
    shares = np.random.default_rng(seed).dirichlet(np.ones(2 * k))
    m = report(y, proba, groups, labels, train_shares=shares)
    predicted = proba.argmax(axis=1)
    for g, group in enumerate(m.groups):
        mine = [i for i in range(len(y)) if groups[i] == g]
        assert (group.n, group.correct) == (len(mine), sum(predicted[i] == y[i] for i in mine))
        expected = (group.correct / group.n, *wilson(group.correct, group.n)) if mine else (None, None, None)
        assert (group.accuracy, group.low, group.high) == expected
    seen = {g: group for g, group in enumerate(m.groups) if group.n}
    worst = min(seen.values(), key=lambda group: group.accuracy)
    assert (m.worst_group.value, m.worst_group_name, m.worst_group.n) == (worst.accuracy, worst.name, worst.n)
    mass = sum(shares[g] for g in seen)
    assert m.adjusted_average.value == pytest.approx(sum(shares[g] * seen[g].accuracy for g in seen) / mass)
    recall = sk.recall_score(y, predicted, average=None)
    assert m.average.value == pytest.approx(sk.accuracy_score(y, predicted))
    assert m.balanced_accuracy.value == pytest.approx(sk.balanced_accuracy_score(y, predicted))
    assert (m.worst_class.value, m.worst_class_name) == (pytest.approx(recall.min()), "abc"[recall.argmin()])
    assert m.log_loss == pytest.approx(sk.log_loss(y, proba))
    auroc = sk.roc_auc_score(y, proba[:, 1]) if k == 2 else sk.roc_auc_score(y, proba, multi_class="ovr")
    assert m.auroc == pytest.approx(auroc)
    edges = [(b / 10, (b + 1) / 10) for b in range(10)]
    bins = [[i for i, p in enumerate(proba.max(axis=1)) if a <= p < b or p == b == 1] for a, b in edges]
    off = [abs(sum(proba[i].max() - (predicted[i] == y[i]) for i in members)) for members in bins]
    assert m.ece == pytest.approx(sum(off) / len(y))


def test_order_of_rows_does_not_matter() -> None:
    y, proba, groups, labels = predictions(0, 3)
    mixed = np.random.default_rng(1).permutation(len(y))
    a, b = report(y, proba, groups, labels), report(y[mixed], proba[mixed], groups[mixed], labels)
    assert all(getattr(a, name) == getattr(b, name) for name in (*INTERVALS, "groups"))
    assert (a.log_loss, a.ece, a.auroc) == pytest.approx((b.log_loss, b.ece, b.auroc))


def test_same_seed_same_intervals() -> None:
    y, proba, groups, labels = predictions(0, 2)
    first, again, other = (report(y, proba, groups, labels, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert [getattr(first, i) for i in INTERVALS] == [getattr(other, i) for i in INTERVALS], "only the bootstrap draws"


def test_empty_groups_are_skipped() -> None:
    labels = [0, 0, 1, 1]
    m = report(*rows((8, 0, 5, 9), (10, 0, 10, 10), labels), labels)
    empty = m.groups[1]
    assert (empty.n, empty.correct, empty.accuracy, empty.low, empty.high) == (0, 0, None, None, None)
    assert (m.worst_group_name, m.worst_group.value) == ("g2", 0.5)
    assert m.adjusted_average.value == pytest.approx((0.8 + 0.5 + 0.9) / 3)  # shares of the groups that occur


def test_a_class_without_rows_is_skipped() -> None:
    labels = [0, 0, 1]
    m = report(*rows((8, 4, 0), (10, 10, 0), labels), labels)
    assert m.auroc is None
    assert m.balanced_accuracy.value == m.worst_class.value == m.average.value == 0.6
    assert m.worst_class_name == "a"


@few
@given(counts=COUNTS.filter(lambda counts: any(n for _, n in counts)), seed=st.integers(0, 9))
@example(counts=[(40, 50)] * 8, seed=0)
def test_intervals_contain_their_values(counts: list[tuple[int, int]], seed: int) -> None:
    correct, n = zip(*counts, strict=True)
    labels = np.arange(len(n)) % 2
    m = report(*rows(correct, n, labels), labels, seed=seed)
    for interval in (getattr(m, name) for name in INTERVALS):
        assert -1 <= interval.low <= interval.value <= interval.high <= 1
    for group in m.groups:
        assert group.n == 0 or 0 <= group.low <= group.accuracy <= group.high <= 1


@few
@given(counts=COUNTS.filter(lambda counts: all(n for _, n in counts)))
def test_without_attributes_classes_are_groups(counts: list[tuple[int, int]]) -> None:
    correct, n = zip(*counts, strict=True)
    k = len(n)
    m = report(*rows(correct, n, range(k), k), range(k), group_names=tuple("abcdefghij"[:k]))
    assert (m.worst_group, m.worst_group_name) == (m.worst_class, m.worst_class_name)


def test_intervals_shrink_like_one_over_the_root_of_n() -> None:
    labels = [0, 1]
    small, large = (report(*rows((60 * s, 95 * s), (100 * s, 100 * s), labels), labels) for s in (1, 16))
    for a, b in ((getattr(small, name), getattr(large, name)) for name in INTERVALS):
        assert (a.high - a.low) / (b.high - b.low) == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("correct", [0, 30])
def test_all_right_or_all_wrong_has_an_interval_too(correct: int) -> None:
    labels = [0, 1]
    m = report(*rows((correct, 30), (30, 30), labels), labels)
    for interval in (m.worst_group, m.adjusted_average, m.balanced_accuracy, m.gap):
        assert interval.high - interval.low > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("accuracy", "n"), [((0.99,) * 4, 20), ((0.9, 0.5, 0.7, 0.95), 100), ((0.98, 0.6), 300)])
def test_intervals_of_means_cover(accuracy: tuple, n: int) -> None:
    rng, each, labels = np.random.default_rng(0), (n,) * len(accuracy), np.arange(len(accuracy)) % 2
    shares = rng.dirichlet(np.ones(len(accuracy)))
    truth, hits = shares @ accuracy, []
    for _ in range(400):
        m = report(*rows(rng.binomial(each, accuracy), each, labels), labels, train_shares=shares)
        inside = m.adjusted_average.low <= truth <= m.adjusted_average.high
        hits.append((inside, m.gap.low <= truth - min(accuracy) <= m.gap.high))
    assert (np.mean(hits, axis=0) >= 0.92).all()


def test_the_bootstrap_is_recorded_beside_it() -> None:
    labels = [0, 1]
    m = report(*rows((6000, 9900), (10_000, 10_000), labels), labels)
    assert m.worst_group_bootstrap.value == m.worst_group.value
    assert m.worst_group_bootstrap.low == pytest.approx(m.worst_group.low, abs=2e-3)
    assert m.worst_group.low < m.worst_group_bootstrap.high < m.worst_group.high + 1e-3


@few
@given(st.integers(51, 100), st.integers(0, 100))
def test_calibration_error_of_a_constant(confidence: int, right: int) -> None:
    proba = np.tile([1 - confidence / 100, confidence / 100], (100, 1))
    error = expected_calibration_error(proba, np.arange(100) < right)
    assert error == pytest.approx(abs(confidence - right) / 100, abs=1e-12)  # nothing where they agree
