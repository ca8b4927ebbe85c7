"""How to tune a head on rows of low spuriosity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedx.probes.low_spuriosity import ROWS
from embedx.spuriosity.measures.gaps import K

RIVALS = ("plain", "reweighted", "group-balanced", "dfr")


@dataclass(frozen=True)
class TuningSettings:
    """How to tune.

    k        tuning rows of a class: a number, or below 1 a share of it; at most half of it
    measured rows at each end of a class between which gaps are measured: a number, or a fraction up to 0.5
    trials   seeds, where rows are drawn or shuffled
    target   largest gap on either side of 0 at which tuning stops
    recipe   "convex", or "sgd" as published: on features that are not standardised
    classes  "positive": those with a ranking whose gap on the stop rows is positive before tuning, for where it is
             negative the least spurious rows are those that the head gets right already; "ranked" as published
    others   also tune on random rows of every other class, which keeps it where it is; not so published
    halve    stop on one half of validation and choose the head to tune on the other, instead of both on all of it
    keep     leave the head as it was where validation speaks against the first choice of rows, see `evidence`
    rows     choices of tuning rows to compare; the head that is returned is of the first
    beside   other heads to report the worst group of, where there are groups
    """

    k: int | float = 0.08
    measured: int | float = K
    trials: int = 3
    target: float = 0.05
    recipe: str = "convex"
    classes: str = "positive"
    others: bool = True
    halve: bool = False
    keep: bool = True
    rows: tuple[str, ...] = ROWS
    beside: tuple[str, ...] = RIVALS

    @classmethod
    def published(cls, **other: Any) -> TuningSettings:
        """The paper's choice of rows and the descent of its code."""
        return cls(**({"k": 100, "recipe": "sgd", "classes": "ranked", "others": False} | other))
