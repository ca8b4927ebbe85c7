"""The verdict: of the right heads, by validation alone, corrected over backbones; its tests are in test_minima.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from embedx.evaluation.metrics import evaluate
from embedx.evaluation.runs import Run, pack
from embedx.evaluation.verdict import MARGIN, verdicts
from embedx.probes import Labels, On, Purpose, Supervision
from embedx.statistics import Interval, Pairs

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


def test_the_best_of_all_rivals_is_met_and_no_validation_row_has_a_part_in_it() -> None:
    """A head that validation thinks little of and that gains on test is told, whatever validation says."""
    good, bad = rows([0.97, 0.96, 0.95, 0.97], [0.8, 0.8, 0.6, 0.8])
    plain, gains = run("plain", bad), run("reweighted", good, validation_worst_group=0.5)
    same = [run(f"dfr{i}", bad, validation_worst_group=0.9 - i / 100) for i in range(3)]
    (found,) = verdicts([plain, *same, gains])
    assert (found.rival, found.validated, found.verdict) == ("reweighted", "dfr0", "does not suffice")
    assert [g.rival for g in found.gains] == ["reweighted", "dfr0", "dfr1", "dfr2"]
    for score in (0.0, 0.9, 1.0, None):
        (again,) = verdicts([plain, *same, replace(gains, validation_worst_group=score)])
        assert replace(again, validated="") == replace(found, validated="")
    alone = verdicts([plain, gains])[0]
    assert found.p_suffices == max(g.p_suffices for g in found.gains)
    assert alone.p_not <= found.p_not <= 4 * alone.p_not + 1e-12  # at worst Bonferroni over the four rivals
    twice = verdicts([plain, gains, replace(gains, head="again")])[0]
    assert twice.p_not == pytest.approx(alone.p_not)  # a rival that is the same costs nothing


def test_several_seeds_count_with_their_mean_on_each_row() -> None:
    good, bad = rows([0.97, 0.96, 0.95, 0.97], [0.8, 0.8, 0.6, 0.8])
    mixed = [run("reweighted", good), run("reweighted", bad, seed=1)]
    between = verdicts([run("plain", bad), *mixed])[0].difference
    assert between == Pairs.of(bad, (good + bad) / 2, SIZES).difference()
