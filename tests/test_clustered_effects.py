"""Laws of gaps, changes, AUROCs and repairs where rows come in clusters: copies add nothing, other rows stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, build, features, table, write
from test_spuriosity_gap import answered, ranking

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import Subjects
from embedx.spuriosity.measures.across_models import across
from embedx.spuriosity.measures.changes import share, weighted, worst
from embedx.spuriosity.measures.gaps import gaps
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.records.ranking import place
from embedx.statistics import CrossedMean, Interval, auroc_interval, exchanged_within, stratified_draws, stratified_sum
from embedx.workspace import Workspace

SIZES = [60, 80, 100]
N = sum(SIZES)
ENDS = [(np.arange(50), 0.5), (np.arange(50, 80), 0.5), (np.arange(120, 170), -0.5), (np.arange(170, 240), -0.5)]


def subjects(codes: np.ndarray) -> Subjects:
    return Subjects("patient", codes, tuple(map(str, range(codes.max() + 1))))


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores without ties, and right or wrong that goes with them."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=N)
    return score, rng.random(N) < 0.7 + 0.1 * np.sign(score)


def width(x: Interval | tuple[float, float]) -> float:
    low, high = (x.low, x.high) if isinstance(x, Interval) else x
    return high - low


def test_rows_that_are_all_of_their_own_change_nothing() -> None:
    (score, hits), own = drawn(), np.random.default_rng(1).permutation(N)
    after = drawn(1)[1]
    pairs = [(gaps(ranking(SIZES, score, subjects=s), answered(SIZES, hits)),) for s in (None, subjects(own))]
    models = [answered(SIZES, h, name) for h, name in ((hits, "a"), (after, "b"), (hits | after, "c"))]
    both = [across(ranking(SIZES, score, subjects=s), models, permutations=5).to_dict() for s in (None, subjects(own))]
    assert pairs[0] == pairs[1] and both[0] == both[1]
    trials = np.stack([after, hits | after]).astype(float)
    first: list = []
    for clusters in (None, own):
        found = [
            weighted(trials, hits.astype(float), ENDS, clusters), share(trials, hits * 1.0, np.arange(99), clusters),
            worst(trials, hits.astype(float), np.arange(N) % 3, clusters), auroc_interval(hits, score, clusters),
            CrossedMean.of(trials - hits, clusters),
            stratified_draws(trials, ENDS, np.random.default_rng(0), 50, clusters),
        ]  # fmt: skip
        first = first or found
        assert np.array_equal(first[-1], found[-1]) and first[:-1] == found[:-1]


@pytest.mark.parametrize("m", [2, 5])
def test_copies_of_rows_add_nothing_once_they_are_called_so(m: int) -> None:
    (score, hits), whose, sizes = drawn(), subjects(np.repeat(np.arange(N), m)), [m * n for n in SIZES]
    once = gaps(ranking(SIZES, score), answered(SIZES, hits))
    fine = np.repeat(score, m) + 1e-6 * np.tile(np.arange(m), N)
    said = answered(sizes, np.repeat(hits, m))
    again, rows = (gaps(ranking(sizes, fine, subjects=s), said) for s in (whose, None))
    for figure in (lambda g: g.mean.gap, lambda g: g.mean.bootstrap, lambda g: g.mean.null, lambda g: g.depths[4].gap,
                   lambda g: g.classes[0].gap, lambda g: g.positions[4]):  # fmt: skip
        assert width(figure(again)) == pytest.approx(width(figure(once)), rel=0.15)
        assert width(figure(rows)) < 0.8 * width(figure(once))
    assert again.trend is not None and once.trend is not None and rows.trend is not None
    assert rows.mean.p < again.mean.p < 0.1 and 0.3 < again.mean.p / once.mean.p < 3
    assert rows.trend.p < 0.01 * again.trend.p and 0.3 < again.trend.p / once.trend.p < 3
    codes, after = np.repeat(np.arange(N), m), drawn(1)[1]
    area, copied = auroc_interval(hits, score), auroc_interval(np.repeat(hits, m), np.repeat(score, m), codes)
    assert 0.7 * width(area) < width(copied) < 1.1 * width(area)
    d = after.astype(float) - hits
    mean, twice = CrossedMean.of(np.tile(d, (3, 1))), CrossedMean.of(np.tile(np.repeat(d, m), (3, 1)), codes)
    assert (twice.value, twice.error) == pytest.approx((mean.value, mean.error)) and twice.images == m * N
    strata = [((rows[:, None] * m + np.arange(m)).ravel(), w) for rows, w in ENDS]
    change, more = (
        weighted(np.repeat(after[None], k, 1) * 1.0, np.repeat(hits, k) * 1.0, of, c).change
        for k, of, c in ((1, ENDS, None), (m, strata, codes))
    )
    assert change is not None and more is not None
    assert more.value == pytest.approx(change.value) and width(more) == pytest.approx(width(change), rel=0.15)


def test_few_clusters_leave_no_interval_without_width() -> None:
    four = np.arange(N) % 4
    for values, changes in ((np.ones(N), False), (np.zeros(N), True), (np.where(four == 0, 1.0, 0.0), True)):
        found = stratified_sum(values, ENDS, np.random.default_rng(0), clusters=four, changes=changes)
        assert width(found) > 0.5 and found.low <= found.value <= found.high
    error = gaps(ranking(SIZES, subjects=subjects(four)), answered(SIZES, drawn()[0] > 0)).mean
    assert error.p > 0.05 and width(error.null) > 0.5


@pytest.mark.parametrize(("m", "within"), [(6, 0.5), (20, 0.0), (60, 1.0)])
def test_the_gap_of_clusters_holds_the_truth(m: int, within: float) -> None:
    """Accuracy and its difference between the ends vary over clusters; rows miss in half of the cases."""
    rng, held = np.random.default_rng(0), np.zeros((100, 2))
    for i in range(len(held)):
        cluster = np.repeat(np.arange(m), rng.integers(10, 60, m))
        end = rng.random(len(cluster)) < 0.5
        p = np.clip(0.6 + 0.25 * (1 - within) * rng.choice([-1, 1], m), 0, 1)[cluster]
        p += np.where(end, 0.15, -0.15) * (1 + 2 * within * rng.choice([-1, 1], m)[cluster])
        hits = (rng.random(len(cluster)) < p).astype(float)
        strata = [(np.flatnonzero(end), 1.0), (np.flatnonzero(~end), -1.0)]
        for j, clusters in enumerate((cluster, None)):
            found = stratified_sum(hits, strata, rng, 200, clusters=clusters)
            held[i, j] = found.low <= 0.3 <= found.high
    assert held[:, 0].mean() > 0.9 and (within == 0 or held[:, 1].mean() < 0.7)


def test_whole_clusters_change_places_in_a_random_ranking() -> None:
    rng, sizes = np.random.default_rng(0), np.array([6, 9])
    clusters = np.array([0, 0, 0, 1, 1, 2, 0, 0, 3, 3, 3, 4, 4, 4, 4])
    for _ in range(20):
        rows = exchanged_within(sizes, clusters, rng)
        assert (np.repeat([0, 1], sizes)[rows] == np.repeat([0, 1], sizes)).all()
        for half in (slice(0, 6), slice(6, 15)):
            taken = {(a, b) for a, b in zip(clusters[half], clusters[rows[half]], strict=True)}
            assert len(taken) == len(set(clusters[half])) == len({b for _, b in taken})


def test_a_named_cluster_widens_the_gap_that_the_command_prints(tmp_path: Path) -> None:
    found, whole = [], build(table())
    clear = features(whole)[:, 1] - 1.5 * whole.labels  # of one owner are those that are told as easily
    owner = dict(zip(whole.ids, np.argsort(np.argsort(clear)) * 6 // len(clear), strict=True))
    for name, facts in (("rows", {}), ("owners", {"cluster": "owner"})):
        frame, workspace = table(), Workspace(tmp_path / name)
        manifest = build(frame.assign(owner=[f"o{owner[i]}" for i in frame.id]) if facts else frame, **facts)
        manifests.save(manifest, workspace.dataset("pets"))
        cache = write(workspace, manifest, ONE, features(manifest))
        rank_by_features(manifest, cache, {0: (2,), 1: (2,)}).save(place(workspace, "pets", ONE))
        words = [
            "--cache",
            str(workspace.path),
            "spuriosity",
            "gap",
            "pets",
            "-b",
            ONE,
            "-o",
            str(tmp_path / name / "out"),
        ]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        assert ("subjects (owner) taken as independent" in done.output) == bool(facts)
        assert ("of 6 subjects (owner)" in done.output and "count subjects" in done.output) == bool(facts)
        found.append(json.loads((tmp_path / name / "out" / "gaps.json").read_text())["models"][0])
    rows, owners = found
    for gap in ("mean", "pooled"):
        a, b = rows[gap]["gap"], owners[gap]["gap"]
        assert b["value"] == pytest.approx(a["value"]) and b["high"] - b["low"] > a["high"] - a["low"]
        assert width(owners[gap]["null"]) > width(rows[gap]["null"])
