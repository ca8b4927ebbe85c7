"""What heads are fitted on, checked: codes for labels and groups, features in one standardisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
from sklearn.utils.validation import check_array

from . import _rows
from ._errors import FitError, about_the_data
from ._features import Features
from ._once import Memory, content, once
from ._prompts import Prompts


class HeldOut(NamedTuple):
    """Rows that are not fitted but steer the fit: X (m, d), labels y (m,), groups (m,) or None."""

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Data:
    """What a head is fitted on, checked: y and groups are codes from 0 that index `classes` and the groups that occur.

    held_out  rows that are not fitted, once each by content: X in the same standardisation as `features`, y and groups
              in the same codes; `steered_by[i]` is the place of those that steer variant i
    prompts   with a unit row of text for each class; for the heads that need them
    spuriosity  (n,) float64, NaN where a row has none; for the heads that need it
    clusters  (n,) codes of the subjects of the rows, where these are known; for the heads that draw or part rows
    names     of the features, where X had some
    starts    (coef, intercept) that a variant may be descended from, by variant, None for one without; or none at all
    memory    what first stages found on these rows, see `recalled`
    """

    features: Features
    y: np.ndarray
    classes: np.ndarray
    groups: np.ndarray | None
    held_out: Sequence[HeldOut]
    prompts: Prompts | None
    spuriosity: np.ndarray | None = None
    clusters: np.ndarray | None = None
    steered_by: Sequence[int] = ()
    names: np.ndarray | None = None
    starts: Sequence[tuple[np.ndarray, np.ndarray] | None] = ()
    memory: Memory = field(default_factory=dict)

    @property
    def k(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def of_variants(self, places: Sequence[int]) -> Data:
        """The same rows for the variants at some places."""
        steered_by = [self.steered_by[i] for i in places] if self.steered_by else ()
        return replace(self, steered_by=steered_by, starts=[self.starts[i] for i in places] if self.starts else ())

    def held_out_of(self, variant: int) -> HeldOut:
        """The rows that steer a variant; for heads that declare this need."""
        return self.held_out[self.steered_by[variant]]

    def known_groups(self) -> np.ndarray:
        """The groups; for heads that declare this need."""
        assert self.groups is not None  # `fit` has refused already
        return self.groups

    def known_prompts(self) -> Prompts:
        """The prompts; for heads that declare this need."""
        assert self.prompts is not None
        return self.prompts

    def known_spuriosity(self) -> np.ndarray:
        """The spuriosity of the rows; for heads that declare this need."""
        assert self.spuriosity is not None
        return self.spuriosity


def steering(
    given: Sequence[HeldOut], features: Features, classes: np.ndarray, occurring: np.ndarray | None
) -> tuple[list[HeldOut], list[int]]:
    """(held out, at): the steering rows as `Data` holds them, equal ones once; at[i] is the place of given[i].

    occurring  the groups of the training rows, where those are given

    Raises `FitError` for missing values, another width than the features', and a class that training rows lack.
    """
    first = [next(i for i, other in enumerate(given) if other is h) for h in given]  # the same object needs one look
    looked = {i: _in_codes(given[i], features, classes, occurring) for i in dict.fromkeys(first)}
    kept, at = once([content(*h) for h in looked.values()], lambda i: list(looked.values())[i])
    places = dict(zip(looked, at, strict=True))
    return kept, [places[i] for i in first]


def _in_codes(given: HeldOut, features: Features, classes: np.ndarray, occurring: np.ndarray | None) -> HeldOut:
    with about_the_data("held_out.X"):
        X = check_array(given.X, dtype=cast("Any", features.X.dtype))
        if X.shape[1] != features.d:
            raise FitError(f"{X.shape[1]} features, and the training rows have {features.d}")
    y = _rows.labels(given.y, "held_out.y", len(X))
    codes = _rows.codes_of(y, classes)
    if (codes < 0).any():
        lost = np.unique(y[codes < 0])[0]
        raise FitError(f"class {lost!r} occurs among the held-out rows only; the training rows need it too")
    groups = given.groups
    if groups is not None:
        groups = _rows.labels(groups, "held_out.groups", len(X))
        occurring = np.empty(0) if occurring is None else occurring
        at = _rows.codes_of(groups, occurring)
        # Groups that the training rows lack come after theirs.
        at[at < 0] = len(occurring) + np.unique(groups[at < 0], return_inverse=True)[1]
        groups = at
    return HeldOut(features.of(X).cpu().numpy(), codes, groups)
