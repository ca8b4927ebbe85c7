"""What takes long, done in a process of its own: pictures of a class, accuracies, and what the answers change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedx.errors import SpuriosityError
from embedx.spuriosity.analysis import Analysis
from embedx.statistics import proportion
from embedx.workspace import Workspace

Tell = Callable[[int, int, str], None]
"""Told (done, total, what) as work goes on."""


@dataclass(frozen=True)
class Place:
    """Where an analysis lies, to be opened in another process.

    weights  local file of the backbone, where it was loaded from one; device: for pictures
    """

    cache: Path
    dataset: str
    backbone: str
    folder: Path
    weights: Path | None = None
    device: str = "cpu"

    def open(self, notice: Callable[[str], None]) -> Analysis:
        """The analysis. Raises as `Analysis.open` does."""
        return Analysis.open(Workspace(self.cache), self.dataset, self.backbone, self.folder, notice=notice)


def accuracy(place: Place, label: int | None, tell: Tell, note: Callable[[str], None]) -> dict[int, tuple[int, int]]:
    """{class: (right, of)} of the head that was looked into, on the validation rows of each class, or of one."""
    from embedx.spuriosity.measures.predictions import predictions

    analysis = place.open(note)
    (name,) = analysis.names(())
    answers = predictions(analysis.manifest, analysis.cache, analysis.model(name), "val")
    return {
        int(c): (int(answers.correct[answers.y == c].sum()), int(np.count_nonzero(answers.y == c)))
        for c in np.unique(answers.y)
        if label in (None, c)
    }


def panels(place: Place, label: int | None, tell: Tell, note: Callable[[str], None]) -> int:
    """Draw the pictures of a class, or of all; returns how many panels there are then."""
    from embedx.spuriosity.panels import panels as draw

    classes = None if label is None else (label,)
    drawn = draw(
        place.open(note), device=place.device, weights=place.weights, classes=classes, progress=tell
    )  # fmt: skip
    return len(drawn.panels)


KINDS: dict[str, Callable[..., Any]] = {"accuracy": accuracy, "panels": panels}
"""What can be done: {kind: function of (place, class or None for all, tell, note)}."""


def interval_of(right: int, of: int) -> Any:
    """An accuracy with its interval."""
    if not of:
        raise SpuriosityError("no rows")
    return proportion(right, of)
