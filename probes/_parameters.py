"""What the parameters of a head may be: their types as `__init__` annotates them, their ranges by name."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral, Real
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
from sklearn.utils import check_random_state

from ._errors import FitError
from ._variants import DEFAULT, PUBLISHED


class ParameterError(FitError, TypeError):
    """A parameter of another type, or out of its range; a `TypeError` and a `ValueError` at once."""


class Range(NamedTuple):
    """What numbers a parameter may be, as a rule and in words."""

    holds: Callable[[Any], bool]
    words: str


POSITIVE = Range(lambda x: x > 0, "positive")
NOT_NEGATIVE = Range(lambda x: x >= 0, "at least 0")
ONE_OR_MORE = Range(lambda x: x >= 1, "at least 1")
RANGES: Mapping[str, Range] = {
    "C": POSITIVE,
    "first_C": POSITIVE,
    "early_C": POSITIVE,
    "lr": POSITIVE,
    "learning_rate": POSITIVE,
    "eta": POSITIVE,
    "tol": NOT_NEGATIVE,
    "max_iter": ONE_OR_MORE,
    "draws": ONE_OR_MORE,
    "steps": ONE_OR_MORE,
    "first_steps": ONE_OR_MORE,
    "decay": NOT_NEGATIVE,
    "pull": NOT_NEGATIVE,
    "rounds": ONE_OR_MORE,
    "neighbours": ONE_OR_MORE,
    "adjustment": NOT_NEGATIVE,
}
"""The range of a number of this name, in every head that has it; a head checks its other parameters."""
LADDERS: Mapping[str, tuple[float, float]] = {
    "C": (1e-8, 31.6228), "first_C": (1e-8, 31.6228), "early_C": (1e-8, 31.6228),
    "upweight": (1.0, 1e4), "gamma": (0.0, 100.0), "power": (0.25, 8.0), "adjustment": (0.0, 16.0),
    "strength": (1e-2, 1e6), "beta": (1e-2, 1e6), "alpha": (0.0, 1.0), "q": (0.05, 0.95), "steps": (1, 3000),
    "n": (5, 5000),
}  # fmt: skip
"""How far a grid may grow in a number of this name; the ends are where a method becomes another, or costs too much."""
UNBOUNDED = frozenset({"C", "first_C", "early_C"})
"""Parameters that may be infinite: no penalty at all."""


def check_parameters(head: Any) -> None:
    """Check every parameter of a head, an estimator of scikit-learn's.

    Types are those of the annotations in `__init__`: `float` takes any real number that is finite, `int` whole ones,
    `bool` and `str` their own kind (numpy's scalars included), anything else is left to the head; `random_state` is
    what `check_random_state` takes. Raises `ParameterError` for another type and for a value out of range.
    """
    hints = _hints(type(head))
    for name, value in head.get_params(deep=False).items():
        if name == "random_state":
            _check_seed(value)
            continue
        if name == "variant":
            _check_variant(head, value)
            continue
        kinds = _kinds(hints.get(name, Any))
        if not kinds or (value is None and type(None) in kinds):
            continue
        if not any(_is(value, kind) for kind in kinds):
            words = " or ".join(WORDS[kind] for kind in kinds)
            raise ParameterError(f"{name} must be {words}, found {value!r} ({type(value).__name__})")
        if value is None or isinstance(value, (str, bool, np.bool_)):
            continue
        rule = RANGES.get(name)
        if rule is not None and not rule.holds(value):
            raise ParameterError(f"{name} must be {rule.words}, found {value}")
        if not math.isfinite(value) and not (name in UNBOUNDED and value > 0):
            raise ParameterError(f"{name} must be finite, found {value}")


WORDS: Mapping[Any, str] = {
    float: "a number", int: "a whole number", bool: "True or False", str: "text", type(None): "None"
}  # fmt: skip


def _is(value: Any, kind: Any) -> bool:
    truth = isinstance(value, (bool, np.bool_))
    if kind is bool:
        return truth
    if kind is float:
        return isinstance(value, Real) and not truth
    if kind is int:
        return isinstance(value, Integral) and not truth
    return isinstance(value, kind)


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types of an annotation, or none where one of them is not for this module to judge."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return kinds if all(kind in WORDS for kind in kinds) else ()


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    try:
        return get_type_hints(kind.__init__)
    except (NameError, TypeError):  # a head from elsewhere, whose annotations do not resolve
        return {}


def _check_variant(head: Any, value: Any) -> None:
    name = type(head).__name__
    if not isinstance(value, str) or value not in (DEFAULT, PUBLISHED):
        raise ParameterError(f"variant must be {DEFAULT!r} or {PUBLISHED!r}, found {value!r}")
    if value == PUBLISHED and type(head).published is None:
        raise ParameterError(
            f"{name} has no published variant: nobody published it, or it does not follow its authors to the letter; "
            "leave variant out"
        )


def _check_seed(seed: Any) -> None:
    if isinstance(seed, (bool, np.bool_)):
        raise ParameterError(f"random_state must be a whole number, a RandomState or None, found {seed!r}")
    if seed is None or isinstance(seed, np.random.RandomState):
        return
    try:
        check_random_state(seed)
    except ValueError as error:
        raise ParameterError(
            f"random_state must be a whole number, a RandomState or None, found {seed!r}: {error}"
        ) from error
