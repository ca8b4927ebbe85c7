"""The choice among settings: how ties are broken, and how a grid grows where the best setting stands at its edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedx.evaluation.choice import FINEST, ROUNDS, SETTLED, Certainty, Judged, Scored, Search, Tolerance
from embedx.evaluation.probe import probe
from embedx.evaluation.selection import RULES, scored
from embedx.evaluation.split import Part, Split
from embedx.probes import CS, Features, Problem, solve

Setting = dict[str, Any]


def searched(grid: list[Setting], limits: Mapping[str, tuple[float, float]], of: Callable[[Setting], float]) -> Search:
    """A search to its end; `of` is the score of a setting, and a head is its setting."""
    search = Search(grid, limits, lambda heads, before: [Judged(of(h), 0.0, np.zeros(1)) for h in heads])
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
    assume(abs(abs(peak - round(peak)) - 0.5) > 1e-6)  # between two values of one height there is no edge
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
    assert len({tuple(s.items()) for s in found.settings}) == len(found.settings)
    assert [t.head for t in found.tries] == found.settings
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


def test_each_kind_of_a_mixed_grid_grows_by_itself() -> None:
    mixed = [*({"C": C} for C in (1.0, 10.0)), *({"kind": "stopped", "steps": s} for s in (10, 30))]
    limits = {"C": (1e-8, 1e3), "steps": (1, 1000)}
    solved = searched(mixed, limits, lambda s: s.get("C", 0))
    assert solved.settings == [{"C": C} for C in (1.0, 10.0, 100.0, 1000.0)] + mixed[2:]
    stopped = searched(mixed, limits, lambda s: -abs(s.get("steps", 9000) - 250))
    assert stopped.settings == mixed + [{"kind": "stopped", "steps": s} for s in (90, 270, 810)]
    assert searched(mixed, {}, lambda s: s.get("steps", 0)).edges() == {"steps": 30}


def test_whole_numbers_stay_whole_and_a_ladder_with_zero_grows_by_differences() -> None:
    steps = searched([{"steps": s} for s in (10, 30)], {"steps": (1, 1000)}, lambda s: -abs(s["steps"] - 250))
    assert [s["steps"] for s in steps.settings] == [10, 30, 90, 270, 810]
    outside = searched([{"steps": s} for s in (10, 5000)], {"steps": (1, 3000)}, lambda s: s["steps"])
    assert len(outside.settings) == 2 and outside.edges() == {}, "never back into the grid"
    zero = searched([{"a": a} for a in (0.0, 2.0)], {"a": (0.0, 5.0)}, lambda s: s["a"])
    assert [s["a"] for s in zero.settings] == [0.0, 2.0, 4.0, 5.0] and zero.edges() == {}


def shortcut(seed: int, d: int = 400) -> Split:
    """A class and a shortcut in wide features of rows of very different lengths; a few labels of train are wrong."""
    rng, parts = np.random.default_rng(seed), []
    core, spurious = rng.standard_normal((2, d)) / d**0.5
    for name, counts in (("train", (350, 18, 6, 106)), ("val", (47, 47, 13, 13)), ("test", (50, 50, 20, 20))):
        groups = np.repeat(np.arange(4), counts)
        y, place = np.divmod(groups, 2)
        X = rng.standard_normal((len(y), d)) * np.exp(0.7 * rng.standard_normal((len(y), 1)))
        X += np.outer(6 * y - 3, core) + np.outer(8 * place - 4, spurious)
        label = np.where(rng.uniform(size=len(y)) < 0.02 * (name == "train"), 1 - y, y)
        ids = np.array([f"{name}{i}" for i in range(len(y))])
        parts.append(Part(ids, X.astype(np.float32), label, groups))
    return Split("s", "b", *parts, ("a", "b"), tuple("wxyz"), np.array([0, 0, 1, 1]), has_groups=True, left_out={})


def at_tolerance(split: Split, Cs: Sequence[float], tol: float) -> dict[str, tuple[float, float]]:
    """{rule: (C, its score)} of plain heads that are solved to a tolerance."""
    features, y = Features.standardize(split.train.X), split.train.y
    found = solve(features, y, np.ones((1, len(y))), [Problem(0, C, tol=tol, max_iter=10_000) for C in Cs])
    Z = features.of(split.val.X).double().numpy()
    codes = np.array([Z @ s.coef[0] + s.intercept[0] > 0 for s in found]).astype(int)
    worth = {r: scored(RULES[r], codes, split.val, np.ones(4) / 4, split.train) for r in ("average", "worst-group")}
    return {rule: (Cs[w.best], w.scores.max()) for rule, w in worth.items()}


@pytest.mark.parametrize("seed", [3, 5])
def test_the_choice_is_that_of_the_exact_solutions_where_coarse_ones_choose_another(seed: int) -> None:
    split = shortcut(seed)
    chosen = {rule: probe(split, "plain", rule=rule)[0] for rule in ("average", "worst-group")}
    Cs = sorted({*CS, *(run.parameters["C"] for run in chosen.values())})
    exact = at_tolerance(split, Cs, 1e-10)
    assert {rule: (run.parameters["C"], run.validation_score) for rule, run in chosen.items()} == exact
    assert {run.certainty for run in chosen.values()} == {Certainty.UNCHANGED}
    assert at_tolerance(split, Cs, 1e-4) != exact, "else this tells nothing"


class Descents:
    """Settings whose score is that of the minimum plus a part that shrinks with the tolerance, and how they are judged.

    A head is (setting, tolerance); errors are of either sign, and no larger than what is said may still move.
    """

    def __init__(self, exact: list[float], errors: list[float]) -> None:
        self.exact, self.errors, self.tolerances = exact, errors, list[list[tuple[int, float]]]()
        self.search = Search([{"i": i} for i in range(len(exact))], {}, self.judged, Tolerance(1e-4, 1e-5))
        while wanted := self.search.wanted:
            self.tolerances.append([(w["i"], w["tol"]) for w in wanted])
            self.search.add(self.tolerances[-1])

    def judged(self, heads: Sequence[tuple[int, float]], before: Sequence[np.ndarray | None]) -> list[Judged]:
        off = [self.errors[i] * tol / 1e-4 for i, tol in heads]
        return [Judged(self.exact[i] + e, 0.5, np.zeros(3), abs(e)) for (i, _), e in zip(heads, off, strict=True)]


sizes = st.floats(-0.3, 0.3).map(lambda x: x if abs(x) > 1e-6 else 0.0)


@given(st.lists(st.tuples(st.floats(0, 1), sizes), min_size=1, max_size=8))
def test_the_choice_is_that_of_the_minima_up_to_what_is_shown(settings: list[tuple[float, float]]) -> None:
    exact, errors = map(list, zip(*settings, strict=True))
    found = Descents(exact, errors)
    best = found.search.chosen
    assert exact[best.setting["i"]] >= max(exact) - 2 * SETTLED and found.search.certainty() == Certainty.UNCHANGED
    assert best.tol is not None and best.tol <= 1e-5, "the chosen one is fitted in full"


def test_only_what_could_still_be_the_best_is_solved_finer() -> None:
    found = Descents([0.9, 0.8, 0.95, 0.2], [-0.001, 0.0001, -0.2, 0.3])
    assert found.tolerances[1:] == [[(0, 1e-5), (2, 1e-5)], [(2, 1e-6)], [(2, 1e-7)]], (
        "what lags, and what it may catch"
    )
    assert found.search.best == 2, "the best of the coarse fits was 0"


def test_what_goes_on_moving_is_not_settled() -> None:
    search = Search([{"i": 0}], {}, lambda heads, before: [Judged(0.5, 0.5, np.zeros(1), 0.1)], Tolerance(1e-5, 1e-5))
    tolerances = []
    while wanted := search.wanted:
        tolerances.append(wanted[0]["tol"])
        search.add([None])
    assert tolerances == [1e-5, 1e-6, 1e-7, 1e-8, FINEST] and search.certainty() == Certainty.NOT


def test_the_tolerance_that_somebody_asked_for_stays() -> None:
    search = Search([{"i": 0}], {}, lambda heads, before: [Judged(0.5, 0.5, np.zeros(1), 0.1)])
    assert search.wanted == [{"i": 0}]
    search.add([None])
    assert not search.wanted and search.certainty() == Certainty.NOT


@pytest.mark.parametrize(
    ("judged", "certainty"),
    [
        ([(0.9, None, 1.0, 1.0), (0.8, None, 0.89, 0.5)], Certainty.CERTIFIED),
        ([(0.9, None, 1.0, 1.0), (0.8, 0.0, 0.95, 0.5)], Certainty.UNTOLD),
        ([(0.9, 0.0, 1.0, 1.0), (0.8, 0.0, 0.95, 0.5)], Certainty.UNCHANGED),
        ([(0.9, 0.0, 1.0, 0.99), (0.8, 0.0, 0.8, 1.0)], Certainty.UNCHANGED),
        ([(0.9, 0.0, 0.9, 1.0), (0.9, 0.0, 0.9, 1.0)], Certainty.CERTIFIED),
    ],
)
def test_certified_needs_a_bound_for_every_setting(judged: list[tuple], certainty: Certainty) -> None:
    verdicts = [Judged(score, 0.5, np.zeros(1), moved, high, sure) for score, moved, high, sure in judged]
    search = Search([{"i": i} for i in range(len(judged))], {}, lambda heads, before: verdicts)
    search.add([None] * len(judged))
    assert search.certainty() == certainty
