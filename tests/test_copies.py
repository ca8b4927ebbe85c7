"""Equal problems give equal bits, whoever built their arrays: shared, or copied for every problem."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from every_head import cases
from overlapping import data
from solving import Problem
from solving import solve as solve_each
from test_arguments import full

from embedx.evaluation.heads import load_head
from embedx.probes import Data, Features, HeldOut, solve, weighted_fits
from embedx.probes._once import content, distinct, once, recalled
from embedx.probes._worst_case import worst_case_fits
from embedx.probes.bias_tuned import BiasTuned
from embedx.probes.plain import Plain
from embedx.probes.worst_group_boosting import WorstGroupBoosting


def bits(heads: Sequence[Any]) -> list[dict[str, Any]]:
    """All fitted numbers, as bytes."""
    return [
        {name: [x.tobytes() if isinstance(x, np.ndarray) else x for x in (v if isinstance(v, tuple) else (v,))]
         for name, v in vars(h).items() if name.endswith("_")}
        for h in heads
    ]  # fmt: skip


def copied(
    features: Features, y: np.ndarray, weightings: Sequence[np.ndarray], problems: Sequence[Any], *,
    anchors: Sequence[Any] = (), risk: Any = None,
) -> Any:  # fmt: skip
    """`solve`, every problem with a weighting and an anchor of its own."""
    own = [replace(p, weights=i, anchor=None if p.anchor is None else i) for i, p in enumerate(problems)]
    nothing = np.zeros((1, 1)), np.zeros(1)
    starts = [nothing if p.anchor is None else tuple(a.copy() for a in anchors[p.anchor]) for p in problems]
    return solve(features, y, [weightings[p.weights].copy() for p in problems], own, anchors=starts, risk=risk)


@pytest.mark.parametrize("name", cases())
def test_heads_are_the_same_bits_when_every_problem_has_arrays_of_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_head(name)
    X, y, needed = full(kind, 80)
    both = [{}, {"penalty": "l1"}] if "_weightings" in vars(kind) and "penalty" in kind().get_params() else [{}]
    settings = [{**s, **b, "random_state": 0} for s in list(kind.grid)[-3:] for b in both]
    extra = {"no_errors": "plain"} if "no_errors" in kind().get_params() else {}
    shared = kind(**extra).path(X, y, settings, **needed)
    for module in [m for at, m in list(sys.modules.items()) if at.startswith("embedx.probes.")]:
        if vars(module).get("solve") is solve:
            monkeypatch.setattr(module, "solve", copied)
    again = {key: value if key != "held_out" else [HeldOut(*map(np.copy, value)) for _ in settings]
             for key, value in needed.items()}  # fmt: skip
    for one, other in zip(bits(shared), bits(kind(**extra).path(X, y, settings, **again)), strict=True):
        one.pop("index_", None), other.pop("index_", None), one.pop("prompts_", None), other.pop("prompts_", None)
        assert one == other


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("k", [2, 3])
def test_the_solver_looks_at_contents(penalty: str, k: int) -> None:
    X, y, groups = data(1, k)
    features = Features.standardize(X)
    weightings = [np.ones(len(y)), 1.0 + (groups % 2), (np.arange(len(y)) % 5 < 4).astype(float)]
    anchor = (np.full((1 if k == 2 else k, 4), 0.1), np.zeros(1 if k == 2 else k)) if penalty == "l2" else None
    shared = [Problem(w, C, penalty, anchor=anchor) for w in weightings for C in (0.01, 0.1, 1.0) for _ in range(2)]
    apart = [
        replace(p, weights=p.weights.copy(), anchor=anchor and (anchor[0].copy(), anchor[1].copy())) for p in shared
    ]
    one, other = solve_each(features, y, shared), solve_each(features, y, apart)
    for i, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a.coef.tobytes() == b.coef.tobytes() and a.intercept.tobytes() == b.intercept.tobytes()
        assert other[i] is other[i - i % 2]  # equal ones are one solution


def test_worst_cases_weightings_and_held_out_rows_are_told_by_content() -> None:
    X, y, groups = data(2)
    checked = Data(Features.standardize(X), y, np.arange(2), groups, (), None)
    variants = [Plain(C=C) for C in (0.1, 0.1, 1.0)]
    shared = worst_case_fits(checked, variants, [groups] * 3)
    apart = worst_case_fits(checked, variants, [groups.copy() for _ in range(3)])
    assert [f.theta[0].tobytes() for f in shared] == [f.theta[0].tobytes() for f in apart]
    assert shared[0].theta[0] is shared[1].theta[0] and apart[0].theta[0] is apart[1].theta[0]
    ones = np.ones((2, len(y)))
    one, other = (
        weighted_fits(checked, variants, w, at) for w, at in (([ones], [0] * 3), ([ones.copy()] * 3, range(3)))
    )
    assert [f.theta[0].tobytes() for f in one] == [f.theta[0].tobytes() for f in other]
    held = HeldOut(X[::2], y[::2], groups[::2])
    for kind in (BiasTuned, WorstGroupBoosting):
        settings = [{"C": C} for C in (0.1, 1.0, 10.0)]
        one = kind().path(X, y, settings, groups=groups, held_out=held)
        other = kind().path(X, y, settings, groups=groups, held_out=[HeldOut(*map(np.copy, held)) for _ in settings])
        assert bits(one) == bits(other)


@pytest.mark.parametrize("name", ["afr", "eiil", "george", "jtt", "leace", "leia", "self-disagreement", "spare"])
def test_a_memory_keeps_first_stages_and_changes_no_bit(name: str) -> None:
    kind, memory = load_head(name), {}
    X, y, needed = full(kind, 80)
    few, more = ([{**s, "random_state": 0} for s in some] for some in (list(kind.grid)[-2:], list(kind.grid)[-4:]))
    extra = {"no_errors": "plain"} if "no_errors" in kind().get_params() else {}
    ask = partial(kind(**extra).path, X, y, **needed)
    alone, first = bits(ask(few)), bits(ask(few, memory=memory))
    kept = dict(memory)
    assert kept and alone == first == bits(ask(few, memory=memory))
    for one, other in zip(ask(more), ask(more, memory=memory), strict=True):
        np.testing.assert_allclose(one.coef_, other.coef_, atol=1e-3)
    assert all(memory[key] is value for key, value in kept.items()), "nothing is made twice"


def test_what_lacks_is_made_together_and_kept() -> None:
    memory, asked = {("a", 1): "one"}, []
    make = lambda places: asked.append(places) or [f"made {i}" for i in places]  # noqa: E731
    assert recalled(memory, [("a", 1), ("a", 2), ("b", 1)], make) == ["one", "made 1", "made 2"]
    assert recalled(memory, [("b", 1), ("a", 1)], make) == ["made 2", "one"] and asked == [[1, 2]]


def test_once() -> None:
    made: list[int] = []
    values, at = once(["a", "b", "a", "c", "b"], lambda i: made.append(i) or i)
    assert (values, at, made) == ([0, 1, 3], [0, 1, 0, 2, 1], [0, 1, 3])
    a = np.arange(6.0)
    kept, at = distinct([a, a[::-1], a.copy(), a.astype(int), a.reshape(2, 3), a[::-1].copy()])
    assert at == [0, 1, 0, 2, 3, 1] and len(kept) == 4
    assert content(a, None) != content(None, a) and content(a[::2]) == content(a[::2].copy())
