"""The choice among settings: how ties are broken, and how a grid grows where the best setting stands at its edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedx.evaluation.choice import ROUNDS, Scored, Search

Setting = dict[str, Any]


def searched(grid: list[Setting], limits: Mapping[str, tuple[float, float]], of: Callable[[Setting], float]) -> Search:
    """A search to its end; `of` is the score of a setting, and a head is its setting."""
    search = Search(grid, limits, lambda heads: Scored(np.array([of(h) for h in heads]), np.zeros(len(heads))))
    while wanted := search.wanted:
        search.add([dict(w) for w in wanted])
    return search


def grid(*values: float) -> list[Setting]:
    return [{"C": C, "q": q} for C in values for q in (1, 2)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_ties_go_to_the_average_then_to_the_first(pairs: list[tuple[int, int]]) -> None:
    scores, averages = (np.array(x, float) / 2 for x in zip(*pairs, strict=True))
    rounding = np.resize([0.0, 1e-15], len(pairs))
    found = Scored(scores + rounding, averages)
    best = max(pairs)
    assert found.best == pairs.index(best) and found.tied.sum() == [p[0] for p in pairs].count(best[0])
    for i, j in np.ndindex(len(pairs), len(pairs)):
        assert found.better(i, j) == (pairs[i] > pairs[j])


@settings(deadline=None)
@given(st.floats(-9, 5), st.booleans())
def test_the_best_of_one_peak_is_reached_within_the_rounds_and_the_limits(peak: float, falling: bool) -> None:
    values = [10.0**e for e in (-4, -3, -2, -1)]
    found = searched(
        grid(*values[:: -1 if falling else 1]), {"C": (1e-6, 1e3)}, lambda s: -abs(np.log10(s["C"]) - peak)
    )
    ladder = [10.0**e for e in range(-6, 4)]
    reached = [c for c in ladder if 0.99e-4 / 10**ROUNDS < c < 1.01 * 0.1 * 10**ROUNDS]
    best = min(reached, key=lambda c: (round(abs(np.log10(c) - peak), 9), c if not falling else -c))
    assert found.settings[found.best]["C"] == pytest.approx(best)
    order = [s["C"] for s in found.settings if s["q"] == found.settings[found.best]["q"]]
    assert order == sorted(order, reverse=falling), "the order of regularisation goes on beyond the edge"
    assert len({tuple(s.items()) for s in found.settings}) == len(found.settings) == len(found.heads)
    assert [h == s for h, s in zip(found.heads, found.settings, strict=True)]
    outside = not min(order) < found.settings[found.best]["C"] < max(order)
    at_limit = found.settings[found.best]["C"] in (1e-6, 1e3)
    assert found.edges() == ({"C": found.settings[found.best]["C"]} if outside and not at_limit else {})


def test_only_the_line_through_the_best_grows() -> None:
    found = searched(grid(1.0, 10.0), {"C": (1e-8, 1e3)}, lambda s: s["C"] * s["q"])
    assert [s["C"] for s in found.settings if s["q"] == 1] == [1.0, 10.0]
    assert [s["C"] for s in found.settings if s["q"] == 2] == [1.0, 10.0, 100.0, 1000.0]
    assert found.edges() == {}, "the end of C is its limit, not an edge"
    assert searched(grid(1.0, 10.0), {}, lambda s: s["C"] * s["q"]).edges() == {"C": 10.0, "q": 2}


def test_a_plateau_does_not_grow_and_is_no_edge() -> None:
    found = searched(grid(1.0, 10.0), {"C": (1e-8, 1e3), "q": (1, 9)}, lambda s: 0.5)
    assert found.settings == grid(1.0, 10.0) and found.edges() == {} and found.scored.tied.all()


def test_parameters_that_are_equal_in_every_setting_grow_together() -> None:
    twins = [{"first": C, "C": C, "name": "x", "on": True} for C in (1.0, 10.0)]
    found = searched(twins, {"C": (1e-8, 1e3)}, lambda s: s["C"])
    assert [(s["first"], s["C"]) for s in found.settings] == [(C, C) for C in (1.0, 10.0, 100.0, 1000.0)]


def test_whole_numbers_stay_whole_and_a_ladder_with_zero_grows_by_differences() -> None:
    steps = searched([{"steps": s} for s in (10, 30)], {"steps": (1, 1000)}, lambda s: -abs(s["steps"] - 250))
    assert [s["steps"] for s in steps.settings] == [10, 30, 90, 270, 810]
    zero = searched([{"a": a} for a in (0.0, 2.0)], {"a": (0.0, 5.0)}, lambda s: s["a"])
    assert [s["a"] for s in zero.settings] == [0.0, 2.0, 4.0, 5.0] and zero.edges() == {}
