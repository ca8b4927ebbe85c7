"""Laws of heads that held-out rows steer, heads of text, cheap references; and what all heads of the kind keep."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlapping import data, extras, flat, group_means, like, same, worst_group
from scipy.special import softmax
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from solving import Problem, solve

from embedx.probes import ConvexHead, Head, HeldOut, On
from embedx.probes._features import Features
from embedx.probes._prompts import Prompts, embedded
from embedx.probes.bias_tuned import BiasTuned
from embedx.probes.class_balanced import ClassBalanced
from embedx.probes.class_subsampled import ClassSubsampled
from embedx.probes.cvar import Cvar
from embedx.probes.dfr import Dfr
from embedx.probes.dfr_train import DfrTrain
from embedx.probes.group_balanced import GroupBalanced
from embedx.probes.group_dro import GroupDro
from embedx.probes.irm import Irm
from embedx.probes.nearest_mean import NearestMean
from embedx.probes.nearest_neighbours import NearestNeighbours
from embedx.probes.plain import Plain
from embedx.probes.reweighted import Reweighted
from embedx.probes.v_rex import VRex
from embedx.probes.wise import Wise
from embedx.probes.worst_group_boosting import WorstGroupBoosting
from embedx.probes.zero_shot import ZeroShot

KINDS: tuple[type[Head], ...] = (
    GroupDro, Cvar, VRex, Irm, WorstGroupBoosting, BiasTuned, Dfr, DfrTrain, ClassSubsampled, NearestMean,
    NearestNeighbours, ZeroShot, Wise,
)  # fmt: skip
SEEDS, CLASSES = st.integers(0, 2**32 - 1), st.sampled_from([2, 3])
TIGHT = {"tol": 1e-8, "max_iter": 5000}
few = settings(deadline=None, max_examples=5)
every_head = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@every_head
@pytest.mark.parametrize("k", [2, 3])
def test_path_equals_separate_fits_whatever_the_labels_are_called(kind: type[Head], k: int) -> None:
    X, y, groups = data(3, k)
    given = extras(kind, 4, k) | ({"groups": groups} if "groups" in kind.needs else {})
    few_draws = {"draws": 2} if "draws" in kind().get_params() else {}
    grid = [dict(s) | few_draws for s in kind.grid[:: -max(1, len(kind.grid) // 2)]]
    for setting, model in zip(grid, kind(random_state=1).path(X, y, grid, **given), strict=True):
        alone = kind(random_state=1, **setting).fit(X, y, **given)
        assert model.get_params() == alone.get_params() and vars(model).keys() == vars(alone).keys()
        np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), atol=2e-3)
        again = pickle.loads(pickle.dumps(model))
        assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    names = np.array(["eel", "ape", "cat"][:k])
    words = np.sort(names)
    if "held_out" in given:
        given["held_out"] = given["held_out"]._replace(y=words[given["held_out"].y])
    named = kind(random_state=1, **grid[-1]).fit(X, words[y], **given)
    plain = kind(random_state=1, **grid[-1]).fit(X, y, **(given | extras(kind, 4, k)))
    assert np.array_equal(named.predict(X), words[plain.predict(X)])


@every_head
def test_every_head_refuses_what_lacks_what_it_needs(kind: type[Head]) -> None:
    X, y, groups = data(5)
    full = extras(kind) | {"groups": groups}
    for need in kind.needs:
        name = need.split()[0]
        with pytest.raises(ValueError, match=f"{kind.__name__} needs .*{name}="):
            kind().fit(X, y, **{key: value for key, value in full.items() if key != name})
    if "held_out groups" in kind.needs:
        with pytest.raises(ValueError, match="needs the group of every held-out row"):
            kind().fit(X, y, **(full | {"held_out": full["held_out"]._replace(groups=None)}))
    assert (not kind.supervision) == (not kind.needs)
    assert kind.random == (
        not np.array_equal(*(kind(random_state=s).fit(X, y, **full).predict_proba(X) for s in (1, 2)))
    )


# Steered by held-out rows


@few
@given(seed=SEEDS, k=CLASSES, kind=st.sampled_from([BiasTuned, WorstGroupBoosting]))
def test_steered_heads_are_on_their_rows_at_least_as_good_as_plain(seed: int, k: int, kind: type[ConvexHead]) -> None:
    X, y, groups = data(seed, k)
    held_out = HeldOut(*data(seed, k, 90)) if seed % 2 else HeldOut(*data(seed + 1, k, 90))
    needed = {"groups": groups} if "groups" in kind.needs else {}
    model, plain = kind(C=0.1).fit(X, y, held_out=held_out, **needed), Plain(C=0.1).fit(X, y)
    steps = model.held_out_worst_
    assert worst_group(plain, held_out) == steps[0] <= steps.max() == worst_group(model, held_out)
    assert kind is BiasTuned or (steps[model.round_] == steps.max() and (steps[: model.round_] < steps.max()).all())


def test_bias_tuned_finds_the_best_threshold_of_all() -> None:
    for seed in range(8):
        X, y, _ = data(seed)
        held_out = HeldOut(*data(seed + 50, 2, 90))
        model, plain = BiasTuned().fit(X, y, held_out=held_out), Plain().fit(X, y)
        np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-12)
        np.testing.assert_allclose(model.intercept_ - model.shift_, plain.intercept_, atol=1e-12)
        logits = plain.decision_function(held_out.X)
        levels = np.sort(logits)
        cuts = np.r_[levels[0] - 1, (levels[1:] + levels[:-1]) / 2, levels[-1] + 1]
        each = [group_means((logits > c) == held_out.y, np.asarray(held_out.groups)).min() for c in cuts]
        assert max(each) == pytest.approx(model.held_out_worst_[1]) == worst_group(model, held_out)
        equals = np.abs(cuts[np.isclose(each, max(each))]).min()
        assert abs(model.shift_[0]) == pytest.approx(
            0 if each[0] == max(each) == model.held_out_worst_[0] else equals
        ) or (model.held_out_worst_[0] == model.held_out_worst_[1] and not model.shift_.any())


def test_bias_tuned_knows_what_its_shifts_do_with_three_classes() -> None:
    gains = []
    for seed in range(8):
        X, y, _ = data(seed, 3)
        held_out = HeldOut(*data(seed + 50, 3, 90))
        model = BiasTuned().fit(X, y, held_out=held_out)
        assert model.held_out_worst_[1] == worst_group(model, held_out)
        gains.append(np.diff(model.held_out_worst_)[0])
    assert min(gains) >= 0 < max(gains)


def test_boosting_follows_its_rule_and_says_how_few_rows_are_left() -> None:
    X, y, groups = data(12)
    held_out = HeldOut(*data(13, 2, 90))
    w, path = np.ones(4), []
    for _ in range(4):
        rows = w[groups] / w[groups].mean()
        (found,) = solve(Features.standardize(X), y, [Problem(rows, 0.1)])
        head = like(Plain(), Plain().fit(X, y), coef_=found.coef, intercept_=found.intercept)
        right = group_means(head.predict(held_out.X) == held_out.y, np.asarray(held_out.groups))
        path.append((right.min(), w / w[groups].mean(), rows.sum() ** 2 / (rows**2).sum()))
        w = w * np.exp(1.5 * (1 - right))
    model = WorstGroupBoosting(C=0.1, eta=1.5, rounds=3).fit(X, y, groups=groups, held_out=held_out)
    np.testing.assert_allclose(model.held_out_worst_, [p[0] for p in path])
    _, weights, size = path[model.round_]
    np.testing.assert_allclose(model.group_weights_, weights)
    assert model.effective_size_ == pytest.approx(size)
    fewer = HeldOut(*(part[np.asarray(held_out.groups) != 2] for part in held_out))
    with pytest.raises(ValueError, match="1 of the 4 training groups have no held-out row"):
        WorstGroupBoosting().fit(X, y, groups=groups, held_out=fewer)
    for wrong, words in (({"eta": 0.0}, "eta must be positive"), ({"rounds": 0}, "rounds must be at least 1")):
        with pytest.raises(ValueError, match=words):
            WorstGroupBoosting(**wrong).fit(X, y, groups=groups, held_out=held_out)


def test_groups_that_only_held_out_rows_have_count_and_are_not_taken_for_others() -> None:
    X, y, groups = data(14)
    Xv, yv, gv = data(15, 2, 90)
    kept = groups != 1
    model = WorstGroupBoosting(C=0.1).fit(X[kept], y[kept], groups=groups[kept], held_out=HeldOut(Xv, yv, gv))
    assert len(model.group_weights_) == 3
    assert model.held_out_worst_.max() == worst_group(model, HeldOut(Xv, yv, gv))


# Subsamples


def test_published_sizes_of_subsamples() -> None:
    waterbirds, celeba = (3498, 184, 56, 1057), (71629, 66874, 22880, 1387)
    val = {532: (467, 466, 133, 133), 728: (8535, 8276, 2874, 182)}
    rng = np.random.default_rng(0)

    def total(model: ConvexHead, counts: tuple[int, ...]) -> float:
        groups = np.repeat(np.arange(4), counts)
        X = rng.normal(size=(len(groups), 1)).astype(np.float32)
        return model._weightings(model._checked(Features.identity(X), groups // 2, groups))

    for size, counts in val.items():
        draws = total(Dfr(random_state=0), counts)
        assert (draws.sum(1) == size).all() and draws.shape == (20, sum(counts)) and len(np.unique(draws, axis=0)) == 20
    for size, counts in ((224, waterbirds), (5548, celeba)):
        assert (total(DfrTrain(random_state=0), counts).sum(1) == size).all()
        assert total(GroupBalanced(draws=1, random_state=0), counts).sum() == size
    assert total(ClassSubsampled(draws=1, random_state=0), waterbirds).sum() == 2226
    first = np.cumsum((0, *waterbirds[:3]))  # RWG is published as n / n_g, RWY as n / n_c; ours have mean 1
    np.testing.assert_allclose(
        total(Reweighted(), waterbirds)[0][first] * 4, [1.37078, 26.0598, 85.625, 4.53642], rtol=1e-5
    )
    np.testing.assert_allclose(total(ClassBalanced(), waterbirds)[0][first[::2]] * 2, [1.30228, 4.30818], rtol=1e-5)


def test_subsampling_heads_are_means_of_fits_on_their_draws() -> None:
    X, y, groups = data(16)
    assert [s["C"] for s in Dfr.grid] == sorted([1, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01]) and Dfr.fits_on is On.VALIDATION
    same(
        Dfr(C=0.1, random_state=3, draws=10).fit(X, y, groups=groups),
        DfrTrain(C=0.1, random_state=3).fit(X, y, groups=groups),
    )
    model = ClassSubsampled(C=0.1, draws=3, random_state=3, **TIGHT).fit(X, y)
    same(GroupBalanced(C=0.1, draws=3, random_state=3, **TIGHT).fit(X, y, groups=y), model)
    sparse = Dfr(draws=1, random_state=3).path(X, y, groups=groups)
    assert any(0 < np.count_nonzero(m.coef_) < 4 for m in sparse) and DfrTrain.fits_on is On.TRAIN


# Cheap references


@few
@given(seed=SEEDS, k=CLASSES, dtype=st.sampled_from([np.float32, np.float64]))
def test_nearest_mean_is_gaussian_classes_of_one_variance(seed: int, k: int, dtype: Any) -> None:
    X, y, _ = data(seed, k)
    model = NearestMean().fit(X.astype(dtype), y)
    Z = StandardScaler().fit_transform(X)
    oracle = GaussianNB(priors=np.full(k, 1 / k)).fit(Z, y)
    oracle.var_[:] = ((Z - oracle.theta_[y]) ** 2).mean()
    np.testing.assert_allclose(model.predict_proba(X), oracle.predict_proba(Z), atol=1e-4)
    exact = NearestMean().fit(np.repeat(np.eye(k), 5, axis=0), np.repeat(np.arange(k), 5))
    assert exact.variance_ == 1 and np.array_equal(exact.predict(np.eye(k)), np.arange(k))


@few
@given(
    seed=SEEDS, k=CLASSES, neighbours=st.sampled_from([1, 5, 21, 500]), metric=st.sampled_from(["euclidean", "cosine"])
)
def test_nearest_neighbours_vote_as_in_scikit_learn(seed: int, k: int, neighbours: int, metric: str) -> None:
    X, y, _ = data(seed, k)
    new = data(seed + 1, k)[0]
    scaler = StandardScaler().fit(X)
    oracle = KNeighborsClassifier(min(neighbours, len(X)), metric=metric).fit(scaler.transform(X), y)
    shares = oracle.predict_proba(scaler.transform(new)) * min(neighbours, len(X))
    model = NearestNeighbours(neighbours, metric).fit(X, y)
    votes = (shares + 1 / k) / (min(neighbours, len(X)) + 1)
    np.testing.assert_allclose(model.predict_proba(new), votes, atol=1e-9)
    soft, hot = (NearestNeighbours(neighbours, "cosine", t).fit(X, y).predict_proba(new) for t in (0.01, 1e6))
    np.testing.assert_allclose(hot, NearestNeighbours(neighbours, "cosine").fit(X, y).predict_proba(new), atol=1e-5)
    assert neighbours == 1 or not np.allclose(soft, hot, atol=1e-2)


def test_neighbours_over_blocks_and_of_changed_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    X, y, _ = data(18)
    whole = NearestNeighbours(5).fit(X, y)
    rows = X.copy()
    before = whole.predict_proba(rows)
    rows[:] = X[::-1]  # the same array, other rows: what was looked up last must not answer
    np.testing.assert_array_equal(whole.predict_proba(rows), before[::-1])
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr("embedx.probes._features.BLOCK_BYTES", 8 * 4 * 50)  # blocks of 50 rows, streamed
    mapped = Features.standardize(np.load(tmp_path / "X.npy", mmap_mode="r"))
    (streamed,) = NearestNeighbours(5).path(mapped, y, [{}])
    np.testing.assert_allclose(streamed.predict_proba(X), before, atol=1e-12)
    for wrong, words in (
        ({"neighbours": 0}, "neighbours must be at least 1, found 0"), ({"metric": "city"}, "metric must be"),
        ({"temperature": 0.07}, "go with metric 'cosine', found 0.07 with 'euclidean'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            NearestNeighbours(**wrong).fit(X, y)


# Text


def text(seed: int, k: int) -> Prompts:
    rng = np.random.default_rng(seed)
    return Prompts(rng.normal(size=(k, 6)), rng.normal(size=(4, 6)), 20.0)


@few
@given(seed=SEEDS, k=CLASSES, factor=st.sampled_from([0.1, 1.0, 30.0]))
def test_zero_shot_is_cosines_and_the_length_of_anything_is_nothing(seed: int, k: int, factor: float) -> None:
    X, y, _ = data(seed, k)
    prompts = text(seed, k)
    model = ZeroShot().fit(X, y, prompts=prompts)
    U, T = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (X @ prompts.projection, prompts.text))
    np.testing.assert_allclose(model.predict_proba(X), softmax(20.0 * U @ T.T, axis=1), atol=1e-10)
    longer = ZeroShot().fit(X, y, prompts=prompts._replace(text=prompts.text * factor))
    np.testing.assert_allclose(longer.predict_proba(factor * X), model.predict_proba(X), atol=1e-10)
    assert ZeroShot().fit(X[:0:-1], y[:0:-1], prompts=prompts).predict(X).tolist() == model.predict(X).tolist()


@few
@given(
    seed=SEEDS, k=CLASSES, start=st.sampled_from(["zero-shot", "zero"]), dtype=st.sampled_from([np.float32, np.float64])
)
def test_wise_interpolates_logits_between_its_ends(seed: int, k: int, start: str, dtype: Any) -> None:
    X, y, _ = data(seed, k)
    X, prompts = X.astype(dtype), text(seed, k)
    alphas = (0.0, 0.3, 0.5, 1.0)
    path = Wise(C=0.1, start=start, tol=1e-4).path(X, y, [{"alpha": a} for a in alphas], prompts=prompts)
    zero, one = path[0].decision_function(X), path[-1].decision_function(X)
    assert np.array_equal(zero, ZeroShot().fit(X, y, prompts=prompts).decision_function(X))
    fitted = Wise(1.0, 0.1, start, tol=1e-4).fit(X, y, prompts=prompts)
    assert np.array_equal(flat(fitted), flat(path[-1]))
    for a, model in zip(alphas, path, strict=True):
        mixed = (1 - a) * zero.astype(float) + a * one.astype(float)
        size = np.abs(mixed).max()
        np.testing.assert_allclose(
            model.decision_function(X), mixed, atol=1e-6 * size if dtype == np.float64 else 3e-6 * size
        )


@few
@given(seed=SEEDS, k=CLASSES)
def test_wise_fits_its_end_in_the_coordinates_of_the_text(seed: int, k: int) -> None:
    X, y, _ = data(seed, k)
    prompts = text(seed, k)
    U = embedded(X, Prompts(prompts.text, prompts.projection, 20.0))
    np.testing.assert_allclose(np.linalg.norm(U, axis=1), 20)
    (oracle,) = solve(Features.identity(U), y, [Problem(np.ones(len(y)), 0.01, tol=1e-7)])
    free = Wise(1.0, 0.01, "zero", tol=1e-7).fit(X, y, prompts=prompts)
    np.testing.assert_allclose(free.coef_, oracle.coef, atol=1e-4)
    held, zero = Wise(1.0, 1e-9, tol=1e-7).fit(X, y, prompts=prompts), ZeroShot().fit(X, y, prompts=prompts)
    np.testing.assert_allclose(held.coef_, zero.coef_, atol=1e-4)  # strong regularisation leaves the text's head


@pytest.mark.parametrize(
    ("prompts", "error", "words"),
    [
        (np.eye(4)[:2], TypeError, "prompts must be Prompts.*found ndarray"),
        (Prompts(np.eye(4)[:3]), ValueError, "text vectors for 3 classes, and 2 among the labels"),
        (Prompts(np.eye(4)[:2] * [[0], [1]]), ValueError, "vector of class 0 .* is zero"),
        (Prompts(np.eye(5)[:2]), ValueError, r"width 4 and text of width 5 need .* \(4, 5\), found no projection"),
        (Prompts(np.eye(5)[:2], np.eye(5)), ValueError, r"need .* \(4, 5\), found a projection of shape \(5, 5\)"),
        (Prompts(np.eye(4)[:2], None, 0.0), ValueError, "scale of prompts must be positive, found 0.0"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompts: Any, error: type[Exception], words: str) -> None:
    X, y, _ = data(20)
    with pytest.raises(error, match=words):
        ZeroShot().fit(X, y, prompts=prompts)


def test_settings_that_mean_nothing_are_refused() -> None:
    X, y, groups = data(21)
    cases: list[tuple[Head, str]] = [
        (Cvar(alpha=0.0), "alpha must be above 0 and at most 1, found 0.0"),
        (Cvar(alpha=1.5), "alpha must be above 0"),
        (Wise(alpha=1.1), "alpha must lie between 0 and 1, found 1.1"),
        (Wise(start="middle"), "start must be 'zero-shot' or 'zero', found 'middle'"),
        (Wise(C=0.0), "C must be positive, found 0.0"),
        (Dfr(draws=0), "draws must be at least 1, found 0"),
    ]
    for model, words in cases:
        needed = {"prompts": text(0, 2)} if "prompts" in model.needs else {"groups": groups}
        with pytest.raises(ValueError, match=words):
            model.fit(X, y, **needed)
