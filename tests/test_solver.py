"""Laws of the solver: agreement with scikit-learn, true certificates, invariances, one answer however it is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from solving import Problem, solve

from embedx.probes import _features, _lasso, _problem, _solver
from embedx.probes._features import Features, moments
from embedx.probes._problem import Solution

SEEDS = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=8)


def data(seed: int, n: int = 90, d: int = 6, k: int = 2, dtype: Any = np.float64) -> tuple[Features, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.6
    y = (X @ rng.normal(size=(d, k)) + 0.7 * rng.normal(size=(n, k))).argmax(1)
    y[:k] = np.arange(k)
    return Features.standardize(X.astype(dtype)), y


def objective(s: Solution, features: Features, y: np.ndarray, p: Problem) -> float:
    """The formula in the docstring of `Problem`, in float64."""
    Z = features.tensor.double().numpy()
    F = Z @ s.coef.T + s.intercept
    F = np.column_stack([np.zeros(len(F)), F]) if len(s.coef) == 1 else F
    W0, b0 = p.anchor or (np.zeros_like(s.coef), np.zeros_like(s.intercept))
    size = 0.5 * ((s.coef - W0) ** 2).sum() if p.penalty == "l2" else np.abs(s.coef).sum()
    size += 0.5 * ((s.intercept - b0) ** 2).sum() * p.anchored_intercept
    return float(size + p.C * p.weights @ (logsumexp(F, axis=1) - F[np.arange(len(F)), y]))


def close(a: Solution, b: Solution, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(a.coef, b.coef, atol=atol)
    np.testing.assert_allclose(a.intercept, b.intercept, atol=atol)


@few
@given(seed=SEEDS, k=st.sampled_from([2, 4]), C=st.sampled_from([1e-4, 1e-2, 1.0, 100.0]))
def test_agrees_with_scikit_learn_for_l2(seed: int, k: int, C: float) -> None:
    features, y = data(seed, k=k)
    w = np.random.default_rng(seed).uniform(0.5, 3, len(y))
    (ours,) = solve(features, y, [Problem(w, C, tol=1e-10)])
    theirs = LogisticRegression(C=C, tol=1e-12, max_iter=10_000, solver="newton-cg")
    theirs.fit(features.tensor.numpy(), y, sample_weight=w)
    assert ours.converged and ours.gradient <= 1e-10
    np.testing.assert_allclose(ours.coef, theirs.coef_, atol=1e-6 * (1 + np.abs(theirs.coef_).max()))
    difference = ours.intercept - theirs.intercept_  # for several classes only up to a constant
    np.testing.assert_allclose(difference, difference.mean(), atol=1e-5)


@few
@given(seed=SEEDS, C=st.sampled_from([0.05, 0.3, 3.0]))
def test_agrees_with_both_of_scikit_learns_solvers_for_l1(seed: int, C: float) -> None:
    features, y = data(seed)
    Z = features.tensor.numpy()
    (ours,) = solve(features, y, [Problem(np.ones(len(y)), C, penalty="l1", tol=1e-9)])
    assert ours.converged
    saga = LogisticRegression(l1_ratio=1, solver="saga", C=C, tol=1e-10, max_iter=100_000, random_state=0).fit(Z, y)
    # liblinear penalises the intercept; scaled like this, hardly.
    linear = LogisticRegression(
        l1_ratio=1, solver="liblinear", C=C, tol=1e-10, max_iter=100_000, intercept_scaling=1e4, random_state=0
    ).fit(Z, y)
    for other, atol in ((saga, 1e-5), (linear, 1e-2)):
        np.testing.assert_allclose(ours.coef, other.coef_, atol=atol)
        there = Solution(other.coef_, other.intercept_, 0, 0.0, True)
        problem = Problem(np.ones(len(y)), C, penalty="l1")
        assert objective(ours, features, y, problem) <= objective(there, features, y, problem) + 1e-9


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_never_above_scikit_learn_at_its_default_tolerance(penalty: str, k: int, dtype: Any) -> None:
    """Also with more features than rows, where the classes are separable."""
    for n, d in ((120, 200), (400, 20)):
        features, y = data(3, n, d, k, dtype)
        problems = [Problem(np.ones(n), C, penalty=penalty) for C in (1e-3, 0.03, 1.0, 10.0)]
        for p, ours in zip(problems, solve(features, y, problems), strict=True):
            solver = "lbfgs" if penalty == "l2" else "saga" if k > 2 else "liblinear"
            theirs = LogisticRegression(
                C=p.C, solver=solver, l1_ratio=float(penalty == "l1"), max_iter=3000, random_state=0
            )
            theirs.fit(features.tensor.numpy(), y)
            there = Solution(theirs.coef_.astype(float), theirs.intercept_.astype(float), 0, 0.0, True)
            assert ours.converged
            value = objective(there, features, y, p)
            assert objective(ours, features, y, p) <= value * (1 + 1e-7)


@few
@given(seed=SEEDS, k=st.sampled_from([2, 3]), penalty=st.sampled_from(["l1", "l2"]))
def test_integer_weights_equal_repeated_rows(seed: int, k: int, penalty: str) -> None:
    features, y = data(seed, k=k)
    w = np.random.default_rng(seed).integers(1, 4, len(y))
    (weighted,) = solve(features, y, [Problem(w.astype(float), 0.3, penalty=penalty, tol=1e-9)])
    rows = np.repeat(np.arange(len(y)), w)
    repeated = Features.identity(features.tensor.numpy()[rows])
    (plain,) = solve(repeated, y[rows], [Problem(np.ones(len(rows)), 0.3, penalty=penalty, tol=1e-9)])
    close(weighted, plain, 1e-5)


@settings(deadline=None, max_examples=3)
@given(seed=SEEDS, k=st.sampled_from([2, 3]))
def test_a_problem_in_a_batch_is_solved_as_alone(seed: int, k: int) -> None:
    """Whole weightings, subsamples of equal and of other sizes, penalties and anchors, in any order."""
    features, y = data(seed, k=k)
    rng = np.random.default_rng(seed)
    subsample = [
        np.isin(np.arange(len(y)), np.r_[:k, rng.choice(np.arange(k, len(y)), m, False)]) for m in (30, 30, 20)
    ]
    weightings = [np.ones(len(y)), rng.uniform(0, 2, len(y)), *(s.astype(float) for s in subsample)]
    outputs = 1 if k == 2 else k
    anchor = (rng.normal(size=(outputs, 6)), rng.normal(size=outputs))
    problems = [Problem(w, C, tol=1e-9) for w in weightings for C in (0.01, 1.0)]
    problems += [
        Problem(weightings[1], 0.1, penalty="l1", tol=1e-9),
        Problem(weightings[0], 0.1, "l2", 1e-9, 500, anchor),
    ]
    problems = [problems[i] for i in rng.permutation(len(problems))]
    for p, together in zip(problems, solve(features, y, problems), strict=True):
        (alone,) = solve(features, y, [p])
        assert together.converged and alone.converged
        close(together, alone, 1e-5)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("k", [2, 3])
def test_a_guess_decides_how_long_it_takes_and_not_what_is_found(penalty: str, k: int) -> None:
    features, y = data(5, k=k)
    problem = Problem(np.ones(len(y)), 0.3, penalty=penalty, tol=1e-8)
    (cold,) = solve(features, y, [problem])
    far = (np.random.default_rng(0).normal(size=cold.coef.shape), np.zeros_like(cold.intercept))
    away, there = solve(
        features, y, [replace(problem, guess=far), replace(problem, guess=(cold.coef, cold.intercept), tol=2e-8)]
    )
    close(away, cold, 1e-5)
    assert away.converged and there.converged and there.iterations == 0 < cold.iterations
    if penalty == "l2":
        anchored = replace(problem, anchor=far, anchored_intercept=True)
        (slow,) = solve(features, y, [anchored])
        (fast,) = solve(features, y, [replace(anchored, guess=(slow.coef, slow.intercept), tol=2e-8)])
        close(fast, slow, 1e-5)
        assert fast.iterations <= 1 < slow.iterations


def test_equal_problems_are_solved_once_and_each_gets_its_solution() -> None:
    features, y = data(6)
    weights = np.ones(len(y))
    problems = [Problem(weights, C, penalty=penalty) for C in (1.0, 0.1, 1.0) for penalty in ("l1", "l2")]
    found = solve(features, y, problems)
    assert found[0] is found[4] and found[1] is found[5]
    assert len({id(s) for s in found}) == 4


@few
@given(
    seed=SEEDS, k=st.sampled_from([2, 3]), C=st.sampled_from([1e-3, 0.1, 10.0]), penalty=st.sampled_from(["l1", "l2"])
)
def test_certificates_are_true_and_no_step_leads_down(seed: int, k: int, C: float, penalty: str) -> None:
    features, y = data(seed, k=k)
    rng = np.random.default_rng(seed)
    for tol, limit in ((1e-7, 2000), (1e-7, 1), (1e-30, 2000)):
        p = Problem(rng.uniform(0.2, 2, len(y)), C, penalty=penalty, tol=tol, max_iter=limit)
        (s,) = solve(features, y, [p])
        assert s.converged == (s.gradient <= tol) and s.iterations <= limit
        here, scale = objective(s, features, y, p), p.C * p.weights.sum()
        slopes = []
        for c in range(len(s.coef)):
            for j in range(features.d + 1):
                for sign in (1e-7, -1e-7):
                    coef, intercept = s.coef.copy(), s.intercept.copy()
                    if j < features.d:
                        coef[c, j] += sign
                    else:
                        intercept[c] += sign
                    moved = Solution(coef, intercept, 0, 0.0, True)
                    slopes.append((here - objective(moved, features, y, p)) / 1e-7 / scale)
        # The steepest way down of all coordinate directions is the certificate.
        assert max(slopes) == pytest.approx(s.gradient, abs=2e-6)


def test_float32_is_certified_as_in_float64() -> None:
    features, y = data(1, n=300, d=40, dtype=np.float32)
    double = Features.identity(features.tensor.double().numpy())
    for C in (1e-4, 1e-2, 1.0):
        (s,) = solve(features, y, [Problem(np.ones(300), C)])
        F = double.X @ s.coef[0] + s.intercept[0]
        residual = 1 / (1 + np.exp(-F)) - y
        g = np.append(residual @ double.X / 300 + s.coef[0] / (C * 300), residual.mean())
        assert np.abs(g).max() == pytest.approx(s.gradient, abs=3e-7) and s.gradient <= 1e-5


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_float32_goes_on_in_float64_where_the_tolerance_is_fine(penalty: str) -> None:
    features, y = data(2, dtype=np.float32)
    (s,) = solve(features, y, [Problem(np.ones(len(y)), 1.0, penalty=penalty, tol=1e-10)])
    assert s.converged and s.gradient <= 1e-10


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("k", [2, 3])
def test_a_mapped_file_is_streamed_to_the_same_solution(tmp_path: Any, monkeypatch: Any, penalty: str, k: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(3, 2, (500, 12)).astype(np.float32)
    y = (X[:, :k] + rng.normal(size=(500, k))).argmax(1)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    mapped[:] = X
    monkeypatch.setattr("embedx.probes._features.BLOCK_BYTES", 8 * 12 * 70)  # eight blocks
    weightings = [np.ones(500), (np.arange(500) % 5 == 0).astype(float)]
    problems = [Problem(w, C, penalty=penalty) for w in weightings for C in (0.01, 1.0)]
    streamed, whole = Features.standardize(mapped), Features.standardize(X)
    assert streamed.streamed and len(list(streamed.blocks())) == 8 and "tensor" not in vars(streamed)
    for a, b in zip(solve(streamed, y, problems), solve(whole, y, problems), strict=True):
        assert a.converged and b.converged
        close(a, b, 2e-3)
    assert "tensor" not in vars(streamed), "a mapped file was read whole"


def test_sparse_fits_of_rounded_features_end_along_any_path() -> None:
    for seed in range(30):
        features, y = data(seed, n=150, d=50, dtype=np.float32)
        weights = np.ones(150)
        path = [Problem(weights, C, penalty="l1") for C in (0.01, 0.03, 0.07, 0.1, 0.3, 0.7, 1.0)]
        assert all(s.converged for s in solve(features, y, path)), seed


def test_weightings_that_are_alike_start_from_their_mean_and_end_where_they_would(monkeypatch: Any) -> None:
    features, y = data(3, n=300, d=40)
    draws = [(np.random.default_rng(i).uniform(size=300) < 0.9).astype(float) for i in range(4)]
    problems = [Problem(w, C, penalty="l1", tol=1e-8) for w in draws for C in (1.0, 0.1)]
    near = solve(features, y, problems)
    monkeypatch.setattr(_lasso, "ALIKE", 2)
    alone = solve(features, y, problems)
    for a, b in zip(near, alone, strict=True):
        assert a.converged and b.converged
        close(a, b, 1e-5)
    assert sum(s.iterations for s in near) < sum(s.iterations for s in alone)


@pytest.mark.parametrize("share", [0.2, 0.4, 0.7])
def test_rows_without_weight_do_not_count_for_l1(share: float) -> None:
    """Few and most of the rows, in one weighting and in two that share some."""
    features, y = data(13, n=300)
    masks = np.random.default_rng(13).uniform(size=(2, 300)) < share
    problems = [Problem(m.astype(float), 1.0, penalty="l1", tol=1e-9) for m in masks]
    for m, p, together in zip(masks, problems, solve(features, y, problems), strict=True):
        rows = Features.identity(features.tensor.numpy()[m])
        (alone,) = solve(rows, y[m], [replace(p, weights=np.ones(m.sum()))])
        close(together, alone)
        close(together, solve(features, y, [p])[0])


@pytest.mark.parametrize("k", [2, 3])
def test_however_the_quadratic_model_of_l1_is_minimised_the_solution_is_one(monkeypatch: Any, k: int) -> None:
    """All classes as one or one by one; on the rows or on a Cholesky factor; with and without equations for faces."""
    features, y = data(8, n=200, d=30, k=k)
    problem = Problem(np.random.default_rng(8).uniform(0.5, 2, len(y)), 1.0, penalty="l1", tol=1e-8)
    found, squared = [], []
    triangle = _lasso._triangle
    monkeypatch.setattr(_lasso, "_triangle", lambda *given: squared.append(True) or triangle(*given))
    for joint, tall, turns in ((1e9, 1e9, 8), (1e9, 0, 8), (0, 1e9, 8), (0, 0, 8), (1e9, 1e9, 0)):
        for name, value in (("JOINT", joint), ("TALL", tall), ("TURNS", turns)):
            monkeypatch.setattr(_lasso, name, value)
        squared.clear()
        found += solve(features, y, [problem])
        assert bool(squared) == (tall == 0)
    assert k == 2 or len({s.iterations for s in found}) > 1, "all took the same way"
    for s in found:
        assert s.converged
        close(s, found[0], 1e-5)


def test_what_does_not_fit_into_memory_at_once_is_solved_in_turns(monkeypatch: Any) -> None:
    features, y = data(5)
    problems = [Problem(np.ones(len(y)), C, tol=1e-9) for C in np.logspace(-3, 1, 9)]
    together = solve(features, y, problems)
    monkeypatch.setattr(_solver, "BUDGET", 1)
    for a, b in zip(together, solve(features, y, problems), strict=True):
        close(a, b)


@few
@given(seed=SEEDS)
def test_an_anchor_pulls(seed: int) -> None:
    """With hardly any loss the anchor itself; with its intercept free, the intercept that fits best."""
    features, y = data(seed)
    anchor = (np.random.default_rng(seed).normal(size=(1, 6)), np.array([0.5]))
    w = np.ones(len(y))
    held, free, none, zero = solve(
        features,
        y,
        [
            Problem(w, 1e-9, tol=1e-3, anchor=anchor, anchored_intercept=True),
            Problem(w, 1e-9, tol=1e-9, anchor=anchor),
            Problem(w, 0.5, tol=1e-9),
            Problem(w, 0.5, tol=1e-9, anchor=(np.zeros((1, 6)), np.array([2.0]))),
        ],
    )
    close(held, Solution(anchor[0], anchor[1], 0, 0, True), 1e-5)
    np.testing.assert_allclose(free.coef, anchor[0], atol=1e-5)
    logits = features.tensor.numpy() @ free.coef[0] + free.intercept
    assert (1 / (1 + np.exp(-logits))).mean() == pytest.approx(y.mean(), abs=1e-6)
    close(none, zero, 1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 5])
def test_few_rows_of_many_features_do_not_diverge(k: int, dtype: Any) -> None:
    """Where the classes lie far apart the loss is flat, and nothing but its curvature holds the intercept."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(k), 150)
    X = rng.normal(size=(len(y), 128)) + 1.5 * rng.normal(size=(k, 128))[y]
    features = Features.standardize(X.astype(dtype))
    draws = []
    for _ in range(10):
        rows = np.concatenate([rng.choice(np.flatnonzero(y == c), 1 + (c > 1), False) for c in range(k)])
        draws.append(np.isin(np.arange(len(y)), rows).astype(float))
    problems = [Problem(w, C) for w in draws for C in np.logspace(-5, 3, 9)]
    for p, found in zip(problems, solve(features, y, problems), strict=True):
        assert found.converged and np.abs(found.coef).max() < 10
        rows = p.weights > 0
        theirs = LogisticRegression(C=p.C, max_iter=5000).fit(features.of(X[rows]).double().numpy(), y[rows])
        bound = Solution(theirs.coef_, theirs.intercept_, 0, 0, True)
        assert objective(found, features, y, p) <= objective(bound, features, y, p) * (1 + 1e-5)
    for found in solve(features, y, [Problem(w, 1e8) for w in draws]):  # beyond what can be settled, but not lost
        assert np.isfinite(found.coef).all() and np.isfinite(found.gradient)


def test_many_classes_converge() -> None:
    features, y = data(0, n=1500, d=60, k=50, dtype=np.float32)
    for s in solve(features, y, [Problem(np.ones(1500), C) for C in (1e-3, 0.1, 10.0)]):
        assert s.converged and s.coef.shape == (50, 60)
        assert np.abs(s.coef.sum(0)).max() < 1e-4 and abs(s.intercept.sum()) < 1e-4


def test_refusals() -> None:
    features, y = data(0)
    with pytest.raises(ValueError, match="penalty must be 'l1' or 'l2', found 'elastic'"):
        solve(features, y, [Problem(np.ones(len(y)), 1.0, penalty="elastic")])
    anchored = Problem(np.ones(len(y)), 1.0, penalty="l1", anchor=(np.zeros((1, 6)), np.zeros(1)))
    with pytest.raises(ValueError, match="an anchor or a risk goes with the penalty 'l2' only, found 'l1'"):
        solve(features, y, [anchored])
    with pytest.raises(ValueError, match=r"class 1 \(counted from 0\) has no row of positive weight"):
        solve(features, y, [Problem((y == 0).astype(float), 1.0)])


@few
@given(seed=SEEDS, dtype=st.sampled_from([np.float32, np.float64]))
def test_moments_are_numpys_and_constant_columns_stay(seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(257, 5)) * 10.0 ** rng.integers(-3, 4, 5) + rng.normal(size=5) * 100).astype(dtype)
    X[:, 2] = rng.normal()
    mean, scale = moments(X)
    double = X.astype(float)
    exact = 1e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(mean, double.mean(0), rtol=exact, atol=exact * double.std(0).max())
    expected = np.where(np.arange(5) == 2, 1, double.std(0))
    np.testing.assert_allclose(scale, expected, rtol=1e-4 if dtype == np.float32 else 1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_and_large_matrices_are_standardised_to_the_same_bits(monkeypatch: Any, dtype: Any) -> None:
    X = (np.random.default_rng(0).normal(size=(50, 7)) * 3 + 100).astype(dtype)
    small = Features.standardize(X).tensor
    monkeypatch.setattr(_features, "SMALL", 0)
    large = Features.standardize(X).tensor
    assert small.dtype == large.dtype and torch.equal(small, large)


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize(("n", "d"), [(300, 20), (120, 200)])
def test_no_logit_is_further_from_that_of_the_minimum_than_its_reach(n: int, d: int, C: float, anchored: bool) -> None:
    rng = np.random.default_rng([n, int(anchored)])
    X, Z = rng.standard_normal((2, n, d)).astype(np.float32)
    y, w = (X[:, 0] + rng.standard_normal(n) > 0).astype(int), rng.integers(0, 3, (1, n)).astype(float)
    how: dict[str, Any] = {"anchor": 0, "anchored_intercept": True} if anchored else {}
    tolerances = [1e-3, 1e-4, 1e-6, 1e-8, 1e-13]
    anchors = [(0.1 * rng.standard_normal((1, d)), np.zeros(1))]
    features, problems = Features.identity(X), [_problem.Problem(0, C, tol=t, **how) for t in tolerances]
    found = [_solver.solve(features, y, w, [p], anchors=anchors)[0] for p in problems]
    logits = [Z @ s.coef[0] + s.intercept[0] for s in found]
    before = [Z @ s.before[0][0] + s.before[1][0] for s in found if s.before is not None]
    assert len(before) == len(found), "a descent from zero passes its tolerance tenfold"
    for s, F, coarse in zip(found[:-1], logits, before, strict=False):
        a, c = s.reach
        assert (np.abs(F - logits[-1]) <= a * np.linalg.norm(Z, axis=1) + c + 1e-9).all()
        assert np.abs(coarse - logits[-1]).max() > np.abs(F - logits[-1]).max()
    assert found[3].reach[0] < 1e-3 * found[0].reach[0], "the bound shrinks with the gradient"
