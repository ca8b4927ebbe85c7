"""What takes long, done in a process of its own: pictures of a class, accuracies, and what the answers change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedx.data.manifest import SPLITS
from embedx.errors import SpuriosityError
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.panels import PanelSettings
from embedx.spuriosity.records.panel import ALL, FILE
from embedx.workspace import Workspace

Tell = Callable[[int, int, str], None]
"""Told (done, total, what) as work goes on."""
Note = Callable[[str], None]
"""Told, a line at a time, what a person should know."""


UPPER = 0.2
"""The share of a class in which maps are asked to show the same, as in the paper."""


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

    def open(self, notice: Note) -> Analysis:
        """The analysis. Raises as `Analysis.open` does."""
        return Analysis.open(Workspace(self.cache), self.dataset, self.backbone, self.folder, notice=notice)


def panels(place: Place, label: int | None, tell: Tell, note: Note) -> int:
    """Draw the pictures of a class, or of all, as those that there are; returns how many panels there are then."""
    return _drawn(place, label, tell, note, None)


def heatmaps(place: Place, label: int | None, tell: Tell, note: Note) -> int:
    """The same, with images from further down the upper share of the class."""
    return _drawn(place, label, tell, note, UPPER)


def _drawn(place: Place, label: int | None, tell: Tell, note: Note, upper: float | None) -> int:
    from embedx.spuriosity.panels import panels as draw

    classes = None if label is None else (label,)
    settings = settings_like(place.folder, label, upper)
    drawn = draw(
        place.open(note), settings, device=place.device, weights=place.weights, classes=classes, progress=tell
    )  # fmt: skip
    return len(drawn.panels)


def settings_like(folder: Path, label: int | None, upper: float | None) -> PanelSettings:
    """How the panels that there are were drawn, so that others look alike: how many images, and with attacks or not.

    upper  wanted; where the class has such pictures already, they stay
    """
    try:
        there = ALL.read(folder / FILE).panels
    except SpuriosityError:
        return PanelSettings(upper=upper)
    shots = [[shot for shot in p.shots if shot.end == "most"] for p in there]
    further = any(shot.end == "following" for p in there if label in (None, p.label) for shot in p.shots)
    return PanelSettings(
        max(map(len, shots), default=PanelSettings.images), attacks=any(s.attack for of in shots for s in of),
        upper=UPPER if further and upper is None else upper,
    )  # fmt: skip


def least_sure(place: Place, about: object, tell: Tell, note: Note) -> list[int]:
    """Validation rows, those first of which the head is least sure: by the margin of its best class over the next.

    The classes in turn, so that each has its share of the first rows.
    """
    from embedx.spuriosity.features.activations import stream

    analysis = place.open(note)
    manifest, cache = analysis.manifest, analysis.cache
    (name,) = analysis.names(())
    model = analysis.model(name).for_manifest(manifest, cache)
    margins = np.full(len(manifest), np.nan)
    for rows, X in model.blocks(stream(manifest, cache, manifest.splits == SPLITS.index("val"), tell)):
        best = np.sort(model.probabilities(X), axis=1)[:, -2:]
        margins[rows] = best[:, 1] - best[:, 0]
    rows = np.flatnonzero(np.isfinite(margins))
    return in_turn(manifest.labels, rows[np.argsort(margins[rows], kind="stable")])


def extremes(place: Place, about: object, tell: Tell, note: Note) -> list[int]:
    """Validation rows from both ends of the ranking: the most spurious of each class, the least, and so on inwards.

    Rows of a class that is not ranked come in a random order, as methods that use group labels need all classes.
    Raises `SpuriosityError` where there is no ranking.
    """
    ranking = place.open(note).ranking()
    val = ranking.splits == SPLITS.index("val")
    order, rng = [], np.random.default_rng(0)
    for c in np.unique(ranking.labels[val]):
        rows = np.flatnonzero(val & (ranking.labels == c))
        ranked = rows[ranking.positions[rows] >= 0]
        ranked = ranked[np.argsort(-ranking.positions[ranked], kind="stable")]
        inwards = np.stack([np.arange(len(ranked)), np.arange(len(ranked))[::-1]], axis=1).reshape(-1)[: len(ranked)]
        order += [ranked[inwards], rng.permutation(rows[ranking.positions[rows] < 0])]
    return in_turn(ranking.labels, np.concatenate(order)) if order else []


def drawn(place: Place, about: object, tell: Tell, note: Note) -> list[int]:
    """Test rows in a random order that is always the same: chosen by nothing, so that figures of groups are of all."""
    manifest = place.open(note).manifest
    rows = np.flatnonzero(manifest.splits == SPLITS.index("test"))
    return in_turn(manifest.labels, np.random.default_rng(0).permutation(rows))


def in_turn(labels: np.ndarray, rows: np.ndarray) -> list[int]:
    """Rows in their order, but one of each class after the other."""
    place = np.zeros(len(rows), dtype=np.int64)
    for c in np.unique(labels[rows]):
        of = labels[rows] == c
        place[of] = np.arange(int(of.sum()))
    return rows[np.lexsort((labels[rows], place))].tolist()
