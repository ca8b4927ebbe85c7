"""scikit-learn's own checks of every head that there is, each with what it needs beyond X and y."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedx import plugins
from embedx.evaluation.heads import load_head
from embedx.probes import Head, HeldOut, Need, Partition, Prompts

MADE: dict[str, list[dict[str, Any]]] = {
    "jtt": [{"no_errors": "plain"}], "eiil": [{"no_errors": "plain"}],  # the checks' data are told apart exactly
    "low-spuriosity": [{"recipe": "convex"}, {"recipe": "sgd"}],
}  # fmt: skip
"""Parameters that a head is checked with, by default a single draw where it draws."""


def checkable(kind: type[Head], parameters: dict[str, Any]) -> Head:
    """The head as the checks can call it: labels are groups, rows held out too, means the text, order a ranking."""

    def fit(self: Head, X: Any, y: Any, **given: Any) -> Head:
        rows, labels = np.asarray(X), None if y is None else np.asarray(y).ravel()
        try:
            rows = rows.astype(float) if rows.dtype == object else rows
        except (TypeError, ValueError):
            rows = np.empty(0)
        usable = rows.ndim == 2 and rows.size and rows.dtype.kind in "fiu" and np.isfinite(rows).all()
        if labels is None or not usable or len(rows) != len(labels):
            rows, labels = np.eye(2), np.arange(2) if labels is None else labels  # refused, whatever else is given
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            labels = np.arange(len(labels)) % 2
        means = np.array([rows[: len(labels)][labels[: len(rows)] == c].sum(0) for c in np.unique(labels)])
        means = means - rows.mean(0)
        text = np.where(np.abs(means).max(1, keepdims=True) > 0, means, 1.0)
        prompts = Prompts(text, spurious=text[:0], pairs=np.stack([text[:1], text[:1]], axis=1))  # nothing is spurious
        groups = alternating(labels) if kind.partition is Partition.ATTRIBUTE else labels
        everything = {
            Need.GROUPS: ("groups", groups), Need.HELD_OUT: ("held_out", HeldOut(rows, labels)),
            Need.HELD_OUT_GROUPS: ("held_out", HeldOut(rows, labels, labels)),
            Need.PROMPTS: ("prompts", prompts), Need.SPURIOUS_PROMPTS: ("prompts", prompts),
            Need.SPURIOSITY: ("spuriosity", np.arange(len(labels), dtype=float)),
        }  # fmt: skip
        return kind.fit(self, X, y, **{**dict(everything[need] for need in kind.needs), **given})

    name = f"{kind.__name__}{'_'.join(map(str, parameters.values()))}"  # found by name when it is unpickled
    globals()[name] = type(name, (kind,), {"fit": fit, "__module__": __name__})
    drawing = {"draws": 1} if "draws" in kind().get_params() else {}
    return globals()[name](**drawing, **parameters)


def alternating(labels: np.ndarray) -> np.ndarray:
    """(n,) an attribute that has nothing to do with the label: 0, 1, 0, 1, ... within every class."""
    code = np.unique(labels, return_inverse=True)[1]
    return np.array([np.count_nonzero(code[:i] == c) % 2 for i, c in enumerate(code)])


KINDS = ("plain", "group-balanced", "afr", "group-dro", "nearest-mean", "zero-shot", "lff", "self-disagreement")
"""One head of every way to fit: convex, drawn, in two stages, by steps, in closed form, of text; others run slowly."""


def every(names: Iterable[str]) -> list[Head]:
    """The heads of these names, with every set of parameters that they are checked with."""
    return [checkable(load_head(name), parameters) for name in names for parameters in MADE.get(name, [{}])]


@parametrize_with_checks(every(KINDS))
def test_scikit_learn_checks(estimator: Head, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(every(name for name in plugins.names(plugins.HEADS) if name not in KINDS))
def test_scikit_learn_checks_of_the_others(estimator: Head, check: Any) -> None:
    check(estimator)
