"""The published variants of the heads against plain loops of their definitions, in float64 by automatic derivatives."""

from __future__ import annotations

import pkgutil
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from embedx import plugins
from embedx.evaluation.heads import load_head
from embedx.probes import HeldOut, Need
from embedx.probes._two_stage import Halves
from embedx.probes.afr import Afr
from embedx.probes.plain import Plain
from tests import reference_loops
from tests.misled import data, standardised
from tests.reference_loops import LOOPS
from tests.reference_loops.rows import Rows
from tests.simulated import waterbirds

SETTINGS: dict[str, list[dict[str, Any]]] = {
    **{name: [{"steps": 5}, {"steps": 40}] for name in ("plain", "class-balanced", "reweighted", "lff")},
    **{name: [{"steps": 5, "draws": 1}, {"steps": 40, "draws": 1}] for name in ("class-subsampled", "group-balanced")},
    **{name: [{"C": 0.03, "draws": 1}, {"C": 1.0, "draws": 1}] for name in ("dfr", "dfr-train")},
    "group-dro": [{"steps": 30, "eta": 0.1, "decay": 0.1}, {"steps": 90, "eta": 0.1, "decay": 1e-4}],
    "cvar": [{"steps": 20, "alpha": 0.1}, {"steps": 60, "alpha": 0.33}],
    "irm": [{"steps": 300, "strength": 100.0}, {"steps": 600, "strength": 10.0}],
    "v-rex": [{"steps": 300, "beta": 10.0}, {"steps": 600, "beta": 10.0}],
    "jtt": [{"first_steps": 3, "upweight": 20.0, "steps": 30}, {"first_steps": 10, "upweight": 50.0, "steps": 5}],
    "eiil": [{"first_steps": 3, "eta": 0.1, "steps": 30}, {"first_steps": 10, "eta": 0.01, "steps": 60}],
    "george": [{"eta": 0.1, "steps": 30}],
    "spare": [{"first_steps": 3, "power": 2.0, "steps": 30}, {"first_steps": 30, "power": 1.0, "steps": 30}],
    "self-disagreement": [{"n": 20, "first_steps": 3, "learning_rate": 0.01, "steps": 50}],
}
EQUAL = ("class-subsampled", "group-balanced", "dfr", "dfr-train")
"""Heads that draw rows: on groups of one size they draw all of them."""
CLUSTERS = ("george", "spare")
"""Heads whose clusters may differ by rows in between."""


def rows(part: Any) -> Rows:
    return Rows(part.X.astype(float), part.y, part.groups, part.attributes["place"])


@pytest.mark.parametrize("name", SETTINGS)
def test_the_published_variant_is_the_loop(name: str) -> None:
    split, kind = waterbirds(8, seed=3, share=0.15), load_head(name)
    train = rows(split.test.take(np.concatenate([np.flatnonzero(split.test.groups == g)[:60] for g in range(4)])))
    train = train if name in EQUAL else rows(split.train)
    held_out = train if name == "dfr" else rows(split.val)
    loop = LOOPS[name](train, held_out, SETTINGS[name], 0)
    given: dict[str, Any] = {}
    if Need.GROUPS in kind.needs:
        given["groups"] = train.attribute if kind.partition == "attribute" else train.groups
    if Need.HELD_OUT in kind.needs:
        given["held_out"] = HeldOut(held_out.Z, held_out.y)
    own = kind(variant="published", standardize=False, random_state=0).path(train.Z, train.y, SETTINGS[name], **given)
    for theta, head in zip(loop, own, strict=True):
        expected = held_out.Z @ theta[:-1] + theta[-1]
        if name in CLUSTERS:
            assert ((head.decision_function(held_out.Z) > 0) == (expected > 0)).mean() > 0.97
        else:
            np.testing.assert_allclose(head.decision_function(held_out.Z), expected, atol=0.01 * np.abs(expected).max())
        assert head.converged_


def test_published_afr_takes_the_steps_of_its_formula() -> None:
    X, y, _ = data(16)
    Z, second = standardised(X), Halves(0.8, 2).second(y)
    first = np.setdiff1d(np.arange(len(y)), second)
    settings = {"gamma": 20.0, "pull": 0.2, "steps": 30, "learning_rate": 0.3}
    model = Afr(first_C=0.1, random_state=2, variant="published", **settings).fit(X, y)
    erm = Plain(C=0.1, standardize=False, tol=1e-9, max_iter=5000).fit(Z[first], y[first])
    first_layer = W = np.outer([-0.5, 0.5], np.append(erm.coef_[0], erm.intercept_))
    A, sign = np.column_stack([Z[second], np.ones(len(second))]), 2 * y[second] - 1
    mu = np.exp(-20 * expit(sign * (A @ (W[1] - W[0])))) / np.bincount(y[second])[y[second]]
    cut = 0
    for _ in range(30):
        by_logit = A.T @ (mu / mu.sum() * -sign * expit(-sign * (A @ (W[1] - W[0]))))
        gradient = np.outer([-1, 1], by_logit) + 0.4 * (W - first_layer)
        norm = np.linalg.norm(gradient)
        cut += norm > 1
        W = W - 0.3 * gradient / max(norm, 1)
    np.testing.assert_allclose(np.append(model.coef_[0], model.intercept_), W[1] - W[0], atol=1e-4)
    assert cut > 0 and not np.allclose(W, first_layer, atol=0.01)


def test_every_head_that_somebody_published_has_a_loop_or_its_reason() -> None:
    elsewhere = {
        "nearest-neighbours": "scikit-learn's own classifier is the oracle of its test",
        "zero-shot": "cosines, by hand in its test", "wise": "means of two heads, by hand in its test",
        "low-spuriosity": "its steps are walked in its test",
    }  # fmt: skip
    modules = {m.name.replace("_", "-") for m in pkgutil.iter_modules(reference_loops.__path__)}
    published = {n for n in plugins.names(plugins.HEADS) if load_head(n).published is not None}
    assert published - set(LOOPS) - modules <= elsewhere.keys()
