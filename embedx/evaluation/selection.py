"""Which of many fitted heads to take: rules that look at the validation split, and at nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedx import plugins
from embedx.errors import SplitError, UnknownName
from embedx.evaluation.choice import Scored
from embedx.evaluation.split import Part, Split

FEW, SHOWN = 5, 5
"""Rows of a class or group below which one right or wrong answer moves its accuracy by more than 20 points."""
Score = Callable[[np.ndarray, Part, np.ndarray], np.ndarray]
UNRANKED = (
    "choosing by spuriosity-halves needs a spuriosity ranking of validation; "
    "make a ranking with `embedx spuriosity rank`, or use another rule"
)


@dataclass(frozen=True)
class Rule:
    """A score of validation predictions.

    over   what it has to see all values of: "", "y", "groups", "inferred" or "spuriosity"
    score  (m, n) right or wrong of m heads on n rows, the rows, (g,) training shares of the groups -> (m,)
    """

    name: str
    over: str
    score: Score

    @property
    def uses_groups(self) -> bool:
        """Whether it looks at group labels of validation."""
        return self.over == "groups"


def _within(codes: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, c) accuracies within every code that occurs, and which these are."""
    seen, at = np.unique(codes, return_inverse=True)
    member = (at[:, None] == np.arange(len(seen))).astype(np.float64)
    return hits.astype(np.float64) @ member / member.sum(axis=0), seen


def _average(hits: np.ndarray, part: Part, shares: np.ndarray) -> np.ndarray:
    return hits.mean(axis=1, dtype=np.float64)


def _adjusted_average(hits: np.ndarray, part: Part, shares: np.ndarray) -> np.ndarray:
    accuracy, seen = _within(part.groups, hits)
    return accuracy @ shares[seen] / shares[seen].sum()


def _spuriosity_halves(hits: np.ndarray, part: Part, shares: np.ndarray) -> np.ndarray:
    """Mean over classes of the smaller accuracy of their less and their more spurious half; ties go by order.

    A class that cannot be halved for want of ranked rows counts with its accuracy, as it must not be given up.
    """
    if part.spuriosity is None:
        raise SplitError(UNRANKED)
    accuracies = []
    for label in np.unique(part.y):
        rows = np.flatnonzero(part.y == label)
        ranked = rows[~np.isnan(part.spuriosity[rows])]
        ranked, half = ranked[np.argsort(part.spuriosity[ranked], kind="stable")], len(ranked) // 2
        ends = (ranked[:half], ranked[len(ranked) - half :]) if half else (rows,)
        accuracies.append(np.min([hits[:, end].mean(axis=1, dtype=np.float64) for end in ends], axis=0))
    return np.mean(accuracies, axis=0)


RULES = {
    rule.name: rule
    for rule in (
        Rule("average", "", _average),
        Rule("adjusted-average", "groups", _adjusted_average),
        Rule("balanced", "y", lambda hits, part, shares: _within(part.y, hits)[0].mean(axis=1)),
        Rule("worst-class", "y", lambda hits, part, shares: _within(part.y, hits)[0].min(axis=1)),
        Rule("worst-group", "groups", lambda hits, part, shares: _within(part.groups, hits)[0].min(axis=1)),
        Rule(
            "worst-inferred-group", "inferred", lambda hits, part, shares: _within(part.inferred, hits)[0].min(axis=1)
        ),
        Rule("spuriosity-halves", "spuriosity", _spuriosity_halves),
    )
}
"""By name. Balanced is the mean recall of the classes; inferred groups are the clusters within classes of `Part`."""


def rule_named(name: str, split: Split, choosing: Part | None = None) -> Rule:
    """The rule, checked against the data: `UnknownName`, or `SplitError` when validation cannot answer it.

    choosing  the rows of validation that choose; by default all
    """
    if name not in RULES:
        raise UnknownName(f"unknown selection rule {name!r}: {plugins.nearest(name, RULES)}")
    rule = RULES[name]
    if rule.uses_groups and not split.has_groups:
        raise SplitError(
            f"choosing by {name} needs groups, and {split.dataset} has no attribute; use average, balanced, "
            "worst-class or worst-inferred-group"
        )
    scores = split.val.spuriosity
    if rule.over == "spuriosity" and (scores is None or np.isnan(scores).all()):
        raise SplitError(UNRANKED)
    if rule.over in ("y", "groups"):
        names, others = (
            (split.group_names, "average, balanced or worst-class") if rule.uses_groups else (split.classes, "average")
        )
        unseen = np.setdiff1d(
            getattr(split.test, rule.over), getattr(split.val if choosing is None else choosing, rule.over)
        )
        if len(unseen):
            missing = ", ".join(names[i] for i in unseen)
            raise SplitError(
                f"choosing by {name} cannot see {missing}: no validation row; add some, or use --select-by {others}"
            )
    return rule


def barely_seen(rule: Rule, split: Split, choosing: Part) -> dict[str, int]:
    """{class or group that test holds: how many of the rows that choose are of it}, where the choice hardly sees it.

    That is without any row; or, for rules that score every class or every group by itself, with fewer than `FEW`.
    """
    labels, groups = (
        np.bincount(getattr(choosing, of), minlength=len(names))
        for of, names in (("y", split.classes), ("groups", split.group_names))
    )
    counts = {
        split.classes[c]: int(labels[c])
        for c in np.unique(split.test.y)
        if labels[c] < (FEW if rule.over in ("y", "inferred", "spuriosity") else 1)
    }
    if split.has_groups:
        counts |= {
            split.group_names[g]: int(groups[g])
            for g in np.unique(split.test.groups)
            if groups[g] < (FEW if rule.uses_groups else 1) and labels[split.group_labels[g]]
        }
    return counts


def in_words(rule: str, seen: Mapping[str, int], rows: str = "validation") -> list[str]:
    """What `barely_seen` found, a sentence each; `rows` are those that choose."""
    unseen = _named([name for name, n in seen.items() if not n])
    which = "it" if list(seen.values()).count(0) == 1 else "them"
    few = _named([f"{name} (n = {n})" for name, n in seen.items() if n])
    told = [f"choosing by {rule} cannot see {unseen}: {rows} has no row of {which}; add some"] * bool(unseen)
    return told + [f"choosing by {rule} hangs on few rows of {rows}: {few}"] * bool(few)


def _named(names: Sequence[str]) -> str:
    """All of few names, the first of many and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN + 1 else ""
    return ", ".join(names[:SHOWN] if more else names) + more


def choose(
    rule: Rule, predictions: np.ndarray, part: Part, shares: np.ndarray, fitted_on: Part
) -> tuple[int, np.ndarray]:
    """Index of the best of m heads by their label codes (m, n) for `part`, strongest regularisation first; all scores.

    Raises as `scored`, which says what happens to ties.
    """
    found = scored(rule, predictions, part, shares, fitted_on)
    return found.best, found.scores


def scored(rule: Rule, predictions: np.ndarray, part: Part, shares: np.ndarray, fitted_on: Part) -> Scored:
    """The scores of m heads by their label codes (m, n) for `part`, strongest regularisation first.

    Ties go to the largest average, and then to the earliest, that is to the strongest regularisation. Raises
    `SplitError` when `part` shares rows with `fitted_on`: rows that were fitted never choose.
    """
    if shared := len(fitted_on.id_set.intersection(part.ids)):
        raise SplitError(f"{shared} rows would both fit and choose; keep train and val apart")
    hits = predictions == part.y
    return Scored(rule.score(hits, part, shares), hits.mean(axis=1, dtype=np.float64))
