"""The gap among those of other features: one that any feature gives is found ordinary, a cue's is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, linear, write

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.spuriosity.gap import _listed
from embedx.spuriosity.measures.gaps import among_others, gaps
from embedx.spuriosity.measures.importance import group_means, importance
from embedx.spuriosity.measures.peers import Peers, Standing, nearest, pool_of
from embedx.spuriosity.measures.predictions import Predictions, predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.ranking import place
from embedx.store import FeatureCache
from embedx.workspace import Workspace

Made = tuple[Workspace, Manifest, FeatureCache]
DIM, N, CUE = 24, 240, 20
POOLS = {0: (*range(10), CUE), 1: tuple(range(10, 16))}
"""Features 0 to 9 speak for class a, 10 to 19 for class b, all with one part in common; 20 is a cue of a."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """How much an image shows of its class varies, and every feature of the class goes along: hard images are low."""
    rng, workspace = np.random.default_rng(0), Workspace(tmp_path_factory.mktemp("peers"))
    y, split = np.repeat([0, 1], 3 * N), np.tile([0, 1, 2], 2 * N)
    clear = rng.normal(size=len(y))
    X = 0.9 * rng.normal(size=(len(y), DIM))
    for c in (0, 1):
        X[:, 10 * c : 10 * c + 10] += np.where(y == c, 0.25 + 0.3 * clear, 0)[:, None]
    X[:, CUE] = np.where((y == 0) & (rng.random(len(y)) < 0.5), 3, 0) + 0.3 * rng.normal(size=len(y))
    manifest = manifests.build("peers", {
        "id": [f"{i:04d}" for i in range(len(y))], "label": ["ab"[c] for c in y], "split": [SPLITS[s] for s in split],
    })  # fmt: skip
    manifests.save(manifest, workspace.dataset("peers"))
    return workspace, manifest, write(workspace, manifest, ONE, X.astype(np.float32))


def head(manifest: Manifest, cue: float) -> object:
    W = np.zeros((2, DIM))
    W[0, :10], W[1, 10:20], W[0, CUE] = 1, 1, cue
    return linear(W, np.array([-1.5 * cue, 0]), manifest.classes)


def gap_of(made: Made, cues: dict[int, tuple[int, ...]], said: Predictions) -> float:
    order = RankedRows.of(rank_by_features(made[1], made[2], cues), [said])
    high, low = order.tails(order.places(0.2))
    return float(np.mean((high - low) / order.places(0.2)))


def measured(made: Made, cues: dict[int, tuple[int, ...]], cue: float) -> Peers:
    _, manifest, cache = made
    model = head(manifest, cue)
    (groups,) = group_means(manifest, cache, [(model, "label")])  # type: ignore[list-item]
    weighed = importance(model, groups)  # type: ignore[arg-type]
    by, said = rank_by_features(manifest, cache, cues), predictions(manifest, cache, model)  # type: ignore[arg-type]
    pools = {c: POOLS[c] for c in cues}
    pool = pool_of(manifest, cache, cues, weighed, pools, among="file", split="test")
    (found,) = among_others(by, [gaps(by, said, 0.2)], [said], pool)
    assert found.peers is not None
    return found.peers


def test_a_set_of_its_own_gives_the_gap_of_its_ranking(made: Made) -> None:
    """An oracle: rank by each other feature by the ordinary way; its gap, its place among them and p by counting."""
    _, manifest, cache = made
    model, cues = head(manifest, 0.2), {0: (3,), 1: (14,)}
    said = predictions(manifest, cache, model)  # type: ignore[arg-type]
    peers = measured(made, cues, 0.2)
    for c, own in cues.items():
        others = [f for f in POOLS[c] if f != own[0]]
        gap = [gap_of(made, {c: (f,)}, said) for f in others]
        value = gap_of(made, {c: own}, said)
        standing = peers.classes[c]
        assert standing is not None and standing.sets == len(others)
        assert standing.value == pytest.approx(value) and standing.median == pytest.approx(np.median(gap))
        larger, smaller = (1 + sum(sign * g >= sign * value - 1e-12 for g in gap) for sign in (1, -1))
        assert standing.p == pytest.approx(min(1, 2 * min(larger, smaller) / (1 + len(gap))))
        below = sum(g < value - 1e-12 for g in gap) + sum(abs(g - value) <= 1e-12 for g in gap) / 2
        assert standing.below == pytest.approx(below / len(gap))
    assert peers.mean is not None and peers.mean.sets == 50  # each set of one class with each of the other: 10 x 5


def test_any_feature_of_the_class_has_a_gap_beyond_a_random_order_and_none_beyond_its_peers(
    made: Made,
) -> None:
    _, manifest, cache = made
    said = predictions(manifest, cache, head(manifest, 0.0))  # type: ignore[arg-type]
    random, p = [], []
    for f in range(6):
        cues = {0: (f, f + 3), 1: (10 + f, 10 + (f + 2) % 6)}
        random.append(gaps(rank_by_features(manifest, cache, cues), said, 0.2).mean.p)
        mean = measured(made, cues, 0.0).mean
        assert mean is not None
        p.append(mean.p)
    assert max(random) < 0.01  # "significant", each of them
    assert sum(q <= 0.1 for q in p) <= 2 and np.mean(p) > 0.3


def test_the_cue_that_a_head_leans_on_stands_out_and_one_that_it_ignores_at_the_other_end(
    made: Made,
) -> None:
    leaning, ignored = (measured(made, {0: (CUE,)}, weight).classes[0] for weight in (2.0, -0.2))
    assert leaning is not None and ignored is not None
    assert leaning.below == 1 and leaning.p == pytest.approx(2 / 11) and leaning.value > leaning.high
    assert ignored.below == 0 and ignored.p == pytest.approx(2 / 11) and ignored.value < ignored.low


def test_p_is_that_of_a_rank() -> None:
    """The gap of a set that was drawn as the others are: p is uniform, to the steps that so many allow."""
    rng = np.random.default_rng(0)
    p = np.array([Standing.of(x[0], x[1:]).p for x in rng.normal(size=(2_000, 200))])
    for level in (0.05, 0.1, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 2_000) + 0.005)


def test_the_nearest_in_importance_are_those_of_the_nearest_places() -> None:
    weighed = np.array([[9.0, 8, 7, 6, 5, 4, 3, 2, 1, -1, -2, -3] + [0.0] * 28])
    assert nearest(weighed, {0: (3,)}, 4) == {0: (3, 2, 4, 1)}
    assert nearest(weighed, {0: (0, 5)}, 50)[0] == (0, 5, 1, 4, 6, 2, 3, 7, 8)  # a quarter of 40 at most, above 0
    assert nearest(weighed[:, :4], {0: (3,)}, 50) == {0: (3,)}


def test_the_command_sets_the_gap_among_a_number_a_table_or_core_features(made: Made, tmp_path: Path) -> None:
    workspace, manifest, cache = made
    rank_by_features(manifest, cache, {0: (CUE,)}).save(place(workspace, "peers", ONE))

    def run(*words: str) -> str:
        asked = ["--cache", str(workspace.path), "spuriosity", "gap", "peers", "-b", ONE, "-o", str(tmp_path / "out")]
        done = CliRunner().invoke(main, [*asked, *words])
        return " ".join(done.output.split())

    assert "among other features" in run() and "drawn from the 6 features nearest in importance" in run()
    (tmp_path / "mine.csv").write_text("class,feature\na,1\na,2\na,3\n")
    assert "drawn from 3 mine.csv" in run("--among", str(tmp_path / "mine.csv"))
    (kept,) = Measured.load(tmp_path / "out").models
    assert kept.peers is not None and kept.peers.among == "mine.csv" and kept.peers.pool == 3
    assert kept.peers.mean is not None and kept.peers.mean.sets == 3 and len(kept.peers.classes) == 1
    assert "calls no feature core" in run("--among", "core") and "0 features, expected" in run("--among", "0")
    (tmp_path / "mine.csv").write_text("class,feature\nz,1\n")
    with pytest.raises(SpuriosityError, match="is no table of features .KeyError: 'z'.; expected the columns class"):
        _listed(tmp_path / "mine.csv", manifest)
    (tmp_path / "mine.csv").write_text("class,feature\na,99\n")
    assert "feature 99 is to be drawn, and" in run("--among", str(tmp_path / "mine.csv"))


def test_a_class_without_other_features_has_no_place_among_them(
    made: Made,
) -> None:
    _, manifest, cache = made
    by = rank_by_features(manifest, cache, {0: (1,), 1: (11,)})
    said = predictions(manifest, cache, head(manifest, 0.2))  # type: ignore[arg-type]
    weighed = np.abs(np.random.default_rng(0).normal(size=(2, DIM)))
    pool = pool_of(manifest, cache, {0: (1,), 1: (11,)}, weighed, {0: (1, 2, 3), 1: (11,)}, among="x", split="test")
    (found,) = among_others(by, [gaps(by, said, 0.2)], [said], pool)
    assert found.peers is not None and found.peers.classes[1] is None and found.peers.mean == found.peers.classes[0]
    empty = replace(pool, features={})
    (none,) = among_others(by, [gaps(by, said, 0.2)], [said], empty)
    assert none.peers is not None and none.peers.mean is None and none.peers.classes == (None, None)
