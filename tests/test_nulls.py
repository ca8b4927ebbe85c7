"""Nulls of random rankings: those of all rankings, with the moments known, and p-values that are honest."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedx.statistics import (
    against,
    p_from_draws,
    random_gap_limits,
    random_gaps,
    random_ranking,
    shuffled_within,
)


@pytest.mark.parametrize(("n", "right", "k"), [(7, 3, 2), (8, 4, 4), (6, 0, 2), (6, 6, 3), (9, 7, 1)])
def test_the_null_of_a_random_ranking_is_that_of_all_rankings(n: int, right: int, k: int) -> None:
    found: dict[int, int] = {}
    for rows in combinations(range(n), right):
        d = sum(i >= n - k for i in rows) - sum(i < k for i in rows)
        found[d] = found.get(d, 0) + 1
    null, total = random_ranking(n, right, k), sum(found.values())
    assert dict(zip(null.values.tolist(), null.chances, strict=True)) == pytest.approx(
        {d: count / total for d, count in sorted(found.items())}
    )
    for d in range(k + 1):
        assert null.p_value(d) == pytest.approx(sum(c for e, c in found.items() if abs(e) >= d) / total)


@given(st.integers(2, 4_000), st.floats(0, 1), st.floats(0, 0.5))
def test_the_null_has_the_moments_known_in_closed_form(n: int, share: float, fraction: float) -> None:
    right, k = round(share * n), max(1, min(int(fraction * n), n // 2))
    null = random_ranking(n, right, k)
    assert null.chances.sum() == pytest.approx(1) and null.values @ null.chances == pytest.approx(0, abs=1e-9)
    variance = 2 * k * right * (n - right) / (n * (n - 1))
    assert null.values**2 @ null.chances == pytest.approx(variance, rel=1e-6, abs=1e-9)
    low, high = null.limits(0.95)
    inside = null.chances[(null.values >= low) & (null.values <= high)].sum()
    narrower = null.chances[np.abs(null.values) < high].sum()
    assert low == -high and inside >= 0.95 - 1e-9 and (narrower < 0.95 or high == 0)


def test_draws_of_random_rankings_have_the_exact_moments() -> None:
    rng, n, right, k = np.random.default_rng(0), np.array([20, 20, 50]), np.array([5, 5, 40]), np.array([4, 4, 10])
    mean, pooled = random_gaps(n, right, k, rng, 20_000)
    for draws, weights in ((mean, 1 / (3 * k)), (pooled, np.full(3, 1 / k.sum()))):
        variance = weights**2 @ (2 * k * right * (n - right) / (n * (n - 1)))
        assert draws.mean() == pytest.approx(0, abs=4 * np.sqrt(variance / 20_000))
        assert draws.var() == pytest.approx(variance, rel=0.05)
        low, high = random_gap_limits(n, right, k, weights)
        assert -low == high == pytest.approx(1.959964 * np.sqrt(variance))


def test_shuffling_leaves_every_row_in_its_class() -> None:
    rng, sizes = np.random.default_rng(0), np.array([3, 1, 6])
    drawn = np.array([shuffled_within(sizes, rng) for _ in range(600)])
    classes = np.repeat(np.arange(3), sizes)
    assert (classes[drawn] == classes).all() and (np.sort(drawn, axis=1) == np.arange(10)).all()
    first = np.bincount(drawn[:, 4], minlength=10)[4:]  # each row of the last class stands first as often
    assert (np.abs(first - 100) < 4 * np.sqrt(100)).all()


def test_p_values_from_draws_are_never_bold() -> None:
    """The figure is one of the draws itself, so of n + 1 alike it is among the first alpha (n + 1) that often."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(800, 40))
    for p in ([p_from_draws(d[0], d[1:]) for d in draws], [against(5 + d[0], 5 + d[1:]).p for d in draws]):
        for alpha in (0.05, 0.2):
            assert np.mean(np.array(p) <= alpha) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 800)
        assert min(p) > 0 and max(p) <= 1
    assert p_from_draws(0.5, np.array([0.5, -0.5 + 1e-15, 0.2])) == 0.75  # equal but for rounding is as far


def test_a_figure_stands_beside_the_middle_of_its_null() -> None:
    found = against(3.0, np.r_[np.arange(101.0), np.nan])
    assert (found.value, found.null, found.low, found.high) == pytest.approx((3.0, 50.0, 2.5, 97.5))
    assert found.p == pytest.approx(2 * 5 / 102)
    assert np.isnan(against(1.0, np.array([np.nan])).p)
