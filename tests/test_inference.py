"""Laws of how groups are inferred: errors, environments, clusters, principal directions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from embedx.probes import solve
from embedx.probes._features import Features
from embedx.probes._inference import Apart, Clustering, environments, folds_of, misclassified, principal
from embedx.probes._problem import Solution
from embedx.probes._two_stage import Halves
from embedx.probes._worst_case import Mixture
from embedx.probes.eiil import Eiil
from embedx.probes.george import George
from embedx.probes.jtt import Jtt
from embedx.probes.plain import Plain
from tests.misled import data, standardised

TIGHT = {"tol": 1e-9, "max_iter": 5000}
LOGITS = arrays(float, st.tuples(st.integers(1, 10), st.integers(2, 4)), elements=st.floats(-30, 30))


@settings(deadline=None)
@given(logits=LOGITS, seed=st.integers(0, 99))
def test_environments_are_where_the_loss_grows_with_scale_and_maximise_the_objective(
    logits: np.ndarray, seed: int
) -> None:
    n, k = logits.shape
    y = np.random.default_rng(seed).integers(0, k, n)
    found, wrong = environments(logits, y), misclassified(logits, y)
    assert (found <= (wrong | (logits.max(axis=1) == logits[np.arange(n), y]))).all()
    exact = softmax(logits, axis=1) * (logits - logits[np.arange(n), y][:, None])
    g = exact.sum(axis=1)
    up, down = (-log_softmax(s * logits, axis=1)[np.arange(n), y] for s in (1 + 1e-6, 1 - 1e-6))
    np.testing.assert_allclose(g, (up - down) / 2e-6, atol=1e-4)
    splits = np.array(list(product((0, 1), repeat=n)))
    best = ((splits @ g) ** 2 + ((1 - splits) @ g) ** 2).max()
    assert (found @ g) ** 2 + ((1 - found) @ g) ** 2 == pytest.approx(best, abs=1e-9)
    if k == 2 and (logits[:, 0] != logits[:, 1]).all():
        assert np.array_equal(found, wrong)


@pytest.mark.parametrize("errors", ["in-sample", "out-of-fold"])
def test_the_binary_environment_is_the_error_set_of_jtt_and_what_the_plain_head_gets_wrong(errors: str) -> None:
    X, y, _ = data(3)
    parameters: dict[str, Any] = {"errors": errors, "first_C": 0.03, "random_state": 4}
    environment = Eiil(use="reweight", **parameters).fit(X, y).inferred_groups_
    wrong = Jtt(**parameters).fit(X, y).inferred_groups_
    assert np.array_equal(environment, wrong) and 0 < wrong.sum() < len(y)
    assert np.array_equal(Eiil(by_class=True, use="reweight", **parameters).fit(X, y).inferred_groups_, 2 * y + wrong)
    if errors == "in-sample":
        assert np.array_equal(wrong, Plain(C=0.03).fit(X, y).predict(X) != y)
        return
    Z, fold = standardised(X), folds_of(y, 5, 4)
    for f in range(5):
        model = LogisticRegression(C=0.03, **TIGHT).fit(Z[fold != f], y[fold != f])
        assert np.array_equal(model.predict(Z[fold == f]) != y[fold == f], wrong[fold == f])


def test_three_class_errors_out_of_fold_and_their_environments() -> None:
    X, y, _ = data(4, 3)
    wrong = Jtt(first_C=0.1, random_state=1).fit(X, y).inferred_groups_
    Z, fold = standardised(X), folds_of(y, 5, 1)
    expected = np.zeros_like(y)
    for f in range(5):
        model = LogisticRegression(C=0.1, **TIGHT).fit(Z[fold != f], y[fold != f])
        expected[fold == f] = model.predict(Z[fold == f]) != y[fold == f]
    assert np.array_equal(wrong, expected)
    assert (Eiil(first_C=0.1, random_state=1).fit(X, y).inferred_groups_ <= wrong).all()


@settings(deadline=None)
@given(counts=st.lists(st.integers(2, 30), min_size=2, max_size=5), folds=st.integers(2, 7), seed=st.integers(0, 99))
def test_folds_and_parts_are_balanced_and_miss_no_class(counts: list[int], folds: int, seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    table = np.zeros((folds, len(counts)), int)
    np.add.at(table, (folds_of(y, folds, seed), y), 1)
    assert np.ptp(table, axis=0).max() <= 1 and np.ptp(table.sum(axis=1)) <= 1
    assert (table.sum(axis=0) - table > 0).all()  # what a fold leaves holds every class
    second = Halves(0.8, seed).second(y)
    taken = np.bincount(y[second], minlength=len(counts))
    assert (np.diff(second) > 0).all() and (taken >= 1).all() and (taken < counts).all()
    assert (np.abs(taken - 0.2 * np.array(counts)) < 1).all()


@pytest.mark.parametrize("space", ["features", "margin", "logits"])
def test_known_clusters_are_recovered_with_their_number(space: str) -> None:
    rng = np.random.default_rng(6)
    y = np.repeat([0, 1], [300, 200])
    groups = np.r_[rng.choice(3, 300, p=[0.5, 0.3, 0.2]), 3 + rng.choice(2, 200)]
    centres = np.array([-1.0, -3.0, -5.0, 1.0, 5.0])[groups]  # along the direction that tells the classes apart
    X = np.column_stack([centres, rng.normal(size=(500, 3)) * 0.3]) + 0.1 * rng.normal(size=(500, 4))
    mixed = rng.permutation(500)
    model = George(space=space, use="reweight", max_clusters=6, first_C=1e-3, random_state=0).fit(X[mixed], y[mixed])
    if space == "features":  # noise of unit variance after standardising blurs the clusters
        model = George(space=space, standardize=False, use="reweight", max_clusters=6, random_state=0).fit(
            X[mixed], y[mixed]
        )
    found = model.inferred_groups_
    assert adjusted_rand_score(groups[mixed], found) > 0.95 and len(np.unique(found)) == 5
    assert set(found[y[mixed] == 0]) == {0, 1, 2} and set(found[y[mixed] == 1]) == {3, 4}
    assert (model.silhouettes_ > 0.6).all()


def test_overclustering_keeps_hard_pieces_that_lie_apart_and_merges_the_others() -> None:
    rng = np.random.default_rng(7)
    hidden = np.repeat([0, 1, 2], [300, 60, 10])
    points, y = np.array([0.0, 5.0, 20.0])[hidden][:, None] + rng.normal(size=(370, 1)), np.zeros(370, int)
    one = Clustering(count=1, overcluster=3)
    for losses, expected in (
        (hidden.astype(float), hidden % 2),  # the piece of ten rows is too small, the easy one is what is left
        (-hidden.astype(float), np.zeros(370)),  # the easy piece is kept: it is the large one that is the hardest now
    ):
        found = one.of(points, y, 0, losses).codes
        if expected.any():
            assert adjusted_rand_score(expected, found) > 0.9
        else:
            assert adjusted_rand_score(hidden == 0, found) > 0.9
    assert not one.of(rng.normal(size=(370, 1)) * 0 + 1, y, 0, np.ones(370)).codes.any()  # nothing to part
    assert not one.of(points, y, 0).codes.any()  # without losses no piece is tried
    X, y, _ = data(8)
    assert (
        len(np.unique(George(overcluster=5, clusters=2, use="reweight", random_state=0).fit(X, y).inferred_groups_))
        >= 4
    )


def test_clusters_of_few_or_equal_points() -> None:
    y = np.array([0, 0, 1, 1, 1, 1, 1, 2, 2, 2])
    points = np.array([0, 9, 1, 1, 1, 1, 1, 0, 0.1, 9])[:, None]
    found = Clustering(most=10).of(points, y, 0)
    assert list(found.codes[:7]) == [0, 0, 1, 1, 1, 1, 1] and len(set(found.codes[7:])) == 2
    assert np.isnan(found.silhouettes).tolist() == [True, True, False]


def test_principal_directions_hold_the_variance_of_the_features() -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(200, 80)) @ rng.normal(size=(80, 80))
    found, Z = principal(Features.standardize(X)), standardised(X)
    leading = np.linalg.svd(Z, compute_uv=False)[:50]
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), leading, rtol=1e-3)


@settings(deadline=None)
@given(
    points=arrays(float, st.tuples(st.integers(3, 20), st.integers(1, 3)), elements=st.integers(-5, 5).map(float)),
    seed=st.integers(0, 99),
)
def test_silhouettes_are_scikit_learns(points: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = 3 * rng.integers(0, 3, len(points))
    for here in (points, points + rng.normal(size=points.shape)):
        found = Apart(here).silhouettes(codes)
        if 2 <= len(np.unique(codes)) < len(codes):
            np.testing.assert_allclose(found, silhouette_samples(here, codes), atol=1e-12)
        else:
            assert np.isnan(found).all()


def test_seeds_that_find_the_same_clusters_share_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    side, y = np.tile([1, 0, 2, 1], 30), np.repeat([1, 0], 60)
    points = 9 * side[:, None] + rng.normal(size=(120, 1))
    found = [Clustering(count=3).of(points, y, seed) for seed in range(5)]
    assert all(np.array_equal(f.codes, found[0].codes) for f in found)
    np.testing.assert_array_equal(found[0].codes, np.array([1, 0, 2])[side] + 3 * y)  # class 0 is first; 1 occurs first
    posed: list[int] = []

    def counted(features: Features, y: np.ndarray, weightings: Any, problems: Any, *, risk: Mixture) -> list[Solution]:
        posed.append(len(problems))
        return solve(features, y, weightings, problems, risk=risk)

    monkeypatch.setattr("embedx.probes._worst_case.solve", counted)
    X = np.column_stack([points, y + rng.normal(size=120)])
    tried = [{"C": C, "random_state": seed} for C in (0.01, 0.1) for seed in range(4)]
    models = George(space="features", clusters=3, standardize=False).path(X, y, tried)
    assert posed[0] == 2
    for model, setting in zip(models, tried, strict=True):
        alone = George(space="features", clusters=3, standardize=False, **setting).fit(X, y)
        np.testing.assert_allclose(model.coef_, alone.coef_, atol=1e-4)
        np.testing.assert_array_equal(model.inferred_groups_, alone.inferred_groups_)
