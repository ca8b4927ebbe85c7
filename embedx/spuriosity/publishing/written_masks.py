"""Reading a written set of soft masks back: by image and feature, or all core features of an image together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from embedx.errors import ProvenanceError, SpuriosityError
from embedx.extractors import Geometry
from embedx.spuriosity.features.maps import onto_image
from embedx.spuriosity.publishing.mask_files import Packed, decoded
from embedx.spuriosity.publishing.tables import inside, read_masks
from embedx.spuriosity.records.mask_set import COMMAND, FILE, PACKED, MaskSet

HALF = 128
"""The least value of a pixel that belongs to the region of a mask: that of one half."""


@dataclass(frozen=True)
class Entry:
    """A line of `masks.csv`: the PNG file, or "" and the row of `masks.h5`; place, class and size of the image."""

    file: str
    row: int
    class_index: int
    place: int
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class WrittenMasks:
    """A set of masks on the disk, whose tables have been read; the masks themselves are read when asked for.

    entries  {(id of an image, feature): where the mask is}
    """

    folder: Path
    of: MaskSet
    entries: Mapping[tuple[str, int], Entry]

    @classmethod
    def open(cls, folder: Path) -> WrittenMasks:
        """Raises `SpuriosityError` for a folder that holds none, or whose tables are not those written."""
        of, entries = MaskSet.load(folder), {}
        try:
            for row, cells in enumerate(read_masks(folder, of.tables.get("masks.csv", ""), of.stored)):
                size = int(cells["height"]), int(cells["width"])
                entry = Entry(cells.get("file", ""), row, int(cells["class_index"]), int(cells["place"]), size)
                entries[cells["id"], int(cells["feature"])] = entry
        except ValueError as error:
            raise SpuriosityError(f"{folder / 'masks.csv'}: {error}; make it again with `{COMMAND}`") from error
        return cls(folder, of, entries)

    @staticmethod
    def is_one(folder: Path) -> bool:
        """Whether a folder holds a written set of masks."""
        return (folder / FILE).is_file()

    def check(self, dataset: str, weights: str | None = None) -> None:
        """Refuse masks of another dataset or, where the `weights` are given, of another network.

        Raises `SpuriosityError` or `ProvenanceError`.
        """
        if self.of.dataset != dataset:
            raise SpuriosityError(
                f"{self.folder} holds masks of {self.of.dataset}, expected {dataset}: name the right one"
            )
        if weights is not None and weights != self.of.weights:
            raise ProvenanceError(
                f"{self.folder} holds masks of {self.of.backbone} with weights {self.of.weights[:16]}, expected "
                f"{weights[:16]}: numbers of features mean nothing in another network; write the masks of this one "
                f"with `{COMMAND}`"
            )

    @property
    def geometry(self) -> Geometry:
        """How the backbone saw an image; masks are resized without blurring."""
        return Geometry(self.of.size, self.of.resize, "nearest")

    @cached_property
    def core(self) -> frozenset[tuple[int, int]]:
        """(class, feature) of the features that are core for their class."""
        return frozenset((pair.class_index, pair.feature) for pair in self.of.pairs if pair.label == "core")

    @cached_property
    def of_image(self) -> Mapping[str, tuple[int, ...]]:
        """{id: the features that have a mask on the image}."""
        features: dict[str, tuple[int, ...]] = {}
        for row_id, feature in self.entries:
            features[row_id] = (*features.get(row_id, ()), feature)
        return features

    def shows(self, row_id: str, feature: int) -> bool:
        """Whether the image is among those that show the feature most, and has a mask of it."""
        entry = self.entries.get((row_id, feature))
        return entry is not None and entry.place > 0

    def mask(self, row_id: str, feature: int) -> np.ndarray:
        """The soft mask (H, W) uint8 of a feature on an image. Raises `SpuriosityError` where there is none."""
        entry = self.entries.get((row_id, feature))
        if entry is None:
            raise SpuriosityError(
                f"{self.folder} has no mask of feature {feature} on {row_id}; annotations changed since, or more "
                f"images are asked for than were written: run `{COMMAND} {self.of.dataset} -b {self.of.backbone}` again"
            )
        if self.of.stored == "h5":
            with closing(Packed.open(self.folder / PACKED, self.of.size)) as packed:
                return packed.mask(entry.row)[0]
        return decoded(inside(self.folder, entry.file), self.of.size)[0]

    def soft(self, row_id: str, features: Sequence[int]) -> np.ndarray:
        """The masks (k, H, W) float32 in 0..1 of k features on an image; raises as `mask` does."""
        return np.stack([self.mask(row_id, feature) for feature in features]).astype(np.float32) / 255

    def object_mask(self, row_id: str, geometry: Geometry) -> np.ndarray | None:
        """Where the core features of its class look in an image: (h, w) uint8 of 0 and 1, in the frame of `geometry`.

        A pixel belongs to it where the mask of any of them reaches one half. None where the image has no such mask.
        For another geometry than that of the masks, they are laid onto the image and cut from it again.
        """
        there = self.of_image.get(row_id, ())
        features = [f for f in there if (self.entries[row_id, f].class_index, f) in self.core]
        if not features:
            return None
        mask = np.max([self.mask(row_id, feature) for feature in features], axis=0)
        if (geometry.size, geometry.resize) == (self.of.size, self.of.resize):
            return (mask >= HALF).astype(np.uint8)
        from PIL import Image

        wide = onto_image(mask / 255, self.geometry, self.entries[row_id, features[0]].size)
        whole = Image.fromarray(np.where(wide >= HALF / 255, np.uint8(255), np.uint8(0)))
        return (geometry(whole) > 0).astype(np.uint8)
