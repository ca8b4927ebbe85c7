"""The verdict: right about the truth, indifferent to what does not matter, corrected over backbones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from embedx.evaluation.metrics import Interval, evaluate
from embedx.evaluation.runs import Run, pack
from embedx.evaluation.verdict import ERROR, MARGIN, Pairs, compare_minima, holm, verdicts
from embedx.probes import Labels, On, Purpose, Supervision

SIZES = np.array([150, 150, 60, 60])
few = settings(deadline=None, max_examples=30)


def rows(p: Any, r: Any, sizes: np.ndarray = SIZES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of two heads, independent given the group."""
    rng = np.random.default_rng(seed)
    a, b = (rng.random(sizes.sum()) < np.repeat(x, sizes) for x in (p, r))
    return a.astype(float), b.astype(float)


def run(head: str, hits: np.ndarray, backbone: str = "one", sizes: np.ndarray = SIZES, **changes: Any) -> Run:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = groups // 2
    proba = np.where((y == hits)[:, None], [0.2, 0.8], [0.8, 0.2])
    metrics = evaluate(
        y, proba, groups, classes=("a", "b"), group_names=("a/0", "a/1", "b/0", "b/1"),
        group_labels=np.array([0, 0, 1, 1]), train_shares=np.full(4, 0.25),
    )  # fmt: skip
    facts: dict[str, Any] = {
        "dataset": "pets", "backbone": backbone, "dim": 2, "head": head, "parameters": {}, "selection": "average",
        "validation_score": 0.9, "supervision": (), "configurations": 1, "converged": True, "seed": 0, "rows": {},
        "left_out": {}, "inputs": {}, "versions": {}, "timings": {}, "metrics": metrics, "correct": pack(hits > 0.5),
    }  # fmt: skip
    if head != "plain":
        facts |= {"supervision": (Supervision(Labels.GROUPS),), "validation_worst_group": 0.8}
    return Run(**{**facts, **changes})


@few
@given(st.integers(0, 10_000), st.lists(st.floats(0.3, 1.0), min_size=4, max_size=4), st.floats(-0.3, 0.3))
def test_the_interval_is_what_is_not_refuted(seed: int, p: list[float], shift: float) -> None:
    a, b = rows(p, np.clip(np.array(p) + shift, 0, 1), seed=seed)
    interval, *_ = compare_minima(a, b, SIZES)
    parts = np.split(np.arange(len(a)), np.cumsum(SIZES)[:-1])
    assert interval.value == pytest.approx(min(b[i].mean() for i in parts) - min(a[i].mean() for i in parts))
    assert interval.low <= interval.value <= interval.high
    pairs = Pairs.of(a, b, SIZES)
    for limit, which in ((interval.low, 1), (interval.high, 0)):
        if abs(limit) < 0.999:
            assert pairs.p_values(limit)[which] == pytest.approx(0.025, abs=0.003)
    mirrored, *_ = compare_minima(b, a, SIZES)  # who is called plain does not matter
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), abs=1e-5)


@few
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_groups_and_of_rows_does_not_matter(seed: int, order: list[int]) -> None:
    a, b = rows([0.9, 0.8, 0.7, 0.9], [0.9, 0.85, 0.8, 0.8], seed=seed)
    rng = np.random.default_rng(seed)
    parts = np.split(np.arange(len(a)), np.cumsum(SIZES)[:-1])
    again = np.concatenate([rng.permutation(parts[g]) for g in order])
    first = compare_minima(a, b, SIZES)
    second = compare_minima(a[again], b[again], SIZES[order])
    assert second[0].value == pytest.approx(first[0].value) and second[1:] == pytest.approx(first[1:])
    empty = compare_minima(a, b, np.insert(SIZES, 2, 0))
    assert empty == first


def test_one_group_of_unpaired_looking_rows_is_the_textbook_test() -> None:
    """With one large group and no margin the paired test is McNemar's, but for half a row of continuity."""
    n, gained, lost = 10_000, 300, 240
    a, b = np.ones(n), np.ones(n)
    a[:gained], b[gained : gained + lost] = 0, 0
    _, p, q = compare_minima(a, b, np.array([n]), margin=0.0)
    z = (gained - lost - 0.5) / np.sqrt(gained + lost)
    assert q == pytest.approx(norm.sf(z), rel=0.02) and p > 0.98


@pytest.mark.parametrize("n", [60, 200, 642])
def test_a_rival_that_is_right_wherever_plain_is_makes_no_bold_verdicts(n: int) -> None:
    """Then the difference is one binomial share, whose exact p-value is at hand; ours is hardly ever smaller."""
    for gained in range(int(3 * MARGIN * n)):
        a, b = np.r_[np.zeros(gained), np.ones(n - gained)], np.ones(n)
        _, suffices, short = compare_minima(a, b, np.array([n]))
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
    r, wrong, found = np.clip(np.array(p) + gain, 0, 1), np.zeros(2), 0
    for seed in range(200):
        _, suffices, short = compare_minima(*rows(p, r, seed=seed), SIZES)
        words = np.array([suffices <= ERROR, short <= ERROR])
        wrong += words & np.array(["suffices" not in allowed, "does not suffice" not in allowed])
        found += words.any()
    assert (wrong / 200 <= ERROR + 0.03).all()
    assert found > 100 or not allowed


def test_a_verdict_for_every_backbone_from_the_runs() -> None:
    good, bad = rows([0.97, 0.96, 0.95, 0.97], [0.97, 0.96, 0.6, 0.97])
    runs = [
        run("plain", bad), run("reweighted", good),
        run("plain", good, "two"), run("reweighted", good, "two"),
        run("plain", good, "three"),
        run("reweighted", good, "four"),
    ]  # fmt: skip
    one, two = verdicts(runs)
    assert (one.backbone, one.plain, one.rival, one.verdict) == ("one", "plain", "reweighted", "does not suffice")
    assert one.difference.low > MARGIN == one.margin and isinstance(one.difference, Interval)
    assert two.backbone == "two" and two.difference.value == 0 and two.p_not > 0.5
    # Holm: the second of two keeps its p-value at best, the first has it doubled.
    alone = verdicts(runs[:2])[0]
    assert one.p_not == pytest.approx(min(1, 2 * alone.p_not))
    assert verdicts(runs[4:]) == []
    chosen = replace(
        runs[0], selection="worst-group", supervision=(Supervision(Labels.GROUPS, On.VALIDATION, Purpose.CHOOSE),)
    )
    assert verdicts([chosen, runs[1]]) == []  # a plain head chosen with group labels answers another question


def test_the_rival_is_picked_by_validation_and_never_by_test() -> None:
    good, bad = rows([0.97, 0.96, 0.95, 0.97], [0.8, 0.8, 0.6, 0.8])
    lucky = run("reweighted", good, validation_worst_group=0.5)
    sound = run("dfr", bad, validation_worst_group=0.9)
    assert verdicts([run("plain", bad), lucky, sound])[0].rival == "dfr"
    assert verdicts([run("plain", bad), sound, replace(lucky, validation_worst_group=0.95)])[0].rival == "reweighted"
    # Several seeds count on average, in choosing and in the comparison.
    seeds = [replace(lucky, validation_worst_group=0.99), replace(lucky, seed=1, validation_worst_group=0.7)]
    assert verdicts([run("plain", bad), *seeds, sound])[0].rival == "dfr"
    mixed = [run("reweighted", good), run("reweighted", bad, seed=1)]
    between = verdicts([run("plain", bad), *mixed])[0].difference.value
    assert between == pytest.approx(compare_minima(bad, (good + bad) / 2, SIZES)[0].value)


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
