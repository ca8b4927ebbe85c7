"""Overlapping classes with uneven groups, and the losses of heads on them, computed the obvious way."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from embedx.probes import ConvexHead, Head, HeldOut
from embedx.probes._prompts import Prompts


def data(seed: int, k: int = 2, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (n, 4), y, groups: overlapping classes with two uneven groups each; every group has at least 4 rows."""
    rng = np.random.default_rng(seed)
    rest = rng.choice(2 * k, n - 8 * k, p=rng.dirichlet(np.full(2 * k, 1.0)))
    groups = rng.permutation(np.r_[np.tile(np.arange(2 * k), 4), rest])
    return rng.normal(size=(n, 4)) + rng.normal(size=(2 * k, 4))[groups], groups // 2, groups


def extras(kind: type[Head], seed: int = 0, k: int = 2) -> dict[str, Any]:
    """What the head needs beyond X, y and groups: other rows of the same make, a random text."""
    X, y, groups = data(seed, k, 90)
    prompts = Prompts(np.random.default_rng(seed).normal(size=(k, 4)))
    everything = {"held_out": HeldOut(X, y, groups), "prompts": prompts}
    return {name: value for name, value in everything.items() if any(need.startswith(name) for need in kind.needs)}


def flat(model: Any) -> np.ndarray:
    """(1 or k, d + 1): the coefficients, intercepts last."""
    return np.column_stack([model.coef_, model.intercept_])


def like(model: Head, other: Head, **values: Any) -> Any:
    """`model` with all that is fitted or set in the other, and other values for some of it."""
    for name, value in {**vars(other), **values}.items():
        setattr(model, name, value)
    return model


def same(a: Any, b: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(flat(a), flat(b), atol=atol)


def losses(model: ConvexHead, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) log-losses in float64, two classes as a softmax over (0, logit)."""
    F = model.decision_function(X)
    F = np.column_stack([np.zeros(len(F)), F]) if F.ndim == 1 else F
    return logsumexp(F, axis=1) - F[np.arange(len(F)), y]


def ridge(model: ConvexHead, n: int) -> float:
    return float((model.coef_**2).sum() / (2 * model.C * n))


def group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.array([values[groups == g].mean() for g in np.unique(groups)])


def worst_group(model: Head, rows: HeldOut) -> float:
    return float(group_means(model.predict(rows.X) == rows.y, np.asarray(rows.groups)).min())
