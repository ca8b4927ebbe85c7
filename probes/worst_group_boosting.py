"""Worst-group boosting: groups that the head gets wrong on held-out rows weigh more in the next round.

A direct answer to "give the worst group more attention": accuracies on rows that are not fitted steer it, for on
separable features those of the training rows are all 1. With the classes given as groups it boosts the worst class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import CS, ConvexHead, weighted_fits
from ._data import Data
from ._declarations import Need
from ._errors import FitError
from ._fit import Fit
from ._held_out import accuracies, logits
from ._inference import effective_size
from ._supervision import Labels, On, Supervision


class WorstGroupBoosting(ConvexHead):
    """Fit, w_g <- w_g exp(eta (1 - accuracy_g on held-out)), fit again: `rounds` times from w = 1, which is plain.

    The rows of group g weigh w_g, scaled to mean 1 over the rows. The round whose worst group on the held-out rows
    is best is kept, the first of equal ones; so it is at least as good as the plain head on those rows.

    eta     how fast weights grow, > 0
    rounds  number of weighted fits after the plain one, >= 1
    The rest as in `ConvexHead`.

    Fitted values beyond those of `ConvexHead`, for the round that is kept: `round_`, `group_weights_` (w_g in the order
    of the sorted groups), `effective_size_` = (sum w)^2 / sum w^2 over the rows; and of all rounds `held_out_worst_`.
    Raises `FitError` when a group of the training rows does not occur among the held-out rows.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS, Need.HELD_OUT_GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (
        Supervision(Labels.GROUPS),
        Supervision(Labels.GROUPS, On.VALIDATION),
    )
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"C": C} for C in CS[::4])

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        eta: float = 2.0,
        rounds: int = 5,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant)
        self.eta = eta
        self.rounds = rounds

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        groups = data.known_groups()
        count = int(groups.max()) + 1
        if lost := max(count - len(np.intersect1d(groups, np.asarray(h.groups))) for h in data.held_out):
            raise FitError(
                f"{lost} of the {count} training groups have no held-out row, whose accuracy would steer their weight; "
                "add held-out rows of every group, or merge groups"
            )
        width = max(count, *(int(np.asarray(h.groups).max()) + 1 for h in data.held_out))
        weights = np.ones((len(variants), count))
        history: list[list[float]] = [[] for _ in variants]
        kept: dict[int, Fit] = {}
        left, fits = list(range(len(variants))), dict[int, Fit]()
        for turn in range(max(v.rounds for v in variants) + 1):
            left = [i for i in left if turn <= variants[i].rounds]
            rows = [weights[i][groups] for i in left]
            rows = [(r / r.mean())[None] for r in rows] if turn else [np.ones((1, len(groups)))] * len(left)
            last = [fits[i].theta for i in left] if turn else []
            fresh = weighted_fits(data, [variants[i] for i in left], rows, range(len(left)), last)
            fits |= dict(zip(left, fresh, strict=True))
            steered = logits(data, fresh, left)
            for i, r, (held_out, F) in zip(left, rows, steered, strict=True):
                accuracy = accuracies(F.argmax(1) == held_out.y, np.asarray(held_out.groups), width)
                worst = float(np.nanmin(accuracy))
                if not history[i] or worst > max(history[i]):
                    kept[i] = fits[i].having(
                        round_=turn, group_weights_=weights[i] / weights[i][groups].mean(),
                        effective_size_=effective_size(r),
                    )  # fmt: skip
                history[i].append(worst)
                weights[i] *= np.exp(variants[i].eta * (1 - accuracy[:count]))
        return [kept[i].having(held_out_worst_=np.array(h)) for i, h in enumerate(history)]
