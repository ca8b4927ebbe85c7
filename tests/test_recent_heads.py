"""Heads of 2022 to 2026 against plain loops written from their definitions, and the laws that each of them is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from overlapping import data
from reference_loops import class_balanced_retraining, dpe, leace, leia, lisa, mixup, ppa, zero_shot_debiased
from sklearn.linear_model import LogisticRegression

from embedx.probes import FitError, Head, Prompts, embedded
from embedx.probes._two_stage import Halves
from embedx.probes.class_balanced_retraining import ClassBalancedRetraining
from embedx.probes.dpe import Dpe
from embedx.probes.leace import Leace
from embedx.probes.leia import Leia
from embedx.probes.lisa import Lisa, neighbouring
from embedx.probes.mixup import Mixup
from embedx.probes.ppa import Ppa
from embedx.probes.zero_shot_debiased import ZeroShotDebiased

CLASSES = pytest.mark.parametrize("k", [2, 3])


def standardised(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(0)) / X.std(0)


def attribute_of(groups: np.ndarray) -> np.ndarray:
    """(n,) the attribute of rows in groups, two to a label."""
    return groups % 2


def agree(head: Head, expected: tuple[np.ndarray, np.ndarray], atol: float = 1e-9) -> None:
    np.testing.assert_allclose(head.coef_, expected[0], atol=atol)
    np.testing.assert_allclose(head.intercept_, expected[1], atol=atol)
    assert head.converged_


# LEACE


@CLASSES
@pytest.mark.parametrize(
    ("parameters", "balanced", "shrunk"),
    [
        ({}, True, False), ({"moments": "marginal"}, False, False), ({"variant": "published"}, False, True),
        ({"moments": "marginal", "shrinkage": True}, False, True),
    ],
)  # fmt: skip
def test_leace_is_its_formula(k: int, parameters: dict[str, object], balanced: bool, shrunk: bool) -> None:
    X, y, groups = data(3, k)
    head = Leace(C=0.5, tol=1e-9, **parameters).fit(X, y, groups=attribute_of(groups))
    Z = standardised(X)
    expected = leace.fit(Z, y, *leace.erasure(Z, y, attribute_of(groups), balanced=balanced, shrunk=shrunk), 0.5)
    if k == 3:  # a softmax takes any common vector; both are centred on the erased features
        expected = tuple(part - part.mean(0) for part in expected)
    agree(head, expected, atol=1e-5)


@CLASSES
def test_logits_after_leace_have_no_covariance_with_the_attribute(k: int) -> None:
    X, y, groups = data(4, k)
    a = attribute_of(groups)
    for name, w in (
        ("marginal", np.ones(len(y))),
        ("balanced", 1 / np.bincount(groups)[groups]),
    ):
        for variant in ("default", "published") if name == "marginal" else ("default",):
            head = Leace(moments=name, variant=variant).fit(X, y, groups=a)
            F, w = head.decision_function(X).reshape(len(y), -1), w / w.sum()  # noqa: PLW2901
            assert np.abs((w * (a - w @ a)) @ F).max() < 1e-9 and head.erased_ == 1


def test_leace_refuses_what_leaves_nothing_to_erase_and_what_does_not_go_together() -> None:
    X, y, groups = data(5)
    with pytest.raises(FitError, match="one value of the attribute"):
        Leace().fit(X, y, groups=np.zeros(len(y)))
    with pytest.raises(FitError, match="moments must be"):
        Leace(moments="other").fit(X, y, groups=attribute_of(groups))
    with pytest.raises(FitError, match="shrinkage goes with moments='marginal'"):
        Leace(shrinkage=True).fit(X, y, groups=attribute_of(groups))


# Gradient steps on drawn rows


@CLASSES
def test_lisa_mixup_and_class_balanced_retraining_are_their_loops(k: int) -> None:
    X, y, groups = data(6, k)
    Z, a = standardised(X), attribute_of(groups)
    for head in Lisa(random_state=2).path(X, y, [{"steps": 7}, {"steps": 20}], groups=a):
        agree(head, lisa.fit(Z, y, a, {head.steps}, np.random.RandomState(2))[head.steps])
    for head in Mixup(random_state=2).path(X, y, [{"steps": 3}, {"steps": 9}]):
        agree(head, mixup.fit(Z, y, head.steps, np.random.RandomState(2)))
    one = ClassBalancedRetraining(variant="published", random_state=2).fit(X[:50], y[:50])
    agree(one, class_balanced_retraining.fit(standardised(X[:50]), y[:50], np.random.RandomState(2)))


def test_a_way_goes_on_from_where_it_is_and_begins_again_for_what_lies_behind() -> None:
    X, y, _ = data(6)
    whole = {h.steps: h.coef_ for h in Mixup(random_state=2).path(X, y, [{"steps": s} for s in (2, 5, 9)])}
    memory: dict[Any, Any] = {}
    for asked in ((5,), (9, 5), (2,), (9,)):
        for head in Mixup(random_state=2).path(X, y, [{"steps": s} for s in asked], memory=memory):
            assert np.array_equal(head.coef_, whole[head.steps])


def test_lisa_draws_what_is_shared_alike_and_then_the_groups_that_share_it() -> None:
    groups = np.array([[0, 0, 1, 1, 2], [0, 1, 0, 1, 2]])  # the last shares nothing with any other
    pairs, likely = neighbouring(groups, 0.25)
    assert likely.sum() == pytest.approx(1) and 4 not in pairs
    same = groups[0][pairs[:, 0]] == groups[0][pairs[:, 1]]
    assert likely[same].sum() == pytest.approx(0.25) and len(set(likely[same].round(12))) == 1
    assert len(neighbouring(np.array([[0, 0, 0], [0, 1, 2]]), 0.3)[0]) == 6  # of one label there is one kind of pair
    with pytest.raises(FitError, match="no groups are of the kind"):
        neighbouring(np.array([[0, 1], [0, 1]]), 0.5)


def test_gradient_heads_refuse_numbers_that_cannot_be() -> None:
    X, y, groups = data(7)
    for head, message in (
        (Lisa(alpha=0.0), "alpha must be above 0"), (Lisa(same_label=1.5), "same_label must lie between"),
        (Lisa(steps=0), "steps must be at least 1"), (Mixup(alpha=-1.0), "alpha must be above 0"),
        (Mixup(steps=0), "steps must be at least 1"),
    ):  # fmt: skip
        with pytest.raises(FitError, match=message):
            head.fit(X, y, groups=attribute_of(groups))


# LEIA


@CLASSES
@pytest.mark.parametrize("seen", [True, False])
def test_leia_is_its_loop(k: int, seen: bool) -> None:
    X, y, _ = data(8, k)
    Z, second = standardised(X), Halves(0.8, 3).second(y)
    settings: list[dict[str, Any]] = [
        {"gamma": g, "rank": r, "steps": s} for g, r in ((2.0, 9), (9.0, 1), (9.0, 3)) for s in (5, 60)
    ]
    rows = np.arange(len(y)) if seen else np.setdiff1d(np.arange(len(y)), second)
    plain = LogisticRegression(C=0.01, tol=1e-10, max_iter=20000).fit(Z[rows], y[rows])
    heads = Leia(seen=seen, tol=1e-9, random_state=3).path(X, y, settings)
    for head, setting in zip(heads, settings, strict=True):
        gamma, rank, steps = setting["gamma"], setting["rank"], setting["steps"]
        way = leia.fit(Z, y, (plain.coef_, plain.intercept_), second, gamma=gamma, rank=rank, stops={steps})
        agree(head, way[steps], atol=1e-6)
        assert head.directions_.shape == (4, min(setting["rank"], 4)) and 0 < head.spread_ <= 1 + 1e-9
    published = Leia(variant="published", tol=1e-9, random_state=3).path(X, y, settings)
    assert all(np.array_equal(a.coef_, b.coef_) for a, b in zip(heads, published, strict=True)) == seen


def test_leia_moves_a_first_head_along_its_directions_alone_and_less_the_fewer_its_steps() -> None:
    X, y, _ = data(9)
    one = Leia(rank=2, steps=1, random_state=0).fit(X, y)
    far = Leia(rank=2, steps=500, random_state=0).fit(X, y)
    moved = far.coef_ - one.coef_
    assert np.abs(moved - moved @ far.directions_ @ far.directions_.T).max() < 1e-12 < np.abs(moved).max()
    assert np.array_equal(far.intercept_, one.intercept_)
    for head, message in ((Leia(gamma=-1.0), "gamma must be at least 0"), (Leia(rank=0), "rank must be at least 1")):
        with pytest.raises(FitError, match=message):
            head.fit(X, y)


# DPE


@CLASSES
def test_dpe_is_its_loop(k: int) -> None:
    X, y, _ = data(10, k, 400)
    head = Dpe(members=3, epochs=4, random_state=5).fit(X, y)  # draws above and below a batch of 256 rows
    prototypes, scales = dpe.fit(X, y, np.random.RandomState(5), members=3, epochs=4)
    np.testing.assert_allclose(head.prototypes_, prototypes, atol=1e-9)
    np.testing.assert_allclose(head.scales_, scales, atol=1e-9)
    np.testing.assert_allclose(head.predict_proba(X[:40]), dpe.predict_proba(prototypes, scales, X[:40]), atol=1e-9)


def test_dpe_predicts_rows_the_same_alone_and_together_and_whatever_their_length_and_level() -> None:
    X, y, _ = data(11)
    head = Dpe(members=2, random_state=0).fit(X, y)
    together = head.decision_function(X)
    assert np.array_equal(together, np.concatenate([head.decision_function(X[i : i + 1]) for i in range(len(X))]))
    np.testing.assert_allclose(head.decision_function(3 * X + 1), together, atol=1e-12)


def test_dpe_members_are_less_alike_where_diversity_counts() -> None:
    X, y, _ = data(12)
    alike = []
    for diversity in (0.0, 100.0):
        q = Dpe(members=6, diversity=diversity, random_state=0).fit(X, y).prototypes_
        alike.append(np.mean([np.abs(np.triu(q[:, c] @ q[:, c].T, 1)).sum() for c in range(2)]))
    assert alike[1] < alike[0]
    for name, value in (("members", 0), ("epochs", 0), ("sharpness", 0.0), ("diversity", -1.0)):
        with pytest.raises(FitError, match=f"{name} must be"):
            Dpe(**{name: value}).fit(X, y)


# PPA


@CLASSES
def test_ppa_is_its_loop(k: int) -> None:
    X, y, _ = data(13, k)
    rng = np.random.default_rng(0)
    prompts = Prompts(rng.normal(size=(k, 6)), rng.normal(size=(4, 6)), 2.0)
    text = prompts.text / np.linalg.norm(prompts.text, axis=1, keepdims=True)
    settings = [{"C": C, "biased_C": 0.02, "tau": tau} for C in (0.01, 0.1) for tau in (0.0, 1.0)]
    heads = Ppa(tol=1e-8).path(X, y, settings, prompts=prompts)
    for head, setting in zip(heads, settings, strict=True):
        agree(head, ppa.fit(embedded(X, prompts), y, text, **setting), atol=1e-4)
        assert set(head.inferred_groups_) == {0, 1}
    moved = heads[1].intercept_ - heads[0].intercept_  # tau moves intercepts alone
    assert np.array_equal(heads[0].coef_, heads[1].coef_) and np.abs(moved).max() > 0.01
    with pytest.raises(FitError, match="tau must be at least 0"):
        Ppa(tau=-1.0).fit(X, y, prompts=prompts)


def test_ppa_without_an_error_is_the_head_of_the_classes_for_equal_shares() -> None:
    y = np.repeat([0, 1], [30, 10])
    X = np.random.default_rng(0).normal(size=(40, 5)) * 0.1 + np.array([1.0, 1, 1, 0, 0])
    X[:, 3] += 2.0 * y - 1  # told by a direction that the text does not have
    prompts = Prompts(np.eye(5)[:2])
    head = Ppa(C=0.1).fit(X, y, prompts=prompts)
    assert not head.inferred_groups_.any()
    plain = LogisticRegression(C=0.1, tol=1e-9).fit(embedded(X, prompts), y)
    np.testing.assert_allclose(head.coef_, plain.coef_, atol=1e-4)
    np.testing.assert_allclose(head.intercept_, plain.intercept_ + np.log(3), atol=1e-3)


# Debiased text


@CLASSES
def test_debiased_text_is_its_closed_form(k: int) -> None:
    rng, (X, y, _) = np.random.default_rng(1), data(14, k)

    def unit(V: np.ndarray) -> np.ndarray:
        return V / np.linalg.norm(V, axis=-1, keepdims=True)

    text, spurious, pairs = (unit(rng.normal(size=shape)) for shape in ((k, 9), (3, 9), (4, 2, 9)))
    P = rng.normal(size=(4, 9))
    prompts = Prompts(text, P, 10.0, np.concatenate([spurious, spurious[:1]]), pairs)  # one of them twice
    for projection, given in (("orthogonal", None), ("calibrated", pairs)):
        head = ZeroShotDebiased(projection).fit(X, y, prompts=prompts)
        expected = 10 * unit(X @ P) @ zero_shot_debiased.text(text, spurious, given).T
        expected = expected[:, 1] - expected[:, 0] if k == 2 else expected
        np.testing.assert_allclose(head.decision_function(X), expected, atol=1e-9)


def test_debiased_text_brings_pairs_together_and_refuses_what_leaves_nothing() -> None:
    X, y, _ = data(15)
    prompts = Prompts(np.eye(4)[:2], None, 1.0, np.eye(4)[2:3], np.array([np.eye(4)[[0, 3]]]))
    one = ZeroShotDebiased(strength=1e6).fit(X, y, prompts=prompts)
    np.testing.assert_allclose(one.coef_, [[-(0.5**0.5), 1, 0, -(0.5**0.5)]], atol=1e-5)  # both of the pair, alike
    for head, wrong, message in (
        (ZeroShotDebiased(), prompts._replace(spurious=None), "needs the text features of what is spurious"),
        (ZeroShotDebiased(), prompts._replace(pairs=None), "needs pairs of texts"),
        (ZeroShotDebiased("orthogonal"), prompts._replace(spurious=np.eye(4)[:1]), "nothing is left of .* class 0"),
        (ZeroShotDebiased(), prompts._replace(pairs=np.eye(4)), r"must have the shape \(pairs, 2, 4\)"),
        (ZeroShotDebiased(), prompts._replace(spurious=np.zeros((1, 4))), "width 4 that are not zero"),
        (ZeroShotDebiased("other"), prompts, "projection must be"),
        (ZeroShotDebiased(strength=-1.0), prompts, "strength must be at least 0"),
    ):  # fmt: skip
        with pytest.raises(FitError, match=message):
            head.fit(X, y, prompts=wrong)
