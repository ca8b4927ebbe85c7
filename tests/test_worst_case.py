"""Laws of worst-case heads and of heads that look at environments: optimality, identities, certificates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from overlapping import data, flat, group_means, like, losses, ridge, same
from scipy.special import logsumexp, softmax
from sklearn.preprocessing import StandardScaler
from solving import Problem, solve

from embedx.probes import ConvexHead, inverse_frequency
from embedx.probes._features import Features
from embedx.probes._worst_case import GAP, Mixture, capped, worst_case_fits
from embedx.probes.cvar import Cvar
from embedx.probes.group_balanced import GroupBalanced
from embedx.probes.group_dro import GroupDro
from embedx.probes.irm import Irm
from embedx.probes.plain import Plain
from embedx.probes.reweighted import Reweighted
from embedx.probes.v_rex import VRex

SEEDS, CLASSES = st.integers(0, 2**32 - 1), st.sampled_from([2, 3])
TIGHT = {"tol": 1e-8, "max_iter": 5000}
few = settings(deadline=None, max_examples=5)


@few
@given(seed=SEEDS, k=CLASSES, C=st.sampled_from([1e-3, 0.1, 10.0]), adjustment=st.sampled_from([0.0, 1.0]))
def test_group_dro_reaches_the_least_worst_group(seed: int, k: int, C: float, adjustment: float) -> None:
    X, y, groups = data(seed, k)
    model = GroupDro(C=C, adjustment=adjustment, tol=1e-7).fit(X, y, groups=groups)
    shift = adjustment / np.sqrt(np.bincount(groups))

    def values(m: ConvexHead) -> np.ndarray:
        return group_means(losses(m, X, y), groups) + shift

    primal = values(model).max() + ridge(model, len(y))
    q = model.group_weights_
    assert q.min() >= 0 and q.sum() == pytest.approx(1) and model.converged_ and model.gap_ <= GAP
    assert model.gap_ == pytest.approx(values(model).max() - q @ values(model), abs=1e-6)
    # No head is better than the best answer to q, which the solver finds by itself.
    weights = (q / np.bincount(groups))[groups] * len(y)
    Z = Features.standardize(X)
    (best,) = solve(Z, y, [Problem(np.maximum(weights, 1e-12), C, tol=1e-8)])
    model_of_q = like(Plain(), model, coef_=best.coef, intercept_=best.intercept, C=C)
    dual = q @ values(model_of_q) + ridge(model_of_q, len(y))
    assert dual - 1e-6 <= primal <= dual + GAP + 1e-6
    for other in (Plain(C=C, **TIGHT), Reweighted(C=C, **TIGHT), GroupBalanced(C=C, random_state=0)):
        assert primal <= values(other.fit(X, y, groups=groups)).max() + ridge(other, len(y)) + GAP


@few
@given(seed=SEEDS, k=CLASSES, C=st.sampled_from([1e-4, 1.0]))
def test_where_there_is_nothing_to_choose_every_robust_head_is_plain(seed: int, k: int, C: float) -> None:
    X, y, _ = data(seed, k)
    plain, one = Plain(C=C, **TIGHT).fit(X, y), np.zeros(len(y), int)
    same(GroupDro(C=C, **TIGHT).fit(X, y, groups=one), plain)
    same(Cvar(C=C, alpha=1.0, **TIGHT).fit(X, y), plain)
    same(VRex(C=C, **TIGHT).fit(X, y, groups=one), plain)
    same(Irm(C=C, strength=0.0, **TIGHT).fit(X, y, groups=one), plain)
    equal = np.empty(len(y), int)  # as many rows of each environment, so that the mean of means is the mean
    equal[np.argsort(np.random.default_rng(seed).random(len(y)))] = np.arange(len(y)) % 2
    same(VRex(C=C, beta=0.0, **TIGHT).fit(X, y, groups=equal), plain)
    same(Irm(C=C, strength=0.0, **TIGHT).fit(X, y, groups=equal), plain)


@few
@given(seed=SEEDS, C=st.sampled_from([1e-3, 1.0]), alpha=st.sampled_from([0.05, 0.3, 0.77]))
def test_cvar_reaches_the_least_mean_of_the_worst_rows(seed: int, C: float, alpha: float) -> None:
    X, y, groups = data(seed)

    def value(m: ConvexHead) -> float:
        worst, room = np.sort(losses(m, X, y))[::-1], alpha * len(y)
        return float(np.clip(room - np.arange(len(y)), 0, 1) @ worst / room) + ridge(m, len(y))

    model = Cvar(C=C, alpha=alpha, tol=1e-7).fit(X, y)
    assert model.converged_ and -1e-9 <= model.gap_ <= GAP and alpha * len(y) - 1e-6 <= model.effective_size_ <= len(y)
    for other in (Plain(C=C).fit(X, y), Reweighted(C=C).fit(X, y, groups=groups), Cvar(C=C, alpha=0.5).fit(X, y)):
        assert value(model) <= value(other) + GAP
    rng, reach = np.random.default_rng(seed), value(model)
    for size in (1e-3, 0.03, 0.3):
        near = like(Cvar(), model, coef_=model.coef_ + size * rng.normal(size=model.coef_.shape), C=C)
        assert reach <= value(near) + GAP


@settings(deadline=None)
@given(seed=SEEDS, atoms=st.integers(1, 9), share=st.floats(0.01, 1.0), spread=st.sampled_from([0.0, 1.0, 300.0]))
def test_capped_is_the_projection_that_it_says(seed: int, atoms: int, share: float, spread: float) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, atoms)) * spread)
    cap = torch.tensor([[max(share, 1 / atoms)]], dtype=torch.float64)
    q = capped(logits, cap)[0].numpy()
    assert q.sum() == pytest.approx(1) and q.min() >= 0 and q.max() <= float(cap) * (1 + 1e-5)
    inside = (q > 1e-200) & (q < float(cap) * (1 - 1e-5))
    level = np.log(q[inside]) - logits[0].numpy()[inside]  # one factor for all that are free, and none needs more
    if inside.any():
        assert (
            np.ptp(level) < 1e-6
            and (logits[0].numpy()[q >= float(cap) * (1 - 1e-5)] + level[0] >= np.log(float(cap)) - 1e-4).all()
        )


def test_worst_cases_of_several_groupings_at_once_are_each_alone() -> None:
    X, y, groups = data(8)
    features = Features.standardize(X)
    checked = GroupDro()._checked(features, y, groups)
    skipping = np.where(groups == 1, 9, groups)  # a code may skip numbers
    variants = [Plain(C=1.0), Plain(C=0.1), Plain(C=1.0)]
    together = worst_case_fits(checked, variants, [groups, y, skipping], [0.0, 0.0, 0.0])
    alone = [worst_case_fits(checked, [v], [g])[0] for v, g in zip(variants, (groups, y, skipping), strict=True)]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.theta[0], b.theta[0], atol=1e-3)
    one, _, other = (fit.more["group_weights_"] for fit in together)
    assert len(other) == 10 and not other[4:9].any() and other[9] == pytest.approx(one[1], abs=1e-3)
    with pytest.raises(ValueError, match="with penalty 'l2' only, found 'l1'"):
        worst_case_fits(checked, [Plain(penalty="l1")], [groups])


def test_the_published_group_dro_comes_to_the_exact_one_slowly() -> None:
    X, y, groups = data(9)
    exact = GroupDro(C=1e6, adjustment=1.0).fit(X, y, groups=groups)
    settings_ = [{"steps": s, "eta": 0.02} for s in (20, 4000)]
    near, there = GroupDro(adjustment=1.0, variant="published").path(X, y, settings_, groups=groups)
    assert there.group_weights_.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(there.coef_, exact.coef_, atol=2e-2)
    np.testing.assert_allclose(there.group_weights_, exact.group_weights_, atol=2e-2)
    far, close = (np.abs(m.group_weights_ - exact.group_weights_).max() for m in (near, there))
    assert close < 0.3 * far
    for wrong, words in (
        ({"adjustment": -1.0}, "adjustment must be at least 0, found -1.0"),
        ({"decay": -1.0}, "decay must be at least 0, found -1.0"),
        ({"variant": "published", "steps": 0}, "steps must be at least 1, found 0"),
    ):
        with pytest.raises(ValueError, match=words):
            GroupDro(**wrong).fit(X, y, groups=groups)


@few
@given(seed=SEEDS, k=CLASSES, kind=st.sampled_from([VRex, Irm]))
def test_environments_objectives_are_stationary(seed: int, k: int, kind: type[ConvexHead]) -> None:
    X, y, groups = data(seed, k)
    model = kind(C=0.3, tol=1e-7).fit(X, y, groups=groups)
    Z = StandardScaler().fit_transform(X)

    def objective(theta: np.ndarray) -> float:
        theta = theta.reshape(flat(model).shape)
        F = Z @ theta[:, :-1].T + theta[:, -1]
        F = np.column_stack([np.zeros(len(F)), F]) if k == 2 else F
        rows = np.arange(len(F))
        R = group_means(logsumexp(F, axis=1) - F[rows, y], groups)
        slopes = group_means((softmax(F, axis=1) * F).sum(1) - F[rows, y], groups)
        more = 10.0 * R.var() if kind is VRex else 100.0 * (slopes**2).mean()
        return float(R.mean() + more + (theta[:, :-1] ** 2).sum() / (2 * 0.3 * len(y)))

    theta = flat(model).ravel()
    gradient = [(objective(theta + 1e-5 * e) - objective(theta - 1e-5 * e)) / 2e-5 for e in np.eye(len(theta))]
    assert np.abs(gradient).max() < 1e-5 and model.converged_
    start = Reweighted(C=0.3).fit(X, y, groups=groups)
    assert objective(theta) <= objective(flat(start).ravel()) + 1e-9


def test_penalties_do_what_they_are_for_and_fade_with_the_losses() -> None:
    X, y, groups = data(10)
    spread = [
        np.var(m.environment_losses_) for m in VRex().path(X, y, [{"beta": b} for b in (0.0, 10.0, 1e3)], groups=groups)
    ]
    slopes = [m.penalties_.mean() for m in Irm().path(X, y, [{"strength": s} for s in (0.0, 10.0, 1e3)], groups=groups)]
    assert spread[0] > 2 * spread[1] > 4 * spread[2] and slopes[0] > 2 * slopes[1] > 4 * slopes[2]
    separable = np.column_stack([X, 50.0 * y])
    weak = Irm(C=1e6, strength=1000.0).fit(separable, y, groups=groups)
    assert weak.penalties_.max() < 1e-5 and weak.score(separable, y) == 1
    for kind, name in ((VRex, "beta"), (Irm, "strength")):
        with pytest.raises(ValueError, match=f"{name} must not be negative, found -1"):
            kind(**{name: -1}).fit(X, y, groups=groups)


def test_mixture_keeps_what_belongs_to_the_problems_that_are_left() -> None:
    codes = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1]])
    parts = [torch.arange(1.0, 5).view(2, 2) for _ in range(3)]
    both = Mixture(codes, *parts, torch.ones(2, 1), torch.tensor([[1.0], [2.0]]))
    rows = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    for i in range(2):
        part = both.keep(torch.tensor([i == 0, i == 1]))
        torch.testing.assert_close(part.weights(rows[i : i + 1])[0], both.weights(rows)[i])
    assert inverse_frequency(codes[0].numpy()).tolist() == [1, 1, 1, 1]
