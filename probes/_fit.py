"""The result of one fit of a head, and the checks of what a head returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ._errors import ContractError

RESERVED = frozenset({"coef_", "intercept_", "converged_", "classes_", "n_features_in_", "feature_names_in_", "mean_",
                      "scale_"})  # fmt: skip
"""Attributes that have a field of their own, or that the data decide."""


@dataclass(frozen=True, eq=False)
class Fit:
    """The fitted values of one head: the attributes `converged_`, `coef_`, `intercept_`, and those of `more`.

    converged        whether the numbers are what the head's definition asks for; never where some are not finite
    coef, intercept  of a linear head, on the standardised features: (1, d) and (1,) for two classes, (k, d) and (k,)
                     for k; other heads may have none
    more             further values by the name of their attribute, which ends with an underscore
    """

    converged: bool
    coef: np.ndarray | None = None
    intercept: np.ndarray | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def having(self, **values: Any) -> Fit:
        """A copy with other values: fields by their names, further attributes by theirs (`gap_=...`).

        With other coefficients or intercepts, what is known of how the former were found is left out.
        """
        own = {name: values.pop(name) for name in ("converged", "coef", "intercept") if name in values}
        lost = {"before_", "reach_"} if {"coef", "intercept"} & own.keys() else set()
        return replace(self, **own, more={**{k: v for k, v in self.more.items() if k not in lost}, **values})

    @property
    def theta(self) -> tuple[np.ndarray, np.ndarray]:
        """(coef, intercept) of a linear head."""
        assert self.coef is not None and self.intercept is not None
        return self.coef, self.intercept

    @property
    def attributes(self) -> dict[str, Any]:
        """The values by the names of the attributes."""
        linear = {"coef_": self.coef, "intercept_": self.intercept} if self.coef is not None else {}
        return {**linear, "converged_": bool(self.converged), **self.more}


def check_fits(name: str, fits: Any, variants: int, shape: tuple[int, int] | None) -> None:
    """Check what `_fits` of the head called `name` returned: one `Fit` for each of the variants.

    shape  (outputs, d) of the coefficients of a linear head, None of others

    Raises `ContractError`.
    """
    if not isinstance(fits, Sequence) or len(fits) != variants:
        description = f"{len(fits)} fits" if isinstance(fits, Sequence) else described(fits)
        raise ContractError(
            f"{name}._fits returned {description}, expected a list of {variants}: one Fit for each variant"
        )
    for i, fit in enumerate(fits):
        where = f"{name}._fits, fit {i + 1} of {variants}:"
        if not isinstance(fit, Fit):
            raise ContractError(
                f"{where} found {described(fit)}, expected a Fit; return Fit(converged, coef, intercept, more)"
            )
        if not isinstance(fit.converged, (bool, np.bool_)):
            raise ContractError(f"{where} converged is {described(fit.converged)}, expected True or False")
        if shape is not None:
            _check_numbers(where, "coef", fit.coef, shape, fit.converged)
            _check_numbers(where, "intercept", fit.intercept, shape[:1], fit.converged)
        _check_names(where, fit.more)


def _check_numbers(where: str, name: str, value: Any, shape: tuple[int, ...], converged: bool) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.shape != shape:
        raise ContractError(f"{where} {name} is {described(value)}, expected an array float64 {shape}")
    if converged and (lost := int(np.count_nonzero(~np.isfinite(value)))):
        raise ContractError(
            f"{where} converged is True, and {name} holds {lost} numbers that are not finite; say converged=False, or "
            "raise FitError"
        )


def _check_names(where: str, more: Any) -> None:
    if not isinstance(more, Mapping):
        raise ContractError(f"{where} more is {described(more)}, expected {{name of an attribute: value}}")
    for key in more:
        if not (isinstance(key, str) and key.isidentifier() and key.endswith("_") and not key.startswith("_")):
            raise ContractError(
                f"{where} more holds {key!r}, expected names of fitted attributes, which end with an underscore"
            )
        if key in RESERVED:
            raise ContractError(f"{where} more holds {key!r}, which is set from elsewhere; take another name")


def check_logits(name: str, logits: Any, shape: tuple[int, ...]) -> None:
    """Check what `decision_function` of the head called `name` returned. Raises `ContractError`."""
    if not (isinstance(logits, np.ndarray) and logits.dtype.kind == "f" and logits.shape == shape):
        raise ContractError(
            f"{name}.decision_function returned {described(logits)}, expected an array of logits {shape}: one for each "
            "row of two classes, k for each row of k"
        )


def checked_weightings(name: str, weightings: Any, n: int) -> np.ndarray:
    """(m, n) float64: what `_weightings` of the head called `name` returned for n rows. Raises `ContractError`."""
    expected = f"expected (m, {n}): one row for each problem"
    if not isinstance(weightings, np.ndarray) or weightings.dtype.kind not in "fiub":
        raise ContractError(f"{name}._weightings returned {described(weightings)}, {expected}, of numbers")
    if weightings.ndim != 2 or weightings.shape[1] != n or not len(weightings):
        help_ = "; write weights[None]" if weightings.shape == (n,) else ""
        raise ContractError(f"{name}._weightings returned {weightings.shape}, {expected}{help_}")
    if not np.isfinite(weightings).all() or weightings.min() < 0:
        odd = weightings[~(np.isfinite(weightings) & (weightings >= 0))]
        raise ContractError(f"{name}._weightings returned a weight of {odd[0]:g}, expected finite numbers from 0 on")
    if not (some := weightings.any(axis=1)).all():
        raise ContractError(
            f"{name}._weightings returned row {int(some.argmin())} of zeros only, expected a row that counts in each"
        )
    return np.asarray(weightings, np.float64)


def described(value: Any) -> str:
    """What a value is, short enough for a message."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {value.shape}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
