"""What is said of how heads were chosen, where that limits what their figures mean: in sentences, for notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from embedx.evaluation.choice import SAME, Certainty

if TYPE_CHECKING:
    from embedx.evaluation.runs import Run

SHOWN = 5


def of_choice(runs: Sequence[Run]) -> list[str]:
    """A sentence each: scores that tell no settings apart, settings at an edge, heads no better than chance."""
    lines = []
    for rule, (end, which) in product(dict.fromkeys(run.selection for run in runs), ((0, "least"), (1, "most"))):
        found = [
            f"{run.tied} of {run.configurations} of {run.head}"
            for run in runs
            if run.selection == rule and run.tied > 1 and abs(run.validation_score - end) < SAME
        ]
        if found:
            lines.append(
                f"choosing by {rule} could not tell settings apart: {_listed(found)} scored {100 * end} % on "
                f"validation, the {which} there is; the average decided, then the stronger regularisation"
            )
    at_edge = [f"{run.head} ({name} = {value:g})" for run in runs for name, value in run.at_edge.items()]
    if at_edge:
        lines.append(f"chosen at the edge of what was tried, beyond which better may lie: {_listed(at_edge)}")
    by_chance = [
        f"{run.head} on {run.backbone}"
        for run in runs
        if run.chance is not None and run.metrics.balanced_accuracy.low <= run.chance
    ]
    if by_chance:
        lines.append(
            "no better than chance on test, by the balanced accuracy and its interval, so that its other figures say "
            f"nothing of the embedding: {_listed(by_chance)}"
        )
    unsettled = [f"{run.head} on {run.backbone}" for run in runs if run.certainty == Certainty.NOT]
    if unsettled:
        lines.append(
            "the choice is not settled, as labels of validation still changed in the last steps of fits that could be "
            f"the best: {_listed(unsettled)}"
        )
    return lines


def _listed(names: Iterable[str]) -> str:
    """Each once; the first of many and how many more there are."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - SHOWN:,} more" if len(distinct) > SHOWN + 1 else ""
    return ", ".join(distinct[:SHOWN] if more else distinct) + more
