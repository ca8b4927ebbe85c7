"""Intervals of proportions and their means, and of differences: they invert their tests, agree with scipy, cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from embedx.statistics import (
    Interval,
    difference,
    effective_proportion,
    paired_difference,
    percentile_limits,
    proportion,
    sum_of_strata,
    wilson,
)
from embedx.statistics.intervals import clopper_pearson, mean_proportion, normal_limit

COUNTS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_inverts_the_score_test(counts: tuple[int, int]) -> None:
    correct, n = counts
    p, z = correct / n, norm.ppf(0.975)
    low, high = wilson(correct, n)
    beyond = lambda q: (p - q) ** 2 - z * z * q * (1 - q) / n  # noqa: E731  positive where q is rejected
    assert low == (pytest.approx(brentq(beyond, 0, p - 1e-9 * (p == 1)), abs=1e-9) if correct else 0)
    assert high == (pytest.approx(brentq(beyond, p + 1e-9 * (p == 0), 1), abs=1e-9) if correct < n else 1)
    assert low <= p <= high
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))


@settings(deadline=None)
@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_limits_of_one_proportion_are_those_of_scipy(counts: tuple[int, int], level: float) -> None:
    test, (correct, n) = binomtest(*counts), counts
    assert wilson(correct, n, level) == pytest.approx(test.proportion_ci(level, method="wilson"), abs=1e-12)
    tail = (1 - level) / 2
    low, high = clopper_pearson(np.array([correct]), np.array([n]), tail, tail)
    assert (low[0], high[0]) == pytest.approx(test.proportion_ci(level, method="exact"), abs=1e-9)


def test_a_proportion_knows_its_rows() -> None:
    assert proportion(3, 4) == Interval(0.75, *wilson(3, 4), 4)
    assert effective_proportion(0.75, 4, 99) == Interval(0.75, *wilson(3, 4), 99)
    assert normal_limit(0.95) == pytest.approx(norm.ppf(0.975))


@given(COUNTS)
def test_the_mean_of_one_proportion_is_that_proportion(counts: tuple[int, int]) -> None:
    found, single = mean_proportion(*np.array(counts)[:, None], np.ones(1)), proportion(*counts)
    assert (found.value, found.low, found.high, found.n) == pytest.approx(
        (single.value, single.low, single.high, single.n)
    )


@pytest.mark.parametrize(("accuracy", "n"), [((0.9, 0.6), (60, 25)), ((0.99,) * 4, (20,) * 4), ((0.5,) * 8, (10,) * 8)])
def test_means_cover(accuracy: tuple[float, ...], n: tuple[int, ...]) -> None:
    rng, sizes = np.random.default_rng(0), np.array(n)
    weights = rng.dirichlet(np.ones(len(n)))
    found = [mean_proportion(rng.binomial(sizes, accuracy), sizes, weights) for _ in range(500)]
    assert np.mean([i.low <= weights @ accuracy <= i.high for i in found]) >= 0.92


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 6))
def test_classes_that_are_alike_are_worth_their_rows(right: int, k: int, classes: int) -> None:
    right = min(right, k)
    one = sum_of_strata(np.full(classes, right), np.full(classes, k), np.full(classes, 1 / (classes * k)))
    assert one.value == pytest.approx(right / k) and one.n == classes * k
    low, high = wilson(right * classes, k * classes)
    assert one.low <= low + 1e-9 and high - 1e-9 <= one.high  # never narrower than Wilson's for all rows


def test_a_mean_is_worth_fewer_rows_where_small_classes_vary_most() -> None:
    """v = 3/4, of variance (1/2)^2 (1/2 * 1/2 / (2 - 1)) = 1/16: worth 3/4 * 1/4 * 16 = 3 rows."""
    k = np.array([2, 50])
    one = sum_of_strata(np.array([1, 50]), k, 1 / (2 * k))
    assert (one.value, one.n) == (0.75, 52)
    assert (one.low, one.high) == pytest.approx(wilson(0.75 * 3, 3))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
def test_percentiles_hold_the_middle_of_the_draws(draws: list[float], level: float) -> None:
    low, high = percentile_limits(np.array(draws), level)
    assert min(draws) <= low <= high <= max(draws)
    assert (low, high) == pytest.approx(tuple(np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])))


@settings(deadline=None)
@given(COUNTS, COUNTS)
def test_newcombes_interval_holds_its_figure_and_turns_with_the_sides(a: tuple[int, int], b: tuple[int, int]) -> None:
    one, other = proportion(*a), proportion(*b)
    found, turned = difference(one, other), difference(other, one, 7)
    assert -1 <= found.low <= found.value <= found.high <= 1 and (found.n, turned.n) == (a[1] + b[1], 7)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    exact = difference(one, other, value=found.value)
    assert exact == found


def test_newcombes_interval_is_the_published_one() -> None:
    """Newcombe 1998, table II, method 10: 56/70 - 48/80 and 9/10 - 3/10."""
    for counts, low, high in (((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090)):
        found = difference(proportion(*counts[:2]), proportion(*counts[2:]))
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_paired_interval_holds_its_figure_and_turns_with_the_sides(lost: int, gained: int, rest: int) -> None:
    n = lost + gained + rest + 1
    drop, turned = paired_difference(lost, gained, n), paired_difference(gained, lost, n)
    assert drop.value == pytest.approx((lost - gained) / n) and drop.n == n
    assert -1 <= drop.low <= drop.value <= drop.high <= 1
    assert (turned.value, turned.low, turned.high) == pytest.approx((-drop.value, -drop.high, -drop.low))


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.0), (0.1, 0.05), (0.4, 0.1), (0.8, 0.0)])
def test_the_paired_interval_covers(lost: float, gained: float) -> None:
    draws = np.random.default_rng(0).multinomial(65, [lost, gained, 1 - lost - gained], size=2000)
    found = [paired_difference(int(x), int(g), 65) for x, g, _ in draws]
    assert np.mean([i.low <= lost - gained <= i.high for i in found]) > 0.93
