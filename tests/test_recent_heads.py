"""Heads of 2022 to 2026 against plain loops written from their definitions, and the laws that each of them is for."""

from __future__ import annotations

import numpy as np
import pytest
from overlapping import data
from reference_loops import class_balanced_retraining, leace, lisa, mixup

from embedx.probes import FitError, Head
from embedx.probes.class_balanced_retraining import ClassBalancedRetraining
from embedx.probes.leace import Leace
from embedx.probes.lisa import Lisa, neighbouring
from embedx.probes.mixup import Mixup

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
    expected = leace.fit(standardised(X), y, attribute_of(groups), 0.5, balanced=balanced, shrunk=shrunk)
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
        agree(head, lisa.fit(Z, y, a, head.steps, np.random.RandomState(2)))
    for head in Mixup(random_state=2).path(X, y, [{"steps": 3}, {"steps": 9}]):
        agree(head, mixup.fit(Z, y, head.steps, np.random.RandomState(2)))
    one = ClassBalancedRetraining(variant="published", random_state=2).fit(X[:50], y[:50])
    agree(one, class_balanced_retraining.fit(standardised(X[:50]), y[:50], np.random.RandomState(2)))


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
