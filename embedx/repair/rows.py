"""Which rows fit, stop, choose and report: disjoint for every seed, and drawn once for all settings of a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import HeadError, SplitError
from embedx.repair.concept import Concept

BY_SPLIT = "by the splits of the dataset"
BY_SEED = "at random for each seed: as many as the most shots to fit, a third of the rest to stop, the others to report"
LEAST = 3
"""Images of a concept that are left where the dataset does not divide them: one stops the descent, two report."""


@dataclass(frozen=True, eq=False)
class Division:
    """The images of a concept by number, 0 to m - 1.

    parts  (fit, stop, report) of the dataset's own splits; None: drawn anew for each seed
    """

    images: int
    shots: int
    parts: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, concept: Concept, manifest: Manifest, shots: int) -> Division:
        """By split where each has enough images, else by seed.

        Raises `HeadError` where so many shots leave none to stop the descent and to report.
        """
        if len(concept.rows):
            splits = manifest.splits[concept.rows]
            fit, stop, report = (np.flatnonzero(splits == s) for s in range(len(SPLITS)))
            if len(fit) >= shots and len(stop) and len(report) > 1:
                return cls(len(concept), shots, (fit, stop, report))
        if len(concept) < shots + LEAST:
            raise HeadError(
                f"{concept.spec} has {len(concept):,} images, and {shots:,} of them would be fitted on: {LEAST} more "
                f"have to stop the descent and to report; ask for at most {max(0, len(concept) - LEAST):,} shots, or "
                "name more images"
            )
        return cls(len(concept), shots, None)

    def drawn(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(fit, stop, report) of one seed, the first in the order in which shots are taken."""
        rng = np.random.default_rng([seed, 1])
        if self.parts is not None:
            fit, stop, report = self.parts
            return rng.permutation(fit), stop, report
        order = rng.permutation(self.images)
        fit, rest = order[: self.shots], order[self.shots :]
        stop = max(1, len(rest) // 3)
        return fit, np.sort(rest[:stop]), np.sort(rest[stop:])


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows of the manifest without the concept: what must not be broken.

    train   {class code: rows} of which one each is drawn
    val     rows that choose among settings; test: rows that report
    """

    train: dict[int, np.ndarray]
    val: np.ndarray
    test: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest, usable: np.ndarray, without: np.ndarray) -> Kept:
        """usable (n,) bool rows with features; without: rows of the concept, and copies of its images.

        Raises `SplitError` where validation or test has no row.
        """
        left = usable.copy()
        left[without] = False
        train, val, test = (np.flatnonzero(left & (manifest.splits == s)) for s in range(len(SPLITS)))
        for name, rows in (("val", val), ("test", test)):
            if not len(rows):
                raise SplitError(
                    f"{manifest.name} has no {name} row beside the concept: a repair is chosen on val and reported on "
                    "test; give rows to both in manifest.csv"
                )
        labels = manifest.labels[train]
        return cls({int(c): train[labels == c] for c in np.unique(labels)}, val, test)

    def require(self, classes: Sequence[int], manifest: Manifest) -> None:
        """Raise `HeadError` where images of more classes are asked for than have one in train."""
        if classes and max(classes) > len(self.train):
            raise HeadError(
                f"one image of each of {max(classes):,} classes: only {len(self.train):,} of {len(manifest.classes):,} "
                f"have a train row beside the concept; ask for up to {len(self.train):,}"
            )

    def drawn(self, seed: int) -> np.ndarray:
        """One train row of each class, the classes in random order: the first N are those that are kept with N."""
        rng = np.random.default_rng([seed, 2])
        order = rng.permutation(sorted(self.train))
        return np.array([rng.choice(self.train[int(c)]) for c in order], dtype=np.int64)
