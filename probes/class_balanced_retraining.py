"""Class-balanced last-layer retraining (CB-LLR): a fresh head on validation, classes alike. Needs no group labels.

LaBonte et al. 2023, "Towards Last-Layer Retraining for Group Robustness with Fewer Annotations" (arXiv 2309.08534):
the head is set back and fitted on rows that the training of the network has not seen, half of validation in their
code, with classes drawn alike. On a frozen backbone every head is a fresh one, and what remains is the other rows. Hill
et al. 2025, "On the Unreasonable Effectiveness of Last-layer Retraining" (arXiv 2512.01766), find that this is what it
lives on: the held-out rows are better balanced over groups than those of train, as validation is in Waterbirds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import numpy as np

from ._convex import ConvexHead, inverse_frequency
from ._data import Data
from ._fit import Fit
from ._sgd import Mixed, Sgd, sgd_fits
from ._supervision import On
from ._variants import PUBLISHED, Published

BATCH, EPOCHS, SGD = 32, 100, Sgd(rate=3e-3, decay=1e-4)
"""Theirs for Waterbirds and CelebA. The momentum that they set does not reach torch's optimiser."""


class ClassBalancedRetraining(ConvexHead):
    """w_i = n / (k * n_y) over n rows of validation, n_y of them of class y, k classes.

    The published variant takes 100 epochs of gradient steps instead, see `Sgd`, each on 32 rows that are drawn with
    these weights; n rows are an epoch. The parameters of the convex problem mean nothing to it.
    """

    fits_on: ClassVar[On] = On.VALIDATION
    published: ClassVar[Published | None] = Published("solved, with a chosen C", grid=({},))

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        if any(v.variant != PUBLISHED for v in variants):
            return super()._fits(data, variants)
        n, likely = len(data.y), inverse_frequency(data.y) / len(data.y)

        def draws(head: Self, rng: np.random.RandomState) -> Iterator[Mixed]:
            while True:
                epoch = rng.choice(n, n, p=likely)
                for start in range(0, n, BATCH):
                    yield Mixed(epoch[start : start + BATCH])

        return sgd_fits(data, variants, SGD, (), lambda v: EPOCHS * -(-n // BATCH), draws)

    def _weightings(self, data: Data) -> np.ndarray:
        return inverse_frequency(data.y)[None]
