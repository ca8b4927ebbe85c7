"""Half precision and rotations only lead: what is found is certified in full precision, on the features themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from probes import _descent, _operators, _solver
from probes._features import Features
from probes._mixed import Mixed
from probes._operators import Shared, Stacked
from probes._problem import Problem
from probes._solver import Solution, solve

TOL = 1e-5


@pytest.fixture(params=[True, False], ids=["halves", "full"])
def halves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Half precision for every product that may have it, or for none."""
    monkeypatch.setattr(_operators, "WORTH", 0)
    monkeypatch.setattr(_operators, "fast_halves", lambda device: request.param)
    return request.param


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
        return np.isin(np.arange(n), rng.choice(n, n // 10, replace=False)).astype(float)
    return rng.uniform(0.2, 3, n) if kind == "uneven" else np.ones(n)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("kind", ["even", "uneven", "few"])
@pytest.mark.parametrize("anchored", [False, True])
def test_what_is_found_is_certified_on_the_features_themselves(halves: bool, k: int, kind: str, anchored: bool) -> None:
    X, y = draw(600, 90, k)
    rng, features = np.random.default_rng(1), Features.standardize(X)
    outputs = 1 if k == 2 else k
    anchor = (rng.standard_normal((outputs, 90)) / 10, rng.standard_normal(outputs)) if anchored else None
    problems = [
        Problem(w, C, tol=TOL, anchor=anchor, anchored_intercept=anchored)
        for w in [weighting(kind, 600, rng) for _ in range(2)]
        for C in np.logspace(-4, 0, 11)
    ]
    for p, s in zip(problems, solve(features, y, problems), strict=True):
        assert s.converged
        assert s.gradient == pytest.approx(largest_gradient(features, y, p, s), abs=1e-6)
        assert largest_gradient(features, y, p, s) <= 1.1 * TOL


def test_half_precision_is_used_and_saves_full_products(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = draw(3000, 400, 2)
    features, problems = Features.standardize(X), [Problem(np.ones(3000), C) for C in (1e-4, 1e-2)]
    used = {True: 0, False: 0}
    forward = Shared.forward

    def counted(self: Shared, W: torch.Tensor) -> torch.Tensor:
        used[self.dtype == torch.float32] += W.shape[1]
        return forward(self, W)

    monkeypatch.setattr(Shared, "forward", counted)
    full = {}
    for halves in (False, True):
        monkeypatch.setattr(_operators, "fast_halves", lambda device, halves=halves: halves)
        used.update({True: 0, False: 0})
        assert all(s.converged for s in solve(features, y, problems))
        full[halves] = used[True]
        assert (used[False] > 0) == halves
    assert full[True] < 0.8 * full[False]


def test_a_start_near_the_end_stays_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = draw(3000, 400, 2)
    features = Features.standardize(X)
    (first,) = solve(features, y, [Problem(np.ones(3000), 1e-2)])
    monkeypatch.setattr(_operators, "fast_halves", lambda device: True)
    used = []
    forward = Shared.forward
    monkeypatch.setattr(Shared, "forward", lambda self, W: (used.append(self.dtype), forward(self, W))[1])
    solve(features, y, [Problem(np.ones(3000), 1.1e-2, guess=(first.coef, first.intercept))])
    assert set(used) == {torch.float32}


def test_mixed_products_are_those_of_each_precision() -> None:
    rng = np.random.default_rng(0)
    exact = Stacked(torch.from_numpy(rng.standard_normal((2, 30, 7)).astype(np.float32)))
    half = Stacked(exact.Z.bfloat16())
    W = torch.from_numpy(rng.standard_normal((2, 5, 3, 8)).astype(np.float32))
    rough = torch.tensor([True, False, False, True, False])
    mixed = Mixed(exact, half, rough)
    for name, X in (("forward", W), ("backward", mixed.full().forward(W))):
        found = getattr(mixed, name)(X)
        for problem in range(5):
            by = half if rough[problem] else exact
            assert torch.allclose(found[:, problem], getattr(by, name)(X[:, problem]), rtol=1e-5, atol=1e-5)
    kept = mixed.keep(torch.tensor([False, True]), ~rough)
    assert torch.allclose(kept.forward(W[1:, ~rough]), mixed.forward(W)[1:, ~rough], atol=1e-5)


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
        assert np.abs(a.coef - b.coef).max() < 1e-3 * max(1, np.abs(b.coef).max())


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
