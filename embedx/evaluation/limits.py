"""When no head is good: whether the embedding is the limit, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedx.evaluation.runs import Run, unpack, unpack_codes
from embedx.statistics import Interval, minimum, rows_of_groups
from embedx.statistics.intervals import LEVEL

NEAR = 0.25
"""Share of the way from chance to no error within which a worst group is near chance."""


@dataclass(frozen=True)
class Limit:
    """A backbone on which no head gets its worst group far above chance.

    head        the one with the best worst group on test, of so many `heads`; worst_group is its figure
    most        what the worst group of no head exceeds, at 95 % for all together
    chance      of a head that knows nothing: one over the number of classes
    label       balanced accuracy on test of the plain head, or without one of `head`
    attributes  the same of a plain head that is fitted to tell the attribute, where that was asked for
    """

    backbone: str
    head: str
    heads: int
    worst_group: Interval
    most: float
    chance: float
    label: Interval
    attributes: Mapping[str, Interval]


def limits(runs: Sequence[Run]) -> list[Limit]:
    """Of every backbone on which the worst group of each head is within `NEAR` of chance, its interval included.

    Backbones of earlier records, which do not tell chance, are passed over. A head of several seeds counts with
    its mean; the level is shared among the heads.
    """
    found = (_of([run for run in runs if run.backbone == name]) for name in dict.fromkeys(run.backbone for run in runs))
    return [limit for limit in found if limit is not None]


def _of(runs: Sequence[Run]) -> Limit | None:
    by_head: dict[str, list[Run]] = {}
    for run in runs:
        by_head.setdefault(run.head, []).append(run)
    if (chance := runs[0].chance) is None:
        return None
    level = 1 - (1 - LEVEL) / len(by_head)
    worst = {head: _minimum(of, LEVEL) for head, of in by_head.items()}
    best = max(worst, key=lambda head: worst[head].value)
    most = max(_minimum(of, level).high for of in by_head.values())
    if most > chance + NEAR * (1 - chance):
        return None
    label = next((r for r in runs if r.head == "plain" and not r.uses_groups), by_head[best][0])
    told = next((run.attributes for run in runs if run.attributes), {})
    return Limit(
        runs[0].backbone, best, len(by_head), worst[best], most, chance, label.metrics.balanced_accuracy, told
    )  # fmt: skip


def _minimum(runs: Sequence[Run], level: float) -> Interval:
    """The worst group of one head, its seeds joined."""
    counts = [[(g.correct, g.n) for g in run.metrics.groups if g.n] for run in runs]
    correct, n = np.mean(counts, axis=0).T
    rows = None
    if runs[0].clusters:
        hits = np.mean([unpack(run.correct, int(n.sum())) for run in runs], axis=0)
        rows = rows_of_groups(hits, n.astype(int), unpack_codes(runs[0].clusters))
    return minimum(correct, n, level, rows=rows)
