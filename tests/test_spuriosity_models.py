"""Several models on one ranking: what they share beyond the images, and what the most spurious images are taken for."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, TWO, linear, write
from test_spuriosity_gap import answered, ranking

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.errors import SpuriosityError
from embedx.evaluation.probe import fit
from embedx.spuriosity.measures import across_models as models
from embedx.spuriosity.measures import gaps as gap
from embedx.spuriosity.measures.across_models import Across, across
from embedx.spuriosity.measures.collisions import Evidence, collisions
from embedx.spuriosity.measures.gaps import gaps
from embedx.spuriosity.measures.predictions import Predictions, predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.workspace import Workspace

CLASSES, ROWS = 40, 50


def population(
    seed: int, many: int, hard: float, cue: float, *, order: bool = True
) -> tuple[Ranking, list[Predictions]]:
    """Models that share how hard an image is (deviation `hard`, in logits) and how much a class leans on its cue.

    order  whether the ranking is that of the cue; otherwise it means nothing
    """
    rng, sizes = np.random.default_rng(seed), [ROWS] * CLASSES
    shown = np.tile(np.linspace(-1, 1, ROWS), CLASSES)
    lean = np.repeat(rng.normal(cue, cue, CLASSES), ROWS)
    logit = 1 + lean * shown + hard * rng.normal(size=len(shown))
    scores = shown if order else rng.random(len(shown))
    said = [
        answered(sizes, rng.random(len(shown)) < 1 / (1 + np.exp(-logit - shift)), f"m{i}")
        for i, shift in enumerate(np.linspace(-0.8, 0.8, many))
    ]
    return ranking(sizes, scores), said


def found(*args: float, seed: int = 0, **more: bool) -> Across:
    made, said = population(seed, *args, **more)  # type: ignore[arg-type]
    return across(made, said, 10, permutations=200)


def test_class_gaps_are_those_of_each_model() -> None:
    made, said = population(0, 4, 1, 1)
    together = across(made, said, 0.2, permutations=20)
    assert together.models == tuple(a.model for a in said)
    for i, a in enumerate(said):
        alone = gaps(made, a, 0.2)
        np.testing.assert_allclose(together.class_gaps[i], [c.gap.value for c in alone.classes])
        assert (together.robustness[i].high, together.robustness[i].low) == pytest.approx(
            (alone.mean.high.value, alone.mean.low.value)
        )
    G = together.class_gaps
    np.testing.assert_allclose(together.correlations, np.corrcoef(G))
    assert together.mean_correlation is not None
    assert together.mean_correlation.value == pytest.approx(np.corrcoef(G)[np.triu_indices(4, 1)].mean())
    assert together.class_variance.value == pytest.approx(np.var(G.mean(axis=0), ddof=1))
    assert together.model_variance.value == pytest.approx(np.var(G.mean(axis=1), ddof=1))
    assert together.variance_ratio.value == pytest.approx(together.class_variance.value / together.model_variance.value)
    assert together.negative.value == (G.mean(axis=0) < -1e-12).mean()


def test_shared_images_make_models_agree_on_a_ranking_that_means_nothing() -> None:
    """The trap: correlation without any bias. The null knows of it, and models on different images do not agree."""
    together = found(6, 3, 0, order=False)
    r, apart = together.mean_correlation, together.reliability
    assert r is not None and apart is not None
    assert r.value > 0.3 and r.null > 0.3 and r.low <= r.value <= r.high and r.p > 0.05
    assert abs(apart.other_model) < 0.15 and abs(apart.mean) < 0.25
    assert together.negative.low <= together.negative.value <= together.negative.high
    assert together.class_variance.p > 0.05
    assert found(6, 0, 0, order=False).mean_correlation.null == pytest.approx(0, abs=0.03)  # type: ignore[union-attr]


def test_a_bias_that_models_share_stands_out_from_the_null() -> None:
    together = found(6, 1, 2)
    r, apart = together.mean_correlation, together.reliability
    assert r is not None and apart is not None
    assert r.value > r.high and r.p < 0.02 and together.class_variance.p < 0.02
    assert apart.other_model > 0.4 and apart.whole > apart.mean > 0.5
    assert together.negative.value < together.negative.low and together.negative.p < 0.02


@pytest.mark.slow
def test_the_null_is_calibrated() -> None:
    p = []
    for seed in range(40):
        made, said = population(seed, 3, 2, 0, order=False)
        one = across(made, said, 10, permutations=19)
        assert one.mean_correlation is not None
        p.append([one.mean_correlation.p, one.class_variance.p, one.negative.p])
    limit = 0.1 + 3 * np.sqrt(0.1 * 0.9 / 40)
    assert (np.mean(np.array(p) <= 0.1, axis=0) <= limit).all()
    assert (np.mean(np.array(p), axis=0) > 0.3).all()


def test_effective_robustness_is_what_the_line_leaves() -> None:
    made, said = population(1, 5, 1, 1)
    weak = said[2]
    y = made.labels
    low = np.tile(np.arange(ROWS) < 10, CLASSES)
    said[2] = replace(weak, predicted=np.where(low, y, weak.predicted), head="sturdy")  # right wherever the cue is not
    together = across(made, said, 10, permutations=20)
    high = np.array([r.high for r in together.robustness])
    bottom = np.array([r.low for r in together.robustness])
    slope, intercept = np.polyfit(high, bottom, 1)
    assert together.line is not None
    assert (together.line.slope, together.line.intercept) == pytest.approx((slope, intercept))
    assert together.line.r2 == pytest.approx(np.corrcoef(high, bottom)[0, 1] ** 2)
    above = [r.effective for r in together.robustness]
    assert [e and e.value for e in above] == pytest.approx(list(bottom - slope * high - intercept))
    assert sum(e.value for e in above if e) == pytest.approx(0, abs=1e-9)
    best = max(together.robustness, key=lambda r: r.effective.value if r.effective else -1)
    assert best.model == "model=sturdy" and best.effective is not None and best.effective.low > 0
    assert all(e.low <= e.value <= e.high for e in above if e)
    two = across(made, said[:2], 10, permutations=20)
    assert two.line is None and [r.effective for r in two.robustness] == [None, None]


@pytest.mark.slow
def test_the_interval_of_effective_robustness_holds_the_truth_where_ends_have_one_row() -> None:
    """Drawn 1 of 1, its width was 0 and it held the truth in none of 200."""
    rng, k, m, trials, held = np.random.default_rng(0), 60, 6, 200, []
    sizes, level = [4] * k, np.linspace(0.3, 0.8, m)[:, None]
    high, low = (np.clip(level + b + 0.1 * rng.normal(size=(m, k)), 0, 1) for b in (0.1, -0.1))
    true = models._above(high.mean(axis=1), low.mean(axis=1))[0]
    for _ in range(trials):
        hits = rng.random((m, k, 4)) < np.stack([low, level + 0 * low, level + 0 * low, high], axis=2)
        said = [answered(sizes, h.ravel(), f"m{i}") for i, h in enumerate(hits)]
        order = RankedRows.of(ranking(sizes), said)
        places = order.places(1)
        _, found = models._robustness(
            order, places, np.ascontiguousarray(order.hits.T), models._Ends(order.sizes, places),
            [a.model for a in said], np.random.default_rng(1),
        )  # fmt: skip
        above = [f.effective for f in found]
        held += [e is not None and e.low <= t <= e.high for e, t in zip(above, true, strict=True)]
    assert np.mean(held) >= 0.92


def test_halves_share_no_image() -> None:
    """Right answers of a model in its own half only: were a row in both, the halves would agree."""
    sizes, seen = np.array([9, 4, 7]), []
    hits = np.eye(20, dtype=np.uint8)  # each row has a model of its own that is right there only

    class Spy(models._Ends):
        def gaps(self, hits: np.ndarray, rows: np.ndarray) -> np.ndarray:
            seen.append(rows)
            return super().gaps(hits, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "_Ends", Spy)
        models._reliability(sizes, np.array([2, 1, 2]), hits, np.random.default_rng(0))
    assert len(seen) == 2 * models.HALVES
    of_row = np.repeat(np.arange(3), sizes)
    for A, B in zip(seen[::2], seen[1::2], strict=True):
        assert not set(A) & set(B) and (np.diff(A) > 0).all() and (np.diff(B) > 0).all()
        assert np.bincount(of_row[A]).tolist() == np.bincount(of_row[B]).tolist() == [4, 2, 3]
    assert len({tuple(A) for A in seen[::2]}) > 50


def test_what_cannot_be_told_is_none_and_json_has_no_nan() -> None:
    sizes = [20, 20]
    hits = np.random.default_rng(0).random((3, 40)) < 0.7
    said = [answered(sizes, h, f"m{i}") for i, h in enumerate([*hits, np.ones(40, bool)])]
    two = across(ranking(sizes), said, 5, permutations=20)
    assert (two.mean_correlation, two.correlations, two.reliability) == (
        None,
        None,
        None,
    )  # two classes: always 1 or -1
    more = [20] * 5
    right = answered(more, np.ones(100, bool), "right")
    other = answered(more, np.random.default_rng(0).random(100) < 0.7, "other")
    together = across(ranking(more), [right, other], 5, permutations=20)
    assert together.correlations is not None and np.isnan(together.correlations[0]).all()
    document = json.loads(json.dumps(together.to_dict(), allow_nan=False))
    assert document["correlations"][0] == [None, None] and document["mean_correlation"] is None
    assert document["class_gaps"][0] == [0.0] * 5
    with pytest.raises(SpuriosityError, match="1 model, expected two or more to compare"):
        across(ranking(more), [right], 5)


def test_rows_that_one_model_lacks_are_left_out_for_all() -> None:
    made, said = population(0, 3, 1, 1)
    fewer = replace(said[1], **{name: getattr(said[1], name)[7:] for name in ("ids", "y", "predicted")})
    together = across(made, [said[0], fewer, said[2]], 10, permutations=5)
    cut = replace(made, scores=np.where(np.arange(len(made.scores)) < 7, np.nan, made.scores))
    np.testing.assert_allclose(together.class_gaps, across(cut, said, 10, permutations=5).class_gaps)


@pytest.mark.slow
def test_imagenet_with_every_model_of_the_paper_takes_a_minute() -> None:
    rng, sizes = np.random.default_rng(0), [50] * 1_000
    hard = rng.normal(1, 2, 50_000)
    said = [answered(sizes, rng.random(50_000) < 1 / (1 + np.exp(-hard - s)), f"{s}") for s in np.linspace(-1, 1, 89)]
    began = time.process_time()
    together = across(ranking(sizes, rng.random(50_000)), said, 10)
    assert together.mean_correlation is not None and together.mean_correlation.p > 0.01
    assert time.process_time() - began < 60


A, NOISE = 0, 1
"""Columns: what tells class a and is the cue of class b; another cue of b, which pulls less."""


@pytest.fixture(scope="module")
def clash(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Evidence, Ranking, Predictions]:
    """Class b goes with a cue that class a is made of: the rows of b that show it most are taken for a."""
    rng, workspace = np.random.default_rng(0), Workspace(tmp_path_factory.mktemp("clash"))
    label, split = np.repeat([0, 1, 2], 90), np.tile([0, 1, 2], 90)
    shown = rng.uniform(0, 1, 270) * (label == 1)
    X = np.column_stack([3 * (label == 0) + 4 * shown, shown + rng.uniform(0, 0.1, 270), 2 * (label == 1), label == 2])
    manifest = manifests.build("clash", {
        "id": [f"{i:03d}" for i in range(270)], "label": ["abc"[c] for c in label],
        "split": [manifests.SPLITS[s] for s in split],
    })  # fmt: skip
    manifests.save(manifest, workspace.dataset("clash"))
    cache = write(workspace, manifest, ONE, X.astype(np.float32), [5])
    write(workspace, manifest, TWO, X.astype(np.float32)[:, ::-1].copy())
    head = linear(np.array([[1, 0.1, 0, 0], [0.2, 0.3, 1, 0], [0, 0, 0, 1]]), np.zeros(3), manifest.classes)
    made = rank_by_features(manifest, cache, {1: (NOISE, A)})
    rows = np.flatnonzero(split == 2)
    rows = rows[rows != 5]
    said = Predictions(
        "clash", ONE, "made", "test", manifest.classes, manifest.ids[rows], label[rows], head.predict(X[rows])
    )
    return workspace, Evidence(manifest, cache, head), made, said


def test_a_collision_shows_with_the_class_and_the_feature_that_pull(
    clash: tuple[Workspace, Evidence, Ranking, Predictions],
) -> None:
    _, evidence, made, said = clash
    measured = gaps(made, said, 8)
    (one,) = collisions(measured, made, said, evidence)
    assert [c.gap.value for c in measured.classes] == [one.gap.value] == [-1]
    assert (one.name, one.other_name, one.taken, one.low, one.of) == ("b", "a", 8, 0, 8)
    X, row = evidence.cache.features(), {i: n for n, i in enumerate(evidence.manifest.ids)}
    top = sorted(said.ids[said.y == 1], key=lambda i: made.scores[row[i]])[-8:]
    mean = X[[row[i] for i in top]].mean(axis=0)
    assert one.pull is not None and one.pull.feature == A  # and not the other cue, which comes first
    assert (one.pull.towards, one.pull.own) == pytest.approx((mean[A], 0.2 * mean[A]), rel=1e-5)
    (bare,) = collisions(measured, made, said)
    assert bare == replace(one, pull=None)
    (wordy,) = collisions(measured, replace(made, features={}), said, evidence)
    assert wordy.pull is None


def test_classes_are_told_from_the_most_negative_and_others_by_how_often() -> None:
    sizes = [20] * 4
    y = np.repeat(np.arange(4), 20)
    wrong = answered(sizes, np.ones(80, bool))
    predicted = wrong.predicted.copy()
    predicted[14:20] = [1, 2, 2, 2, 3, 3]  # high end of class 0
    predicted[20] = 0  # low end of class 1: a positive gap
    predicted[58:60] = 0  # high end of class 2
    said = replace(wrong, predicted=predicted)
    assert said.y.tolist() == y.tolist()
    made = ranking(sizes)
    listed = collisions(gaps(made, said, 10), made, said)
    assert [(c.label, c.other, c.taken) for c in listed] == [(0, 2, 3), (0, 3, 2), (0, 1, 1), (2, 0, 2)]


def run(workspace: Workspace, *words: object, fails: bool = False) -> str:
    done = CliRunner().invoke(main, ["--cache", str(workspace.path), "spuriosity", "gap", *map(str, words)])
    assert (done.exit_code != 0) == fails, done.output
    return done.output


def test_the_command_measures_several_models(
    clash: tuple[Workspace, Evidence, Ranking, Predictions], tmp_path: Path
) -> None:
    workspace, evidence, made, _ = clash
    made.save(place(workspace, "clash", ONE))
    made.save(tmp_path / "again.csv")
    out = tmp_path / "out"
    said = run(
        workspace, "clash", "-b", ONE, "--model", ONE, "--model", f"{TWO}=plain", "--model", f"{TWO}=nearest-mean",
        "-k", 8, "--control", f"again={tmp_path / 'again.csv'}", "-o", out,
    )  # fmt: skip
    assert f"wrote {out / 'gaps.json'}" in said and "3 models" in said and "control: again" in said
    kept = Measured.load(out).models
    assert [(g.backbone, g.head, g.k) for g in kept] == [(ONE, "plain", 8), (TWO, "plain", 8), (TWO, "nearest-mean", 8)]
    alone = predictions(evidence.manifest, evidence.cache, fit(evidence.manifest, evidence.cache, "plain"))
    assert replace(kept[0], peers=None) == gaps(made, alone, 8, controls={"again": made})
    document = json.loads((out / "gaps.json").read_text())
    assert document["across"]["models"] == [g.model for g in kept] and len(document["collisions"]) == 3
    assert document["ranking"]["features"] == {"1": [NOISE, A]}
    fewer = run(workspace, "clash", "-b", ONE, "--model", f"{TWO}=plain", "-k", 8, "-o", out)
    assert "3 models" in fewer and "nearest-mean" in fewer  # those measured before stay, and in the comparison
    assert {g.model for g in Measured.load(out).models} == {g.model for g in kept}
    assert len(json.loads((out / "gaps.json").read_text())["across"]["models"]) == 3


def test_the_command_says_what_is_missing(
    clash: tuple[Workspace, Evidence, Ranking, Predictions], tmp_path: Path
) -> None:
    workspace, _, made, _ = clash
    made.save(place(workspace, "clash", ONE))
    said = run(workspace, "clash", "-b", TWO, "-o", tmp_path, fails=True)
    assert "does not exist; make it with `embedx spuriosity rank`" in said
    for k in ("0.6", "0", "much"):
        assert "Invalid value for '-k'" in run(workspace, "clash", "-b", ONE, "-k", k, "-o", tmp_path, fails=True)
    said = run(workspace, "clash", "-b", ONE, "--model", f"{ONE}=pretrained", "-o", tmp_path, fails=True)
    assert "has no classifier of its own" in said
    assert not (tmp_path / gap.FILE).exists()


@pytest.mark.parametrize(("split", "word"), [("train", "fitted"), ("val", "chosen"), ("test", "")])
def test_rows_that_the_heads_have_seen_are_called_so(
    clash: tuple[Workspace, Evidence, Ranking, Predictions], tmp_path: Path, split: str, word: str
) -> None:
    workspace, _, made, _ = clash
    made.save(place(workspace, "clash", ONE))
    said = run(workspace, "clash", "-b", ONE, "--split", split, "-o", tmp_path)
    assert (f"heads are {word} on {split}, so accuracies" in said) == bool(word) and ("note: heads" in said) == bool(
        word
    )


def test_a_figure_that_one_class_does_not_have_is_not_printed(
    clash: tuple[Workspace, Evidence, Ranking, Predictions], tmp_path: Path
) -> None:
    workspace, _, made, _ = clash
    one = replace(made, scores=np.where(made.labels == 1, made.scores, np.nan))
    one.save(place(workspace, "clash", ONE))
    said = run(workspace, "clash", "-b", ONE, "--model", ONE, "--model", f"{TWO}=plain", "-o", tmp_path)
    assert "2 models" in said and "share of classes with a negative gap" in said and "nan" not in said.lower()
