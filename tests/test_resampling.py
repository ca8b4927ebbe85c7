"""Bootstrap samples without rows: they have the moments of real ones, or those of the unbiased variance."""

from __future__ import annotations

import numpy as np
import pytest

from embedx.statistics import resampled_means, resampled_sums, stratified_sum
from embedx.statistics.resampling import resampled_counts


def test_resampling_counts_is_resampling_rows() -> None:
    rng, n, correct, replicates = np.random.default_rng(0), np.array([30, 80]), np.array([12, 75]), 4000
    drawn = resampled_counts(correct, n, np.random.default_rng(1), replicates)
    rows_right = [np.arange(m) < c for c, m in zip(correct, n, strict=True)]
    real = np.column_stack(
        [right[rng.integers(0, len(right), (replicates, len(right)))].sum(1) for right in rows_right]
    )
    assert drawn.shape == real.shape
    error = np.sqrt(2 * real.var(axis=0) / replicates)  # of the difference of two means
    assert (np.abs(drawn.mean(axis=0) - real.mean(axis=0)) < 4 * error).all()
    np.testing.assert_allclose(drawn.var(axis=0), real.var(axis=0), rtol=0.15)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.1  # groups are drawn apart


def test_the_bootstrap_has_the_unbiased_variance_of_small_samples() -> None:
    """Each class of k rows, a right: variance a/k (1 - a/k) / (k - 1), in sum over classes."""
    rng, k = np.random.default_rng(0), np.array([4, 4, 10, 25, 1, 1])
    right, weights = np.array([1, 2, 9, 20, 0, 1]), np.full(6, 1 / 6) / k
    draws = np.concatenate([resampled_sums(right, k, weights, rng) for _ in range(10)])
    p = np.where(k == 1, 0.5, right / k)
    expected = (p * (1 - p) / np.maximum(k - 1, 1)).sum() / 36
    assert draws.mean() == pytest.approx(weights @ right, abs=4 * np.sqrt(expected / len(draws)))
    assert draws.var() == pytest.approx(expected, rel=0.03)


def test_the_bootstrap_of_models_draws_the_same_rows_for_all() -> None:
    """Means over classes of k rows each have variance sum_c p_c (1 - p_c) / (k_c - 1) / c^2."""
    k, rng = np.array([5, 5, 12]), np.random.default_rng(0)
    hits = rng.random((2, 22)) < 0.6
    hits[1] = ~hits[0]
    draws = resampled_means(hits, k, np.random.default_rng(1), 4_000)
    np.testing.assert_allclose(draws.sum(axis=0), 1, atol=1e-5)
    right = np.add.reduceat(hits, [0, 5, 10], axis=1)
    p = right[0] / k
    assert draws[0].mean() == pytest.approx(p.mean(), abs=0.01)
    assert draws[0].var() == pytest.approx((p * (1 - p) / (k - 1)).sum() / 9, rel=0.1)


def test_a_stratified_sum_has_the_unbiased_variance_and_its_value_inside() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=40).round(1)
    strata = [(np.arange(25), 1.0), (np.arange(25, 39), -0.5), (np.array([39]), 2.0)]
    found = stratified_sum(values, strata, rng)
    assert found.value == pytest.approx(sum(w * values[r].mean() for r, w in strata)) and found.n == 40
    sd = np.sqrt(sum(w**2 * values[r].var() / (len(r) - 1) for r, w in strata if len(r) > 1))
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * sd, found.value + 1.96 * sd), abs=0.15 * sd)
    constant = stratified_sum(np.ones(40), strata, rng)
    assert constant.low == constant.value == constant.high == 2.5
