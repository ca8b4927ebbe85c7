"""What heads do with groups: reweight, subsample, or minimise the worst case over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ._convex import ConvexHead, inverse_frequency, weighted_fits
from ._data import Data
from ._draws import balanced_draws
from ._errors import FitError
from ._fit import Fit
from ._inference import effective_size
from ._once import content, once
from ._worst_case import worst_case_fits

USES = ("worst-case", "reweight", "subsample")


@dataclass(frozen=True)
class Use:
    """One of:

    "worst-case"  GroupDRO, exact; a group of n_g rows counts as its mean loss + adjustment / sqrt(n_g)
    "reweight"    every group has the same mass (RWG)
    "subsample"   every group subsampled to the rarest, the mean of `draws` fits (SUBG); `seed` is that of the draws
    """

    kind: str
    draws: int = 1
    adjustment: float = 0.0
    seed: Any = None

    def weightings(self, groups: np.ndarray, clusters: np.ndarray | None = None) -> np.ndarray:
        """(m, n) weights of the rows; for the uses that weight rows."""
        if self.kind == "reweight":
            return inverse_frequency(groups)[None]
        return balanced_draws(groups, self.draws, check_random_state(self.seed), clusters)


def fits_over(
    data: Data, variants: Sequence[ConvexHead], groups: Sequence[np.ndarray], uses: Sequence[Use]
) -> list[Fit]:
    """One fit per variant that treats its groups (n,) by its use; those of the same use are solved together.

    The fits hold `inferred_groups_` and, of a use that weights the rows, `effective_sample_size_`: how many equally
    weighted rows they are worth, all draws together. Raises `FitError` for a use that is not known.
    """
    if other := {u.kind for u in uses} - set(USES):
        raise FitError(f"use must be one of {', '.join(map(repr, USES))}, found {min(other)!r}")
    fits: dict[int, Fit] = {}
    worst = [i for i, u in enumerate(uses) if u.kind == "worst-case"]
    fits |= zip(
        worst,
        worst_case_fits(
            data, [variants[i] for i in worst], [groups[i] for i in worst], [uses[i].adjustment for i in worst]
        ),
        strict=True,
    )
    weighted = [i for i, u in enumerate(uses) if u.kind != "worst-case"]
    weightings, at = once(
        [(content(groups[i]), repr(uses[i])) for i in weighted],
        lambda j: uses[weighted[j]].weightings(groups[weighted[j]], data.clusters),
    )
    fits_of_weighted = weighted_fits(data, [variants[i] for i in weighted], weightings, at)
    for i, place, fit in zip(weighted, at, fits_of_weighted, strict=True):
        fits[i] = fit.having(effective_sample_size_=effective_size(weightings[place].sum(axis=0)))
    return [fits[i].having(inferred_groups_=g) for i, g in enumerate(groups)]
