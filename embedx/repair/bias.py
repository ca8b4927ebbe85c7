"""The control: the original head with another bias of the target, and nothing else. What it says follows from margins.

A row gets the target once the shift of the bias is above its margin, the largest logit of another class minus that of
the target; so how often any shift says it, and what that breaks, is read off sorted margins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedx.repair.measures import share, taken
from embedx.repair.records import BiasOnly

if TYPE_CHECKING:
    import torch


EDGE = 1e-4
"""Logits by which a shift stays away from a margin, which is rounded."""


def margins(logits: torch.Tensor, target: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) shift of the target's bias above which a row of logits (n, k) gets it, and (n,) the class it gets else."""
    others = logits.clone()
    others[:, target] = -float("inf")
    largest, code = others.max(-1)
    return (largest - logits[:, target]).numpy().astype(np.float64), code.numpy()


@dataclass(frozen=True, eq=False)
class Control:
    """Margins of the rows that report.

    margin    (n,) of the rows without the concept; other (n,) the class that they get below it; labels (n,) theirs
    clusters  (n,) as in `Measured`
    """

    target: int
    margin: np.ndarray
    other: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray | None = None

    @property
    def of_target(self) -> np.ndarray:
        """(n,) bool, rows of the target's class."""
        return self.labels == self.target

    def matching(self, said: int) -> float:
        """The shift that says the target for `said` rows of other classes: in the middle of all that do."""
        m = np.sort(self.margin[~self.of_target])
        if said <= 0:
            return min(0.0, float(m[0]) - EDGE)
        return float((m[said - 1] + m[said]) / 2) if said < len(m) else float(m[-1]) + 1.0

    def reaching(self, stop: np.ndarray, threshold: float) -> float:
        """The smallest shift from 0 with which so many of the validation images, by their margins, get the target."""
        need = int(np.ceil(threshold * len(stop) - 1e-9))
        return max(0.0, float(np.nextafter(np.sort(stop)[need - 1], np.inf)))

    def head(self, shift: float, concept: np.ndarray, whose: np.ndarray | None = None) -> BiasOnly:
        """The head with that shift, on these rows and the concept's test images, given by their margins, and whose."""
        said = shift > self.margin
        right = np.where(said, self.target, self.other) == self.labels
        own, others = self.of_target, ~self.of_target
        return BiasOnly(
            shift, share(shift > concept, whose),
            share(said[own], taken(self.clusters, own)) if own.any() else None,
            share(said[others], taken(self.clusters, others)), share(right, self.clusters),
        )  # fmt: skip
