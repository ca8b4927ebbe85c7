"""Reweighted by group: every group has the same mass (RWG in Idrissi et al. 2022). Needs group labels on train.

On features that separate the classes its effect fades as regularisation does: all weightings tend to the same
maximum-margin head. Strong regularisation belongs in its grid, and a subsampling head beside it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._convex import STOPPED, ConvexHead, inverse_frequency
from ._data import Data
from ._declarations import Need
from ._supervision import Labels, Supervision
from ._variants import Published


class Reweighted(ConvexHead):
    """w_i = n / (k * n_g) for a row of group g, over the k groups that occur."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)

    published: ClassVar[Published | None] = STOPPED

    def _weightings(self, data: Data) -> np.ndarray:
        return inverse_frequency(data.known_groups())[None]
