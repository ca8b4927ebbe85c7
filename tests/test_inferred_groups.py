"""Groups that heads infer against the true ones: laws, an obvious oracle, and their way into records and pages."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from embedx.errors import HeadError
from embedx.evaluation import runs as records
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.frame import runs_frame
from embedx.evaluation.head_spec import HeadSpec
from embedx.evaluation.inferred import inferred_by, inferred_groups
from embedx.evaluation.runs import Run
from embedx.evaluation.split import Part, Split
from embedx.probes import Head
from embedx.probes.eiil import Eiil
from embedx.probes.george import George
from embedx.probes.jtt import Jtt
from embedx.probes.plain import Plain
from embedx.probes.spare import Spare
from embedx.report.comparison import Comparison
from embedx.report.inferred import HEADINGS, rows
from embedx.report.page import page

drawings = st.tuples(st.integers(2, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9999))


def drawn(drawing: tuple[int, int, int, int], n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, y, groups), every class with one row at least."""
    classes, values, codes, seed = drawing
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(classes), rng.integers(0, classes, n - classes)]
    attribute = (rng.random(n) ** 2 * values).astype(int)
    return rng.integers(0, codes, n), y, y * values + attribute


@settings(max_examples=12, deadline=None)
@given(drawings)
def test_laws(drawing: tuple[int, int, int, int]) -> None:
    codes, y, groups = drawn(drawing)
    found = inferred_groups(codes, y, groups)
    assert found.agreement.value <= sum(np.bincount(groups[y == c]).max() for c in range(y.max() + 1)) / len(y) or (
        found.cells > y.max() + 1
    ), "without codes nothing but the largest group of a class can be right"
    assert found.ari <= 1
    renamed = inferred_groups(7 - codes, y, groups)
    assert replace(renamed, ari=0) == replace(found, ari=0), "what codes are called does not matter"
    assert renamed.ari == pytest.approx(found.ari)
    true = inferred_groups(groups, y, groups)
    assert (true.ari, true.agreement.value) == (1, 1)
    assert {x.value for x in (true.recall, true.precision) if x is not None} <= {1}
    none = inferred_groups(np.zeros_like(codes), y, groups)
    assert none.agreement.value == none.classes_alone
    assert none.precision is None
    if none.recall is not None:
        assert none.recall.value == 0


@settings(max_examples=10, deadline=None)
@given(drawings)
def test_agreement_is_the_best_of_all_matchings(drawing: tuple[int, int, int, int]) -> None:
    codes, y, groups = drawn((2, *drawing[1:]))
    cells, truth = np.unique(3 * y + codes, return_inverse=True)[1], np.unique(groups, return_inverse=True)[1]
    width = max(cells.max(), truth.max()) + 1
    table = np.array([[np.sum((cells == i) & (truth == j)) for j in range(width)] for i in range(width)])
    best = max(sum(table[i, j] for i, j in enumerate(order)) for order in permutations(range(width)))
    assert inferred_groups(codes, y, groups).agreement.value == best / len(y)


def test_by_hand() -> None:
    y = np.repeat([0, 1], 10)
    groups = np.r_[np.zeros(8), [1, 1], [2], np.full(9, 3)].astype(int)  # minorities: rows 8, 9 and 10
    codes = np.zeros(20, int)
    codes[[7, 8, 10, 11]] = 1
    found = inferred_groups(codes, y, groups)
    assert (found.cells, found.groups, found.classes_alone) == (4, 4, 17 / 20)
    assert (found.recall.value, found.recall.n) == (2 / 3, 3)
    assert (found.precision.value, found.precision.n) == (2 / 4, 4)
    assert found.agreement.value == (7 + 1 + 8 + 1) / 20


def test_codes_that_are_none() -> None:
    head = Plain()
    assert inferred_by(head, "plain", np.zeros(3, int), np.zeros(3, int)) is None
    for codes in (np.zeros(2, int), np.zeros(3), [["a"]]):
        head.inferred_groups_ = codes
        with pytest.raises(HeadError, match=r"head 'plain': inferred_groups_ is .* each of the 3 rows"):
            inferred_by(head, "plain", np.zeros(3, int), np.zeros(3, int))


@pytest.fixture(scope="module")
def split() -> Split:
    """Two classes; the attribute is told by a strong feature, the class by a weaker one."""
    rng = np.random.default_rng(0)
    parts = []
    for name, n, odd in (("train", 300, 0.1), ("val", 100, 0.5), ("test", 200, 0.5)):
        y = rng.integers(0, 2, n)
        a = np.where(rng.random(n) < odd, 1 - y, y)
        X = rng.normal(size=(n, 4)).astype(np.float32)
        X[:, 0] += 8 * a
        X[:, 1] += 3 * y
        parts.append(Part(np.array([f"{name}{i:04d}" for i in range(n)]), X, y, 2 * y + a))
    names = ("a/0", "a/1", "b/0", "b/1")
    lost = {"train": 0, "val": 0, "test": 0}
    return Split("planted", "raw", *parts, ("a", "b"), names, np.array([0, 0, 1, 1]), True, lost)


@pytest.fixture(scope="module")
def pairs(split: Split) -> list[tuple[Run, Head]]:
    bench = Evaluator(split)
    asked = {
        "plain": (Plain, {"C": 1.0}), "george": (George, {"C": 0.1, "clusters": 2, "use": "reweight"}),
        "spare": (Spare, {"C": 0.1, "power": 1.0, "clusters": 2}), "jtt": (Jtt, {"C": 0.1, "first_C": 1e-2}),
        "eiil": (Eiil, {"C": 0.1, "first_C": 1e-2, "use": "reweight"}),
    }  # fmt: skip
    return [
        pair
        for name, (kind, setting) in asked.items()
        for pair in bench.runs_and_heads(HeadSpec(name, kind, "worst-group", settings=[setting]), [0])
    ]


@pytest.fixture(scope="module")
def found(pairs: list[tuple[Run, Head]]) -> list[Run]:
    return [run for run, _ in pairs]


def test_every_head_that_infers_groups_tells_how_good_they_are(pairs: list[tuple[Run, Head]], split: Split) -> None:
    told = {run.head: run.inferred for run, _ in pairs}
    assert told.pop("plain") is None
    y, minority = split.train.y, np.isin(split.train.groups, [1, 2])
    for run, head in pairs[1:]:
        of, codes = told[run.head], head.inferred_groups_
        assert (of.recall.n, of.agreement.n) == (minority.sum(), len(y))
        each = [adjusted_rand_score(split.train.groups[y == c], codes[y == c]) for c in (0, 1)]
        assert of.ari == pytest.approx(np.average(each, weights=np.bincount(y)))
    wrong = pairs[3][1].inferred_groups_ == 1
    assert told["jtt"].recall.value == wrong[minority].mean() > 0.3
    assert told["jtt"] == told["eiil"], "for two classes the second environment is the error set"


def test_without_groups_there_is_nothing_to_compare_with(split: Split) -> None:
    bench = Evaluator(replace(split, has_groups=False))
    (run,) = bench.runs(HeadSpec("jtt", Jtt, "average", settings=[{"C": 0.1, "first_C": 1e-3}]), [0])
    assert run.inferred is None


def test_records_tables_and_pages_carry_it(found: list[Run], tmp_path: Path) -> None:
    records.save(found, tmp_path)
    assert list(records.load(tmp_path / records.FILE)) == found
    frame = runs_frame(found).set_index("head")
    assert frame.loc["george", "inferred.ari"] == found[1].inferred.ari
    assert np.isnan(frame.loc["plain", "inferred.recall.value"]) and "inferred" not in frame
    comparison = Comparison.of(found)
    shown = rows(comparison.rows)
    assert [row[1] for row in shown] == ["george", "spare", "jtt", "eiil"]
    assert {len(row) for row in shown} == {len(HEADINGS)}
    assert f"{found[1].inferred.ari:.3f}" == shown[0][3]
    svg = '<svg width="10pt" height="10pt"></svg>'
    names = ("differences", "backbones", "worst_group", "worst_against_average", "group_heatmap")
    text = page(comparison, dict.fromkeys(names, svg))
    assert "Groups that heads inferred" in text and all(row[3] in text for row in shown)
    assert "Groups that heads inferred" not in page(Comparison.of(found[:1]), dict.fromkeys(names, svg))
