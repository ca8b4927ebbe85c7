"""Features of any size, far from 0, and with a broken row: moments are right, rows are named, work is bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from every_head import cases
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from test_arguments import HEADS, full

from embedx.evaluation.split import Part
from embedx.probes._features import Features, moments
from embedx.probes._outlying import outlying
from embedx.probes._prompts import Prompts, embedded
from embedx.probes.nearest_mean import NearestMean
from embedx.probes.nearest_neighbours import NearestNeighbours
from embedx.probes.plain import Plain

every_head = pytest.mark.parametrize("kind", cases(kinds=True))


def drawn(seed: int = 0, n: int = 300, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, (X[:, 0] + rng.normal(size=n) > 0).astype(int)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e-10, 1.0, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e5, 1e7])
def test_moments_and_standardised_features_are_exact(dtype: Any, scale: float, offset: float) -> None:
    X = (scale * (drawn(n=700)[0] + offset)).astype(dtype)
    X[:, 3] = X[0, 3]
    exact = X.astype(np.longdouble)
    mean, deviation = exact.mean(0), np.sqrt(np.square(exact - exact.mean(0)).mean(0))
    found, spread = moments(X)
    assert spread[3] == 1 and np.abs(found[3] / mean[3] - 1) < 1e-6
    np.testing.assert_allclose(np.float64((found - mean)[:3] / deviation[:3]), 0, atol=1e-6)
    np.testing.assert_allclose(np.float64(spread[:3] / deviation[:3]), 1, rtol=1e-5)
    Z = np.float64((exact - mean)[:, :3] / deviation[:3])
    np.testing.assert_allclose(Features.standardize(X).tensor.numpy()[:, :3], Z, atol=1e-5)


def test_doubles_beyond_what_squares_hold_are_standardised_too() -> None:
    X = drawn()[0]
    Z = StandardScaler().fit_transform(X)
    for scale in (1e-200, 1e200, 1e300):
        np.testing.assert_allclose(Features.standardize(X * scale).tensor.numpy(), Z, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e20, 1e30])
def test_a_head_is_the_same_at_any_scale_and_equals_scikit_learn_at_any_offset(scale: float) -> None:
    X, y = drawn()
    plain = Plain(tol=1e-8).fit(X, y)
    same = Plain(tol=1e-8).fit((X * scale).astype(np.float32), y)
    np.testing.assert_allclose(same.coef_, plain.coef_, atol=1e-5)
    far = X + 1e7
    theirs = LogisticRegression(tol=1e-10, max_iter=10_000).fit(StandardScaler().fit_transform(far), y)
    np.testing.assert_allclose(Plain(tol=1e-8).fit(far, y).coef_, theirs.coef_, atol=1e-5)


def test_neighbours_and_means_of_features_as_they_are() -> None:
    X, y = drawn(3)
    asked = drawn(4, 100)[0]
    near, mean = KNeighborsClassifier(5).fit(X, y), NearestMean(standardize=False).fit(X, y)
    for scale, offset in ((1e-25, 0.0), (1e20, 0.0), (1e30, 0.0), (1.0, 1e6)):
        rows, query = ((scale * (x + offset)).astype(np.float64 if offset else np.float32) for x in (X, asked))
        model = NearestNeighbours(5, standardize=False).fit(rows, y)
        assert np.mean(model.predict(query) == near.predict(asked)) > 0.98
        found = NearestMean(standardize=False).fit(rows, y)
        assert found.variance_ == pytest.approx(mean.variance_ * scale**2, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e25, 1e37])
def test_unit_vectors_and_inferred_groups_do_not_overflow(scale: float) -> None:
    X, y = drawn(5)
    prompts = Prompts(np.eye(4)[:2], None, 1.0)
    np.testing.assert_allclose(
        embedded((X * scale).astype(np.float32), prompts), X / np.linalg.norm(X, axis=1, keepdims=True), rtol=1e-5
    )
    ids = np.arange(len(y)).astype(str)
    groups = [Part(ids, (X * s).astype(np.float32), y, y).inferred for s in (1.0, scale)]
    assert np.array_equal(*groups) and len(np.unique(groups[0])) == 4


def test_rows_far_from_the_others_are_found_in_whichever_feature_and_no_others() -> None:
    rng = np.random.default_rng(0)
    X = np.maximum(0, rng.normal(size=(3000, 40)) - 0.5).astype(np.float32)  # most features are 0 in most rows
    X *= 10.0 ** rng.integers(-2, 3, 40)
    X[:, 5] = 0
    assert not len(outlying(X))
    X[17, 3], X[2999, 5] = 1e20, 1e9
    assert outlying(X).tolist() == [17, 2999] == outlying(X, moments(X)).tolist()
    assert outlying(X[:, :5]).tolist() == [17]
    assert not len(outlying(np.zeros((50, 3)))) and not len(outlying(np.zeros((50, 0))))
    with pytest.warns(UserWarning, match=r"2 of the 3,000 training rows .* \(rows 17, 2999, counted from 0\)"):
        Plain().fit(X, rng.integers(0, 2, 3000))


@every_head
def test_one_broken_row_is_named_and_costs_a_bounded_amount_of_work(kind: Any) -> None:
    X, y, given = full(kind)
    X = X.astype(np.float32)
    X[7, 1] = 1e20
    with pytest.warns(UserWarning, match=r"1 of the .* training rows .* \(rows 7, counted from 0\)"):
        model = kind().fit(X, y, **given)
    assert np.isfinite(model.predict_proba(X)).all()
    assert getattr(model, "n_iter_", 0) <= 3 * getattr(model, "max_iter", 2000)


@pytest.mark.parametrize("name", ["plain", "group-dro", "cvar", "irm", "v-rex", "dfr", "george"])
def test_features_as_they_are_with_a_broken_row_are_given_up_and_said_so(name: str) -> None:
    kind = HEADS[name]
    X, y, given = full(kind)
    X = X.astype(np.float32)
    X[7] = 1e20
    with pytest.warns() as told:
        model = kind(standardize=False, max_iter=300).fit(X, y, **given)
    assert model.n_iter_ <= 600 and np.isfinite(model.coef_).all()
    assert model.converged_ == (not any(w.category is ConvergenceWarning for w in told))
