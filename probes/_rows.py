"""Checks of what is given beside X, one value for each row: groups, held-out labels, spuriosity."""

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
    column = _column(values, name, rows)
    refuse_missing(column, name)
    if column.dtype.kind == "f" and np.isinf(column).any():
        raise FitError(f"{name} holds infinity (row {int(np.isinf(column).argmax())}); expected a label for every row")
    if column.dtype == object:
        try:
            np.unique(column)
        except TypeError as error:
            kinds = ", ".join(sorted({type(v).__name__ for v in column}))
            raise FitError(f"{name} holds values that do not compare ({kinds}); make them of one type") from error
    return column


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
    column = _column(values, name, rows)
    if column.dtype == object:
        missing = _missing(column)
        if odd := [v for v in column[~missing] if not isinstance(v, Real)]:
            raise FitError(f"{name} holds {odd[0]!r}, which is no number; expected numbers, NaN where there is none")
        kept = np.full(len(column), np.nan)
        kept[~missing] = column[~missing].astype(np.float64)
        column = kept
    if column.dtype.kind not in "fiub":
        raise FitError(f"{name} holds {column.dtype}, expected numbers, NaN where there is none")
    column = column.astype(np.float64)
    if np.isinf(column).any() or np.isnan(column).all():
        what = "infinite ones" if np.isinf(column).any() else "NaN for every row"
        raise FitError(f"{name} holds {what}; expected numbers, and NaN for rows of classes without a ranking")
    return column


def codes_of(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(n,) place of each value among `levels`, -1 for values that are not there. Python decides: "0" is not 0."""
    at = {value: i for i, value in enumerate(levels.tolist())}
    distinct, inverse = np.unique(values, return_inverse=True)
    return np.array([at.get(value, -1) for value in distinct.tolist()], dtype=np.int64)[inverse]


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise FitError(f"{name} is not one value for each row: {error}") from error


def _column(values: Any, name: str, rows: int) -> np.ndarray:
    column = _array(values, name)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1 or column.dtype.kind not in "biufUSOMm":
        what = f"{type(values).__name__} of {column.dtype}" if column.ndim in (0, 1) else f"shape {column.shape}"
        raise FitError(f"{name} must be one value for each row, found {what}")
    if len(column) != rows:
        raise FitError(f"X and {name} have inconsistent numbers of samples: [{rows}, {len(column)}]")
    return column


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        return np.array([_is_missing(v) for v in values.ravel()], dtype=bool)
    if values.dtype.kind in "fcmM":
        return np.isnan(values)
    return np.zeros(values.shape, dtype=bool)


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT differ from themselves
    except (TypeError, ValueError):  # of NA even that is not known; an array is no value at all
        return not hasattr(value, "__len__")
