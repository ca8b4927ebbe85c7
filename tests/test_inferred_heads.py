"""Laws of the heads that infer groups or weigh rows by what a first head does: JTT, EIIL, GEORGE, SPARE, AFR, ..."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score

from embedx.probes import Head, HeldOut, LinearHead, On
from embedx.probes._inference import (
    effective_size,
)  # fmt: skip
from embedx.probes._two_stage import Halves
from embedx.probes.afr import Afr, attention
from embedx.probes.class_balanced import ClassBalanced
from embedx.probes.eiil import Eiil
from embedx.probes.george import George
from embedx.probes.group_balanced import GroupBalanced
from embedx.probes.jtt import Jtt
from embedx.probes.lff import Lff
from embedx.probes.plain import Plain
from embedx.probes.reweighted import Reweighted
from embedx.probes.self_disagreement import SelfDisagreement
from embedx.probes.spare import Spare, within_classes
from tests.misled import data, standardised

TIGHT = {"tol": 1e-9, "max_iter": 5000}
IN_SAMPLE = {"errors": "in-sample", "first_C": 1e-2}
SETTINGS: dict[type[Head], list[dict[str, Any]]] = {
    Jtt: [{"C": 0.1}, {"upweight": 3.0}, {"first_C": 1.0}, IN_SAMPLE, {"folds": 3}, {"random_state": 9}],
    Eiil: [{"C": 0.1}, {"by_class": True}, {"use": "reweight"}, {"use": "subsample", "by_class": True}, IN_SAMPLE],
    George: [
        {"C": 0.1},
        {"space": "logits"},
        {"space": "features"},
        {"use": "reweight", "clusters": 3},
        {"random_state": 9},
    ],
    Spare: [{"C": 0.1}, {"power": 1.0}, {"power": 3.0}, {"clusters": 2}, {"first_steps": 1}, {"random_state": 9}],
    Afr: [
        {"C": 0.1},
        {"gamma": 1.0},
        {"estimates": "in-sample"},
        {"share": 0.5},
        {"balanced": False},
        {"random_state": 9},
    ],
    Lff: [
        {"steps": 1},
        {"steps": 30},
        {"q": 0.0},
        {"rate": 0.5},
        {"momentum": 0.0},
        {"smoothing": 0.0},
        {"class_max": False},
    ],
}
BASE: dict[type[Head], dict[str, Any]] = {
    Jtt: {"first_C": 0.1}, Eiil: {"first_C": 0.1}, George: {"max_clusters": 4}, Spare: {"apart": 1.0},
}  # fmt: skip
every_head = pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
LOGITS = arrays(float, st.tuples(st.integers(1, 10), st.integers(2, 4)), elements=st.floats(-30, 30))


def flat(model: Any) -> np.ndarray:
    return np.column_stack([model.coef_, model.intercept_])


def same(a: Any, b: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(flat(a), flat(b), atol=atol)


@every_head
@pytest.mark.parametrize("k", [2, 3])
def test_a_path_is_its_settings_alone_and_a_seed_repeats(kind: type[Head], k: int) -> None:
    X, y, _ = data(1, k)
    start = kind(
        random_state=5,
        **BASE.get(kind, {}),
        **({} if kind in (Eiil, George, Lff) else TIGHT),
    )
    together = start.path(X, y, [{}, *SETTINGS[kind]])
    for settings_, model in zip([{}, *SETTINGS[kind]], together, strict=True):
        alone = kind(**{**start.get_params(), **settings_}).fit(X, y)
        same(model, alone, atol=2e-3 if hasattr(model, "gap_") else 1e-5)  # a worst case is found to a gap of 1e-4
        assert vars(model).keys() == vars(alone).keys() and model.converged_ and alone.converged_
        for name in vars(alone):
            if name.endswith("_") and name not in ("n_iter_", "gradient_", "rounds_", "before_", "reach_"):
                np.testing.assert_allclose(
                    *(np.asarray(getattr(m, name), float) for m in (model, alone)), rtol=3e-3, atol=3e-3
                )
    for settings_, model in zip(SETTINGS[kind], together[1:], strict=True):  # every parameter does something
        if settings_.keys() <= {"folds", "random_state"}:
            continue  # may come to the same errors and clusters
        twins = k == 2 and settings_ == {"space": "logits"}  # for two classes the margin says the same
        assert np.allclose(flat(model), flat(together[0]), atol=1e-4) == twins, settings_


@every_head
def test_no_head_is_told_a_group(kind: type[Head]) -> None:
    X, y, groups = data(2)
    assert not kind.needs and kind.supervision == () and kind.fits_on is On.TRAIN
    told, not_told = (kind(random_state=0).fit(X, y, groups=g) for g in (groups, None))
    assert np.array_equal(flat(told), flat(not_told))


@every_head
def test_the_worst_group_gains_over_the_plain_head(kind: Any) -> None:
    rng = np.random.default_rng(0)

    def draw(*counts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = np.repeat(np.arange(4), counts)
        X = rng.normal(size=(len(groups), 20))
        X[:, 0] += 1.0 * (2 * (groups // 2) - 1)  # the class
        X[:, 1] += 4.0 * (2 * (groups % 2) - 1)  # what goes with it in the large groups
        return X, groups // 2, groups

    (X, y, _), (X_test, y_test, groups) = draw(700, 40, 20, 240), draw(1000, 1000, 1000, 1000)

    def worst(model: Head) -> float:
        return min(model.score(X_test[groups == g], y_test[groups == g]) for g in range(4))

    plain = max(worst(m) for m in Plain().path(X, y))
    assert max(worst(m) for m in kind(random_state=0).path(X, y, kind.grid[::-2])) > plain + 0.05


# What is done with them


@pytest.mark.parametrize("kind", [Eiil, George])
def test_uses_are_the_heads_that_know_the_groups(kind: Any) -> None:
    X, y, _ = data(10)
    models = {
        use: kind(
            use=use, C=0.3, draws=3, random_state=2, **({"by_class": True} if kind is Eiil else {"adjustment": 0.0})
        ).fit(X, y)
        for use in ("reweight", "subsample", "worst-case")
    }
    groups = models["reweight"].inferred_groups_
    assert all(np.array_equal(m.inferred_groups_, groups) for m in models.values())
    same(models["reweight"], Reweighted(C=0.3).fit(X, y, groups=groups))
    same(models["subsample"], GroupBalanced(C=0.3, draws=3, random_state=2).fit(X, y, groups=groups))
    Z = standardised(X)

    def objective(model: LinearHead) -> float:
        losses = -log_softmax(np.column_stack([np.zeros(len(y)), Z @ model.coef_[0] + model.intercept_]), axis=1)[
            np.arange(len(y)), y
        ]
        return max(losses[groups == g].mean() for g in np.unique(groups)) + (model.coef_**2).sum() / (0.6 * len(y))

    least = objective(models["worst-case"])
    assert models["worst-case"].gap_ <= 1e-4 and models["worst-case"].group_weights_.sum() == pytest.approx(1)
    assert all(objective(m) > least - 1e-4 for m in (models["reweight"], models["subsample"], Plain(C=0.3).fit(X, y)))


@pytest.mark.parametrize("k", [2, 3])
def test_jtt_is_plain_where_errors_count_once_and_else_repeats_them(k: int) -> None:
    X, y, _ = data(11, k)
    start = Jtt(C=0.5, first_C=0.05, random_state=3, **TIGHT)
    settings_ = [
        {"upweight": 1.0}, {"upweight": 0.0, "multiplicity": "copies"},
        {"upweight": 4.0}, {"upweight": 3.0, "multiplicity": "copies"},
    ]  # fmt: skip
    once, none, four, three = start.path(X, y, settings_)
    plain = Plain(C=0.5, **TIGHT).fit(X, y)
    same(once, plain)
    same(none, plain)
    same(four, three, atol=1e-12)
    times = np.where(four.inferred_groups_ == 1, 4, 1)
    Z = standardised(X)
    oracle = LogisticRegression(C=0.5 * len(y) / times.sum(), **TIGHT).fit(np.repeat(Z, times, 0), np.repeat(y, times))
    same(four, oracle)
    assert once.effective_sample_size_ == pytest.approx(len(y))
    assert four.effective_sample_size_ == pytest.approx(times.sum() ** 2 / (times**2).sum())


@pytest.mark.parametrize("kind", [Jtt, Eiil])
def test_a_first_head_without_errors_is_refused_with_the_remedy(kind: Any) -> None:
    X, y, _ = data(12)
    X = np.column_stack([X, 20.0 * y])
    with pytest.raises(
        ValueError, match=r"all 240 rows right.* smaller first_C \(it is 1\) or errors='out-of-fold', or no_"
    ):
        kind(errors="in-sample", first_C=1.0).fit(X, y)
    with pytest.raises(ValueError, match=r"all 240 rows right.* smaller first_C \(it is 1\), or no_errors='plain'"):
        kind(first_C=1.0).fit(X, y)
    model = kind(first_C=1.0, no_errors="plain", **TIGHT, **({} if kind is Jtt else {"use": "reweight"})).fit(X, y)
    same(model, Plain(**TIGHT).fit(X, y))
    assert not model.inferred_groups_.any()
    alternating, labels = np.array([[0.0], [1.0], [0.0], [1.0]]), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"all 4 rows wrong; make first_C larger, it is 1"):
        kind(first_C=1.0, folds=4).fit(np.array([[0.0], [2.0], [0.9], [1.1]]) + 0 * alternating, labels)


def test_spare_weights_and_their_powers_by_class() -> None:
    codes, y = np.array([2, 2, 0, 1, 0, 0]), np.array([1, 1, 0, 0, 0, 0])
    mass = np.bincount(codes, weights=within_classes(codes, y, np.array([2.0, 5.0])))
    np.testing.assert_allclose(mass, [3 * 0.25, 3 * 0.75, 3.0])  # sizes 3 and 1 at power 2: masses 1/3 and 1
    rng = np.random.default_rng(13)
    side = np.r_[np.tile([0, 0, 0, 1], 50), np.tile([0, 1, 1], 40)]
    y = np.repeat([0, 1], [200, 120])
    X = np.column_stack([y + rng.normal(size=320) * np.where(y, 1.0, 0.01) + np.where(y, 0, 9 * side)])
    for rows in (np.arange(320), np.arange(320)[::-1]):  # class 0 first, then class 1 first
        model = Spare(clusters=2, random_state=0, standardize=False).fit(X[rows], y[rows])
        assert model.powers_.tolist() == [1.0, 2.0] and model.silhouettes_[0] > 0.9 > model.silhouettes_[1]
        assert adjusted_rand_score(side[rows][y[rows] == 0], model.inferred_groups_[y[rows] == 0]) == 1


def test_spare_is_a_weighted_fit_that_gives_every_class_and_with_power_1_every_cluster_the_same_mass() -> None:
    X, y, _ = data(14, 3)
    model = Spare(C=0.2, power=1.0, random_state=0, **TIGHT).fit(X, y)
    codes = model.inferred_groups_
    sizes, per_class = np.bincount(codes), np.array([len(np.unique(codes[y == c])) for c in range(3)])
    w = len(y) / (3 * per_class[y] * sizes[codes])
    assert np.array_equal(model.powers_, np.ones(3))
    same(model, LogisticRegression(C=0.2, **TIGHT).fit(standardised(X), y, sample_weight=w))
    assert model.effective_sample_size_ == pytest.approx(w.sum() ** 2 / (w**2).sum())


# A second part of the rows


@pytest.mark.parametrize("k", [2, 3])
def test_afr_is_class_balanced_without_attention_and_the_first_head_where_it_is_tied(k: int) -> None:
    X, y, _ = data(15, k, shift=0.5)
    Z, second = standardised(X), Halves(0.8, 1).second(y)
    first = np.setdiff1d(np.arange(len(y)), second)
    start = Afr(first_C=0.3, random_state=1, standardize=False, tol=1e-10, max_iter=5000)
    free, tied = start.path(Z, y, [{"C": 1e7, "gamma": 0.0}, {"C": 1e-10, "gamma": 5.0}])
    balanced = ClassBalanced(C=1e7, standardize=False, tol=1e-10, max_iter=5000).fit(Z[second], y[second])
    # The anchor holds what the classes share, which no probability depends on.
    np.testing.assert_allclose(free.predict_proba(Z), balanced.predict_proba(Z), atol=1e-4)
    same(tied, Plain(C=0.3, standardize=False, **TIGHT).fit(Z[first], y[first]))
    np.testing.assert_allclose(free.effective_sample_size_, np.bincount(y[second]))
    assert not free.collapsed_


def test_afr_minimises_its_formula() -> None:
    X, y, _ = data(16)
    Z, second = standardised(X), Halves(0.8, 2).second(y)
    first = np.setdiff1d(np.arange(len(y)), second)
    model = Afr(C=0.05, gamma=3.0, first_C=0.1, random_state=2, **TIGHT).fit(X, y)
    theta = flat(Plain(C=0.1, standardize=False, **TIGHT).fit(Z[first], y[first]))[0]
    A, sign = np.column_stack([Z[second], np.ones(len(second))]), 2 * y[second] - 1
    mu = np.exp(-3 * expit(sign * (A @ theta))) / np.bincount(y[second])[y[second]]
    w = len(second) * mu / mu.sum()
    least = minimize(
        lambda t: 0.5 * ((t - theta) ** 2).sum() + 0.05 * w @ np.logaddexp(0, -sign * (A @ t)), theta, tol=1e-10
    )
    np.testing.assert_allclose(flat(model)[0], least.x, atol=1e-5)
    ess = [(w[y[second] == c].sum()) ** 2 / (w[y[second] == c] ** 2).sum() for c in (0, 1)]
    np.testing.assert_allclose(model.effective_sample_size_, ess, rtol=1e-4)


def test_afr_attends_to_the_minority_by_held_out_estimates_only_and_says_when_one_row_decides() -> None:
    rng = np.random.default_rng(17)
    y = np.arange(200) % 2
    minority = np.arange(200) // 2 % 8 == 0
    X = rng.normal(size=(200, 400))  # separable: the first head is right about every row it has seen
    X[:, 0] += 8 * np.where(minority, 1 - y, y)
    start = Afr(gamma=10.0, first_C=10.0, random_state=0)
    held, seen, sharp = start.path(X, y, [{}, {"estimates": "in-sample"}, {"gamma": 200.0}])
    rows = np.bincount(y[Halves(0.8, 0).second(y)])
    assert (seen.effective_sample_size_ > 0.99 * rows).all() and (held.effective_sample_size_ < 0.7 * rows).all()
    assert (sharp.effective_sample_size_ < 1.5).any() and sharp.collapsed_
    assert not held.collapsed_ and not seen.collapsed_


def test_attention_falls_with_the_probability_and_is_fair_to_classes() -> None:
    p, y = np.array([0.1, 0.9, 0.5, 0.5]), np.array([0, 0, 0, 1])
    w = attention(p, y, 2.0, balanced=True)
    np.testing.assert_allclose(w / w[3], np.exp(-2 * (p - 0.5)) / np.array([3, 3, 3, 1]))
    np.testing.assert_allclose(
        attention(p, y, 2.0, balanced=False) / w, np.array([3, 3, 3, 1]) / np.mean(np.array([3, 3, 3, 1]) * w)
    )
    assert w.mean() == pytest.approx(1) and effective_size(np.array([2.0, 2, 0, 0])) == 2


@pytest.mark.parametrize("by_class", [True, False])
def test_self_fine_tunes_on_the_held_out_rows_where_the_heads_disagree_most(by_class: bool) -> None:
    X, y, _ = data(18)
    Z, held = standardised(X), np.arange(len(y)) % 3 == 0
    A, n = np.column_stack([Z, np.ones(len(y))]), (~held).sum()
    model = SelfDisagreement(C=0.1, n=12, by_class=by_class, first_steps=4, steps=7, standardize=False, **TIGHT).fit(
        Z[~held], y[~held], held_out=HeldOut(Z[held], y[held])
    )
    final = LogisticRegression(C=0.1, **TIGHT).fit(Z[~held], y[~held])

    def walk(theta: np.ndarray, rows: np.ndarray, w: np.ndarray, length: float, steps: int) -> np.ndarray:
        speed = np.zeros(len(theta))
        for _ in range(steps):
            speed = 0.9 * speed - length * A[rows].T @ (w * (expit(A[rows] @ theta) - y[rows]))
            theta = theta + speed
        return theta

    bound = (np.linalg.eigvalsh(A[~held].T @ A[~held] / n).max()) * 1.1 / 4
    early = walk(np.zeros(A.shape[1]), np.flatnonzero(~held), np.full(n, 1 / n), 1 / bound, 4)
    p, q = expit(A[held] @ early), final.predict_proba(Z[held])[:, 1]
    apart = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    order = np.flatnonzero(held)[np.argsort(-apart)]
    chosen = np.concatenate([order[y[order] == c][:6] for c in (0, 1)]) if by_class else order[:12]
    assert set(np.flatnonzero(held)[model.rows_]) == set(chosen) and len(model.rows_) == 12
    np.testing.assert_allclose(model.disagreements_, np.sort(apart[np.isin(np.flatnonzero(held), chosen)])[::-1], 1e-3)
    w = 1 / (2 * np.bincount(y[chosen])[y[chosen]])
    np.testing.assert_allclose(flat(model)[0], walk(flat(final)[0], chosen, w, 1e-2, 7), atol=1e-4)


# Two heads at once


@pytest.mark.parametrize("k", [2, 3])
def test_lff_takes_the_steps_of_its_formula(k: int) -> None:
    X, y, groups = data(19, k)
    Z, n = standardised(X), len(y)
    A, Y = np.column_stack([Z, np.ones(n)]), np.eye(k)[y]
    length = 0.8 / ((0.25 if k == 2 else 0.5) * (np.linalg.eigvalsh(Z.T @ Z / n).max() + 1))
    theta = [np.zeros((k, 5)), np.zeros((k, 5))]
    velocity, mean, weights = [np.zeros((k, 5)), np.zeros((k, 5))], None, np.empty(n)
    for _ in range(40):
        p = [softmax(A @ t.T, axis=1) for t in theta]
        losses = np.array([-np.log((q * Y).sum(axis=1)) for q in p])
        mean = losses if mean is None else 0.6 * mean + 0.4 * losses
        biased, own = (m / np.array([m[y == c].max() for c in range(k)])[y] for m in mean)
        weights = biased / (biased + own)
        for j, v in enumerate(((p[0] * Y).sum(axis=1) ** 0.7, weights)):
            gradient = ((p[j] - Y) * v[:, None]).T @ A / n
            if k == 2:  # one logit, whose step is the step of the second class's
                gradient = np.array([0 * gradient[1], gradient[1]])
            velocity[j] = 0.5 * velocity[j] - length * gradient
            theta[j] = theta[j] + velocity[j]
    model = Lff(steps=40, rate=0.8, momentum=0.5, smoothing=0.6).fit(X, y)
    rows = slice(1, None) if k == 2 else slice(None)
    np.testing.assert_allclose(flat(model), theta[1][rows], atol=1e-4)
    np.testing.assert_allclose(
        np.column_stack([model.biased_coef_, model.biased_intercept_]), theta[0][rows], atol=1e-4
    )
    np.testing.assert_allclose(model.weights_, weights, atol=1e-4)
    assert model.weights_[groups % 2 == 1].mean() > 1.2 * model.weights_[groups % 2 == 0].mean()


# Refusals


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SelfDisagreement(n=1, by_class=True), "n must be at least 2, found 1"),
        (SelfDisagreement(n=0), "n must be at least 1, found 0"),
        (SelfDisagreement(penalty="l1"), "fits its first head with penalty 'l2' only, found 'l1'"),
    ],
    ids=["a row for each class", "a row", "penalty"],
)
def test_self_refuses_what_cannot_be(model: Head, message: str) -> None:
    X, y, _ = data(20)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, held_out=HeldOut(X, y))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Jtt(first_C=0.0), "first_C must be positive, found 0.0"),
        (Spare(first_steps=0), "first_steps must be at least 1, found 0"),
        (Jtt(errors="both"), "errors must be 'in-sample' or 'out-of-fold', found 'both'"),
        (Jtt(folds=1), "folds must be at least 2, found 1"),
        (Jtt(multiplicity="twice"), "multiplicity must be 'weight' or 'copies', found 'twice'"),
        (Jtt(upweight=0.0), "an error must count something: its weight would be 0; raise upweight"),
        (Jtt(no_errors="skip"), "no_errors must be 'refuse' or 'plain', found 'skip'"),
        (Eiil(use="both"), "use must be one of 'worst-case', 'reweight', 'subsample', found 'both'"),
        (Eiil(use="subsample", draws=0), "draws must be at least 1, found 0"),
        (Eiil(penalty="l1"), "penalty 'l2' only, found 'l1'"),
        (George(space="pixels"), "space must be one of 'margin', 'logits', 'features', found 'pixels'"),
        (George(clusters=0), "clusters must be at least 1, max_clusters at least 2 .*, found 0, 10 and 0"),
        (Spare(max_clusters=1), "clusters must be at least 1, max_clusters at least 2 .*, found None, 1 and 0"),
        (Afr(gamma=-1.0), "gamma must be at least 0, found -1.0"),
        (Afr(gamma=1e6), r"gamma = 1e\+06 leaves class \d .* no weight; take a smaller gamma"),
        (Afr(share=1.0), "share must lie between 0 and 1, found 1.0"),
        (Afr(estimates="guessed"), "estimates must be 'held-out' or 'in-sample', found 'guessed'"),
        (Afr(penalty="l1"), "Afr ties its head to the first one by 'l2' only, found 'l1'"),
        (Afr(C=0.0), "C must be positive, found 0.0"),
        (Lff(q=-1.0), "q must be at least 0, found -1.0"),
        (Lff(steps=0), "steps must be at least 1, found 0"),
        (Lff(rate=1.5), "rate must be above 0 and at most 1, found 1.5"),
        (Lff(momentum=1.0), "momentum must be at least 0 and below 1, found 1.0"),
        (Lff(smoothing=1.0), "smoothing must be at least 0 and below 1, found 1.0"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_what_cannot_be_is_refused(model: Head, message: str) -> None:
    X, y, _ = data(20)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)


@pytest.mark.parametrize("model", [Jtt(), Eiil(), Afr()], ids=lambda m: type(m).__name__)
def test_a_class_of_one_row_is_refused_where_rows_are_kept_apart(model: Head) -> None:
    X, y, _ = data(21)
    y[0] = 2
    with pytest.raises(ValueError, match=r"class 2 \(counted from 0\) has one row only.*add rows"):
        model.fit(X, y)
