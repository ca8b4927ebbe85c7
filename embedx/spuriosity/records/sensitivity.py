"""The record of targeted corruptions, `sensitivity.json`, and how far models agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedx.documents import Kind, plain
from embedx.errors import SpuriosityError
from embedx.evaluation.model import ModelName
from embedx.evaluation.records import Notice, kept
from embedx.files import locked
from embedx.spuriosity.records.saved_names import names_before
from embedx.statistics import Interval, codes_of, end_of_clusters, paired_difference, pearson

FILE = "sensitivity.json"


@dataclass(frozen=True)
class Sensitivity:
    """One model, pair and kind of corruption, on the same images before and after.

    role           of the feature for the class: "core" or "spurious"; kind: of the corruption
    before, after  accuracy; drop: before minus after, below 0 where the corruption helps; n images
    relative       drop as a share of `before`; None where no image was right before
    area           mean share of the image that was corrupted
    elsewhere      what is lost when a region of the same shape and area elsewhere is corrupted in its place; beyond:
                   `drop` minus that, on the same images: what the place of the feature has to do with it. None where an
                   earlier version measured
    overlap        mean share of the other region that even so lies where the feature or the core features look
    """

    model: str
    label: int
    class_name: str
    feature: int
    role: str
    kind: str
    before: float
    after: float
    drop: Interval
    relative: float | None
    area: float
    elsewhere: Interval | None = None
    beyond: Interval | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class Sensitivities:
    """All of an analysis; backbone and weights are those whose features were corrupted.

    settings  how images were corrupted, as in `CorruptionSettings`; found: every model, pair and kind
    pairs     SHA-256 of the pairs with their roles, and of the core features that were left alone; empty in files
              of earlier versions
    """

    dataset: str
    backbone: str
    weights: str
    settings: Mapping[str, Any]
    found: tuple[Sensitivity, ...]
    pairs: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, in the order of their first figures."""
        return tuple(dict.fromkeys(s.model for s in self.found))

    def agreement(self, a: str, b: str, kind: str | None = None) -> Interval | None:
        """Pearson correlation over pairs and kinds (or one kind) of two models' drops, as if pairs were independent.

        None for fewer than four, or drops all the same.
        """
        drops = [
            {(s.label, s.feature, s.kind): s.drop.value for s in self.found if s.model == m and kind in (None, s.kind)}
            for m in (a, b)
        ]
        return pearson(*(np.array([of[key] for key in drops[0] if key in drops[1]]) for of in drops))

    def add(self, folder: Path, notice: Notice) -> Path:
        """Write `sensitivity.json`, with the models that it holds already on the same images, regions and settings.

        A model that was measured again is replaced. `notice` is told of every figure that goes, whoever else adds.
        """
        path = folder / FILE
        with locked(path):
            before = Sensitivities.load(folder) if path.is_file() else self.of_nothing
            foreign = "" if replace(before, found=()) == self.of_nothing else "of other features, roles or settings"
            now = names_before(map(ModelName.parse, self.models))
            stay = kept(path, before.by_model, self.by_model, lambda of: now.get(of[0], of[0]), notice, foreign=foreign)
            replace(self, found=(*self.found, *(s for _, rows in stay for s in rows))).save(folder)
        return path

    @property
    def of_nothing(self) -> Sensitivities:
        """What it is of, as a file would give it back."""
        return replace(self, found=(), settings=plain(self.settings))

    @property
    def by_model(self) -> list[tuple[str, tuple[Sensitivity, ...]]]:
        """[(model, its figures)], in the order of `models`."""
        return [(m, tuple(s for s in self.found if s.model == m)) for m in self.models]

    def save(self, folder: Path) -> Path:
        """Write `sensitivity.json` anew."""
        folder.mkdir(parents=True, exist_ok=True)
        KIND.write(folder / FILE, self)
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Sensitivities:
        """Read `sensitivity.json`. Raises `SpuriosityError` for what is missing, foreign or newer."""
        return KIND.read(folder / FILE)


KIND = Kind(Sensitivities, FILE, "embedx spuriosity corrupt", SpuriosityError, "embedx-sensitivity", 2,
            again="move it away and run `embedx spuriosity corrupt` again", steps={1: dict})  # fmt: skip


def paired(
    before: np.ndarray, after: np.ndarray, clusters: np.ndarray | None = None
) -> tuple[float, float, Interval, float | None]:
    """before, after, drop and relative of images (n,) bool that are right before, and after; clusters as in `lost`."""
    first, drop = float(before.mean()), lost(before, after, clusters)
    return first, float(after.mean()), drop, drop.value / first if first else None


def lost(before: np.ndarray, after: np.ndarray, clusters: np.ndarray | None = None) -> Interval:
    """Accuracy before minus after, of images (n,) bool that are right before, and after.

    clusters  (n,) of any kind, whose the images are; where several are of one, the interval counts clusters
    """
    rows, d = np.arange(len(before)), before.astype(float) - after
    if clusters is None or codes_of(clusters, rows) is None:
        return paired_difference(int((d > 0).sum()), int((d < 0).sum()), len(d))
    return end_of_clusters(d, [(rows, 1.0)], clusters, changes=True)
