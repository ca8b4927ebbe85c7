"""LISA: a head on rows between rows that differ in the attribute or in the label alone. Needs the attribute on train.

Yao et al. 2022, "Improving Out-of-Distribution Robustness via Selective Augmentation" (ICML; arXiv 2201.00299), on
features instead of images. Between two rows of a label the attribute changes and the label does not; between two of an
attribute the label changes with the features that tell it. Groups are drawn alike, as often as one another, so that the
head is balanced over groups as well, to which it owes most of what it gains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._data import Data
from ._declarations import ChosenBy, Need, Partition
from ._errors import FitError
from ._fit import Fit
from ._head import LinearHead
from ._sgd import Mixed, Sgd, sgd_fits
from ._supervision import Labels, Supervision
from ._variants import Published

BATCH, SGD = 32, Sgd(rate=1e-3, momentum=0.9, decay=1e-4)
"""Theirs for Waterbirds: two mixtures of 16 rows of every one of four groups."""


class Lisa(LinearHead):
    """Gradient steps on E[s loss(F, y_i) + (1 - s) loss(F, y_j)],  F = W (s z_i + (1 - s) z_j) + b

    over s of Beta(alpha, alpha) and pairs of rows i, j: with probability `same_label` of one label and two attributes,
    else of one attribute and two labels. What is shared is drawn alike from the values with which two others occur,
    then these two, then a row of each of the two groups, anew for every one of 32 rows of a step; see `Sgd`. (Of more
    than four groups the authors' code mixes within labels alone.)

    Parameters
    steps       at which the way stops; published: the best of 1,200 for Waterbirds, of 4,350 for CelebA, by validation
                at every fourth
    alpha       above 0; published: 2
    same_label  from 0 to 1; published: 0.5. Where only one of the two kinds of pair exists, all are of that kind
    standardize, random_state as in `Head`
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    partition: ClassVar[Partition] = Partition.ATTRIBUTE
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    published: ClassVar[Published | None] = Published()
    grows: ClassVar[Mapping[str, tuple[float, float]]] = {}
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"steps": s} for s in (20, 40, 80, 150, 300, 600, 900, 1200))

    def __init__(
        self,
        steps: int = 1200,
        alpha: float = 2.0,
        same_label: float = 0.5,
        standardize: bool = True,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(standardize, random_state, variant)
        self.steps = steps
        self.alpha = alpha
        self.same_label = same_label

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        groups = np.stack([data.y, data.known_groups()])
        occurring, code, counts = np.unique(groups, axis=1, return_inverse=True, return_counts=True)
        order, starts = np.argsort(code.ravel(), kind="stable"), np.cumsum(counts) - counts

        def draws(head: Self, rng: np.random.RandomState) -> Iterator[Mixed]:
            if not head.alpha > 0:
                raise FitError(f"alpha must be above 0, found {head.alpha}")
            pairs, likely = neighbouring(occurring, head.same_label)
            while True:
                of_groups = pairs[rng.choice(len(pairs), BATCH, p=likely)].T
                first, second = order[starts[of_groups] + rng.randint(counts[of_groups])]
                yield Mixed(first, second, rng.beta(head.alpha, head.alpha, BATCH))

        return sgd_fits(data, variants, SGD, ("alpha", "same_label"), lambda v: v.steps, draws)


def neighbouring(groups: np.ndarray, same_label: float) -> tuple[np.ndarray, np.ndarray]:
    """(m, 2) ordered pairs of the groups (2, g), label above attribute, that share one of both, and (m,) how likely.

    Raises `FitError` where there is none, or for a `same_label` that is no probability.
    """
    if not 0 <= same_label <= 1:
        raise FitError(f"same_label must lie between 0 and 1, found {same_label}")
    alike = groups[:, :, None] == groups[:, None, :]
    likely = np.zeros(alike.shape[1:])
    for shared, weight in ((0, same_label), (1, 1 - same_label)):
        pairs = alike[shared] & ~alike[1 - shared]
        others, values = pairs.sum(axis=1), len(np.unique(groups[shared][pairs.any(axis=1)]))
        if values:  # of n groups with a value the n (n - 1) pairs are as likely as one another
            likely += weight * pairs / (values * np.maximum(others * (others + 1), 1))[:, None]
    if not likely.any():
        raise FitError(
            "Lisa mixes rows of one label and two attributes, or of one attribute and two labels, and no groups are "
            "of the kind that is asked for; give an attribute that occurs with more than one label"
        )
    pairs = np.argwhere(likely)
    return pairs, likely[tuple(pairs.T)] / likely.sum()
