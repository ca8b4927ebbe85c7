"""Laws of intervals for rows that come in clusters: bounds, invariances, oracles, and coverage by simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pets import ONE, build, table, write

from embedx.data.manifest import SPLITS
from embedx.evaluation.near import near_duplicates
from embedx.evaluation.probe import probe
from embedx.evaluation.runs import cautions
from embedx.evaluation.split import join
from embedx.statistics import Sample, wilson
from embedx.statistics.clusters import effective_rows
from embedx.statistics.intervals import clopper_pearson, mean_proportion, proportion
from embedx.statistics.minima import minimum
from embedx.workspace import Workspace


def cohort(right: list[int], size: int = 100) -> Sample:
    """So many right of `size` rows of each patient."""
    hits = np.concatenate([np.arange(size) < k for k in right])
    return Sample(hits, np.repeat(np.arange(len(right)), size))


def percent(sample: Sample) -> list[float]:
    found = sample.proportion()
    return [round(100 * x, 1) for x in (found.value, found.low, found.high)]


def drawn(seed: int, m: int = 12) -> tuple[Sample, np.ndarray, np.ndarray]:
    """Clusters of unequal sizes that lie in several groups, and weights of these."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(m), rng.integers(1, 30, m))
    groups = rng.integers(0, 3, len(clusters))
    hits = rng.random(len(clusters)) < rng.beta(4, 1, m)[clusters]
    return Sample(hits, clusters), groups, rng.dirichlet(np.ones(3))


def test_patients_count_and_not_their_frames() -> None:
    assert percent(cohort([0, 0, 100, 100])) == [50.0, *(round(100 * x, 1) for x in wilson(2, 4))] == [50.0, 15.0, 85.0]
    assert percent(cohort([100] * 4)) == [100.0, round(100 * wilson(4, 4)[0], 1), 100.0], "of 4, not of 400"
    assert [cohort([70]).rows(), cohort([100]).rows()] == pytest.approx([1, 1]), "one patient is one draw"
    assert cohort([100, 100, 99, 100]).rows() == pytest.approx(4), "one error tells little more than none"
    assert 150 < cohort([95, 94, 97, 93]).rows() < cohort([95] * 4).rows() == pytest.approx(400)


def test_rows_that_are_all_of_their_own_have_the_intervals_of_rows() -> None:
    sample, groups, weights = drawn(0)
    for clusters in (None, np.random.default_rng(0).permutation(len(groups))):
        alone = Sample(sample.hits, clusters)
        correct, n = np.bincount(groups, alone.hits).astype(int), np.bincount(groups)
        assert alone.proportion() == proportion(int(correct.sum()), len(groups))
        assert alone.mean_over(groups, weights) == mean_proportion(correct, n, weights)
        assert alone.minimum_over(groups, 3) == minimum(correct, n)
    n = len(groups)
    assert effective_rows(alone.hits, np.full(n, 1 / n), np.arange(n)) == pytest.approx(n)


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_worth_no_less_than_clusters_and_no_more_than_rows(seed: int) -> None:
    sample, groups, weights = drawn(seed)
    assert sample.clusters is not None
    w = (weights / np.bincount(groups))[groups]
    rows, of_cluster = sample.rows(w, groups), np.bincount(sample.clusters, w)
    assert 1 / (of_cluster @ of_cluster) <= rows * (1 + 1e-12) and rows <= 1 / (w @ w) * (1 + 1e-12)
    order = np.random.default_rng(seed).permutation(len(w))
    names = np.array(list("abcdefghijkl"))[sample.clusters]
    again = Sample(sample.hits[order], names[order])
    assert again.rows(w[order], groups[order]) == pytest.approx(rows), "neither order nor names count"
    assert Sample(~sample.hits, sample.clusters).rows(w, groups) == pytest.approx(rows), "right and wrong are alike"
    twice = Sample(np.tile(sample.hits, 2), np.tile(sample.clusters, 2))
    doubled = twice.rows(np.tile(w, 2) / 2, np.tile(groups, 2))
    assert doubled == pytest.approx(rows) or rows == pytest.approx(1 / (w @ w)), "copies add nothing"


def test_the_variance_is_that_of_cluster_means() -> None:
    """Of equal clusters of one stratum: the sample variance of their means over their number, for each group too."""
    right = np.random.default_rng(1).integers(50, 90, 40)
    sample = cohort(right.tolist())
    t = 2.02269  # Student's, 39 degrees of freedom or hardly fewer, as all clusters have errors
    shares = right / 100
    expected = shares.mean() * (1 - shares.mean()) / (shares.var(ddof=1) / 40) * (1.95996 / t) ** 2
    assert sample.rows() == pytest.approx(expected, rel=0.02)
    groups = np.tile([0, 1, 1, 1], 1000)
    found = sample.minimum_over(groups, 2)
    for g in (0, 1):
        one = sample.take(groups == g)
        low, _ = clopper_pearson(np.array(one.hits.mean() * one.rows()), np.array(one.rows()), 0.025, 0.025)
        assert found.low <= low * (1 + 1e-12)


@pytest.mark.parametrize(("m", "alike"), [(4, 0.8), (12, 0.2), (60, 0.5)])
def test_the_interval_holds_the_truth_and_that_of_rows_does_not(m: int, alike: float) -> None:
    rng, truth, held = np.random.default_rng(0), 0.8, np.zeros((300, 2))
    for i in range(len(held)):
        clusters = np.repeat(np.arange(m), rng.integers(5, 60, m))
        scale = 1 / alike - 1
        hits = rng.random(len(clusters)) < rng.beta(truth * scale, (1 - truth) * scale, m)[clusters]
        for j, sample in enumerate((Sample(hits, clusters), Sample(hits))):
            found = sample.proportion()
            held[i, j] = found.low <= truth <= found.high
    ours, rows = held.mean(axis=0)
    assert ours > 0.92
    assert rows < 0.75


def scene(subjects: int, each: int, *, shared: bool, d: int = 32) -> tuple[np.ndarray, ...]:
    """Rows of test and of train, in one group; test shows each subject so many times, with little difference."""
    rng = np.random.default_rng(0)
    middle = rng.normal(size=(subjects, d))
    test = np.repeat(middle, each, axis=0) + 0.05 * rng.normal(size=(subjects * each, d))
    train = (
        middle[rng.integers(0, subjects, 500)] + 0.05 * rng.normal(size=(500, d))
        if shared
        else rng.normal(size=(500, d))
    )
    return test + 3, np.zeros(len(test), int), train + 3, np.zeros(500, int)


@pytest.mark.parametrize(
    ("subjects", "each", "shared"), [(4, 100, False), (40, 10, False), (200, 2, True), (50, 8, True)]
)
def test_near_duplicates_of_a_group_are_counted(subjects: int, each: int, shared: bool) -> None:
    found = near_duplicates(*scene(subjects, each, shared=shared))
    assert found[0] == pytest.approx(subjects * each, rel=0.1)


@pytest.mark.parametrize("d", [2, 3, 5, 32, 200])
def test_independent_rows_have_no_near_duplicates(d: int) -> None:
    test, groups, train, of_train = scene(2000, 1, shared=False, d=d)
    assert near_duplicates(test, groups, train, of_train) == {}
    half = np.arange(2000) % 2  # of which the second is a copy of few rows
    test[half == 1] = test[np.flatnonzero(half)[:20]].repeat(50, axis=0)
    assert d == 2 or near_duplicates(test, half, train, of_train) == {1: 1000}


def test_a_run_says_that_test_rows_nearly_equal_others(tmp_path: Path) -> None:
    """And says no more of it once a cluster is named."""
    for name, facts in (("unnamed", {}), ("named", {"cluster": "owner"})):
        manifest = build(table().assign(**({"owner": table().id} if facts else {})), **facts)
        assert manifest.groups is not None
        X = np.random.default_rng(0).normal(size=(len(manifest), 24)).astype(np.float32)
        X[:, 0] += 4 * manifest.labels
        rows = np.flatnonzero(manifest.splits == SPLITS.index("test"))
        rows = rows[np.argsort(manifest.groups[rows], kind="stable")]
        X[rows] = X[rows[np.arange(len(rows)) // 10 * 10]]
        run, _ = probe(join(manifest, write(Workspace(tmp_path / name), manifest, ONE, X)), "plain")
        assert bool(run.near_duplicates) == any("-O cluster=COLUMN" in line for line in cautions([run])) == (not facts)
