"""Bootstrap samples without rows: they have the moments of real ones, or those of the unbiased variance."""

from __future__ import annotations

import numpy as np
import pytest

from embedx.statistics import percentile_limits, resampled_sums, stratified_draws, stratified_sum
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


def strata_of(k: np.ndarray, weights: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Rows class by class, and the weight of their mean."""
    borders = np.cumsum(k)[:-1]
    return [(rows, float(w)) for rows, w in zip(np.split(np.arange(k.sum()), borders), weights * k, strict=True)]


@pytest.mark.parametrize("k", [[4, 4, 10, 25, 1, 1], [4, 4, 10, 25, 6, 1], [1, 1, 1, 1, 1, 1]])
def test_the_bootstrap_has_the_unbiased_variance_of_small_samples(k: list[int]) -> None:
    """Each class of k rows, a right: variance a/k (1 - a/k) / (k - 1); L lone ones L / (L - 1) q (1 - q) each."""
    rng, n = np.random.default_rng(0), np.array(k)
    right, weights = np.minimum(n, [1, 2, 9, 20, 0, 1]), np.full(6, 1 / 6) / n
    lone = n == 1
    L, p = int(lone.sum()), right / n
    q = right[lone].mean() if L > 1 else right.sum() / n.sum()
    expected = (p * (1 - p) / np.maximum(n - 1, 1)).sum() / 36 + L * q * (1 - q) * (L / (L - 1) if L > 1 else 1) / 36
    hits = np.concatenate([np.arange(m) < r for m, r in zip(n, right, strict=True)])
    counted = np.concatenate([resampled_sums(right, n, weights, rng) for _ in range(10)])
    drawn = np.concatenate([stratified_draws(hits[None], strata_of(n, weights), rng)[0] for _ in range(4)])
    for draws in (counted, drawn):
        assert draws.mean() == pytest.approx(weights @ right, abs=4 * np.sqrt(expected / len(draws)))
        assert draws.var() == pytest.approx(expected, rel=0.05)


def test_the_bootstrap_of_models_draws_the_same_rows_for_all() -> None:
    """Means over classes of k rows each have variance sum_c p_c (1 - p_c) / (k_c - 1) / c^2."""
    k, rng = np.array([5, 5, 12, 1, 1]), np.random.default_rng(0)
    hits = rng.random((2, 24)) < 0.6
    hits[1] = ~hits[0]
    draws = stratified_draws(hits, strata_of(k, 1 / (5 * k)), np.random.default_rng(1), 4_000)
    np.testing.assert_allclose(draws.sum(axis=0), 1, atol=1e-9)
    assert draws[0].mean() == pytest.approx((np.add.reduceat(hits[0], [0, 5, 10, 22, 23]) / k).mean(), abs=0.01)


@pytest.mark.parametrize(("shape", "least"), [((1,) * 30, 0.9), ((1, 1, 1, 2, 2, 4) * 5, 0.9)])
def test_an_interval_of_classes_with_one_row_holds_the_truth(shape: tuple[int, ...], least: float) -> None:
    """Drawn 1 of 1, which has no variance, the interval is a point and holds it in none of the trials."""
    k, trials, covered, before = np.array(shape), 200, 0, 0
    rng = np.random.default_rng(0)
    chance = np.repeat(np.clip(rng.normal(0.7, 0.1, len(k)), 0, 1), k)
    strata = strata_of(k, 1 / (len(k) * k))
    truth = sum(w * chance[rows].mean() for rows, w in strata)
    for _ in range(trials):
        hits = rng.random(len(chance)) < chance
        low, high = percentile_limits(stratified_draws(hits[None], strata, rng, 400)[0])
        covered += low <= truth <= high
        alone = np.zeros(400)
        for rows, w in strata:
            drawn = rng.integers(0, len(rows), (400, max(len(rows) - 1, 1)))
            alone += w * hits[rows][drawn].mean(axis=1)
        before += percentile_limits(alone)[0] <= truth <= percentile_limits(alone)[1]
    assert covered / trials >= least
    assert before == 0 if max(k) == 1 else before < covered


def test_a_stratified_sum_has_the_unbiased_variance_and_its_value_inside() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=40).round(1)
    strata = [(np.arange(25), 1.0), (np.arange(25, 39), -0.5), (np.array([39]), 2.0)]
    found = stratified_sum(values, strata, rng)
    assert found.value == pytest.approx(sum(w * values[r].mean() for r, w in strata)) and found.n == 40
    variance = sum(w**2 * values[r].var() / (len(r) - 1) for r, w in strata if len(r) > 1)
    sd = np.sqrt(variance + 4 * values[[*range(25), 39]].var())  # the lone row varies as those that count upwards
    assert stratified_draws(values[None], strata, rng)[0].std() == pytest.approx(sd, rel=0.05)
    assert found.low <= found.value <= found.high
    constant = stratified_sum(np.ones(40), strata, rng)
    assert constant.low == constant.value == constant.high == 2.5
