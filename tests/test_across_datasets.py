"""Methods on several datasets: a published example, laws, and other implementations of the same tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, wilcoxon

from embedx.statistics import across_datasets
from embedx.statistics.across_datasets import ranks_over_datasets

# Demsar 2006, table 6: AUC of C4.5, with m, with cf, with both, on 14 datasets. On the 13th two figures are printed
# alike and ranked 2 and 3 there, so the last digit is one that the table does not print.
DEMSAR = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip

tables = st.tuples(st.integers(1, 5), st.integers(2, 4), st.integers(0, 10_000), st.sampled_from([3, 1000]))


def drawn(n: int, k: int, seed: int, levels: int) -> np.ndarray:
    """Scores with many ties, or hardly any."""
    return np.random.default_rng(seed).integers(0, levels, (n, k)) / levels


def test_the_published_example() -> None:
    found = ranks_over_datasets(DEMSAR)
    assert [round(rank, 3) for rank in found.mean_ranks] == [3.143, 2.0, 2.893, 1.964]
    assert round(found.critical_difference, 2) == 1.25
    assert round(across_datasets.critical_difference(14, 5), 2) == round(2.728 * math.sqrt(5 * 6 / (6 * 14)), 2)
    # what he prints, chi^2_F = 9.28 and F_F = 3.69, is without the correction for ties, which makes them larger
    plain = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in found.mean_ranks) - 4 * 5**2 / 4)
    assert (round(plain, 2), round(13 * plain / (14 * 3 - plain), 2)) == (9.28, 3.69)
    assert found.friedman > plain
    assert found.p < 0.05
    first = found.pairs[0]  # his section 3.1.3: C4.5 against C4.5 + m, T = 12, below the 21 of alpha = 0.05
    assert wilcoxon(DEMSAR[:, 0] - DEMSAR[:, 1], zero_method="zsplit").statistic == 12
    assert (first.wins, first.losses, first.p < 0.05) == (2, 10, True)


@settings(max_examples=20, deadline=None)
@given(tables)
def test_laws(table: tuple[int, int, int, int]) -> None:
    scores = drawn(*table)
    n, k = scores.shape
    found = ranks_over_datasets(scores)
    assert sum(found.mean_ranks) == pytest.approx(k * (k + 1) / 2)
    assert found.least_p - 1e-12 <= found.p <= 1
    for pair in found.pairs:
        assert found.least_holm / len(found.pairs) - 1e-12 <= pair.p <= pair.holm + 1e-12 <= 1 + 1e-9
    assert found.too_few_for_pairs  # five datasets or fewer never tell a pair
    assert found.alike == ((found.best_first),)  # and so all are joined
    order = np.random.default_rng(table[2]).permutation(k)
    again = ranks_over_datasets(scores[::-1, order])
    assert np.array(found.mean_ranks)[order] == pytest.approx(again.mean_ranks)
    assert (again.friedman, again.p) == (pytest.approx(found.friedman), pytest.approx(found.p, abs=0.02))
    if n > 2 and np.ptp(scores, axis=1).any():
        expected = friedmanchisquare(*scores.T).statistic if k > 2 else found.friedman
        assert found.friedman == pytest.approx(expected)


def test_one_order_on_all_datasets_has_the_smallest_p() -> None:
    for n, k in ((2, 3), (4, 3), (5, 2)):
        found = ranks_over_datasets(np.arange(k) + np.arange(n)[:, None] * 10.0)
        assert found.mean_ranks == tuple(range(k, 0, -1))
        assert found.p == pytest.approx(found.least_p) == pytest.approx(math.factorial(k) ** (1 - n))
        assert math.isinf(found.iman_davenport)


def test_methods_that_never_differ() -> None:
    found = ranks_over_datasets(np.ones((6, 3)))
    assert (found.mean_ranks, found.friedman, found.p) == ((2, 2, 2), 0, 1)
    assert {pair.holm for pair in found.pairs} == {1}


def test_the_counted_p_holds_its_level_and_drawn_orders_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [drawn(4, 3, seed, 1000) for seed in range(60)]
    counted = np.array([ranks_over_datasets(scores).p for scores in tables])
    assert np.mean(counted < 0.05) < 0.12
    monkeypatch.setattr(across_datasets, "COUNTED", 1)
    assert [ranks_over_datasets(scores).p for scores in tables] == pytest.approx(counted, abs=0.015)
    assert ranks_over_datasets(DEMSAR).p == pytest.approx(0.0076, abs=0.004)  # by the F distribution


def test_stretches_of_methods_that_are_not_told_apart() -> None:
    rng = np.random.default_rng(0)
    scores = np.array([0.9, 0.5, 0.9, 0.1]) + rng.normal(0, 0.02, (12, 4))
    found = ranks_over_datasets(scores)
    assert {frozenset(stretch) for stretch in found.alike} == {frozenset({0, 2})}
    assert found.best_first[-2:] == (1, 3)
    assert not found.too_few_for_pairs


@pytest.mark.parametrize("scores", [np.ones((3, 1)), np.ones((0, 3)), np.ones(3)])
def test_too_little_to_compare(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one or more datasets x two or more methods"):
        ranks_over_datasets(scores)


def test_a_missing_score() -> None:
    scores = np.ones((3, 3))
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="method 2 has no finite score on dataset 1"):
        ranks_over_datasets(scores)
