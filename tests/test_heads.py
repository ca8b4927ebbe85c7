"""Laws of the heads that weight rows: optimality, identities, invariances, refusals."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from solving import Problem, solve

from embedx.probes import ConvexHead, Data, inverse_frequency
from embedx.probes._draws import balanced_draws
from embedx.probes._features import Features
from embedx.probes._problem import Solution
from embedx.probes.class_balanced import ClassBalanced
from embedx.probes.group_balanced import GroupBalanced
from embedx.probes.plain import Plain
from embedx.probes.reweighted import Reweighted

KINDS: dict[str, type[ConvexHead]] = {
    "plain": Plain, "class-balanced": ClassBalanced, "reweighted": Reweighted, "group-balanced": GroupBalanced,
}  # fmt: skip
SEEDS, CLASSES = st.integers(0, 2**32 - 1), st.sampled_from([2, 3])
TIGHT = {"tol": 1e-9, "max_iter": 5000}
every_head = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
few = settings(deadline=None, max_examples=4)


def data(seed: int, k: int = 2, *, equal: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (72, 3), y, groups: overlapping classes with two groups each, uneven unless `equal`; all groups occur."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(2 * k, 2.0))
    rest = np.arange(72 - 6 * k) % (2 * k) if equal else rng.choice(2 * k, 72 - 6 * k, p=share)
    groups = rng.permutation(np.r_[np.tile(np.arange(2 * k), 3), rest])
    return rng.normal(size=(72, 3)) + rng.normal(size=(2 * k, 3))[groups], groups // 2, groups


def head(kind: type[ConvexHead], draws: int = 1, **parameters: Any) -> ConvexHead:
    """A head with a seed; those that draw rows do so once by default, so that there is one problem to check."""
    drawing = {"draws": draws} if "draws" in kind().get_params() else {}
    return kind(**{"random_state": 0, **drawing, **parameters})


def flat(model: ConvexHead | LogisticRegression | Solution) -> np.ndarray:
    """(1 or k, d + 1): the coefficients, intercepts last."""
    names = ("coef", "intercept") if isinstance(model, Solution) else ("coef_", "intercept_")
    return np.column_stack([getattr(model, name) for name in names])


def same(a: Any, b: Any) -> None:
    np.testing.assert_allclose(flat(a), flat(b), atol=1e-5)


def objective(theta: np.ndarray, Z: np.ndarray, y: np.ndarray, w: np.ndarray, C: float) -> float:
    """The formula in the docstring of `ConvexHead`, divided by C sum w; two classes as a softmax over (0, logit)."""
    W = theta.reshape(-1, Z.shape[1] + 1)
    logits = Z @ W[:, :-1].T + W[:, -1]
    logits = np.column_stack([np.zeros(len(Z)), logits]) if len(W) == 1 else logits
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(Z)), y]
    return float((0.5 * (W[:, :-1] ** 2).sum() + C * w @ loss) / (C * w.sum()))


@every_head
def test_a_head_uses_the_groups_that_it_needs_and_no_others(kind: type[ConvexHead]) -> None:
    assert kind.needs <= {"groups"} and (not kind.supervision) == (not kind.needs)
    X, y, groups = data(5)
    known, other = (head(kind).fit(X, y, groups=g).coef_ for g in (groups, y))
    assert np.allclose(known, other, atol=1e-4) == (not kind.needs)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[72, 71\]"):
        kind().fit(X, y, groups=groups[1:])
    if kind.needs:  # refused first: not even X and y are looked at
        with pytest.raises(ValueError, match=rf"{kind.__name__} needs the group of every .* row: fit\(X, y, groups="):
            kind().fit(None, None)


@every_head
@few
@given(seed=SEEDS, k=CLASSES, C=st.sampled_from([1e-4, 0.01, 1.0, 10.0]))
@example(seed=84, k=2, C=1e-5)  # L-BFGS alone stops short of tol here
def test_fit_is_optimal_and_certified(kind: type[ConvexHead], seed: int, k: int, C: float) -> None:
    X, y, groups = data(seed, k)
    for stop, tol in ((2000, 1e-6), (1, 1e-7), (2000, 1e-30)):  # a fit that fell short says so
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ConvergenceWarning)
            model = head(kind, C=C, max_iter=stop, tol=tol).fit(X, y, groups=groups)
        assert model.converged_ == (not told)
        (w,) = model._weightings(Data(Features.identity(X), y, np.arange(k), groups, None, None))
        Z, theta = (X - X.mean(0)) / X.std(0), flat(model).ravel()
        up, down = ([objective(theta + s * e, Z, y, w, C) for e in np.eye(len(theta))] for s in (1e-5, -1e-5))
        assert model.gradient_ == pytest.approx(np.abs(np.subtract(up, down)).max() / 2e-5, abs=1e-8)
        assert model.converged_ == (model.gradient_ <= tol) and model.n_iter_ <= stop
        assert model.converged_ or stop == 1 or tol < 1e-9


@every_head
@pytest.mark.parametrize("k", [2, 3])
def test_path_equals_separate_fits(kind: type[ConvexHead], k: int) -> None:
    X, y, groups = data(3, k)
    X, Cs, start = pd.DataFrame(X, columns=["a", "b", "c"]), [1.0, 1e-3, 0.1], kind(random_state=0, **TIGHT)
    for C, model in zip(Cs, start.path(X, y, [{"C": C} for C in Cs], groups=groups), strict=True):
        alone = kind(C=C, random_state=0, **TIGHT).fit(X, y, groups=groups)
        same(model, alone)
        assert model.get_params() == alone.get_params() and vars(model).keys() == vars(alone).keys()
        assert np.array_equal(model.predict(X), alone.predict(X))
    with pytest.raises(ValueError, match="not fitted yet"):
        start.predict(X)


@every_head
def test_same_seed_same_head_and_other_seed_only_where_rows_are_drawn(kind: type[ConvexHead]) -> None:
    X, y, groups = data(4)
    first, again, other = (kind(random_state=s).fit(X, y, groups=groups).coef_ for s in (5, 5, 6))
    assert np.array_equal(first, again) and np.array_equal(first, other) != kind.random


@every_head
@few
@given(seed=SEEDS, C=st.sampled_from([1e-3, 1.0]), draws=st.integers(1, 3))
def test_equal_groups_make_every_head_plain(kind: type[ConvexHead], seed: int, C: float, draws: int) -> None:
    X, y, groups = data(seed, equal=True)
    same(head(kind, draws, C=C, **TIGHT).fit(X, y, groups=groups), KINDS["plain"](C=C, **TIGHT).fit(X, y))


@few
@given(seed=SEEDS, k=CLASSES)
def test_balancing_classes_in_three_ways(seed: int, k: int) -> None:
    X, y, _ = data(seed, k)
    ours = KINDS["class-balanced"](**TIGHT).fit(X, y)
    same(ours, LogisticRegression(class_weight="balanced", **TIGHT).fit(StandardScaler().fit_transform(X), y))
    same(ours, KINDS["reweighted"](**TIGHT).fit(X, y, groups=y))


def test_group_balanced_is_the_mean_of_its_draws_and_as_sure_as_the_worst() -> None:
    X, y, groups = data(6)
    Z, draws = StandardScaler().fit_transform(X), balanced_draws(groups, 8, np.random.RandomState(7))
    for stop in (*range(2, 9), 500):  # some stop when none has converged, some when some have, one when all have
        fits = solve(Features.identity(Z), y, [Problem(w, 1.0, max_iter=stop) for w in draws])
        (model,) = KINDS["group-balanced"](draws=8, random_state=7, max_iter=stop).path(X, y, [{}], groups=groups)
        np.testing.assert_allclose(flat(model), np.mean([flat(f) for f in fits], axis=0), atol=1e-12)
        assert model.gradient_ == pytest.approx(max(f.gradient for f in fits), rel=1e-6)
        assert model.n_iter_ == max(f.iterations for f in fits)
        assert model.converged_ == all(f.converged for f in fits)


def test_published_weights_and_subsample_sizes() -> None:
    waterbirds, celeba = (3498, 184, 56, 1057), (71629, 66874, 22880, 1387)
    groups, first = np.repeat(np.arange(4), waterbirds), np.cumsum((0, *waterbirds[:3]))  # ours have mean 1, not k
    np.testing.assert_allclose(inverse_frequency(groups)[first] * 4, [1.37078, 26.0598, 85.625, 4.53642], rtol=1e-5)
    np.testing.assert_allclose(inverse_frequency(groups // 2)[first[::2]] * 2, [1.30228, 4.30818], rtol=1e-5)
    for counts, total in ((waterbirds, 224), (celeba, 5548)):
        assert balanced_draws(np.repeat(np.arange(4), counts), 1, np.random.RandomState(0)).sum() == total


@settings(deadline=None)
@given(codes=st.lists(st.integers(0, 4), min_size=1, max_size=40).map(np.array), seed=SEEDS)
def test_weights_and_draws_on_any_codes(codes: np.ndarray, seed: int) -> None:
    np.testing.assert_allclose(inverse_frequency(codes), compute_sample_weight("balanced", codes))
    draws = balanced_draws(codes, 3, np.random.RandomState(seed))
    kinds, counts = np.unique(codes, return_counts=True)
    assert draws.shape == (3, len(codes)) and set(np.unique(draws)) <= {0, 1}
    assert all((draws[:, codes == c].sum(axis=1) == counts.min()).all() for c in kinds)


@every_head
def test_what_changes_nothing(kind: type[ConvexHead]) -> None:
    X, y, groups = data(11, equal=kind.random)  # of unequal groups, other rows are drawn in another order
    X, mixed = X.astype(np.float32), np.random.default_rng(0).permutation(len(X))
    model = head(kind, **TIGHT).fit(X, y, groups=groups)
    proba = model.predict_proba(X)
    same(model, head(kind, **TIGHT).fit(X[mixed], y[mixed], groups=groups[mixed]))  # the order of rows
    same(model, head(kind, **TIGHT).fit(X.astype(float), y, groups=groups))  # precision
    np.testing.assert_allclose(model.predict_proba(X.astype(float)), proba, atol=1e-5)
    moved = X * [1e3, -1e-3, 7.0] + [5.0, -1e4, 0.0]  # scale and place of features, and constant ones
    moved = np.column_stack([moved, np.full(len(X), np.float32(0.1)), np.zeros(len(X))])
    np.testing.assert_allclose(head(kind, **TIGHT).fit(moved, y, groups=groups).predict_proba(moved), proba, atol=1e-5)
    raw, small = (head(kind, standardize=False).fit(x, y, groups=groups).predict_proba(x) for x in (X, X / 99))
    assert not np.allclose(raw, small, atol=1e-2)  # without standardising, scale matters


@every_head
@pytest.mark.parametrize(("k", "standardize"), [(2, True), (3, True), (2, False)])
def test_prediction_is_standardise_then_linear(kind: type[ConvexHead], k: int, standardize: bool) -> None:
    X, y, groups = data(10, k)
    model = head(kind, standardize=standardize).fit(X, y, groups=groups)
    Z = (X - X.mean(0)) / X.std(0) if standardize else X
    logits = Z @ model.coef_.T + model.intercept_
    logits = np.column_stack([np.zeros(len(X)), logits]) if k == 2 else logits
    np.testing.assert_allclose(model.predict_proba(X), softmax(logits, axis=1), atol=1e-10)
    assert np.array_equal(model.predict(X), logits.argmax(axis=1))
    assert model.score(X, y) == np.mean(logits.argmax(axis=1) == y)


@every_head
@pytest.mark.parametrize("names", [("cat", "dog", "eel"), (-3, 5, 40), (False, True)], ids=["str", "int", "bool"])
def test_labels_of_any_type(kind: type[ConvexHead], names: tuple[Any, ...]) -> None:
    X, y, groups = data(12, len(names))
    codes = head(kind).fit(X, y, groups=groups)
    named = head(kind).fit(X, np.array(names)[y], groups=np.array([f"group {g}" for g in groups]))
    assert list(named.classes_) == list(names) and np.array_equal(named.predict(X), np.array(names)[codes.predict(X)])


@every_head
def test_what_cannot_be_fitted_is_refused(kind: type[ConvexHead]) -> None:
    X, y, groups = data(14)
    for C in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"C must be positive, found {C}"):
            kind(C=C).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match=r"only one class .*cat.* among the training rows; a classifier needs two"):
        kind().fit(X, np.full(len(X), "cat"), groups=groups)
    for bad, word in ((np.nan, "NaN"), (np.inf, "infinity")):
        with pytest.raises(ValueError, match=word):
            kind().fit(np.where(X.max() <= X, bad, X), y, groups=groups)


def test_draws_that_cannot_be_fitted_are_refused() -> None:
    X, y, groups = data(15, 3)
    with pytest.raises(ValueError, match="draws must be at least 1, found 0"):
        KINDS["group-balanced"](draws=0).fit(X, y, groups=groups)
    mixing = np.eye(len(y), dtype=int)[0]  # a group of one row: draws of two rows cannot hold three classes
    with pytest.raises(ValueError, match=r"class \d .* has no row of positive weight; groups .* must not mix classes"):
        KINDS["group-balanced"]().fit(X, y, groups=mixing)
