"""From cache and manifest to Run: joined by id, chosen on validation, reported on test; what cannot be is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import BARE, COUNTS, ONE, TWO, WHOLE, build, features, part, table, write

from embedx.data.manifest import SPLITS
from embedx.documents import built, plain
from embedx.errors import CacheError, HeadError, ResultsError, SplitError, UnknownName
from embedx.evaluation import runs
from embedx.evaluation.compare import ComparisonSettings, compare
from embedx.evaluation.heads import STANDARD, every_head, heads_for, load_head
from embedx.evaluation.probe import probe
from embedx.evaluation.runs import Run
from embedx.evaluation.selection import RULES, choose, rule_named
from embedx.evaluation.split import Split, join, ranked
from embedx.probes import CS, Head, supervision_in_words
from embedx.store import FeatureCache
from embedx.workspace import Workspace

HEADS = ("plain", "class-balanced", "reweighted", "group-balanced")
RUN = "dataset backbone head parameters selection supervision configurations seed versions timings metrics"
METRICS = "average adjusted_average worst_group gap balanced_accuracy worst_class log_loss ece auroc groups"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two backbones, the second without the spurious feature."""
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    write(workspace, WHOLE, ONE, features(WHOLE))
    write(workspace, WHOLE, TWO, np.delete(features(WHOLE), 2, axis=1))
    return workspace


@pytest.fixture(scope="module")
def split(workspace: Workspace) -> Split:
    return join(WHOLE, FeatureCache.open_complete(workspace.cache("pets", ONE)))


@pytest.fixture(scope="module")
def both(workspace: Workspace) -> list[Run]:
    return compare(workspace, WHOLE, [ONE, TWO], HEADS, ComparisonSettings(seeds=2))


@pytest.mark.parametrize(("dtype", "share"), [(np.float32, 1.0), (np.float16, 0.8)])
def test_rows_are_joined_by_id(tmp_path: Path, dtype: type, share: float) -> None:
    lost = list(range(0, len(WHOLE), 50))
    cache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE).astype(dtype), lost)
    frame = table().sample(frac=share, random_state=1)
    frame.loc[frame.index[:200:2], "label"] = "dog"  # a corrected label costs no features
    joined, by_id, bad = join(build(frame), cache), frame.set_index("id"), set(WHOLE.ids[lost])
    for name in SPLITS:
        part, mine = getattr(joined, name), by_id[by_id.split == name]
        assert list(part.ids) == sorted(set(mine.index) - bad) and len(part) == len(part.ids)
        assert joined.left_out[name] == len(set(mine.index) & bad)
        mine = mine.loc[part.ids]
        assert [joined.classes[c] for c in part.y] == list(mine.label)
        assert [joined.group_names[g] for g in part.groups] == list(mine.label + "/" + mine.place)
        number = np.array([int(i[:5]) / 1000 for i in part.ids], dtype)  # rounded as the cache rounds
        assert part.X.dtype == np.float32 and np.array_equal(part.X[:, 0], number.astype(np.float32))
    assert [joined.classes[c] for c in joined.group_labels] == [name.split("/")[0] for name in joined.group_names]


@pytest.mark.parametrize(
    ("query", "lost", "message"),
    [
        ("split != 'val'", [], "pets: the val split has no usable row; fit, choice and report need one each"),
        ("split in @SPLITS", range(1390), r"the train split has no usable row \(630 could not be extracted\)"),
        ("label != 'dog' or split != 'train'", [], "class 'dog' has no usable row in train; add some, or drop the"),
        ("label != 'cat' or split != 'test'", [], "class 'cat' has no usable row in test; add some, or drop the"),
        (
            "label + place != 'catout' or split != 'test'",
            [],
            "cat/out .55. has rows to fit .* and none in test, .*; add test",
        ),
    ],
)
def test_what_cannot_answer_is_not_joined(tmp_path: Path, query: str, lost: Sequence[int], message: str) -> None:
    cache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE), lost)
    with pytest.raises(SplitError, match=message):
        join(build(table().query(query)), cache)
    with pytest.raises(
        CacheError, match=r"another manifest: 1,390 of the 1,390 rows .* \(for example new/0.*delete the"
    ):
        join(build(table().assign(id="new/" + table().id)), cache)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_rules_equal_naive_loops_and_ties_go_to_the_average_then_to_the_strongest_regularisation(
    rows: list[tuple[int, int, int]],
) -> None:
    groups, *predictions = (np.array(column) for column in zip(*rows, strict=True))
    val, shares = part(groups // 2, groups), np.array([0.4, 0.3, 0.2, 0.1])
    for p in predictions:
        hit = p == val.y
        group, label = ({c: np.mean(hit[codes == c]) for c in set(codes)} for codes in (groups, val.y))
        expected = {"average": np.mean(hit), "worst-class": min(label.values()), "worst-group": min(group.values())}
        expected["adjusted-average"] = sum(shares[g] * group[g] for g in group) / sum(shares[g] for g in group)
        expected["balanced"] = np.mean(list(label.values()))
        inferred = [np.mean(hit[val.inferred == c]) for c in set(val.inferred)]
        expected["worst-inferred-group"] = min(inferred)
        ordered = [hit[val.y == c] for c in label]
        ends = [(h[: len(h) // 2], h[-(len(h) // 2) :]) if len(h) > 1 else (h,) for h in ordered]
        expected["spuriosity-halves"] = np.mean([min(map(np.mean, e)) for e in ends])
        found = {name: rule.score(hit[None], val, shares).item() for name, rule in RULES.items()}
        assert found == pytest.approx(expected)
    for rule in RULES.values():
        four = np.array([*predictions, *predictions])
        best, scores = choose(rule, four, val, shares, part([0], [0], "train"))
        averages = [np.mean(p == val.y) for p in predictions]
        tied = abs(scores[1] - scores[0]) <= 1e-12
        assert best == int(averages[1] > averages[0] if tied else scores[1] > scores[0])
        assert list(scores[:2]) == list(scores[2:])


def test_the_slightest_gain_is_no_tie() -> None:
    val, right = part(np.arange(400) % 2, np.arange(400) % 4), np.arange(400) % 2
    codes = np.array([right, right, right])
    codes[:2, 0] = 1 - codes[0, 0]
    for rule in RULES.values():
        assert choose(rule, codes, val, np.ones(4) / 4, part([0], [0], "train"))[0] == 2
        assert choose(rule, codes[:2], val, np.ones(4) / 4, part([0], [0], "train"))[0] == 0


def test_rules_that_cannot_be_answered(split: Split) -> None:
    no_groups, no_group = replace(split, has_groups=False), replace(split, val=part([0, 1, 1], [0, 2, 3]))
    for name, data, error, message in (
        ("worst-gruop", split, UnknownName, "unknown selection rule 'worst-gruop': did you mean 'worst-group'"),
        ("worst-group", no_groups, SplitError, "worst-group needs groups, and pets has no attribute; use average"),
        ("adjusted-average", no_groups, SplitError, "adjusted-average needs groups, and pets has no attribute; use"),
        (
            "worst-group",
            no_group,
            SplitError,
            "worst-group cannot see cat/out: no validation row; add some, or use .* average",
        ),
        ("worst-class", replace(split, val=part([0], [0])), SplitError, "cannot see dog: .* use --select-by average$"),
    ):
        with pytest.raises(error, match=message):
            rule_named(name, data)
    assert rule_named("worst-class", no_group).name == "worst-class"
    with pytest.raises(SplitError, match="1 rows would both fit and choose; keep train and val apart"):
        choose(RULES["average"], np.zeros((1, 2)), part([0, 1], [0, 1]), np.ones(2), part([0], [0]))


def test_every_run_is_complete_and_survives_json(both: list[Run], tmp_path: Path) -> None:
    heads = [("plain", 0), ("class-balanced", 0), ("reweighted", 0), ("group-balanced", 0), ("group-balanced", 1)]
    expected = [(b, dim, *head) for b, dim in ((ONE, 5), (TWO, 4)) for head in heads]  # repeated where rows are drawn
    assert [(r.backbone, r.dim, r.head, r.seed) for r in both] == expected
    groups = "worst-group", "group labels on train, to fit; group labels on validation, to choose"
    for run in both:
        assert plain(run).keys() >= set(RUN.split()) and plain(run)["metrics"].keys() >= set(METRICS.split())
        assert (run.selection, supervision_in_words(run.supervision)) == (
            groups if load_head(run.head).needs else ("average", "none")
        )
        assert run.uses_groups == bool(load_head(run.head).needs) and run.protocol == "" and run.fits_on == "train"
        hits = runs.unpack(run.correct, run.rows["test"])
        by_group = np.split(hits, np.cumsum([g.n for g in run.metrics.groups])[:-1])
        assert [h.sum() for h in by_group] == [g.correct for g in run.metrics.groups]
        assert run.configurations >= len(CS) and 0 <= run.validation_score <= 1
        assert run.configurations > len(CS) or run.parameters["C"] in CS
        assert run.converged and run.parameters["random_state"] == run.seed
        assert run.rows == {s: sum(COUNTS[s]) for s in SPLITS} and run.left_out == dict.fromkeys(SPLITS, 0)
        assert run.inputs == {"manifest": WHOLE.digest, "weights": f"digest of {run.backbone}"}
        assert {"embedx", "numpy", "scipy", "scikit-learn"} <= run.versions.keys() and run.timings["fit"] > 0
        assert run.metrics.worst_group.value == min(g.accuracy for g in run.metrics.groups)
        assert built(json.loads(json.dumps(plain(run))), Run) == run
    runs.save(both, tmp_path / "new")
    assert runs.load(tmp_path / "new" / "runs.json") == both
    frame = pd.read_csv(tmp_path / "new" / "runs.csv")
    assert list(zip(frame["head"], frame["parameters.C"], strict=True)) == [(r.head, r.parameters["C"]) for r in both]
    groups = frame[[f"groups.{name}.accuracy" for name in WHOLE.group_names]]
    np.testing.assert_allclose(frame["metrics.worst_group.value"], groups.min(axis=1))
    (tmp_path / "old.json").write_text('{"format": "embedx-runs", "version": 0}')
    with pytest.raises(
        ResultsError, match=r"old.json: \$.version is 0, expected 3; move it away, or name another folder"
    ):
        runs.load(tmp_path / "old.json")


def _worst(hits: np.ndarray, codes: np.ndarray) -> float:
    return min(hits[codes == c].mean() for c in set(codes))


def test_the_run_is_the_head_chosen_by_hand_in_any_order_of_rows(split: Split) -> None:
    split = ranked(split, SimpleNamespace(backbone="x", supervision="", ids=WHOLE.ids, scores=features(WHOLE)[:, 2]))
    test, used = split.test.take(np.arange(len(split.test))[::-1]), {"groups": "group labels on validation, to choose"}
    used["spuriosity"] = "spuriosity ranking of validation, to choose"
    for rule in RULES:
        some = [{"C": C} for C in (1e-5, 1e-3, 1.0)]
        run, head = probe(split, "plain", rule=rule, settings=some)
        shares = np.bincount(split.train.groups) / len(split.train)
        fits = load_head("plain")(random_state=0).path(split.train.X, split.train.y, some)
        codes = np.array([f.predict(split.val.X) for f in fits])
        best, scores = choose(RULES[rule], codes, split.val, shares, split.train)
        assert run.parameters == fits[best].get_params() == head.get_params() and run.validation_score == scores[best]
        assert run.validation_worst_group == _worst(codes[best] == split.val.y, split.val.groups)
        assert run.metrics.average.value == np.mean(fits[best].predict(split.test.X) == split.test.y)
        assert supervision_in_words(run.supervision) == used.get(RULES[rule].over, "none")
        a, b = (
            asdict(run.metrics),
            asdict(probe(replace(split, test=test), "plain", rule=rule, settings=some)[0].metrics),
        )
        assert all(a[key] == (pytest.approx(b[key]) if isinstance(a[key], float) else b[key]) for key in a)


@pytest.mark.parametrize("name", ["plain", "dfr", "worst-group-boosting", "group-balanced"])
def test_settings_are_tried_cheaply_and_the_chosen_one_is_fitted_in_full(
    split: Split, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, calls = load_head(name), []
    path = kind.path

    def seen(self: Head, X: Any, y: Any, variants: Sequence[dict[str, Any]], **more: Any) -> list[Head]:
        calls.append([dict(v) for v in variants])
        return path(self, X, y, variants, **more)

    monkeypatch.setattr(kind, "path", seen)
    run, head = probe(split, name, seed=3)
    grid, short, tol = kind.grid, kind.tried_with, kind().tol
    assert calls[0] == [{**short, **setting, "random_state": 3} for setting in grid]
    everything = [v for variants in calls for v in variants]
    settings = {tuple(sorted((k, v) for k, v in one.items() if k not in short)) for one in everything}
    assert run.converged and run.configurations == len(settings) >= len(grid)
    assert run.parameters == head.get_params() in [kind(**one).get_params() for one in everything]
    assert head.tol <= tol and all(getattr(head, name) == getattr(kind(), name) for name in short if name != "tol")
    if kind.fits_on == "val" and len(short) > 1:
        assert calls[-2] == calls[-1] and len(calls[-1]) == 1, "scored on the half that is not fitted, then on all"
    calls.clear()
    probe(split, name, seed=3, settings=[{"C": 0.1}])
    assert all("draws" not in v and v.get("tol", tol) <= tol for variants in calls for v in variants)
    calls.clear()
    probe(split, name, seed=3, settings=[{"C": 0.1, "tol": 1e-3}, {"C": 1.0, "tol": 1e-3}])
    assert {v["tol"] for variants in calls for v in variants} == {1e-3}
    assert len(calls) == (1 if "draws" not in short else 3)


def test_balancing_groups_helps_where_the_shortcut_is_strong(both: list[Run]) -> None:
    worst = {(r.backbone, r.head): r.metrics.worst_group.value for r in both}
    assert worst[ONE, "group-balanced"] > worst[ONE, "plain"] + 0.1
    assert abs(worst[TWO, "group-balanced"] - worst[TWO, "plain"]) < 0.1  # nothing to mend without the shortcut


def test_refusals_come_before_the_first_fit(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "path", lambda *args, **kwargs: pytest.fail("work was done"))
    blind = build(table().query("label + place != 'catout' or split != 'val'"))
    part, mixed, plain = build(table()[100:]), Workspace(tmp_path), ["plain"]
    write(mixed, WHOLE, ONE, features(WHOLE))
    write(mixed, part, TWO, features(part))
    for where, rows, backbones, heads, error, message in (
        (
            workspace,
            BARE,
            [ONE],
            ["plain", "reweighted"],
            HeadError,
            "'reweighted' needs groups, and pets .*; add a column",
        ),
        (workspace, blind, [ONE], ["plain", "reweighted"], SplitError, "worst-group cannot see cat/out: no validation"),
        (workspace, WHOLE, [ONE], ["plain", "plian"], UnknownName, "unknown head 'plian': did you mean 'plain'"),
        (workspace, WHOLE, [ONE, "tow"], plain, CacheError, "no features of 'tow': .*embedx extract pets -b tow"),
        (mixed, WHOLE, [ONE, TWO], plain, CacheError, "100 of the 1,390 rows of pets are not in it"),
    ):
        with pytest.raises(error, match=message):
            compare(where, rows, backbones, heads)
    assert set(HEADS) <= set(heads_for(WHOLE)) <= set(STANDARD) & set(every_head(WHOLE))
    assert set(heads_for(WHOLE)) - set(heads_for(BARE)) >= {"reweighted", "group-balanced"} <= set(every_head(WHOLE))
    assert not any("groups" in need for head in every_head(BARE) for need in load_head(head).needs)


def test_a_renamed_cache_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write(workspace, WHOLE, ONE, features(WHOLE)).path.rename(workspace.cache("pets", "old"))
    with pytest.raises(CacheError, match=f"holds features of '{ONE}', not of 'old': .* call it tiny-one.h5 again"):
        compare(workspace, WHOLE, ["old"], ["plain"])


def test_a_head_from_outside(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = "import numpy as np\nfrom embedx.probes.plain import Plain\n\nclass {}(Plain):\n"
    source += "    def _weightings(self, data):\n        return {}\n"
    (tmp_path / "same_again.py").write_text(source.format("SameAgain", "np.ones((1, len(data.y)))"))
    (tmp_path / "misnamed.py").write_text(source.format("Other", "None"))
    (tmp_path / "one_sided.py").write_text(source.format("OneSided", "(data.y == 0)[None] * 1.0"))
    assert probe(split, "py:same_again")[0].metrics == probe(split, "plain")[0].metrics
    for name, error, message in (
        ("py:misnamed", HeadError, "misnamed holds no Head named Misnamed; a head is named for its file"),
        ("py:absent_one", UnknownName, "no Python module 'absent_one' for head 'py:absent_one': put it on PYTHONPATH"),
        ("py:one_sided", HeadError, r"head 'py:one_sided' on tiny:one: class 1 .* no row of positive weight"),
    ):
        with pytest.raises(error, match=message):
            probe(split, name)
