"""Laws of the head that is tuned on the least spurious rows: its minimum, its steps, its rows, what it closes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlapping import flat
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.preprocessing import StandardScaler

from embedx.probes import Head, Need, supervision_in_words
from embedx.probes.low_spuriosity import LowSpuriosity, size_of
from embedx.probes.plain import Plain

TIGHT: dict[str, Any] = {"tol": 1e-9, "max_iter": 5000}


def planted(seed: int, k: int = 2, n: int = 900, share: float = 0.95) -> tuple[np.ndarray, ...]:
    """X (n, 2 k + 1), y, whether the cue is that of the class, how strongly it shows: weak core, strong cue, noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    shown = rng.random(n) < share
    cue = np.where(shown, y, (y + rng.integers(1, k, n)) % k)
    X = rng.normal(size=(n, 2 * k + 1))
    X[np.arange(n), y] += 2
    X[np.arange(n), k + cue] += 4
    return X, y, shown, X[np.arange(n), k + y].copy()


def minimum(Z: np.ndarray, y: np.ndarray, start: np.ndarray, C: float) -> np.ndarray:
    """Of the formula in the docstring, by another solver; two classes as a softmax over (0, logit)."""

    def formula(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(start.shape)
        F: np.ndarray = Z @ theta[:, :-1].T + theta[:, -1]
        F = np.column_stack([np.zeros(len(Z)), F]) if len(theta) == 1 else F
        loss, off = logsumexp(F, axis=1) - F[np.arange(len(Z)), y], softmax(F, axis=1)
        off[np.arange(len(Z)), y] -= 1
        slope = off[:, -len(theta) :].T @ np.column_stack([Z, np.ones(len(Z))]) + (theta - start) / C
        return float(loss.sum() + ((theta - start) ** 2).sum() / (2 * C)), slope.ravel()

    return minimize(formula, start.ravel(), jac=True, tol=1e-12, options={"maxiter": 5000}).x.reshape(start.shape)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 99), k=st.sampled_from([2, 3]), C=st.sampled_from([1e-3, 0.1, 5.0]), raw=st.booleans())
def test_the_convex_head_is_the_minimum(seed: int, k: int, C: float, raw: bool) -> None:
    X, y, _, s = planted(seed, k, 90)
    first = Plain(C=0.1, standardize=not raw).fit(X, y)
    model = LowSpuriosity(C=C, k=9, start=first.folded(), standardize=not raw, **TIGHT).fit(X, y, spuriosity=s)
    Z = X if raw else StandardScaler().fit_transform(X)
    rows = np.concatenate([np.flatnonzero(y == c)[np.argsort(s[y == c])[:9]] for c in range(k)])
    assert list(model.tuning_rows_) == sorted(rows) and model.converged_
    np.testing.assert_allclose(flat(model), minimum(Z[rows], y[rows], flat(first), C), atol=2e-5)
    assert model.moved_ == pytest.approx(np.linalg.norm(flat(model) - flat(first)), abs=1e-9)
    alike = LowSpuriosity(C=C, k=9, first_C=0.1, standardize=not raw).fit(X, y, spuriosity=s)  # starts plain by itself
    np.testing.assert_allclose(flat(alike), flat(model), atol=2e-3)


@pytest.mark.parametrize("k", [2, 3])
def test_descent_is_that_of_the_published_recipe(k: int) -> None:
    import torch

    X, y, _, s = planted(3, k, 300)
    first = Plain(C=0.1).fit(X, y)
    W, b = first.folded()
    how = {"lr": 0.05, "momentum": 0.9, "batch": 16, "pull": 0.01, "epochs": 4, "rows": "random"}
    model = LowSpuriosity(
        k=20, start=(W, b), recipe="sgd", standardize=False, random_state=5, **how,  # pyright: ignore[reportArgumentType]
    ).fit(X, y, spuriosity=s)  # fmt: skip
    rng = np.random.RandomState(5)
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(y == c))[:20] for c in range(k)]))
    assert np.array_equal(rows, model.tuning_rows_)
    theta = np.column_stack([W, b])
    origin = torch.tensor(np.concatenate([-theta / 2, theta / 2]) if k == 2 else theta)
    Z, codes = torch.tensor(np.column_stack([X, np.ones(len(X))])[rows]), torch.tensor(y[rows])
    at = origin.clone().requires_grad_()
    optimiser = torch.optim.SGD([at], lr=0.05, momentum=0.9)
    for _ in range(4):
        for part in torch.from_numpy(rng.permutation(len(rows))).split(16):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(Z[part] @ at.T, codes[part])
            (loss + 0.01 / 2 * (at - origin).square().sum()).backward()
            optimiser.step()
    found = at.detach().numpy()
    np.testing.assert_allclose(flat(model), found[1:] - found[:1] if k == 2 else found, atol=1e-8)
    assert model.n_iter_ == 4 * int(np.ceil(20 * k / 16)) and model.converged_


@pytest.mark.parametrize("recipe", ["convex", "sgd"])
def test_a_path_is_separate_fits_and_begins_untouched(recipe: str) -> None:
    X, y, _, s = planted(4, 3, 300)
    s[y == 1] = np.nan
    first = Plain(C=0.1).fit(X, y)
    head = LowSpuriosity(k=0.2, rows="random", start=first.folded(), recipe=recipe, lr=0.05, random_state=2)
    front = head.front()
    models = head.path(X, y, front, spuriosity=s)
    for setting, model in list(zip(front, models, strict=True))[::6]:
        alone = LowSpuriosity(**{**head.get_params(), **setting}).fit(X, y, spuriosity=s)
        assert model.get_params().keys() == alone.get_params().keys() and vars(model).keys() == vars(alone).keys()
        np.testing.assert_allclose(flat(model), flat(alone), atol=1e-3)
    moved = [model.moved_ for model in models]
    assert moved == sorted(moved) and moved[0] < 1e-3 < moved[-1]
    np.testing.assert_allclose(flat(models[0]), flat(first), atol=1e-3)
    assert recipe == "convex" or [m.n_iter_ for m in models] == list(range(21))
    seeds = [head.set_params(random_state=r).fit(X, y, spuriosity=s).tuning_rows_ for r in (0, 0, 1)]
    assert np.array_equal(seeds[0], seeds[1]) and not np.array_equal(seeds[0], seeds[2])


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999), k=st.sampled_from([1, 7, 100, 0.1, 0.45]), ranked=st.lists(st.booleans(), min_size=3),
    rows=st.sampled_from(["lowest", "highest", "random", "misclassified"]), classes=st.sampled_from(["ranked", "all"]),
)  # fmt: skip
def test_which_rows_are_taken(seed: int, k: float, ranked: list[bool], rows: str, classes: str) -> None:
    X, y, _, s = planted(seed, 3, 90)
    s = np.round(s, 1)  # ties
    chosen = [c for c in range(3) if ranked[c]] or [0]
    s[~np.isin(y, chosen)] = np.nan
    s[np.flatnonzero(y == chosen[0])[:3]] = np.nan  # three rows of it could not be extracted for the ranking
    first = Plain(C=1e-3).fit(X, y)
    how: dict[str, Any] = {"k": k, "rows": rows, "classes": classes, "start": first.folded(), "random_state": seed}
    taken = LowSpuriosity(recipe="sgd", epochs=0, **how).fit(X, y, spuriosity=s).tuning_rows_
    wrong = first.predict(X) != y
    assert len(set(taken)) == len(taken)
    for c in range(3):
        pool = np.flatnonzero((y == c) & ~np.isnan(s)) if c in chosen else np.flatnonzero(y == c)
        mine = taken[y[taken] == c]
        if c not in chosen and classes == "ranked":
            assert not len(mine)
            continue
        assert set(mine) <= set(pool) and len(mine) == size_of(k, len(pool)) <= len(pool) / 2
        order = sorted(pool, key=lambda i: (s[i], i))
        if c in chosen and rows in ("lowest", "highest"):
            assert set(mine) == set(order[: len(mine)] if rows == "lowest" else order[-len(mine) :])
        if rows == "misclassified":
            assert wrong[mine].sum() == min(len(mine), wrong[pool].sum())


def gap(model: Head, X: np.ndarray, y: np.ndarray, s: np.ndarray, k: int) -> float:
    """Mean over ranked classes of accuracy on the k most spurious rows minus that on the k least spurious."""
    hit, found = model.predict(X) == y, []
    for c in np.unique(y[~np.isnan(s)]):
        order = np.flatnonzero(y == c)[np.argsort(s[y == c])]
        found.append(hit[order[-k:]].mean() - hit[order[:k]].mean())
    return float(np.mean(found))


@pytest.mark.parametrize("recipe", ["convex", "sgd"])
@pytest.mark.parametrize("k", [2, 3])
def test_tuning_on_the_lowest_closes_the_gap_and_the_others_do_not(recipe: str, k: int) -> None:
    X, y, _, s = planted(0, k, 4000)
    Xt, yt, _, st_ = planted(1, k, 6000)
    top = LowSpuriosity(k=60, recipe=recipe, epochs=30, lr=0.02)
    before = gap(Plain(C=0.01).fit(X, y), Xt, yt, st_, 100)
    assert before > 0.5
    closest = {}
    for rows in ("lowest", "random", "misclassified", "highest"):
        models = top.set_params(rows=rows, random_state=0).path(X, y, top.front(), spuriosity=s)
        closest[rows] = min(abs(gap(m, Xt, yt, st_, 100)) for m in models)
    assert closest["lowest"] < 0.05
    assert min(closest["random"], closest["highest"]) > before - 0.25


@pytest.mark.parametrize(("k", "ranked"), [(2, [0]), (2, [1]), (3, [0]), (3, [1]), (4, [0, 2])])
@pytest.mark.parametrize("recipe", ["convex", "sgd"])
def test_every_class_keeps_its_output_also_the_highest_without_a_ranking(
    k: int, ranked: list[int], recipe: str
) -> None:
    X, y, _, s = planted(5, k, 400)
    s[~np.isin(y, ranked)] = np.nan
    first = Plain(C=0.1).fit(X, y)
    how: dict[str, Any] = {"recipe": recipe, "k": 20, "C": 0.5, "lr": 0.1, "start": first.folded()}
    model = LowSpuriosity(**how, **TIGHT).fit(X, y, spuriosity=s)
    assert flat(model).shape == flat(first).shape and set(y[model.tuning_rows_]) == set(ranked)
    rows, proba = model.tuning_rows_, [m.predict_proba(X)[np.arange(400), y] for m in (first, model)]
    assert np.log(proba[1][rows]).mean() > np.log(proba[0][rows]).mean()
    if recipe == "convex":
        Z = StandardScaler().fit_transform(X)
        np.testing.assert_allclose(flat(model), minimum(Z[rows], y[rows], flat(first), 0.5), atol=2e-5)
    # A class is a name: in another order the same head comes out.
    turned = LowSpuriosity(**{**how, "start": None}, first_C=0.1, **TIGHT).fit(X, k - 1 - y, spuriosity=s)
    straight = LowSpuriosity(**{**how, "start": None}, first_C=0.1, **TIGHT).fit(X, y, spuriosity=s)
    np.testing.assert_allclose(turned.predict_proba(X)[:, ::-1], straight.predict_proba(X), atol=1e-4)


def test_a_head_of_two_outputs_for_two_classes_is_their_difference() -> None:
    X, y, _, s = planted(6, 2, 200)
    W, b = np.random.default_rng(0).normal(size=(2, 5)), np.array([0.3, -0.2])
    model = LowSpuriosity(start=(W, b), recipe="sgd", epochs=0).fit(X, y, spuriosity=s)
    np.testing.assert_allclose(model.predict_proba(X), softmax(X @ W.T + b, axis=1), atol=1e-10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": "low"}, "rows must be 'lowest', 'random', 'misclassified' or 'highest', found 'low'"),
        ({"classes": "some"}, "classes must be 'ranked' or 'all', found 'some'"),
        ({"recipe": "adam"}, "recipe must be 'convex' or 'sgd', found 'adam'"),
        ({"C": 0.0}, "C must be positive, found 0.0"),
        ({"k": -3}, "k must be positive, found -3"),
        ({"k": 2.5}, "k must be a whole number of rows, or a share below 1, found 2.5"),
        ({"k": float("inf")}, "k must be finite, found inf"),
        ({"epochs": -1}, "epochs must be at least 0, found -1"),
        ({"start": (np.ones((3, 5)), np.ones(3))}, r"start is a head .*\(3, 5\).*expected \(1, 5\) and \(1,\);"),
        ({"start": (np.full((1, 5), np.nan), np.ones(1))}, "start holds values that are not finite; take a head"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    X, y, _, s = planted(7, 2, 60)
    with pytest.raises(ValueError, match=message):
        LowSpuriosity(**given).fit(X, y, spuriosity=s)


def test_a_ranking_is_needed_and_looked_at() -> None:
    X, y, _, s = planted(8, 2, 60)
    with pytest.raises(ValueError, match=r"LowSpuriosity needs every row's spuriosity, NaN .*: fit\(X, y, spuriosity="):
        LowSpuriosity().fit(None, None)
    with pytest.raises(ValueError, match="spuriosity holds NaN for every row; expected numbers"):
        LowSpuriosity().fit(X, y, spuriosity=np.full(60, np.nan))
    with pytest.raises(ValueError, match="spuriosity holds infinite ones; expected numbers"):
        LowSpuriosity().fit(X, y, spuriosity=np.where(s == s.max(), np.inf, s))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LowSpuriosity().fit(X, y, spuriosity=s[1:])
    assert LowSpuriosity.needs == {Need.SPURIOSITY}
    assert supervision_in_words(LowSpuriosity.supervision) == "spuriosity ranking"
