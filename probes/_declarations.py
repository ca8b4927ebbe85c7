"""What a head declares beside its code: what it needs, what it is fitted on, how its authors choose its settings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np

from ._errors import ContractError
from ._fit import described
from ._supervision import Labels, On, Supervision
from ._variants import Published


class Need(StrEnum):
    """What `fit` needs beyond X and y."""

    GROUPS = "groups"
    """The group of every row that is fitted."""
    HELD_OUT = "held_out"
    """Rows that are not fitted."""
    HELD_OUT_GROUPS = "held_out groups"
    """Such rows with the group of each."""
    PROMPTS = "prompts"
    """Text features of every class."""
    SPURIOUS_PROMPTS = "prompts spurious"
    """Text features of what is spurious, beside those of the classes."""
    SPURIOSITY = "spuriosity"
    """The place of rows in a spuriosity ranking."""


GROUP_NEEDS = frozenset({Need.GROUPS, Need.HELD_OUT_GROUPS})
"""Needs that only labelled groups meet."""
HELD_OUT_NEEDS = frozenset({Need.HELD_OUT, Need.HELD_OUT_GROUPS})
"""Needs that take rows of validation from those that choose."""
TELLS = {
    Need.GROUPS: Labels.GROUPS, Need.HELD_OUT_GROUPS: Labels.GROUPS, Need.PROMPTS: Labels.PROMPTS,
    Need.SPURIOUS_PROMPTS: Labels.PROMPTS,
    Need.SPURIOSITY: Labels.SPURIOSITY,
}  # fmt: skip
"""The labels that a head with this need has to name in its supervision."""


class Partition(StrEnum):
    """What the groups are that a head is fitted with."""

    GROUPS = "groups"
    """Label x attributes."""
    ATTRIBUTE = "attribute"
    """The attribute alone, or the combinations of several: each of them may hold all classes."""


class ChosenBy(StrEnum):
    """The criterion by which the authors of a head choose its settings on validation."""

    AVERAGE = "average"
    WORST_GROUP = "worst-group"
    """Where there are groups, else by the average."""
    SPURIOSITY = "spuriosity"


@cache
def check_head(kind: type[Any], name: str = "") -> None:
    """Check the class of a head, once: its declarations, and that it can be made without arguments.

    name  the name in messages, by default that of the class. Raises `ContractError`.
    """
    name = name or kind.__name__
    if lacking := sorted(getattr(kind, "__abstractmethods__", ())):
        raise ContractError(f"{name} does not define {', '.join(lacking)}, which every head has to")
    _check_set(name, kind.needs)
    supervision = kind.supervision
    if not (isinstance(supervision, tuple) and all(isinstance(s, Supervision) for s in supervision)):
        raise ContractError(
            f"{name}.supervision is {described(supervision)}, expected a tuple of Supervision, empty for none; for "
            "example (Supervision(Labels.GROUPS, On.TRAIN, Purpose.FIT),)"
        )
    for need in sorted(kind.needs):
        if need in TELLS and TELLS[need] not in {s.labels for s in supervision}:
            label = TELLS[need]
            raise ContractError(
                f"{name}.needs holds Need.{need.name}, and {name}.supervision tells of no {label}; add "
                f"Supervision(Labels.{label.name}, ...) to it"
            )
    if not (kind.published is None or isinstance(kind.published, Published)):
        raise ContractError(f"{name}.published is {described(kind.published)}, expected Published(...) or None")
    for attribute, kinds in {"fits_on": On, "chosen_by": ChosenBy, "partition": Partition}.items():
        if not isinstance(value := getattr(kind, attribute), kinds):
            words = ", ".join(f"{kinds.__name__}.{member.name}" for member in kinds)
            raise ContractError(f"{name}.{attribute} is {described(value)}, expected one of {words}")
    if not isinstance(kind.random, bool):
        raise ContractError(f"{name}.random is {described(kind.random)}, expected True or False")
    _check_grid(name, kind)


def _check_set(name: str, needs: Any) -> None:
    if not isinstance(needs, (set, frozenset)):
        raise ContractError(f"{name}.needs is {described(needs)}, expected a frozenset of Need, empty for none")
    if odd := [need for need in needs if not isinstance(need, Need)]:
        words = ", ".join(f"Need.{need.name}" for need in Need)
        raise ContractError(f"{name}.needs holds {described(odd[0])}, expected {words}")


def _check_grid(name: str, kind: type[Any]) -> None:
    parameters = _parameters_of(name, kind)
    grid = kind.grid
    if not (isinstance(grid, (tuple, list)) and grid and all(isinstance(s, Mapping) for s in grid)):
        raise ContractError(f"{name}.grid is {described(grid)}, expected a tuple of settings such as {{'C': 0.1}}")
    if not isinstance(kind.tried_with, Mapping):
        raise ContractError(
            f"{name}.tried_with is {described(kind.tried_with)}, expected parameters and their values, as a mapping"
        )
    theirs = kind.published or Published()
    declared = [*(("grid", s) for s in grid), ("tried_with", kind.tried_with)]
    declared += [*(("published.grid", s) for s in theirs.grid or ()), ("published.tried_with", theirs.tried_with)]
    for attribute, setting in declared:
        if odd := sorted(set(setting) - set(parameters), key=str):
            raise ContractError(
                f"{name}.{attribute} holds a setting of {odd[0]!r}, expected parameters: "
                f"{', '.join(sorted(parameters))}"
            )
        if problem := unrecordable(setting):
            raise ContractError(f"{name}.{attribute}: {problem}")
    if problem := unrecordable(parameters):
        raise ContractError(f"{name}.__init__, by default: {problem}")
    _check_growth(name, kind.grows)


def _check_growth(name: str, grows: Any) -> None:
    if not isinstance(grows, Mapping):
        raise ContractError(f"{name}.grows is {described(grows)}, expected {{parameter: (smallest, largest)}}")
    for parameter, limits in grows.items():
        if not (isinstance(limits, tuple) and len(limits) == 2 and limits[0] < limits[1]):
            raise ContractError(
                f"{name}.grows holds {described(limits)} for {parameter!r}, expected the smallest value and the largest"
            )


def _parameters_of(name: str, kind: type[Any]) -> dict[str, Any]:
    """{parameter: its default} of a head, each of which is an attribute too."""
    parameters = [
        p for p in list(inspect.signature(kind.__init__).parameters.values())[1:]
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    if lacking := [p.name for p in parameters if p.default is p.empty]:
        raise ContractError(f"{name}.__init__ gives {lacking[0]} no default, expected one for every parameter")
    head, names = kind(), [p.name for p in parameters]
    if "random_state" not in names:
        raise ContractError(f"{name}.__init__ does not take random_state, which every head has to")
    if lacking := [p for p in (*names, *kind._attributes) if not hasattr(head, p)]:
        raise ContractError(f"{name}.__init__ does not set {lacking[0]}; write self.{lacking[0]} = ...")
    return {p: getattr(head, p) for p in names}


def unrecordable(setting: Mapping[str, Any]) -> str:
    """Why parameters cannot be written into a record, which is JSON, or "" where they can."""
    for parameter, value in setting.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            if isinstance(value, np.generic):
                return f"{parameter} is {described(value)}, expected a number of Python's: {value.item()!r}"
            return f"{parameter} is {described(value)}, expected what JSON can hold: text, finite numbers, lists"
    return ""
