"""What is given beside X, one value for each row: groups, held-out labels, spuriosity; looked at as y is."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ._errors import FitError


def labels(values: Any, name: str, rows: int) -> np.ndarray:
    """(rows,) labels of any kind that can be told apart: numbers, text, bools, dates, what pandas makes of them.

    Raises `FitError`, which names the argument, for another shape or length, missing values (NaN, None, NA, NaT),
    infinite or complex ones, and for a mixture that has no order.
    """
    found = _column(values, name, rows)
    refuse_missing(found, name)
    if found.dtype.kind == "f" and np.isinf(found).any():
        raise FitError(f"{name} holds infinity (row {int(np.isinf(found).argmax())}); expected a label for every row")
    if found.dtype == object:
        try:
            np.unique(found)
        except TypeError as error:
            kinds = ", ".join(sorted({type(v).__name__ for v in found}))
            raise FitError(f"{name} holds values that do not compare ({kinds}); make them of one type") from error
    return found


def refuse_missing(values: Any, name: str) -> None:
    """Raise `FitError` where a label is NaN, None, NA or NaT."""
    missing = _missing(_array(values, name))
    if missing.any():
        first = int(missing.ravel().argmax())
        raise FitError(
            f"{name} has {int(missing.sum())} missing values (NaN, None, NA or NaT; the first in row {first}); "
            "leave these rows out, or give them a label"
        )


def numbers(values: Any, name: str, rows: int) -> np.ndarray:
    """(rows,) float64, NaN where one is missing. Raises `FitError` for what is no number, and infinite ones."""
    found = _column(values, name, rows)
    if found.dtype == object:
        missing = _missing(found)
        if odd := [v for v in found[~missing] if not isinstance(v, Real)]:
            raise FitError(f"{name} holds {odd[0]!r}, which is no number; expected numbers, NaN where there is none")
        kept = np.full(len(found), np.nan)
        kept[~missing] = found[~missing].astype(np.float64)
        found = kept
    if found.dtype.kind not in "fiub":
        raise FitError(f"{name} holds {found.dtype}, expected numbers, NaN where there is none")
    found = found.astype(np.float64)
    if np.isinf(found).any() or np.isnan(found).all():
        what = "infinite ones" if np.isinf(found).any() else "NaN for every row"
        raise FitError(f"{name} holds {what}; expected numbers, and NaN for rows of classes without a ranking")
    return found


def codes_of(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) where each value stands among `known`, -1 for those that do not: equal as Python says, "0" is not 0."""
    at = {value: i for i, value in enumerate(known.tolist())}
    distinct, inverse = np.unique(values, return_inverse=True)
    return np.array([at.get(value, -1) for value in distinct.tolist()], dtype=np.int64)[inverse]


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise FitError(f"{name} is not one value for each row: {error}") from error


def _column(values: Any, name: str, rows: int) -> np.ndarray:
    found = _array(values, name)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or found.dtype.kind not in "biufUSOMm":
        what = f"{type(values).__name__} of {found.dtype}" if found.ndim in (0, 1) else f"shape {found.shape}"
        raise FitError(f"{name} must be one value for each row, found {what}")
    if len(found) != rows:
        raise FitError(f"X and {name} have inconsistent numbers of samples: [{rows}, {len(found)}]")
    return found


def _missing(found: np.ndarray) -> np.ndarray:
    if found.dtype == object:
        return np.array([_is_missing(v) for v in found.ravel()], dtype=bool)
    if found.dtype.kind in "fcmM":
        return np.isnan(found)
    return np.zeros(found.shape, dtype=bool)


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT differ from themselves
    except (TypeError, ValueError):  # of NA even that is not known; an array is no value at all
        return not hasattr(value, "__len__")
