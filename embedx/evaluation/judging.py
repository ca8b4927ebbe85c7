"""Fitted settings on the rows that choose: their labels, what these are worth, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from embedx.evaluation.by_rule import predicted
from embedx.evaluation.choice import Certainty, Judged
from embedx.evaluation.selection import Rule, scored
from embedx.evaluation.split import Part
from embedx.probes import affine_of, certain, one_stage, predicted_codes


def judged(
    rule: Rule,
    choosing: Part,
    shares: np.ndarray,
    used: Part,
    heads: Sequence[Any],
    before: Sequence[np.ndarray | None],
) -> list[Judged]:
    """What heads that were fitted on `used` are worth on the rows that choose, and what may still change.

    before  the labels of each setting when it was solved more coarsely. They count for heads of several stages, of
            which `before_` tells the last only, and where there is no `before_`

    Raises as `scored`.
    """
    X, codes = choosing.X, predicted(heads, choosing.X)
    worth, coarse, sure = scored(rule, codes, choosing, shares, used), _coarse(heads, X), certain(heads, X)
    verdicts = []
    for i, head in enumerate(heads):
        others = [coarse[i]] if i in coarse else []
        if (earlier := before[i]) is not None and not (others and one_stage(head)):
            others.append(earlier)
        moved = None
        if others:
            still = np.any([codes[i] != other for other in others], axis=0) & ~sure[i]
            moved = 1 - rule.score(~still[None], choosing, shares).item()
        highest = rule.score(((codes[i] == choosing.y) | ~sure[i])[None], choosing, shares).item()
        verdicts.append(
            Judged(float(worth.scores[i]), float(worth.averages[i]), codes[i], moved, highest, float(sure[i].mean()))
        )
    return verdicts


def _coarse(heads: Sequence[Any], X: np.ndarray) -> dict[int, np.ndarray]:
    """{place of a head: its label codes (n,) where its gradient was still ten times larger}, where that is known."""
    ways = {
        i: replace(a, coef=way[0], intercept=way[1])
        for i, head in enumerate(heads)
        if (a := affine_of(head)) is not None and (way := getattr(head, "before_", None)) is not None
    }
    codes = predicted_codes([*ways.values()], X) if ways else []
    return {i: heads[i].classes_[c] for i, c in zip(ways, codes, strict=True)}


@dataclass(frozen=True, eq=False)
class SelectedHead:
    """A fitted head and how it was chosen.

    score, worst_group  by the rule, and of the groups (None without), on the rows that chose it
    tried, tied         how many settings were tried, and how many of them had the best score
    edges               {parameter: its value} at an edge of what was tried
    certainty, certain  of the choice, and the share of the rows whose label by this head is certain
    by_rule             {other rule: the head that it takes of those tried}, of plain heads
    """

    head: Any
    setting: dict[str, Any]
    score: float
    worst_group: float | None
    tried: int
    tied: int
    edges: Mapping[str, float]
    certainty: Certainty
    certain: float
    by_rule: Mapping[str, Any] = field(default_factory=dict)
