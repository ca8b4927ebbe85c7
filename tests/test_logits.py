"""Logits and classes of linear heads: the same bits whatever is asked together, and true for any offset."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedx.probes import _logits
from embedx.probes._logits import Affine, NotFinite, chosen, predicted_codes, probabilities
from embedx.probes._prompts import Prompts
from embedx.probes.nearest_mean import NearestMean
from embedx.probes.plain import Plain
from embedx.probes.zero_shot import ZeroShot

few = settings(max_examples=40, deadline=None)
SIZES = {
    "n": st.integers(1, 40),
    "d": st.integers(1, 70),
    "k": st.sampled_from([1, 3, 4]),
    "seed": st.integers(0, 9999),
}


def drawn(rng: np.random.Generator, n: int, d: int, k: int, offset: float = 0.0) -> tuple[Affine, np.ndarray]:
    """A head on features whose places and spreads differ by orders of magnitude, and rows to ask it about."""
    spread = 10.0 ** rng.integers(-4, 5, d)
    mean = offset * spread * rng.choice([-1, 1], d)
    X = mean + spread * rng.standard_normal((n, d))
    return Affine(rng.standard_normal((k, d)), rng.standard_normal(k), mean, spread), X


@few
@given(**SIZES, offset=st.sampled_from([0.0, 1e5, 1e7]), block=st.integers(1, 300))
def test_no_bit_depends_on_what_is_asked_together(n: int, d: int, k: int, seed: int, offset: float, block: int) -> None:
    rng = np.random.default_rng(seed)
    head, X = drawn(rng, n, d, k, offset)
    whole, order = head.logits(X), rng.permutation(n)
    assert np.array_equal(np.concatenate([head.logits(x[None]) for x in X]), whole)
    assert np.array_equal(head.logits(np.asfortranarray(X[order])), whole[order])
    single = X.astype(np.float32)
    assert np.array_equal(head.logits(single), head.logits(single.astype(np.float64)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_logits, "BLOCK", block)
        assert np.array_equal(head.logits(X), whole)
    p = probabilities(whole)
    assert np.array_equal(np.concatenate([probabilities(row[None]) for row in whole]), p)


@few
@given(**SIZES, offset=st.sampled_from([0.0, 1e7]))
def test_logits_are_those_of_exact_arithmetic(n: int, d: int, k: int, seed: int, offset: float) -> None:
    head, X = drawn(np.random.default_rng(seed), min(n, 4), d, k, offset)
    found = head.logits(X)
    Z = (X - head.mean) / head.scale
    for z, row in zip(Z, found, strict=True):
        for c in range(k):
            terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(z, head.coef[c], strict=True)]
            exact = float(sum(terms, Fraction(float(head.intercept[c]))))
            assert abs(row[c] - exact) <= 16 * d * 2.0**-42 * np.abs(z).max() * np.abs(head.coef).max() + 1e-15


def test_a_feature_that_no_weight_meets_changes_nothing_and_small_ones_are_not_lost_beside_large() -> None:
    head = Affine.plain(np.array([[1.0, 2.0**-90, 0.0]]))
    assert head.logits(np.array([[0.25, 2.0**90, 1e300], [0.25, 0, 0]])).tolist() == [[1.25], [0.25]]
    tiny = Affine.plain(np.array([[1e-300, -1e-300]]))
    assert predicted_codes([tiny], np.array([[2.0, 1.0], [1.0, 2.0]])).tolist() == [[1, 0]]


@few
@given(**SIZES, m=st.integers(1, 5), whole=st.booleans())
def test_classes_of_many_heads_are_those_of_each_in_ties_too(
    n: int, d: int, k: int, seed: int, m: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    first, X = drawn(rng, n, d, k)
    heads = [first]
    for _ in range(m):
        coef, at = rng.standard_normal((k, d)), (first.mean, first.scale)
        if whole:  # small whole numbers, which tie in every second row, and two classes of the same weights
            coef, at = rng.integers(-1, 2, (k, d)).astype(float), (np.zeros(d), np.ones(d))
            coef[-1] = coef[0]
        heads.append(Affine(coef, np.zeros(k), *at))
    X = rng.integers(-2, 3, (n, d)).astype(float) if whole else X
    found = predicted_codes(heads, X)
    for head, row in zip(heads, found, strict=True):
        assert np.array_equal(row, chosen(head.logits(X)))
        assert np.array_equal(row, np.concatenate([predicted_codes([head], x[None])[0] for x in X]))
    if whole and k > 1:
        assert (found[1:] < k - 1).all()  # of equal logits the first


def test_the_order_of_features_changes_no_bit() -> None:
    """0.1 + 0.2 - 0.3, which rounded sums make three numbers of."""
    head, X = Affine.plain(np.array([[0.1, 0.2, -0.3]])), np.ones((1, 3))
    exact = float(Fraction(0.1) + Fraction(0.2) - Fraction(0.3))
    found = {Affine.plain(head.coef[:, order]).logits(X)[0, 0] for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])}
    assert len(found) == 1 and found.pop() == pytest.approx(exact, abs=1e-14)


def test_rows_without_logits_are_named() -> None:
    head = Affine.plain(np.array([[1.0, 1.0]]))
    X = np.ones((9, 2))
    X[4, 1], X[7, 0] = np.nan, np.inf
    for ask in (head.logits, lambda X: predicted_codes([head], X)):
        with pytest.raises(
            NotFinite, match=r"2 rows .the first is row 4, counted from 0. have logits that are not fin"
        ):
            ask(X)
    with pytest.raises(NotFinite) as caught:
        predicted_codes([Affine.plain(np.array([[1e200, 0], [1.0, 1], [2, 0]]))], np.array([[1, 1], [1e200, 1]]))
    assert caught.value.rows.tolist() == [1]


@given(st.floats(-800, 800), st.integers(-3, 3))
def test_the_class_that_is_predicted_is_the_most_probable(at: float, ulps: int) -> None:
    near = at
    for _ in range(abs(ulps)):
        near = np.nextafter(near, np.inf if ulps > 0 else -np.inf)
    logits = np.array([[near, at, at - 1], [at, near, near]])
    p = probabilities(logits)
    assert np.array_equal(p.argmax(axis=1), logits.argmax(axis=1)) and np.allclose(p.sum(axis=1), 1)
    f = np.array([ulps * 5e-324, ulps * 1e-18])
    assert np.array_equal(probabilities(f).argmax(axis=1), f > 0)
    assert np.array_equal(probabilities(f[:, None]), probabilities(f))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("spreads", [0, 1e3, 1e5, 1e7])
def test_a_head_predicts_like_scikit_learn_in_float64_at_any_offset(k: int, spreads: float) -> None:
    """Whole numbers, which float32 holds at every one of these offsets."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, k, 600)
    X = (rng.integers(-3, 4, (600, 12)) + 2 * (y[:, None] == np.arange(12) % k) + spreads).astype(np.float32)
    assert len(np.unique(X[:, 0])) > 5
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(X.astype(np.float64), y)
    scaler, fitted = oracle[0], oracle[1]
    numbers: dict[str, Any] = {"coef_": fitted.coef_, "intercept_": fitted.intercept_, "mean_": scaler.mean_}
    head = Plain()
    for name, value in (numbers | {"scale_": scaler.scale_, "classes_": fitted.classes_, "n_features_in_": 12}).items():
        setattr(head, name, value)
    X64 = X.astype(np.float64)
    np.testing.assert_allclose(head.decision_function(X), oracle.decision_function(X64), rtol=1e-9, atol=1e-9)
    assert np.array_equal(head.predict(X), oracle.predict(X64))
    np.testing.assert_allclose(head.predict_proba(X), oracle.predict_proba(X64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spreads", [1e5, 1e7])
def test_heads_fitted_far_from_zero_are_those_fitted_near_it(spreads: float) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    near = rng.integers(-40, 41, (300, 6)) / 8 + y[:, None]
    far = near + spreads * 4
    for kind in (Plain, NearestMean):
        here, there = kind().fit(near, y), kind().fit(far, y)
        np.testing.assert_allclose(there.predict_proba(far), here.predict_proba(near), rtol=1e-5, atol=1e-7)
        assert np.array_equal(there.predict(far), here.predict(near))


def test_a_head_on_text_does_not_depend_on_blocks_either() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((70, 33)).astype(np.float32), np.arange(70) % 3
    prompts = Prompts(rng.standard_normal((3, 17)), rng.standard_normal((33, 17)))
    head = ZeroShot().fit(X, y, prompts=prompts)
    assert np.array_equal(np.concatenate([head.decision_function(x[None]) for x in X]), head.decision_function(X))
