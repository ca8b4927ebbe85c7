"""What is asked of one head: its class, parameters, settings and rule; and whether some data allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedx import plugins
from embedx.errors import HeadError, SplitError
from embedx.evaluation.choice import FINEST, Limits, Tolerance
from embedx.evaluation.selection import RULES, rule_named
from embedx.evaluation.split import Split, halves
from embedx.probes import (
    GROUP_NEEDS,
    HELD_OUT_NEEDS,
    PUBLISHED,
    Head,
    Need,
    On,
    Partition,
    one_stage,
    unrecordable,
)

REFITTED = "fitted on half of validation, chosen on the other half, fitted again on all of it"
STEERED = "steered by half of validation, chosen on the other half"


@dataclass(frozen=True)
class HeadSpec:
    """A head and how it is chosen.

    settings   those tried, by default the grid of the head
    partition  what it gets as groups, by default what the head declares: "groups", "attribute", or an attribute by name
    """

    name: str
    kind: type[Head]
    rule: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[Mapping[str, Any]] | None = None
    prompts: Any = None
    partition: str = ""

    @property
    def variant(self) -> str:
        """Ours, or that of the authors."""
        return str(self.parameters.get("variant", "default"))

    @property
    def grid(self) -> list[dict[str, Any]]:
        """The settings that are tried, each as parameters that differ."""
        return [dict(s) for s in (self.kind.settings_of(self.variant) if self.settings is None else self.settings)]

    @property
    def cheap(self) -> dict[str, Any]:
        """Parameters with which settings are tried before the chosen one is fitted without them; none for just one."""
        told = {*self.parameters, *set[str].intersection(*(set(s) for s in self.grid))}
        free = self.kind(**self.parameters).get_params().keys() - told
        published = self.variant == PUBLISHED and self.kind.published
        tried = published.tried_with if published else self.kind.tried_with
        return {k: v for k, v in tried.items() if k in free and len(self.grid) > 1}

    @property
    def tolerance(self) -> Tolerance | None:
        """The tolerance that settings are tried with, and that of the chosen one; None where it is given or missing."""
        head = self.kind(**self.parameters)
        full = head.get_params().get("tol")
        if full is None or "tol" in {*self.parameters, *(name for s in self.grid for name in s)}:
            return None
        first = self.cheap.get("tol", full)
        return Tolerance(first, full, FINEST if one_stage(head) else first)

    def in_full(self, tol: float | None) -> bool:
        """Whether a tolerance is that of the head itself."""
        return tol is None or self.tolerance is None or tol == self.tolerance.full

    @property
    def limits(self) -> Limits:
        """How far the grid may grow at its edges; not at all where the settings are somebody's own, or the authors'."""
        own = self.variant == PUBLISHED or (self.settings is not None and not self.parameters)
        return {} if own else self.kind.grows

    @property
    def steered(self) -> bool:
        """Whether rows of validation are held out to steer the fit."""
        return bool(self.kind.needs & HELD_OUT_NEEDS)

    @property
    def halved(self) -> bool:
        """Whether one half of validation is fitted or steers, so that only the other may choose."""
        return self.kind.fits_on is On.VALIDATION or self.steered

    @property
    def blind(self) -> bool:
        """Whether it is fitted and chosen without any group label."""
        return not (knows_groups(self.kind) or (self.rule in RULES and RULES[self.rule].uses_groups))

    @property
    def protocol(self) -> str:
        """How a head that takes part of validation is fitted and chosen, in words."""
        return REFITTED if self.kind.fits_on is On.VALIDATION else STEERED if self.steered else ""

    def of(self, seed: int) -> list[dict[str, Any]]:
        """The settings of one seed."""
        return [s | {"random_state": seed} for s in self.grid]

    @property
    def repeats(self) -> bool:
        """Whether another seed gives another result."""
        return self.kind.random or self.halved


def knows_groups(kind: type[Head]) -> bool:
    """Whether a head is fitted or steered with group labels."""
    return bool(kind.needs & GROUP_NEEDS)


def check(spec: HeadSpec, split: Split) -> None:
    """Refuse, before any work, a head whose needs the data do not meet, or whose parameters no record can hold.

    Raises `HeadError` or `SplitError`.
    """
    for setting in (spec.parameters, *spec.grid):
        if problem := unrecordable(setting):
            raise HeadError(f"head {spec.name!r}: {problem}")
    if knows_groups(spec.kind) and not split.has_groups:
        raise HeadError(
            f"head {spec.name!r} needs groups, and {split.dataset} has no attribute that forms any; "
            "add a column to manifest.csv and name it under `grouping` in manifest.json, or use plain or class-balanced"
        )
    known = (*Partition, *split.train.attributes)
    if spec.partition and spec.partition not in known:
        raise HeadError(
            f"head {spec.name!r} cannot be fitted with the partition {spec.partition!r}: "
            f"{plugins.nearest(spec.partition, known)}"
        )
    if spec.kind.fits_on is On.VALIDATION and spec.steered:
        raise HeadError(f"head {spec.name!r} fits on validation and is steered by it: no row is left to choose")
    if Need.PROMPTS in spec.kind.needs and spec.prompts is None:
        raise HeadError(f"head {spec.name!r} needs a prompt for every class; give --prompt CLASS=TEXT")
    if Need.SPURIOUS_PROMPTS in spec.kind.needs and spec.prompts.spurious is None:
        raise HeadError(
            f"head {spec.name!r} needs prompts of what is spurious, too; give --prompt VALUE=TEXT for the values of an "
            "attribute, and --prompt GROUP=TEXT for the groups"
        )
    if Need.SPURIOSITY in spec.kind.needs and split.train.spuriosity is None:
        raise HeadError(
            f"head {spec.name!r} needs a spuriosity ranking, and {split.dataset} has none by {split.backbone}, nor "
            f"just one by another backbone; make one with `embedx spuriosity rank {split.dataset} -b BACKBONE`"
        )
    choosing = split.val
    if spec.halved:
        if len(lost := np.setdiff1d(np.arange(len(split.classes)), split.val.y)):
            raise SplitError(
                f"head {spec.name!r} fits on validation, which has no row of {split.classes[lost[0]]}; add some"
            )
        choosing = halves(split.val, 0, blind=spec.blind)[1]
    rule_named(spec.rule, split, choosing)
