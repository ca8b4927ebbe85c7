"""Minima and their differences: covered however close the groups are, and whatever does not matter aside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm

from embedx.statistics import Interval, Pairs, best_of, minimum
from embedx.statistics.corrections import simes
from embedx.statistics.minima import bootstrap_minimum
from embedx.statistics.moment_inequalities import FIRST, Inequalities, _chance

SIZES = np.array([150, 150, 60, 60])
MARGIN, ERROR = 0.02, 0.05
few = settings(deadline=None, max_examples=12)


def rows(p: Any, r: Any, sizes: np.ndarray = SIZES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of two heads, independent given the group."""
    rng = np.random.default_rng(seed)
    a, b = (rng.random(sizes.sum()) < np.repeat(x, sizes) for x in (p, r))
    return a.astype(float), b.astype(float)


def compared(a: np.ndarray, b: np.ndarray, sizes: np.ndarray) -> tuple[Interval, float, float]:
    pairs = Pairs.of(a, b, sizes)
    p, q = pairs.p_values(MARGIN)
    return pairs.difference(), float(p), float(q)


def test_the_minimum_of_one_group_is_clopper_pearson() -> None:
    interval = minimum(np.array([60]), np.array([100]))
    assert (interval.low, interval.high) == pytest.approx((beta.ppf(0.025, 60, 41), beta.ppf(0.975, 61, 40)))


@pytest.mark.parametrize(
    ("accuracy", "n"), [((0.65, 0.9, 0.95), 120), ((0.75,) * 4, 320), ((0.75,) * 8, 50), ((0.9,) * 20, 30)]
)
def test_the_interval_of_the_worst_group_covers_however_close_the_groups_are(accuracy: tuple, n: int) -> None:
    """At least 95 %, so that 400 repetitions hardly ever give less than 93 %."""
    rng, each = np.random.default_rng(0), np.full(len(accuracy), n)
    found = [minimum(rng.binomial(each, accuracy), each) for _ in range(400)]
    assert np.mean([i.low <= min(accuracy) <= i.high for i in found]) >= 0.93


def test_the_bootstrap_of_a_minimum_misses_where_groups_are_alike() -> None:
    """Which is why it is not the interval that is reported."""
    rng, each = np.random.default_rng(0), np.full(8, 50)
    draws = [rng.binomial(each, 0.75) for _ in range(100)]
    boots = [bootstrap_minimum(correct, each, rng, replicates=300) for correct in draws]
    assert [i.value for i in boots] == [minimum(correct, each).value for correct in draws]
    assert np.mean([i.low <= 0.75 <= i.high for i in boots]) < 0.3
    one = bootstrap_minimum(np.array([600, 990]), np.array([1000, 1000]), rng)
    exact = minimum(np.array([600, 990]), np.array([1000, 1000]))
    assert (one.low, one.high) == pytest.approx((exact.low, exact.high), abs=0.006)  # one group is clearly the worst


@few
@given(st.integers(0, 10_000), st.lists(st.floats(0.3, 1.0), min_size=4, max_size=4), st.floats(-0.3, 0.3))
def test_the_interval_is_what_is_not_refuted(seed: int, p: list[float], shift: float) -> None:
    a, b = rows(p, np.clip(np.array(p) + shift, 0, 1), seed=seed)
    pairs = Pairs.of(a, b, SIZES)
    interval = pairs.difference()
    parts = np.split(np.arange(len(a)), np.cumsum(SIZES)[:-1])
    assert interval.value == pytest.approx(min(b[i].mean() for i in parts) - min(a[i].mean() for i in parts))
    assert interval.low <= interval.value <= interval.high
    for limit, which in ((interval.low, 1), (interval.high, 0)):
        if abs(limit) < 0.999:
            assert pairs.p_values(limit)[which] == pytest.approx(0.025, abs=0.003)
    mirrored = Pairs.of(b, a, SIZES).difference()  # who is called plain does not matter
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), abs=1e-5)


@few
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_groups_and_of_rows_does_not_matter(seed: int, order: list[int]) -> None:
    a, b = rows([0.9, 0.8, 0.7, 0.9], [0.9, 0.85, 0.8, 0.8], seed=seed)
    rng = np.random.default_rng(seed)
    parts = np.split(np.arange(len(a)), np.cumsum(SIZES)[:-1])
    again = np.concatenate([rng.permutation(parts[g]) for g in order])
    first = compared(a, b, SIZES)
    second = compared(a[again], b[again], SIZES[order])
    assert second[0].value == pytest.approx(first[0].value) and second[1:] == pytest.approx(first[1:])
    empty = compared(a, b, np.insert(SIZES, 2, 0))
    assert empty == first


def test_one_group_of_unpaired_looking_rows_is_the_textbook_test() -> None:
    """With one large group and no margin the paired test is McNemar's, but for half a row of continuity."""
    n, gained, lost = 10_000, 300, 240
    a, b = np.ones(n), np.ones(n)
    a[:gained], b[gained : gained + lost] = 0, 0
    p, q = Pairs.of(a, b, np.array([n])).p_values(0.0)
    z = (gained - lost - 0.5) / np.sqrt(gained + lost)
    assert q == pytest.approx(norm.sf(z), rel=0.02) and p > 0.98


@pytest.mark.parametrize("n", [60, 200, 642])
def test_a_rival_that_is_right_wherever_plain_is_makes_no_bold_verdicts(n: int) -> None:
    """Then the difference is one binomial share, whose exact p-value is at hand; ours is hardly ever smaller."""
    for gained in range(int(3 * MARGIN * n)):
        a, b = np.r_[np.zeros(gained), np.ones(n - gained)], np.ones(n)
        suffices, short = Pairs.of(a, b, np.array([n])).p_values(MARGIN)
        low, high = binom.cdf(gained, n, MARGIN), binom.sf(gained - 1, n, MARGIN)
        assert suffices > ERROR or low <= ERROR
        assert short > ERROR or high <= ERROR


@pytest.mark.parametrize(
    ("p", "gain", "allowed"),
    [
        ((0.9, 0.9, 0.9, 0.9), 0.02, ()),
        ((0.95, 0.92, 0.75, 0.93), 0.02, ()),
        ((0.97, 0.95, 0.7, 0.9), 0.2, ("does not suffice",)),
        ((0.97, 0.95, 0.96, 0.98), -0.1, ("suffices",)),
    ],
)
def test_wrong_words_are_rare(p: tuple[float, ...], gain: float, allowed: tuple[str, ...]) -> None:
    """At the margin itself both answers are wrong at most ERROR of the time; far from it the right one is found."""
    r, rng = np.clip(np.array(p) + gain, 0, 1), np.random.default_rng(0)
    a, b = ((rng.random((400, SIZES.sum())) < np.repeat(x, SIZES)).astype(float) for x in (p, r))
    suffices, short = Pairs.of(a, b, SIZES).refuted(MARGIN, ERROR)
    if "suffices" not in allowed:
        assert suffices.mean() <= ERROR + 0.02
    if "does not suffice" not in allowed:
        assert short.mean() <= ERROR + 0.02
    assert (suffices | short).mean() > 0.5 or not allowed


def test_groups_that_are_clear_take_nothing_from_the_level_and_those_that_may_bind_do() -> None:
    """With all other groups far off the joint test is the paired one at nearly all of the level."""
    sizes = np.full(4, 600)
    clear = rows([0.98, 0.98, 0.7, 0.98], [0.98, 0.98, 0.74, 0.98], sizes, seed=1)
    alone = [x[1200:1800] for x in clear]
    joint = Pairs.of(clear[0], clear[1], sizes).p_values(MARGIN)[1]
    single = Pairs.of(alone[0], alone[1], sizes[:1]).p_values(MARGIN)[1]
    assert single < joint <= 1.05 * single / (1 - FIRST)
    z = np.full(4, -2.0)  # of independent estimates that may all bind it is Sidak's
    p = Inequalities(z, z, 0 * z, np.full(4, 0.25)).p_values()
    assert p * (1 - FIRST) == pytest.approx(1 - norm.cdf(2) ** 4, rel=1e-3)


def test_what_is_clearly_so_is_never_refuted() -> None:
    a, b = rows([0.3] * 4, [0.93] * 4)
    p, q = Pairs.of(a, b, SIZES).p_values(MARGIN)
    assert p == pytest.approx(1) and q < 1e-6


def test_a_p_value_is_the_smallest_level_that_refutes_and_the_chance_is_that_of_draws() -> None:
    rng = np.random.default_rng(0)
    loading, above = np.array([0.8, 0.5, 0.7]), np.array([1.9, 2.4, 1.6])
    noise = loading * rng.standard_normal((200_000, 1)) + np.sqrt(1 - loading**2) * rng.standard_normal((200_000, 3))
    assert _chance(above, loading) == pytest.approx((noise > above).any(axis=1).mean(), abs=0.002)
    z = np.array([-1.2, 0.4, -1.6])
    side = Inequalities(z, z, loading, np.array([0.5, 0.25, 0.25]))
    p = side.p_values()
    assert side.refuted(p * 1.001) and not side.refuted(p * 0.999)


def test_the_best_of_several_is_refuted_when_all_are_and_shown_when_some_are() -> None:
    at_least, at_most = best_of(np.array([[0.01, 0.2], [0.01, 0.02]]), np.array([[0.01, 0.9], [0.03, 0.04]]))
    assert at_least.tolist() == [0.2, 0.02] and at_most.tolist() == pytest.approx([0.02, 0.04])
    uniform = np.random.default_rng(0).random((20_000, 5))
    assert (simes(uniform) <= ERROR).mean() == pytest.approx(ERROR, abs=0.005)  # exact for independent tests
