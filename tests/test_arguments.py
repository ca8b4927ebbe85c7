"""What is given to a head beside X is looked at as X and y are, in every head, by `fit` and by `path`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from every_head import cases
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from solving import Problem, solve

from embedx import plugins
from embedx.evaluation.heads import load_head
from embedx.probes import HeldOut, Partition
from embedx.probes._features import Features
from embedx.probes._parameters import RANGES, WORDS, _hints, _kinds
from embedx.probes._prompts import Prompts
from embedx.probes.plain import Plain

HEADS: dict[str, Any] = {name: load_head(name) for name in plugins.names(plugins.HEADS)}
every_head = pytest.mark.parametrize("kind", cases(kinds=True))


def full(kind: Any, n: int = 120) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """X, y and all that the head needs: overlapping classes of two groups each."""
    rng = np.random.default_rng(0)
    groups = np.arange(n) % 4
    X = rng.normal(size=(n, 4)) + rng.normal(size=(4, 4))[groups]
    y = groups // 2
    attribute = kind.partition is Partition.ATTRIBUTE
    everything = {
        "groups": groups % 2 if attribute else groups,
        "held_out": HeldOut(X[: n // 2] + 0.1, y[: n // 2], groups[: n // 2]),
        "prompts": Prompts(rng.normal(size=(2, 4)), spurious=np.eye(4)[:1], pairs=np.eye(4)[None, :2]),
        "spuriosity": rng.uniform(size=n),
    }  # fmt: skip
    needed = {need.split()[0] for need in kind.needs}
    return X, y, {name: value for name, value in everything.items() if name in needed}


def both_refuse(kind: Any, match: str, X: Any, y: Any, parameters: Any = None, **given: Any) -> None:
    """`fit` and `path` raise `ValueError` with these words."""
    parameters = parameters or {}
    with pytest.raises((ValueError, TypeError), match=match):
        kind(**parameters).fit(X, y, **given)
    with pytest.raises((ValueError, TypeError), match=match):
        kind().path(X, y, [parameters], **given)


@every_head
def test_every_parameter_of_another_type_or_out_of_range_is_refused_by_name(kind: Any) -> None:
    X, y, given = full(kind)
    hints = _hints(kind)
    for name in kind().get_params():
        kinds = _kinds(hints[name])
        wrong: list[Any] = [np.ones(2), [1.0], {}]
        if kinds:
            wrong += ["text", True, b"1", 1j] if not {str, bool} & set(kinds) else [1.5, 7]
        if int in kinds:
            wrong += [2.5, float("nan")]
        if float in kinds:
            wrong += [float("nan"), -float("inf")]
        if name in RANGES:
            wrong += [-1]
        if kinds or name == "random_state":
            for value in wrong:
                both_refuse(kind, rf"{name} must be", X, y, {name: value}, **given)
    assert all(_kinds(hints[name]) for name in kind().get_params() if name not in ("start", "random_state"))


@every_head
def test_numbers_of_numpy_are_numbers(kind: Any) -> None:
    X, y, given = full(kind)
    made = {float: np.float64, int: np.int64, bool: np.bool_, str: np.str_}
    parameters = {name: made[type(value)](value) for name, value in kind().get_params().items() if type(value) in made}
    assert set(made) <= set(WORDS)
    plain, other = kind(random_state=0), kind(**parameters, random_state=np.int64(0))
    np.testing.assert_array_equal(*(m.fit(X, y, **given).predict_proba(X) for m in (plain, other)))


MISSING = [np.nan, None, pd.NA, pd.NaT]


@every_head
@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_missing_labels_and_groups_are_refused_by_name(kind: Any, missing: Any) -> None:
    X, y, given = full(kind)
    words = np.array([f"group {g}" for g in y], dtype=object)
    words[3] = missing
    match = r"{} has 1 missing values \(NaN, None, NA or NaT; the first in row 3\)"
    both_refuse(kind, match.format("groups"), X, y, **given | {"groups": words})
    both_refuse(kind, match.format("groups"), X, y, **given | {"groups": pd.Series(words)})
    both_refuse(kind, match.format("y"), X, words, **given)
    held_out = HeldOut(X, y, y)
    both_refuse(kind, match.format("held_out.y"), X, y, **given | {"held_out": held_out._replace(y=words)})
    both_refuse(kind, match.format("held_out.groups"), X, y, **given | {"held_out": held_out._replace(groups=words)})


@every_head
def test_what_is_no_value_for_each_row_is_refused_by_name(kind: Any) -> None:
    X, y, given = full(kind)
    held_out = HeldOut(X, y, y)
    for wrong, words in (
        (pd.DataFrame({"a": y, "b": y}), r"must be one value for each row, found shape \(120, 2\)"),
        (y[:, None, None], r"must be one value for each row, found shape"),
        (y[1:], r"inconsistent numbers of samples: \[120, 119\]"),
        (y + 1j, "must be one value for each row, found ndarray of complex128"),
        ("text", "must be one value for each row, found str"),
        (np.where(y == 0, np.inf, 1.0), "holds infinity"),
    ):
        both_refuse(kind, f"groups .*{words}|X and groups .*{words}", X, y, **given | {"groups": wrong})
        both_refuse(kind, f"held_out.y .*{words}", X, y, **given | {"held_out": held_out._replace(y=wrong)})
        both_refuse(kind, f"held_out.g.*{words}", X, y, **given | {"held_out": held_out._replace(groups=wrong)})
        if not (isinstance(wrong, np.ndarray) and wrong.dtype.kind == "f"):
            both_refuse(kind, "spuriosity", X, y, **given | {"spuriosity": wrong})
    mixed = np.array([0, "a"] * (len(y) // 2), dtype=object)
    both_refuse(kind, r"groups holds values that do not compare \(int, str\)", X, y, **given | {"groups": mixed})
    both_refuse(kind, "spuriosity holds 'a', which is no number", X, y, **given | {"spuriosity": mixed})
    for odd, words in (
        (X[:, :3], "features"), (np.where(X.max() == X, np.nan, X), "NaN"), (X[0], "1D array"), (X[:0], "0 sample"),
    ):  # fmt: skip
        both_refuse(kind, f"held_out.X: .*{words}", X, y, **given | {"held_out": held_out._replace(X=odd)})
    frames = [pd.DataFrame(X, columns=list(names)) for names in ("abcd", "dcba")]
    both_refuse(kind, "held_out.X: The feature names", frames[0], y, **given | {"held_out": HeldOut(frames[1], y, y)})
    with pytest.raises(TypeError, match=r"held_out must be HeldOut\(X, y, groups\), found tuple"):
        kind().fit(X, y, **given | {"held_out": (X, y, y)})


@every_head
def test_groups_of_any_kind_are_the_same_groups(kind: Any) -> None:
    X, y, given = full(kind)
    codes = np.arange(len(y)) % 4 if "groups" not in given else given["groups"]
    text = pd.Series([f"group {g}" for g in codes])
    shapes = [text, text.astype("category"), text.astype("string"), pd.Series(codes, dtype="Int64"), codes[:, None],
              codes.tolist(), codes.astype(float),
              pd.Series(pd.Timestamp(2020, 1, 1) + pd.to_timedelta(codes, "D"))]  # fmt: skip
    expected = kind(random_state=0).fit(X, y, **given | {"groups": codes}).predict_proba(X)
    needs_held = "held_out" in given
    for groups in shapes:
        more = {"groups": groups}
        if needs_held:
            part = groups[: len(y) // 2]
            more["held_out"] = given["held_out"]._replace(groups=part)
        found = kind(random_state=0).fit(X, y, **given | more).predict_proba(X)
        np.testing.assert_array_equal(found, expected)
    flag = codes == 1 if kind.partition is Partition.ATTRIBUTE else y == 1
    flags = kind(random_state=0).fit(X, y, **given | {"groups": flag} | (
        {"held_out": given["held_out"]._replace(groups=given["held_out"].y == 1)} if needs_held else {}
    ))  # fmt: skip
    assert np.isfinite(flags.predict_proba(X)).all()


def test_held_out_text_is_no_number() -> None:
    X, y, given = full(HEADS["bias-tuned"])
    with pytest.raises(ValueError, match=r"class .*'0'.* occurs among the held-out rows only"):
        HEADS["bias-tuned"]().fit(X, y, held_out=given["held_out"]._replace(y=given["held_out"].y.astype(str)))


# The solver's edges


def oracle(Z: np.ndarray, y: np.ndarray, C: float) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=C, tol=1e-10, max_iter=10_000, solver="newton-cholesky").fit(Z, y)


def objective(Z: np.ndarray, y: np.ndarray, W: np.ndarray, b: Any, C: float) -> float:
    F = Z @ W.T + b
    F = np.column_stack([np.zeros(len(F)), F]) if len(W) == 1 else F
    return float((logsumexp(F, axis=1) - F[np.arange(len(F)), y]).mean() + 0.5 * (W**2).sum() / (C * len(y)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "d", "k", "noise"), [(300, 8, 2, 1.0), (300, 8, 3, 1.0), (200, 50, 2, 2.0), (300, 8, 2, 0)]
)
def test_what_converged_is_scikit_learns_minimum(n: int, d: int, k: int, noise: float, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -1.0
    scores = X @ rng.normal(size=(d, k))
    y = (scores / scores.std() + noise * rng.normal(size=(n, k))).argmax(1)
    features = Features.standardize(X.astype(dtype))
    Z = features.tensor.double().numpy()
    Cs = [1e-6, 1e-3, 1.0, 1e3, 1e6, np.inf]
    for C, ours in zip(Cs, solve(features, y, [Problem(np.ones(n), C) for C in Cs]), strict=True):
        if not noise and np.isinf(C):  # told apart by a line: the minimum lies at infinity
            assert not ours.converged and ours.iterations < 2000
            assert ((Z @ ours.coef[0] + ours.intercept[0] > 0) == y).all()
            continue
        theirs = oracle(Z, y, C)
        assert ours.converged
        least = objective(Z, y, theirs.coef_, theirs.intercept_, C)
        assert objective(Z, y, ours.coef, ours.intercept, C) <= least * (1 + 1e-4)
        centre = ours.coef.mean(0) if k > 2 else 0
        np.testing.assert_allclose(ours.coef - centre, theirs.coef_, atol=2e-3 * np.abs(theirs.coef_).max())


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_an_infinite_strength_is_no_penalty(penalty: str) -> None:
    X, y, _ = full(Plain)
    y = np.where(np.arange(len(y)) % 7 == 0, 1 - y, y)
    model = Plain(C=np.inf, penalty=penalty, standardize=False).fit(X, y)
    np.testing.assert_allclose(model.coef_, oracle(X, y, np.inf).coef_, atol=1e-3)


@every_head
def test_a_fit_that_fell_short_warns_and_a_path_does_not(kind: Any) -> None:
    X, y, given = full(kind)
    if "max_iter" not in kind().get_params():
        assert kind().fit(X, y, **given).converged_
        return
    short = {"max_iter": 1, "tol": 1e-12} | ({"alpha": 1.0} if "alpha" in kind().get_params() else {})
    with pytest.warns(ConvergenceWarning, match=rf"{kind.__name__} did not converge"):
        assert not kind(**short).fit(X, y, **given).converged_
    (quiet,) = kind().path(X, y, [short], **given)
    assert not quiet.converged_
