"""Ranks, correlations, corrections and agreement: those of scipy and scikit-learn, where these have them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from embedx.statistics import (
    auroc,
    auroc_interval,
    benjamini_hochberg,
    fleiss_kappa,
    holm,
    mann_whitney,
    mean_off_diagonal,
    mean_spearman,
    pearson,
    rank_correlations,
    row_correlations,
    spearman,
    spearman_brown,
    spearman_by_class,
    spearman_p,
)
from embedx.statistics.correlations import EXACT

few = settings(deadline=None, max_examples=30)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=14))
def test_the_rank_correlation_is_that_of_scipy(pairs):
    x, y = map(list, zip(*pairs, strict=True))
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
        return
    oracle = spearmanr(x, y)
    assert found.rho == pytest.approx(oracle.statistic, abs=1e-12)
    assert found.n == len(pairs)
    if len(pairs) > EXACT and abs(found.rho) < 1:
        assert found.p == pytest.approx(oracle.pvalue, abs=1e-9)
    if found.low is not None:
        assert -1 <= found.low <= found.rho <= found.high <= 1


@pytest.mark.parametrize("y", [[1, 2, 3, 4, 5], [2, 1, 4, 3, 5], [1, 1, 2, 2, 3]])
def test_the_p_value_of_few_pairs_counts_all_orders(y):
    x = [1, 2, 3, 4, 5]
    rho = spearmanr(x, y).statistic
    orders = [abs(spearmanr(x, order).statistic) for order in permutations(y)]
    assert spearman(x, y).p == pytest.approx(np.mean(np.array(orders) >= abs(rho) - 1e-12))


def test_too_few_pairs_have_no_correlation():
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 2, 3], [1, 2, 3]).low is None


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=(600, 25))
    truth = 6 / np.pi * np.arcsin(0.3)  # Spearman's coefficient of a normal pair with correlation 0.6
    found = [spearman(d[:, 0].tolist(), d[:, 1].tolist()) for d in draws]
    assert np.mean([f.low <= truth <= f.high for f in found]) == pytest.approx(0.95, abs=0.025)


@few
@given(arrays(float, (2, 9), elements=st.integers(-4, 4)))
def test_pearsons_correlation_and_fishers_interval_are_those_of_scipy(xy: np.ndarray) -> None:
    found = pearson(*xy)
    if np.ptp(xy[0]) == 0 or np.ptp(xy[1]) == 0:
        assert found is None
        return
    assert found is not None
    oracle = stats.pearsonr(*xy)
    assert found.value == pytest.approx(oracle.statistic, abs=1e-12) and found.n == 9
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)), abs=1e-6)
    assert pearson(xy[0, :3], xy[1, :3]) is None


@given(st.lists(st.integers(2, 12), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 10_000))
def test_the_correlation_within_classes_is_that_of_each_class(sizes: list[int], distinct: int, seed: int) -> None:
    rng, edges = np.random.default_rng(seed), np.cumsum(sizes)[:-1]
    scores = np.concatenate([np.sort(rng.integers(0, distinct, n)) for n in sizes]).astype(float)
    hits = rng.random((2, len(scores))) < 0.5
    found = spearman_by_class(scores, hits, np.array(sizes))
    for m in range(2):
        for c, (x, y) in enumerate(zip(np.split(scores, edges), np.split(hits[m], edges), strict=True)):
            constant = np.ptp(x) == 0 or y.all() or not y.any()
            expected = np.nan if constant else spearmanr(x, y).statistic
            assert found[m, c] == pytest.approx(expected, nan_ok=True)


def test_rank_correlations_of_random_orders_have_the_p_values_they_should() -> None:
    rng, sizes = np.random.default_rng(0), np.array([30, 12, 50])
    scores = np.concatenate([np.arange(n) for n in sizes]).astype(float)
    hits = np.concatenate([rng.permuted(np.tile(np.arange(n) < n // 2, (1500, 1)), axis=1) for n in sizes], axis=1)
    rho = spearman_by_class(scores, hits, sizes)
    np.testing.assert_allclose(rho.var(axis=0), 1 / (sizes - 1), rtol=0.15)
    joint = np.array([mean_spearman(r, sizes) for r in rho])
    np.testing.assert_allclose(joint[:, 0], rho.mean(axis=1))
    for p in (*spearman_p(rho, sizes).T, joint[:, 1]):
        assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.03)
    assert mean_spearman(np.array([np.nan, 0.5]), np.array([9, 17])) == pytest.approx((0.5, 2 * stats.norm.sf(2)))
    assert mean_spearman(np.array([np.nan]), np.array([9])) is None


@few
@given(arrays(float, (8, 3), elements=st.integers(-9, 9)))
def test_many_correlations_at_once_are_those_one_by_one(X: np.ndarray) -> None:
    X = X + np.arange(8)[:, None] / 100  # no column is constant
    R, S = row_correlations(X.T), rank_correlations(X)
    for i, j in np.ndindex(3, 3):
        assert R[i, j] == pytest.approx(np.corrcoef(X[:, i], X[:, j])[0, 1], abs=1e-9)
        assert S[i, j] == pytest.approx(spearmanr(X[:, i], X[:, j]).statistic, abs=1e-9)
    np.testing.assert_allclose(row_correlations(X.T, -X.T), -R, atol=1e-9)
    assert mean_off_diagonal(R) == pytest.approx((R.sum() - 3) / 6, abs=1e-9)
    assert np.isnan(row_correlations(np.ones((2, 4)))).all() and np.isnan(mean_off_diagonal(np.eye(1)))


def test_halves_that_agree_tell_how_reliable_the_whole_is() -> None:
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=20_000), rng.normal(size=(4, 20_000))
    half = np.corrcoef(truth + noise[0], truth + noise[1])[0, 1]
    whole = np.corrcoef(truth + noise[:2].mean(axis=0), truth + noise[2:].mean(axis=0))[0, 1]
    assert spearman_brown(half) == pytest.approx(whole, abs=0.02)


@settings(max_examples=40)
@given(
    arrays(np.float32, (12, 3), elements=st.integers(-3, 3)),
    arrays(bool, 12).filter(lambda h: 0 < h.sum() < 12),
)
def test_mann_and_whitneys_test_knows_the_order_only(X: np.ndarray, here: np.ndarray) -> None:
    area, p = mann_whitney(here, X)
    again = mann_whitney(here, np.exp(X))
    np.testing.assert_array_equal([area, p], again)
    np.testing.assert_allclose(mann_whitney(~here, X)[0], 1 - area, atol=1e-12)
    np.testing.assert_allclose(mann_whitney(here, -X)[0], 1 - area, atol=1e-12)
    assert (p[area <= 0.5] >= 0.5).all() and ((p >= 0) & (p <= 1)).all()
    np.testing.assert_array_equal(area, [auroc(here, x) for x in X.T])
    assert (p + mann_whitney(~here, X)[1] >= 1).all()  # no row speaks for both


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_auroc_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    scores, minority = (np.array(c) for c in zip(*[*rows, (3, True), (2, False)], strict=True))
    found = auroc_interval(minority, scores.astype(float))
    assert found.value == pytest.approx(roc_auc_score(minority, scores)) and found.n == minority.sum()
    assert 0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1


@pytest.mark.parametrize(("shift", "n"), [(0.0, (20, 20)), (1.0, (15, 60)), (2.5, (30, 12))])
def test_the_interval_of_the_auroc_covers(shift: float, n: tuple[int, int]) -> None:
    """Scores of two normal variables `shift` apart: the chance is Phi(shift / sqrt 2)."""
    rng, positive = np.random.default_rng(0), np.arange(sum(n)) < n[0]
    truth = stats.norm.cdf(shift / np.sqrt(2))
    found = [auroc_interval(positive, rng.normal(size=sum(n)) + shift * positive) for _ in range(400)]
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.95


@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p: list[float]) -> None:
    """A hypothesis falls when it and all smaller ones are below level / (how many are left)."""
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.3):
        falls, rejected = True, [False] * len(p)
        for rank, i in enumerate(np.argsort(p, kind="stable")):
            falls = falls and p[i] * (len(p) - rank) <= level
            rejected[i] = falls
        assert [x <= level for x in adjusted] == rejected
    assert holm([]) == []
    assert holm([0.01, 0.012, 0.5]) == pytest.approx([0.03, 0.03, 0.5])  # never falling


@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_benjamini_and_hochberg_is_the_step_up_procedure(p: list[float]) -> None:
    """All tests up to the last whose p is at most rank / m x level are called."""
    adjusted = benjamini_hochberg(p)
    for level in (0.013, 0.051, 0.3):
        below = [i for i, x in enumerate(sorted(p), 1) if x * len(p) / i <= level]
        assert np.count_nonzero(adjusted <= level) == max(below, default=0)
    assert (adjusted <= np.array(holm(p)) + 1e-12).all()


FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def test_kappa_of_a_worked_example() -> None:
    """Ten subjects, fourteen raters, five categories: mean agreement 0.378, by chance 0.213, kappa 0.210."""
    assert fleiss_kappa(np.array(FLEISS)) == pytest.approx(0.210, abs=5e-4)


def test_kappa_by_hand() -> None:
    """Votes xx, xy: P = (1 + 0) / 2, p = (3/4, 1/4), chance 10/16, kappa (1/2 - 5/8) / (3/8) = -1/3."""
    assert fleiss_kappa(np.array([[2, 0], [1, 1]])) == pytest.approx(-1 / 3)
    assert fleiss_kappa(np.array([[2, 0], [0, 2]])) == pytest.approx(1)
    assert fleiss_kappa(np.array([[3, 0], [3, 0]])) is None  # chance would agree as well
    assert fleiss_kappa(np.empty((0, 3), int)) is None
    with pytest.raises(ValueError, match="pair 1 \\(counted from 0\\) has 1 votes; agreement takes two"):
        fleiss_kappa(np.array([[2, 0], [1, 0]]))


@given(arrays(int, (4, 3), elements=st.integers(0, 4)).filter(lambda c: c.sum(1).min() > 1), st.randoms())
def test_kappa_knows_no_order_and_does_not_exceed_one(counts: np.ndarray, random: Any) -> None:
    found = fleiss_kappa(counts)
    rows, cols = random.sample(range(4), 4), random.sample(range(3), 3)
    again = fleiss_kappa(counts[rows][:, cols])
    assert (found is None) == (again is None) == (np.count_nonzero(counts.sum(0)) == 1)
    if found is not None:
        assert again == pytest.approx(found) and found <= 1 + 1e-12
        assert fleiss_kappa(np.tile(counts, (3, 1))) == pytest.approx(found)  # the same pairs thrice


def test_votes_as_if_drawn_agree_by_chance_alone() -> None:
    rng = np.random.default_rng(0)
    assert fleiss_kappa(rng.multinomial(5, [0.6, 0.3, 0.1], size=4000)) == pytest.approx(0, abs=0.02)
