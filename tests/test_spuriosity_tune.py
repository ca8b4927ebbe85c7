"""Tuning on the least spurious rows: what stops it, what is reported, what is kept, and who else may use a ranking."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pets import ONE, TWO, WHOLE, features, part, write

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.errors import HeadError, SplitError, SpuriosityError
from embedx.evaluation import saved
from embedx.evaluation.compare import ComparisonSettings as Compared
from embedx.evaluation.compare import compare
from embedx.evaluation.heads import every_head
from embedx.evaluation.model import Model
from embedx.evaluation.probe import fit, probe_cache
from embedx.evaluation.selection import RULES
from embedx.evaluation.split import join, ranked
from embedx.probes import Labels, supervision_in_words
from embedx.probes.low_spuriosity import LowSpuriosity
from embedx.spuriosity.measures import evidence
from embedx.spuriosity.measures.changes import share, weighted, worst
from embedx.spuriosity.measures.predictions import predictions
from embedx.spuriosity.measures.scores import rank_by_scores
from embedx.spuriosity.measures.stopping import Judged, finer, half_of, halved, stopped
from embedx.spuriosity.measures.tuned import Tuning
from embedx.spuriosity.measures.tuning import Second, tune_head
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.spuriosity.records import tunings as _tunings
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.store import FeatureCache
from embedx.workspace import Workspace

CLASSES = ("ant", "bee", "cow")
FEW = ("plain", "reweighted", "group-balanced")
ALONE = TuningSettings(k=20, others=False)
SIZES = {"train": 400, "val": 150, "test": 300}


def farm() -> tuple[Manifest, np.ndarray]:
    """Three classes, 5 % of the first two without their cue in train; the third, the highest, has no cue at all."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[str]] = {"id": [], "label": [], "split": [], "cue": []}
    for split, n in SIZES.items():
        for c, name in enumerate(CLASSES):
            shown = rng.random(n) < (0.95 if split == "train" else 0.6)
            columns["label"] += [name] * n
            columns["split"] += [split] * n
            columns["cue"] += [CLASSES[c if s or c == 2 else 1 - c] for s in shown]
    columns["id"] = [f"{i:05d}.png" for i in rng.permutation(len(columns["label"]))]
    manifest = manifests.build("farm", columns)
    X = rng.normal(size=(len(manifest), 8))
    X[np.arange(len(X)), manifest.labels] += 2.5
    cue = manifest.codes["cue"]
    X[np.arange(len(X)), 3 + cue] += np.where(cue < 2, 5, 0)
    return manifest, X.astype(np.float32)


FARM, X = farm()


def fitted(model: Model) -> LowSpuriosity:
    assert isinstance(model.fitted, LowSpuriosity)
    return model.fitted


def ranking(manifest: Manifest, X: np.ndarray, ranked: Sequence[int] = (0, 1)) -> Ranking:
    """By how strongly each row shows the cue of its class."""
    values = X[np.arange(len(X)), 3 + manifest.labels]
    return rank_by_scores(
        manifest, values, backbone="tiny:rank", weights="w", cues=dict.fromkeys(ranked, ("straw",))
    )  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    manifests.save(FARM, workspace.dataset("farm"))
    write(workspace, FARM, ONE, X, [2])
    return workspace


@pytest.fixture(scope="module")
def cache(workspace: Workspace) -> FeatureCache:
    return FeatureCache.open_complete(workspace.cache("farm", ONE))


@pytest.fixture(scope="module")
def tuned(cache: FeatureCache) -> tuple[Tuning, Model]:
    notes: list[str] = []
    found = tune_head(FARM, cache, ranking(FARM, X), options=replace(ALONE, trials=2, beside=FEW), notice=notes.append)
    assert not notes
    return found


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=12), st.integers(0, 8))
def test_tuning_stops_at_the_first_gap_within_the_target_on_either_side(percents: list[int], target: int) -> None:
    at, met = stopped([p / 100 for p in percents], target / 100)
    within = [i for i, p in enumerate(percents) if abs(p) <= target]
    assert met == bool(within)
    assert at == (within[0] if within else min(range(len(percents)), key=lambda i: abs(percents[i])))


def test_a_step_that_jumps_over_the_target_is_refined() -> None:
    gaps = np.array([0.9, 0.8, 0.3, -0.4, -0.9])
    more = finer([0.1, 1.0, 10.0, 100.0], [gaps, gaps], 0.05)
    assert len(more) == 15 and all(1 < C < 10 for C in more) and more == sorted(set(more))
    assert not finer([0.1, 1.0, 10.0, 100.0], [np.array([0.9, 0.8, 0.04, -0.4, -0.9])], 0.05)  # met
    assert not finer([0.1, 1.0, 10.0, 100.0], [np.abs(gaps)], 0.05)  # nowhere near 0


def test_a_large_negative_gap_is_not_closed() -> None:
    assert stopped([0.3, -0.4], 0.05) == (0, False)


def test_the_lowest_close_the_gap_and_random_rows_do_not(tuned: tuple[Tuning, Model]) -> None:
    by = {r.rows: r for r in tuned[0].results}
    assert list(by) == ["untouched", "lowest", "random", "misclassified", "highest"]
    before, lowest = by["untouched"], by["lowest"]
    assert before.gap.value.low > 0.2 and not before.met and before.gap.change is None
    assert lowest.met == lowest.trials == 1 and abs(lowest.stop_gap[0]) <= 0.05
    assert abs(lowest.gap.value.value) < 0.12 < before.gap.value.value
    assert lowest.gap.change is not None and lowest.gap.change.high < -0.1
    for rows in ("random", "highest"):
        assert not by[rows].met and by[rows].gap.value.value > 0.5 * before.gap.value.value
    assert by["random"].trials == 2 and len(set(by["random"].gap.trials)) == 2
    assert lowest.tuned_on == by["random"].tuned_on == 40
    assert lowest.worst_group is not None and before.worst_group is not None
    assert lowest.worst_group.value.value > before.worst_group.value.value + 0.2
    assert lowest.worst_group.change is not None and lowest.worst_group.change.low > 0
    assert before.untouched is not None and before.untouched.value.n == SIZES["test"]
    assert tuned[0].ranked == CLASSES[:2]


@pytest.mark.slow
def test_other_classes_are_kept_where_they_are_by_rows_of_theirs(cache: FeatureCache) -> None:
    options = replace(ALONE, k=100, trials=2, rows=("lowest",))
    (alone, _), (kept, model) = (
        tune_head(FARM, cache, ranking(FARM, X), options=replace(options, others=others)) for others in (False, True)
    )
    lost, held = (found.results[1].untouched for found in (alone, kept))
    assert lost is not None and lost.change is not None and held is not None and held.change is not None
    assert lost.change.high < -0.1 and held.change.value > lost.change.value / 4
    assert (
        kept.results[1].gap.value.value < 0.2 < kept.results[0].gap.value.value
        and kept.results[1].tuned_on == len(fitted(model).tuning_rows_) == 300
    )
    assert (alone.results[1].trials, kept.results[1].trials) == (1, 2)  # which rows of the others is drawn


@pytest.mark.slow
def test_classes_without_a_positive_gap_are_set_aside_and_counted_with_the_others(cache: FeatureCache) -> None:
    by = ranking(FARM, X)
    turned = replace(by, scores=np.where(by.labels == 1, -by.scores, by.scores))
    options = replace(ALONE, rows=("lowest",), trials=1)
    found, model = tune_head(FARM, cache, turned, options=options)
    assert (found.ranked, found.set_aside) == (("ant",), ("bee",))
    train = join(FARM, cache).train
    assert set(train.y[fitted(model).tuning_rows_]) == {0}
    assert found.results[0].untouched is not None and found.results[0].untouched.value.n == 2 * SIZES["test"]
    same = tune_head(FARM, cache, ranking(FARM, X, (0,)), options=options)[0]
    assert same.results[1].gap == found.results[1].gap and same.set_aside == ()
    everything = tune_head(FARM, cache, turned, options=replace(options, classes="ranked"))[0]
    assert everything.ranked == ("ant", "bee") and everything.results[0].gap.value.value < 0.1  # the two cancel
    with pytest.raises(SpuriosityError, match="in none of the 2 classes with a ranking is the gap on 450 validation"):
        tune_head(FARM, cache, replace(by, scores=-by.scores), options=options)


def test_what_is_reported_is_what_the_heads_predict(tuned: tuple[Tuning, Model], cache: FeatureCache) -> None:
    found, model = tuned
    run, head = model.record, fitted(model)
    split = ranked(join(FARM, cache), ranking(FARM, X))
    assert found.rows == {"train": len(split.train), "stop": len(split.val), "test": len(split.test)}
    for result in found.results:  # the gap of the module that measures gaps, of the first trial
        assert result.gap.trials[0] == pytest.approx(result.detail.mean.gap.value)
        assert result.gap.value.value == pytest.approx(np.mean(result.gap.trials))
        assert result.average.value.low <= result.average.value.value <= result.average.value.high
    test, (_, lowest, *_) = split.test, found.results
    hit = head.predict(test.X) == test.y
    assert lowest.average.trials == (pytest.approx(hit.mean()),)
    assert lowest.untouched is not None and lowest.untouched.value.value == pytest.approx(hit[test.y == 2].mean())
    assert lowest.worst_class.value.value == pytest.approx(min(hit[test.y == c].mean() for c in range(3)))
    assert lowest.worst_group is not None
    groups = {g: hit[test.groups == g].mean() for g in np.unique(test.groups)}
    assert lowest.worst_group.value.value == pytest.approx(min(groups.values()))
    assert FARM.group_names[min(groups, key=lambda g: groups[g])] == lowest.worst_group_name
    assert np.mean(lowest.positions) == pytest.approx(np.mean([hit[test.y == c].mean() for c in range(2)]), abs=1e-9)
    chosen = lowest.settings[0]
    assert head.get_params()["C"] == chosen["C"] == run.parameters["C"] and run.parameters["start"] == f"{ONE}=plain"
    assert run.metrics.average.value == pytest.approx(hit.mean()) and run.validation_score == lowest.stop_gap[0]
    assert (
        Labels.SPURIOSITY in {s.labels for s in run.supervision}
        and not run.uses_groups
        and run.inputs["ranking"] == "tiny:rank"
    )
    points = [p for p in lowest.front if p.trial == 0]
    assert points[0].setting == {} and points[0].gap == pytest.approx(found.results[0].gap.value.value)
    (point,) = [p for p in points if p.setting == chosen]
    assert (point.gap, point.average) == pytest.approx((lowest.gap.value.value, lowest.average.value.value))
    least = next(p for p in points if abs(p.stop_gap) <= 0.05)
    assert least is point


def test_the_rows_that_report_do_not_stop(cache: FeatureCache, tuned: tuple[Tuning, Model]) -> None:
    """Other labels in test, other figures, the same choice."""
    labels = np.where((FARM.splits == 2) & (FARM.labels < 2), 1 - FARM.labels, FARM.labels)
    other = replace(FARM, labels=labels)
    found, _ = tune_head(
        other, cache, ranking(other, X), options=replace(ALONE, trials=2, rows=("lowest", "random"), beside=())
    )
    for one, same in zip(found.results, tuned[0].results, strict=False):
        assert (one.settings, one.stop_gap, one.met) == (same.settings, same.stop_gap, same.met)
        assert one.gap.value.value != same.gap.value.value


@pytest.mark.parametrize(("measured", "k"), [(0.2, 30), (0.5, 75), (1, 1), (100, 75), (1000, 75)])
def test_the_ends_that_stop_share_no_row_however_few_there_are(cache: FeatureCache, measured: float, k: int) -> None:
    split = ranked(join(FARM, cache), ranking(FARM, X))
    before = predictions(FARM, cache, fit(FARM, cache, "plain"), "val")
    judged = Judged.of(ranking(FARM, X), split.val, before, measured)
    rows = np.concatenate([rows for rows, _ in judged.strata])
    assert len(judged.strata) == 4 and len(set(rows)) == len(rows) == 4 * k
    assert judged.part.spuriosity is not None
    for (high, _), (low, _) in zip(judged.strata[::2], judged.strata[1::2], strict=True):
        assert judged.part.spuriosity[high].min() >= judged.part.spuriosity[low].max()


def test_few_rows_do_not_stop_at_once_and_watching_changes_nothing(
    cache: FeatureCache, tuned: tuple[Tuning, Model]
) -> None:
    untouched, lowest = tuned[0].results[:2]
    assert untouched.stop_gap[0] > 0.05 and not untouched.met and lowest.met == lowest.trials and all(lowest.settings)
    steps: list[str] = []
    watched, model = tune_head(
        FARM, cache, ranking(FARM, X), options=replace(ALONE, trials=2, rows=("lowest",), beside=()),
        progress=lambda done, total, what: steps.append(what),
    )  # fmt: skip
    assert steps and watched.results[1] == lowest and np.array_equal(model.linear.coef, tuned[1].linear.coef)


def test_groups_are_only_reported_on(cache: FeatureCache, tuned: tuple[Tuning, Model]) -> None:
    bare = replace(FARM, grouping=())
    found, model = tune_head(bare, cache, ranking(bare, X), options=replace(ALONE, trials=2, rows=("lowest",)))
    assert found.results[1].settings == tuned[0].results[1].settings
    assert np.allclose(model.linear.coef, tuned[1].linear.coef)
    assert not found.rivals and not found.recovery and found.results[1].worst_group is None


def test_low_spuriosity_finds_the_minority_and_is_set_beside_other_heads(tuned: tuple[Tuning, Model]) -> None:
    found = tuned[0]
    assert set(found.recovery) == set(CLASSES[:2])
    assert all(a.value > 0.97 and a.low > 0.75 and a.n < 40 for a in found.recovery.values())
    assert [r.head for r in found.rivals] == list(FEW)
    plain = next(r for r in found.rivals if r.head == "plain")
    assert plain.gap.change is not None and plain.gap.change.value == plain.gap.change.low == plain.gap.change.high == 0


def test_the_published_descent_and_half_of_validation(cache: FeatureCache) -> None:
    options = TuningSettings.published(k=0.5, rows=("random",), trials=2, halve=True, target=0.0, beside=())
    found, model = tune_head(FARM, cache, ranking(FARM, X), options=options)
    _, drawn = found.results
    assert found.stop == "half of validation" and found.rows["stop"] == 225 and drawn.trials == 2
    assert [p.setting.get("epochs", 0) for p in drawn.front if p.trial == 1] == list(range(21))
    assert model.linear.scale.tolist() == [1.0] * 8 and model.record.configurations == 21
    assert len({tuple(p.average for p in drawn.front if p.trial == t) for t in range(2)}) == 2


def test_a_head_that_has_no_gap_stays_as_it_was(cache: FeatureCache, tmp_path: Path) -> None:
    options = TuningSettings(k=20, trials=1, target=1.0, beside=())
    found, model = tune_head(FARM, cache, ranking(FARM, X), options=options)
    assert all(r.settings[0] == {} and r.met == r.trials for r in found.results)
    assert all(r.gap.change is None or r.gap.change.value == 0 for r in found.results)
    kept = saved.save_model(model, tmp_path)
    again, same = tune_head(FARM, cache, ranking(FARM, X), saved.load_model(kept), options)  # a saved head can be tuned
    assert again.model == f"{ONE}={kept}" and np.allclose(same.weight, model.weight)
    assert same.record.head == f"low-spuriosity of {kept.stem}"
    assert again.results[0].average.value == found.results[0].average.value
    path = _tunings.add(tmp_path, ranking(FARM, X), [found, replace(again, head="again")], print)
    document = json.loads(path.read_text())
    assert (document["format"], document["version"], len(document["models"])) == ("embedx-tuning", 3, 2)
    first = document["models"][0]["results"][0]
    assert first["gap"]["value"]["value"] == found.results[0].gap.value.value and first["rows"] == "untouched"


def by_core() -> Ranking:
    """By how strongly each row shows its class: the least spurious rows are the hard ones."""
    values = X[np.arange(len(X)), FARM.labels]
    return rank_by_scores(FARM, values, backbone="tiny:rank", weights="w", cues=dict.fromkeys((0, 1), ("straw",)))


def test_validation_without_groups_tells_a_success_from_a_loss(
    cache: FeatureCache, tuned: tuple[Tuning, Model], tmp_path: Path
) -> None:
    """The truth, which groups know: by the cue the worst group gains, by the object of the class it loses."""
    good, options = tuned[0], replace(ALONE, rows=("lowest",), beside=())
    gained = good.results[1].worst_group
    assert gained is not None and gained.change is not None and gained.change.low > 0
    assert good.evidence is not None and good.evidence.against == () and not good.kept
    said = good.evidence
    assert said.low.change is not None and said.low.change.low > 0 and said.worst_part_name.endswith("spurious")
    assert said.gap.change is not None and said.gap.change.high < 0 and said.worst_part.value.value > 0.8
    bad, model = tune_head(FARM, cache, by_core(), options=options)
    lost = bad.results[1].worst_group
    assert lost is not None and lost.change is not None and lost.change.high < 0
    assert bad.kept and bad.evidence is not None and len(bad.evidence.against) >= 2
    assert "the least spurious images are got right no more often" in " ".join(bad.evidence.against)
    test = join(FARM, cache).test
    before = fit(FARM, cache, "plain")
    assert np.array_equal(model.predict(test.X), before.predict(test.X))  # as it was
    assert model.record.validation_score == bad.results[0].stop_gap[0]
    anyway, other = tune_head(FARM, cache, by_core(), options=replace(options, keep=False))
    assert not anyway.kept and anyway.evidence == bad.evidence and anyway.results == bad.results
    assert not np.array_equal(other.predict(test.X), before.predict(test.X))
    _tunings.add(tmp_path, by_core(), [bad], print)
    (again,) = _tunings.load(tmp_path / _tunings.FILE).models
    assert again.kept and again.evidence is not None and again.evidence.against == bad.evidence.against


def test_each_half_judges_the_head_that_the_other_stops_at(cache: FeatureCache) -> None:
    by, options = ranking(FARM, X), ALONE
    split = ranked(join(FARM, cache), by)
    before = predictions(FARM, cache, fit(FARM, cache, "plain"), "val")
    stop = Judged.of(by, split.val, before, options.measured)
    first = half_of(split.val)
    # Perfect on one half and wrong at the least spurious end of the other, and the other way round.
    low = np.concatenate([rows for rows, w in stop.strata if w < 0])
    codes = np.repeat(split.val.y[None, None], 3, axis=1)
    codes[0, 0] = np.where(np.isin(np.arange(len(first)), low), 1 - split.val.y, split.val.y)
    for i, half in ((1, first), (2, ~first)):
        codes[0, i] = np.where(half, split.val.y, codes[0, 0])
    found = evidence._crossed(stop, by, codes, replace(options, target=0.01))
    np.testing.assert_array_equal(found[0], codes[0, 0])  # what is perfect on one half is judged on the other
    level = evidence._crossed(stop, by, codes, replace(options, target=1.0))
    np.testing.assert_array_equal(level[0], codes[0, 0])
    codes[0, 2] = split.val.y
    codes[0, 1] = codes[0, 0]
    np.testing.assert_array_equal(evidence._crossed(stop, by, codes, replace(options, target=0.01))[0], split.val.y)


@pytest.mark.slow
def test_a_second_ranking_is_another_measure_of_the_same_change(cache: FeatureCache) -> None:
    options = replace(ALONE, rows=("lowest",), beside=())
    by = ranking(FARM, X)
    same = tune_head(FARM, cache, by, options=options, second=Second(by))[0].evidence
    assert same is not None and same.second == same.gap
    rng = np.random.default_rng(0)
    noisy = [replace(by, scores=by.scores + 0.5 * rng.normal(size=len(by.scores))) for _ in range(2)]
    half = tune_head(FARM, cache, by, options=options, second=Second(noisy[0], noisy[1]))[0].evidence
    assert half is not None and half.second is not None and half.second.change is not None and half.against == ()
    assert half.second.change.high < 0 and replace(half, second=None) == replace(same, second=None)
    none = replace(by, scores=np.where(FARM.splits == 1, np.nan, by.scores))  # nothing to stop by
    bare = tune_head(FARM, cache, by, options=options, second=Second(by, none))[0].evidence
    assert bare is not None and bare.second is None
    other = tune_head(FARM, cache, by, options=options, second=Second(by_core()))[0].evidence
    assert other is not None and other.second is not None and other.second.value.value != same.gap.value.value


def test_what_cannot_be_tuned_is_refused(cache: FeatureCache) -> None:
    with pytest.raises(HeadError, match="'nearest-neighbours' is not linear, so it has no weight for each feature"):
        tune_head(FARM, cache, ranking(FARM, X), fit(FARM, cache, "nearest-neighbours"))
    with pytest.raises(HeadError, match="tuning on lowest rows of tiny:one: k must be positive, found 0"):
        tune_head(FARM, cache, ranking(FARM, X), options=TuningSettings(k=0))
    only_train = replace(ranking(FARM, X), scores=np.where(FARM.splits == 0, ranking(FARM, X).scores, np.nan))
    with pytest.raises(SpuriosityError, match="no class has two rows in val that are ranked"):
        tune_head(FARM, cache, only_train)
    short = replace(ranking(FARM, X), ids=FARM.ids[:-1], scores=ranking(FARM, X).scores[:-1])
    with pytest.raises(SplitError, match="lacks 1 rows"):
        tune_head(FARM, cache, short)


def test_halves_have_the_same_classes_and_spuriosity(cache: FeatureCache) -> None:
    val = ranked(join(FARM, cache), ranking(FARM, X)).val
    a, b = halved(val)
    assert not set(a.ids) & set(b.ids) and len(a) + len(b) == len(val)
    assert a.spuriosity is not None and b.spuriosity is not None
    for c in range(3):
        one, other = a.spuriosity[a.y == c], b.spuriosity[b.y == c]
        assert abs(len(one) - len(other)) <= 1
        assert all(abs((one < s).sum() - (other < s).sum()) <= 1 for s in one)
    assert (np.diff([int(i[:5]) for i in a.ids]) > 0).all()


def test_intervals_of_changes_cover_and_know_the_pairing() -> None:
    rng = np.random.default_rng(0)
    covered, n, reps = 0, 60, 300
    for r in range(reps):
        before = rng.random(n) < 0.6
        after = np.where(rng.random(n) < 0.2, rng.random(n) < 0.9, before)
        figure = share(after[None].astype(float), before.astype(float), np.arange(n))
        assert figure is not None and figure.change is not None
        covered += figure.change.low <= 0.2 * (0.9 - 0.6) <= figure.change.high
        if not r:
            assert figure.change.value == pytest.approx(after.mean() - before.mean())
    assert 0.91 <= covered / reps <= 0.985
    same = weighted(np.ones((1, 4)), np.ones(4), [(np.arange(2), 1.0), (np.arange(2, 4), -1.0)])
    assert same.change is not None and (same.change.low, same.change.high) == (0, 0)
    assert share(np.ones((1, 4)), None, np.empty(0, int)) is None
    figure, label = worst(np.array([[1, 1, 0, 1.0], [1, 1, 0, 0]]), np.array([1, 1, 1, 0.0]), np.array([3, 3, 7, 7]))
    assert (figure.value.value, label, figure.trials) == (0.25, 7, (0.5, 0.0))
    assert figure.change is not None and figure.change.value == -0.25


def test_choosing_by_halves_of_spuriosity() -> None:
    y, scores = np.array([0] * 5 + [1] * 4 + [2] * 2), np.array([5, 1, 2, 4, 3, np.nan, 1, 2, 3, np.nan, np.nan])
    val = replace(part(list(y), list(y)), spuriosity=scores)
    hits = np.zeros((2, 11), bool)
    hits[0, [1, 2, 3]] = True  # the lowest two, and one of the highest two, of the first class
    hits[0, [5, 6, 8]] = True  # the lowest and the highest of the second
    hits[0, 9] = True  # one of two of the third, which is not ranked
    expected = pytest.approx((min(1, 0.5) + min(1, 1) + 0.5) / 3)
    assert RULES["spuriosity-halves"].score(hits, val, np.ones(3)).tolist() == [expected, 0]
    with pytest.raises(SplitError, match="needs a spuriosity ranking of validation; make a ranking with"):
        RULES["spuriosity-halves"].score(hits, replace(val, spuriosity=None), np.ones(3))


def test_a_ranking_beside_the_cache_feeds_the_head_everywhere(
    workspace: Workspace, cache: FeatureCache, tmp_path: Path
) -> None:
    assert "low-spuriosity" not in every_head(FARM) and "low-spuriosity" in every_head(FARM, ranked=True)
    with pytest.raises(HeadError, match="needs a spuriosity ranking, and farm has none by tiny:one, nor just one by"):
        probe_cache(workspace, FARM, cache, "low-spuriosity")
    (model,) = probe_cache(workspace, FARM, cache, "low-spuriosity", ranking=ranking(FARM, X))
    run = model.record
    words = supervision_in_words(run.supervision)
    assert words == "spuriosity ranking; spuriosity ranking of validation, to choose" and not run.uses_groups
    assert run.selection == "spuriosity-halves" and run.needs == ("spuriosity",)
    assert isinstance(model.fitted, LowSpuriosity)
    plain = fit(FARM, cache, "plain").record
    assert run.metrics.worst_group.value > plain.metrics.worst_group.value + 0.05
    options = Compared(folder=tmp_path, rankings={ONE: ranking(FARM, X)})
    first, again = (compare(workspace, FARM, [ONE], ["plain", "low-spuriosity"], options) for _ in range(2))
    assert first == again and [r.head for r in first] == ["plain", "low-spuriosity"]
    other = replace(options, rankings={ONE: ranking(FARM, X, (0,))})  # another ranking is another run
    changed = compare(workspace, FARM, [ONE], ["plain", "low-spuriosity"], other)
    assert changed[0] == first[0] and changed[1] != first[1]
    said = replace(options, rankings={ONE: replace(ranking(FARM, X), sources=("auto:mask",))})
    (run,) = compare(workspace, FARM, [ONE], ["low-spuriosity"], said)
    assert "by masks of training images" in supervision_in_words(run.supervision)


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    workspace, out = Workspace(tmp_path / "cache"), tmp_path / "out"
    manifests.save(WHOLE, workspace.dataset("pets"))
    pets = features(WHOLE)
    write(workspace, WHOLE, ONE, pets)
    write(workspace, WHOLE, TWO, np.column_stack([pets, pets[:, 1]]))

    def run(*words: str) -> Any:
        return CliRunner().invoke(main, ["--cache", str(workspace.path), *words])

    failed = run("spuriosity", "tune", "pets", "-b", ONE, "-o", str(out))
    assert failed.exit_code == 1 and "make it with `embedx spuriosity rank`" in failed.output
    failed = run("probe", "pets", "-b", ONE, "--head", "low-spuriosity")
    assert failed.exit_code == 1 and "needs a spuriosity ranking" in failed.output
    values = np.where(WHOLE.labels == 1, pets[:, 2], -pets[:, 2])
    by = rank_by_scores(WHOLE, values, backbone=ONE, weights=f"digest of {ONE}", cues={0: ("in",), 1: ("out",)})
    by.save(place(workspace, "pets", ONE))
    done = run("spuriosity", "tune", "pets", "-b", ONE, "--model", ONE, "--model", f"{TWO}=class-balanced", "-k", "15",
               "--trials", "2", "-o", str(out))  # fmt: skip
    assert done.exit_code == 0, done.output
    for word in (
        "untouched",
        "lowest",
        "misclassified",
        "AUROC",
        "dfr",
        "tuning.json",
        "ranked by tiny:one",
    ):
        assert word in done.output
    assert "Was it worth it? What can be seen without group labels" in done.output
    assert "no class has two spurious features, so no second ranking checks the tuning" in " ".join(done.output.split())
    names = ["pets.tiny-one.low-spuriosity.0", "pets.tiny-two.low-spuriosity-of-class-balanced.0"]
    assert all((out / f"{name}.safetensors").is_file() for name in names)
    predicted = run("predict", str(out / f"{names[1]}.safetensors"), "pets", "-o", str(tmp_path / "p.csv"))
    assert predicted.exit_code == 0, predicted.output
    probed = run("probe", "pets", "-b", TWO, "--head", "low-spuriosity")  # by the only ranking there is
    assert probed.exit_code == 0 and "spuriosity ranking" in probed.output, probed.output
    published = run("spuriosity", "tune", "pets", "-b", ONE, "--published", "--trials", "1", "-o", str(out))
    assert published.exit_code == 0, published.output
    used = json.loads((out / "tuning.json").read_text())["models"][0]["options"]
    assert {k: used[k] for k in ("k", "recipe", "classes", "others")} == {
        "k": 100, "recipe": "sgd", "classes": "ranked", "others": False,
    }  # fmt: skip
    for k in ("0", "-1", "0.6", "1.5", "inf", "nan"):
        wrong = run("spuriosity", "tune", "pets", "-b", ONE, "-k", k)
        said = f"{k} is neither a whole number from 1 nor a fraction up to 0.5"
        assert wrong.exit_code == 2 and said in wrong.output
    wrong = run("spuriosity", "tune", "pets", "-b", ONE, "-k", "few")
    assert wrong.exit_code == 2 and "'few' is neither a number of images nor a fraction of them" in wrong.output
