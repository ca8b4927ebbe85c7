"""The verdict: of the right heads, corrected over backbones, and what is said beside it; see test_minima.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from embedx.evaluation.limits import limits
from embedx.evaluation.metrics import evaluate
from embedx.evaluation.runs import Run, pack, pack_codes
from embedx.evaluation.verdict import MARGIN, verdicts
from embedx.probes import Labels, On, Purpose, Supervision
from embedx.report import Comparison
from embedx.report.verdicts import limit_text, power_text, rows_text, rules_text
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


def test_the_margin_decides_which_gains_matter() -> None:
    sizes = np.full(4, 3000)
    groups, rng = np.repeat(np.arange(4), sizes), np.random.default_rng(0)
    plain, rival = (rng.random(len(groups)) < np.array(x)[groups] for x in ([0.9] * 4, [0.97, 0.96, 0.97, 0.95]))
    runs = [run("plain", plain, sizes=sizes), run("reweighted", rival, sizes=sizes)]
    words = [verdicts(runs, margin)[0].verdict for margin in (0.0, 0.02, 0.055, 0.12)]
    assert words == ["does not suffice", "does not suffice", "undecided", "suffices"]


def test_the_verdict_by_another_rule_is_that_of_what_it_would_have_chosen() -> None:
    good, bad = rows([0.97, 0.96, 0.95, 0.97], [0.8, 0.8, 0.6, 0.8])
    packed = {"worst-group": pack(good > 0.5), "balanced": pack(bad > 0.5)}
    rival, plain = run("reweighted", good), run("plain", bad, by_rule=packed)
    (found,) = verdicts([plain, rival])
    for rule, hits in (("worst-group", good), ("balanced", bad)):
        assert found.by_rule[rule] == verdicts([run("plain", hits), rival])[0].verdict
    assert rules_text(found) == "Had another rule chosen plain: undecided by worst-group; does not suffice by balanced."
    lacking = [replace(plain, seed=1, by_rule={}), plain, rival]
    assert not verdicts(lacking)[0].by_rule  # a rule counts where every seed knows it


def test_what_is_undecided_says_what_would_decide() -> None:
    a, b = rows([0.95, 0.9, 0.7, 0.93], [0.97, 0.96, 0.76, 0.95], seed=3)
    (found,) = verdicts([run("plain", a), run("reweighted", b)])
    assert found.verdict == "undecided" and found.power is not None
    assert found.power.difference == pytest.approx(MARGIN + 0.04)
    assert found.rows_needed and set(found.rows_needed) <= set(found.groups)
    text = rows_text(found)
    assert "four in five test sets" in text and all(group in text for group in found.rows_needed)
    assert "a gain of 6.0 points in" in power_text(found) and "; that there is none, in" in power_text(found)
    high = run("plain", rows([0.995] * 4, [0.9] * 4)[0])  # which leaves no room for six points
    assert power_text(verdicts([high, run("reweighted", b)])[0]).startswith("With these test rows one would find that")
    assert not rows_text(replace(found, verdict="suffices")) and not power_text(replace(found, truth=None))
    at = found.difference.value  # at the margin itself nothing decides
    assert "No reasonable number" in rows_text(verdicts([run("plain", a), run("reweighted", b)], at)[0])


def test_no_good_head_means_that_the_embedding_is_the_limit() -> None:
    sizes = np.full(4, 600)
    chance, good = rows([0.5] * 4, [0.9] * 4, sizes)
    two: dict[str, Any] = {"chance": 0.5, "sizes": sizes}
    told = {"place": Interval(0.97, 0.95, 0.98, 420)}
    poor = [run("plain", chance, **two, attributes=told), run("reweighted", 1 - chance, **two)]
    (limit,) = limits(poor)
    assert limit.heads == 2 and limit.chance == 0.5 and limit.most < 0.625 and limit.attributes == told
    assert "place in 97.0 %" in limit_text(limit) and "--attributes" not in limit_text(limit)
    assert limits([*poor, run("dfr", good, **two)]) == []
    assert limits([run("plain", chance, sizes=sizes)]) == []  # an earlier record, which does not tell chance


@pytest.mark.parametrize(
    ("plain", "rival", "expected"),
    [
        ((0.97, 0.96, 0.97, 0.97), (0.5, 0.5, 0.5, 0.5), "a good embedding is enough"),
        ((0.8, 0.8, 0.6, 0.8), (0.97, 0.96, 0.95, 0.97), "the embedding alone is not enough"),
        ((0.95, 0.9, 0.7, 0.93), (0.97, 0.96, 0.76, 0.95), "the test images do not tell"),
        ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), "the embedding is the limit"),
    ],
)
def test_one_sentence_says_what_the_data_say(plain: Any, rival: Any, expected: str) -> None:
    sizes = SIZES * (10 if plain[0] == 0.5 else 1)
    a, b = rows(plain, rival, sizes, seed=3)
    more: dict[str, Any] = {"chance": 0.5, "rows": {"train": 9, "val": 9, "test": 420}, "sizes": sizes}
    runs = [run("plain", a, **more), run("reweighted", b, **more), run("plain", 1 - a, "worse", **more)]
    runs[0] = replace(runs[0], validation_worst_group=0.9)
    sentence = Comparison.of([*runs[:2], replace(runs[2], validation_worst_group=0.4)]).headline
    assert expected in sentence and "one, by validation the best of 2 backbones," in sentence
    assert sentence.endswith(".") and "worse" not in sentence
    assert "not asked" in Comparison.of(runs[:1]).headline or expected == "the embedding is the limit"
    assert Comparison.of(runs[1:2]).headline == ""  # without a plain head there is nothing to say


def test_copies_of_rows_add_nothing_where_clusters_say_whose_they_are() -> None:
    good, bad = rows([0.9, 0.96, 0.95, 0.97], [0.97, 0.96, 0.75, 0.97])
    whose, more = pack_codes(np.repeat(np.arange(len(good)), 3)), 3 * SIZES
    heads = {"plain": bad, "reweighted": good}
    (alone,) = verdicts([run(head, hits) for head, hits in heads.items()])
    copies = [run(head, np.repeat(hits, 3), sizes=more) for head, hits in heads.items()]
    (bold,) = verdicts(copies)
    (careful,) = verdicts([replace(one, cluster="owner", clusters=whose) for one in copies])
    assert [careful.p_suffices, careful.p_not] == pytest.approx([alone.p_suffices, alone.p_not])
    assert (careful.difference.low, careful.difference.high) == pytest.approx(
        (alone.difference.low, alone.difference.high), abs=1e-5
    )
    assert bold.p_not < careful.p_not / 2
    assert careful.power is not None and careful.power == alone.power
    less, many = alone.rows_needed, careful.rows_needed
    assert less is not None and many is not None and set(less) == set(many)
    assert [many[name] for name in less] == pytest.approx([3 * n for n in less.values()], abs=3)
