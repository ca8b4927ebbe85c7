"""Which of many fitted heads to take: rules that look at the validation split, and at nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedx import plugins
from embedx.errors import SplitError, UnknownName
from embedx.split import Part, Split


@dataclass(frozen=True)
class Rule:
    """A score of validation predictions; `over` is what it has to see all values of: "", "y" or "groups"."""

    name: str
    over: str
    score: Callable[[np.ndarray, Part, np.ndarray], float]

    @property
    def uses_groups(self) -> bool:
        return self.over == "groups"


def _average(hit: np.ndarray, part: Part, shares: np.ndarray) -> float:
    return float(hit.mean())


def _adjusted_average(hit: np.ndarray, part: Part, shares: np.ndarray) -> float:
    n = np.bincount(part.groups, minlength=len(shares))
    accuracy = np.bincount(part.groups, weights=hit, minlength=len(shares)) / np.maximum(n, 1)
    return float(accuracy @ (shares * (n > 0)) / shares[n > 0].sum())


def _worst(codes: np.ndarray, hit: np.ndarray) -> float:
    n = np.bincount(codes)
    return float((np.bincount(codes, weights=hit)[n > 0] / n[n > 0]).min())


RULES = {
    rule.name: rule
    for rule in (
        Rule("average", "", _average),
        Rule("adjusted-average", "groups", _adjusted_average),
        Rule("worst-class", "y", lambda hit, part, shares: _worst(part.y, hit)),
        Rule("worst-group", "groups", lambda hit, part, shares: _worst(part.groups, hit)),
    )
}


def rule_named(name: str, split: Split) -> Rule:
    """The rule, checked against the data: `UnknownName`, or `SplitError` when validation cannot answer it."""
    if name not in RULES:
        raise UnknownName(f"unknown selection rule {name!r}: {plugins.nearest(name, RULES)}")
    rule = RULES[name]
    if rule.uses_groups and not split.has_groups:
        raise SplitError(
            f"choosing by {name} needs groups, and {split.dataset} has no attribute; use average or worst-class"
        )
    if rule.over:
        known, others = (
            (split.group_names, "average or worst-class") if rule.uses_groups else (split.classes, "average")
        )
        unseen = np.setdiff1d(getattr(split.test, rule.over), getattr(split.val, rule.over))
        if len(unseen):
            names = ", ".join(known[i] for i in unseen)
            raise SplitError(
                f"choosing by {name} cannot see {names}: no validation row; add some, or use --select-by {others}"
            )
    return rule


def choose(
    rule: Rule, predictions: Sequence[np.ndarray], part: Part, shares: np.ndarray, fitted_on: Part
) -> tuple[int, list[float]]:
    """Index of the best of `predictions` (label codes for `part`, strongest regularisation first), and all scores.

    Ties go to the earliest, that is to the strongest regularisation. Raises `SplitError` when `part` shares rows with
    `fitted_on`: rows that were fitted never choose.
    """
    if shared := np.intersect1d(part.ids, fitted_on.ids).size:
        raise SplitError(f"{shared} rows would both fit and choose; keep train and val apart")
    scores = [rule.score((p == part.y).astype(float), part, shares) for p in predictions]
    best = max(scores)
    return next(i for i, s in enumerate(scores) if s >= best - 1e-12), scores
