"""Bias-tuned: the plain head, its threshold moved to where the worst group of held-out rows is best.

One parameter (one for each class, for more than two): a baseline that every method for the worst group should beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from ._convex import ConvexHead, weighted_fits
from ._data import Data, HeldOut
from ._declarations import Need
from ._fit import Fit
from ._held_out import accuracies, logits
from ._supervision import Labels, On, Supervision

SWEEPS = 20


class BiasTuned(ConvexHead):
    """Plain's W, and b + shift with the shift that maximises min_g accuracy_g on the held-out rows.

    For two classes the maximum is exact: every threshold that tells held-out rows apart is looked at. For more, the
    classes' shifts are moved one after the other, each exactly, until none gains: at least as good as the plain head,
    not always the best there is. Of equal shifts the smallest is taken; inside an interval of equals, its middle.

    Parameters as in `ConvexHead`. Fitted values beyond its own: `shift_` (1 or k,), what was added to the intercepts of
    the plain head, and `held_out_worst_`, the worst group's accuracy on the held-out rows before and after.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.HELD_OUT_GROUPS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS, On.VALIDATION),)

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        m = len(variants)
        fits = weighted_fits(data, variants, [np.ones((1, len(data.y)))], [0] * m)
        return [_tuned(fit, *steered) for fit, steered in zip(fits, logits(data, fits, range(m)), strict=True)]


def _tuned(fit: Fit, held_out: HeldOut, F: np.ndarray) -> Fit:
    groups, y = held_out.groups, held_out.y
    assert groups is not None
    _, groups = np.unique(groups, return_inverse=True)
    before = best = float(accuracies(F.argmax(1) == y, groups).min())
    shift = np.zeros(F.shape[1])
    moved = True
    for _ in range(SWEEPS):
        if not moved:
            break
        moved = False
        for c in range(1 if F.shape[1] == 2 else 0, F.shape[1]):
            step, worst = _best_shift(F + shift, y, groups, c)
            if worst > best:
                shift[c], best, moved = shift[c] + step, worst, True
    shift = shift[1:] if F.shape[1] == 2 else shift - shift.mean()
    intercept = fit.theta[1] + shift
    return fit.having(intercept=intercept, shift_=shift, held_out_worst_=np.array([before, best]))


def _best_shift(F: np.ndarray, y: np.ndarray, groups: np.ndarray, c: int) -> tuple[float, float]:
    """The shift of class c's logit that is best for the worst group, and that group's accuracy.

    A row is given class c where its margin over the other classes, plus the shift, is positive.
    """
    others = np.delete(F, c, axis=1)
    rival = np.delete(np.arange(F.shape[1]), c)[others.argmax(1)]
    margin = F[:, c] - others.max(1)
    edges = np.unique(margin)
    middles = (edges[1:] + edges[:-1]) / 2
    # With shift t the rows whose margin is above -t become c; t = -cut, cuts from below all margins to above all.
    cuts = np.concatenate([[edges[0] - 1], middles, [edges[-1] + 1]])
    size = np.bincount(groups)
    at = np.searchsorted(edges, margin)
    worst = np.ones(len(cuts))
    for g in range(len(size)):
        mine = groups == g
        won = np.bincount(at[mine & (y == c)], minlength=len(edges))
        lost = np.bincount(at[mine & (y != c) & (rival == y)], minlength=len(edges))
        right = won.sum() - np.concatenate([[0], np.cumsum(won)]) + np.concatenate([[0], np.cumsum(lost)])
        worst = np.minimum(worst, right / size[g])
    top = np.flatnonzero(worst == worst.max())
    best = top[np.abs(cuts[top]).argmin()]
    return float(-cuts[best]), float(worst[best])
