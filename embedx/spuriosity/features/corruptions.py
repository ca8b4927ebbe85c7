"""What can be done to a region of an image: grey, blur, turned patches; which region that is, and its control."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import gaussian_filter

from embedx.data.manifest import SPLITS
from embedx.errors import SpuriosityError
from embedx.spuriosity.features.maps import enlarge

SHIFTS = 6
"""Places along either side of an image to which a region can be moved."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601, as Pillow."""


@dataclass(frozen=True)
class CorruptionSettings:
    """What is corrupted, and how.

    split      whose images: test, so that the head was not fitted on them
    images     of each pair, the most activating ones of the class: at most so many, and at most this `share` of the
               class (beyond its top fifth nobody has checked that a map shows the same thing)
    threshold  a pixel belongs to the region where the map is at least this; None: the map itself is the weight
    sigma      of the Gaussian blur, patch: length of a patch; both as a share of the image's shorter side
    seed       of the turns; an image's patches turn the same way for all features and models
    batch      images per forward pass; workers: threads that read and corrupt
    """

    split: str = "test"
    images: int = 65
    share: float = 0.2
    threshold: float | None = 0.5
    sigma: float = 1 / 32
    patch: float = 1 / 8
    seed: int = 0
    batch: int = 32
    workers: int = 0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise SpuriosityError(f"split is {self.split!r}, expected {', '.join(SPLITS)}")
        whole = {"images": 1, "batch": 1, "workers": 0}
        if wrong := [name for name, least in whole.items() if getattr(self, name) < least]:
            raise SpuriosityError(f"{wrong[0]} is {getattr(self, wrong[0])}, expected at least {whole[wrong[0]]}")
        shares = ("share", "sigma", "patch") + ("threshold",) * (self.threshold is not None)
        if wrong := [name for name in shares if not 0 < getattr(self, name) <= 1]:
            raise SpuriosityError(f"{wrong[0]} is {getattr(self, wrong[0])}, expected more than 0 and at most 1")


def grey(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 -> float32: every channel the luma of the pixel."""
    return np.repeat((pixels @ np.array(LUMA, dtype=np.float32))[..., None], 3, axis=2)


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """(h, w, 3) uint8 -> float32: Gaussian of `sigma` pixels, to 4 deviations, the edge repeated beyond the border."""
    return gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0), mode="nearest")


def rotate(pixels: np.ndarray, patch: int, rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) uint8 -> float32: squares of `patch` pixels, each turned by 90, 180 or 270 degrees, drawn by `rng`.

    The grid is centred; a border narrower than a patch stays as it is.
    """
    out = pixels.astype(np.float32)
    (down, top), (across, left) = ((side // patch, side % patch // 2) for side in pixels.shape[:2])
    for i, turns in enumerate(rng.integers(1, 4, down * across)):
        y, x = top + i // across * patch, left + i % across * patch
        out[y : y + patch, x : x + patch] = np.rot90(out[y : y + patch, x : x + patch].copy(), turns)
    return out


KINDS: Mapping[str, Callable[[np.ndarray, CorruptionSettings, np.random.Generator], np.ndarray]] = {
    "grey": lambda pixels, options, rng: grey(pixels),
    "blur": lambda pixels, options, rng: blur(pixels, options.sigma * min(pixels.shape[:2])),
    "rotate": lambda pixels, options, rng: rotate(pixels, max(2, round(options.patch * min(pixels.shape[:2]))), rng),
}


def draws(seed: int, row_id: str) -> np.random.Generator:
    """What is drawn for an image follows from the seed and its id alone."""
    digest = hashlib.sha256(f"{seed} {row_id}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(digest, "little"))


def corrupted(pixels: np.ndarray, row_id: str, options: CorruptionSettings) -> dict[str, np.ndarray]:
    """The whole image (h, w, 3) in each of the `KINDS`, float32. The turns follow from the seed and the id alone."""
    return {kind: make(pixels, options, draws(options.seed, row_id)) for kind, make in KINDS.items()}


def blend(pixels: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(1 - mask) pixels + mask other, uint8; mask (h, w) in 0..1."""
    weight = mask[..., None]
    return np.clip((1 - weight) * pixels + weight * other, 0, 255).round().astype(np.uint8)


def region(nams: np.ndarray, size: tuple[int, int], threshold: float | None) -> np.ndarray:
    """The mask (H, W) of a feature in 0..1 less what the core features see: nams (1 + core features, h, w).

    Less means: the core's mask, at each pixel the largest of its features', is subtracted, and nothing falls below 0.
    """
    wide = enlarge(nams, size)
    if threshold is not None:
        wide = (wide >= threshold).astype(np.float32)
    return np.maximum(wide[0] - wide[1:].max(axis=0, initial=0.0), 0.0)


def elsewhere(seen: np.ndarray, avoid: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The region (H, W) moved as it is, and the share of it that lies in `avoid` (H, W) even so.

    It is moved in steps of a sixth of either side, round the borders, to where it meets `avoid` the least; of several
    such places one is drawn. So its shape and its area are the same. A region without area stays as it is.
    """
    if not (area := float(seen.sum())):
        return seen, 0.0
    steps = [tuple(i * side // SHIFTS for i, side in zip(at, seen.shape, strict=True))
             for at in product(range(SHIFTS), repeat=2)][1:]  # fmt: skip
    met = np.array([float((np.roll(seen, step, (0, 1)) * avoid).sum()) for step in steps])
    chosen = rng.choice(np.flatnonzero(met <= met.min() + 1e-6 * area))
    return np.roll(seen, steps[chosen], (0, 1)), float(met[chosen] / area)
