"""GroupDRO: the group with the largest loss, made as small as can be. Needs group labels on train.

Sagawa et al. 2020, "Distributionally Robust Neural Networks for Group Shifts". On features that separate the classes
all losses go to 0 as regularisation does, and with them the differences between groups: strong regularisation belongs
in the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from ._convex import CS, ConvexHead
from ._data import Data
from ._declarations import Need
from ._fit import Fit
from ._online import Online, online_fits
from ._path import STOPS
from ._supervision import Labels, Supervision
from ._variants import Published
from ._worst_case import worst_case_fits


class GroupDro(ConvexHead):
    """min over W, b:  max_g (L_g + adjustment / sqrt(n_g))  +  1 / (2 C n) ||W||^2,   L_g the mean loss of group g.

    adjustment  generalisation adjustment, >= 0: rare groups count as worse than they look (published 0 to 5)
    eta, decay, steps   of variant "published", which stops early: q_g <- q_g exp(eta (L_g + adjustment / sqrt(n_g))),
                normalised, then one step of all rows with momentum on sum_g q_g L_g + decay / 2 ||theta||^2, from zero
                (decay / 4 for two classes: the published decay is that of two outputs, theta their difference).
                Published: eta 0.01 (authors, WILDS, SpuCo) or 0.1 (BalancingGroups); weight decay 1e-4 to 1
    The rest as in `ConvexHead`, with penalty "l2".

    Fitted values beyond those of `ConvexHead`: `group_weights_`, q in the order of the sorted groups, and `gap_`,
    max_g (L_g + adj_g) - sum_g q_g (L_g + adj_g): together with `gradient_` the certificate. `converged_` asks for a
    gap of at most 1e-4, in units of the loss; of the published variant, which is defined by its steps, only that all is
    finite, and there is no `gap_`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "adjustment": float(a)} for C in CS[::2] for a in (0, 2, 4)
    )

    published: ClassVar[Published | None] = Published(
        "solved; the authors' adversary and head step together and stop early",
        tuple(
            {"steps": s, "eta": eta, "decay": decay} for s in STOPS for eta in (0.01, 0.1) for decay in (1.0, 0.1, 1e-4)
        ),
    )

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        adjustment: float = 0.0,
        eta: float = 0.1,
        decay: float = 0.0,
        steps: int = 300,
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, "l2", standardize, tol, max_iter, random_state, variant, steps)
        self.adjustment = adjustment
        self.eta = eta
        self.decay = decay

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        return worst_case_fits(data, variants, [data.known_groups()] * len(variants), [v.adjustment for v in variants])

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        ways = [Online(v.eta, v.adjustment, v.decay) for v in variants]
        return online_fits(data, [data.known_groups()] * len(ways), ways, [v.steps for v in variants])
