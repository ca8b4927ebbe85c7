"""Products and rotations only change how long it takes: certificates are true on the features themselves."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from solving import Problem, solve

from embedx.probes import _descent, _features, _products, _solver
from embedx.probes._features import Features
from embedx.probes._operators import Stacked
from embedx.probes._problem import Solution
from embedx.probes._products import product

TOL = 1e-5
few = settings(deadline=None, max_examples=30)


@pytest.fixture(params=["onednn", "large", "plain"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether products are oneDNN's, where there is one; "large" takes all matrices for such."""
    if request.param == "plain":
        monkeypatch.setattr(_products, "_onednn", lambda: None)
    elif request.param == "large":
        monkeypatch.setattr(_products, "LARGE", 1)
        monkeypatch.setattr(_features, "LARGE", 1)
    return request.param != "plain"


def draw(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5 * 3 + 1).astype(np.float32)
    scores = X @ rng.standard_normal((d, k)) / np.sqrt(d) + rng.standard_normal((n, k))
    return X, scores.argmax(1)


def largest_gradient(features: Features, y: np.ndarray, p: Problem, s: Solution) -> float:
    """Of the objective over C sum w, in float64, from the definition."""
    Z, k = features.tensor.double().numpy(), int(y.max()) + 1
    F = Z @ s.coef.T + s.intercept
    F = np.column_stack([np.zeros(len(F)), F]) if k == 2 else F
    R = p.weights[:, None] / p.weights.sum() * (softmax(F, axis=1) - np.eye(k)[y])
    W0, b0 = p.anchor or (np.zeros_like(s.coef), np.zeros_like(s.intercept))
    R = R[:, 1:] if k == 2 else R
    share = 1 / (p.C * p.weights.sum())
    gradient = R.T @ Z + share * (s.coef - W0)
    intercept = R.sum(0) + share * p.anchored_intercept * (s.intercept - b0)
    return max(np.abs(gradient).max(), np.abs(intercept).max())


def weighting(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "few":
        return np.isin(np.arange(n), np.r_[:4, rng.choice(n, n // 10, replace=False)]).astype(float)
    return rng.uniform(0.2, 3, n) if kind == "uneven" else np.ones(n)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("kind", ["even", "uneven", "few"])
@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_found_is_certified_on_the_features_themselves(
    onednn: bool, k: int, kind: str, anchored: bool, dtype: type
) -> None:
    X, y = draw(400, 200, k)
    y[:k] = np.arange(k)
    rng, features = np.random.default_rng(1), Features.standardize(X.astype(dtype))
    outputs = 1 if k == 2 else k
    anchor = (rng.standard_normal((outputs, 200)) / 10, rng.standard_normal(outputs)) if anchored else None
    problems = [
        Problem(w, C, tol=TOL, anchor=anchor, anchored_intercept=anchored)
        for w in [weighting(kind, 400, rng) for _ in range(2)]
        for C in np.logspace(-4, 0, 11)
    ]
    for p, s in zip(problems, solve(features, y, problems), strict=True):
        assert s.converged
        assert s.gradient == pytest.approx(largest_gradient(features, y, p, s), abs=1e-6)
        assert largest_gradient(features, y, p, s) <= 1.1 * TOL


@few
@given(
    shape=st.tuples(st.integers(1, 80), *[st.integers(1, 40)] * 2),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
    large=st.sampled_from([1, _products.LARGE]),
)
def test_a_product_is_that_of_numpy_for_views_too(
    shape: tuple[int, int, int], seed: int, dtype: type, large: int
) -> None:
    p, n, m = shape
    rng = np.random.default_rng(seed)
    X, Z = rng.standard_normal((p, m + 3)).astype(dtype), rng.standard_normal((m, n)).astype(dtype)
    for left, right in ((X[:, :m], Z.T), (X[:, 3:], np.ascontiguousarray(Z.T)), (X[:, 1 : m + 1], Z.T)):
        with mock.patch.object(_products, "LARGE", large):
            found = product(torch.from_numpy(left), torch.from_numpy(right))
        assert found.is_contiguous()
        assert np.allclose(found.numpy(), left @ right.T, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_an_operator_that_does_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for operator in (lambda *given: given[0], lambda X, Z: X @ Z.T):
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator, raising=False)
        _products._onednn.cache_clear()
        assert _products._onednn() is None
    monkeypatch.undo()
    _products._onednn.cache_clear()


def test_transposed_features_are_kept_while_that_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    X = draw(30, 20, 2)[0]
    for large, copied, kept in ((1, 600, True), (601, 10_000, False), (1, 599, False)):
        monkeypatch.setattr(_features, "LARGE", large)
        monkeypatch.setattr(_features, "COPIED", copied)
        features = Features.standardize(X)
        ((part, T),) = features.turned()
        assert part == slice(0, 30) and torch.equal(T, features.tensor.T)
        assert T.is_contiguous() == kept
        assert all(not T.is_contiguous() for _, T in features.turned(torch.float64))


@pytest.mark.parametrize("k", [2, 3])
def test_few_rows_are_solved_alike_in_their_span_and_among_all(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = draw(400, 300, k)
    X[7] = X[8]  # a row twice leaves the span one direction short
    rng, features = np.random.default_rng(0), Features.standardize(X)
    w = np.zeros(400)
    w[np.r_[7, 8, rng.choice(400, 50, replace=False)]] = 1
    w[np.unique(y, return_index=True)[1]] = 1
    problems = [Problem(w, C) for C in (1e-4, 1e-2, 1.0)]
    inside = solve(features, y, problems)
    monkeypatch.setattr(_solver, "FEW", 0)
    for a, b in zip(inside, solve(features, y, problems), strict=True):
        assert a.converged
        assert b.converged
        assert np.abs(a.coef - b.coef).max() < 2e-3 * np.abs(b.coef).max()


def test_stacks_of_few_rows_take_few_steps_on_the_features_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = draw(900, 300, 2)
    w = (np.arange(900) < 60).astype(float)
    steps: list[tuple[int, int]] = []
    minimise = _descent.minimise

    def told(operator: Stacked, *rest: object) -> object:
        found = minimise(operator, *rest)  # type: ignore[arg-type]
        steps.append((operator.Z.shape[2], int(found.iterations.max())))
        return found

    monkeypatch.setattr(_solver, "minimise", told)
    assert all(s.converged for s in solve(Features.standardize(X), y, [Problem(w, C) for C in (1e-3, 1e-2)]))
    assert steps[0][0] == 60
    assert all(count <= 2 for width, count in steps if width == 300)
