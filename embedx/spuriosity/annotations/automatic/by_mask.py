"""By masks of the objects: a feature whose activation lies outside the object of the class looks at something else.

For an image x with activation map A >= 0 and object mask M (1 on the object), both in the frame that the network saw:

    outside(x) = sum_p A(p) (1 - M(p)) / sum_p A(p)

A map that looks everywhere alike has the share of the frame, the mean of 1 - M. The figure of a pair is the mean of
outside(x) minus that of the frame over the training images of the class where the feature is strongest, with the
interval of a mean of shares over these images, or their subjects where the manifest names these
(`statistics.mean_share`):

    spurious  the interval lies above 0: the feature looks beside the object more than an even map would
    core      it lies below 0: the feature looks at the object more than an even map would
    unsure    it holds 0; or images of fewer than `LEAST` subjects, each its own where none are named, have an
              activation and a mask that leaves something of the frame in and something out

The paper (appendix G) says "most" of the activation and no more; but where the object fills half of the frame, most of
an even map lies on it, and where it is small, most lies outside. The shares of all images are kept. By
simulation of maps that look at random, of objects over 3 to 75 % of the frame, at most 1 % are called something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.data.manifest import SPLITS
from embedx.errors import SpuriosityError
from embedx.extractors import Geometry
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.annotations.automatic import annotation
from embedx.spuriosity.features.activations import Progress, columns, silent, table
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.publishing.written_masks import WrittenMasks
from embedx.spuriosity.records.discovery import Discovery
from embedx.statistics import Interval, mean_share
from embedx.store import FeatureCache

if TYPE_CHECKING:
    from PIL.Image import Image

SOURCE = "auto:mask"
LEAST = 5
"""Masked images that a pair needs."""
IMAGES = 10
"""Images of each pair, those where the feature is strongest."""
Maps = Mapping[tuple[int, int], tuple[Sequence[str], np.ndarray]]
"""(class, feature) -> ids of m images of the class, and their maps (m, h, w) of that feature."""
MaskOf = Callable[[str], "np.ndarray | None"]
"""The mask (H, W) of an image by its id, in the frame of the maps; None where there is none."""


@dataclass(frozen=True)
class Shares:
    """`outside`, one figure for each image that has a mask and an activation; `frame`: the frame's share outside;
    `clusters`: the subject of each, None where these are not named.
    """

    outside: tuple[float, ...]
    frame: tuple[float, ...]
    clusters: tuple[int, ...] | None = None

    @property
    def draws(self) -> int:
        """The subjects of the images, or the images where these are not named."""
        return len(self.outside if self.clusters is None else set(self.clusters))

    @property
    def difference(self) -> Interval | None:
        """Mean share outside minus that of the frame on the same images, by `mean_share`; None without any."""
        if not self.outside:
            return None
        clusters = None if self.clusters is None else np.array(self.clusters)
        share, even = mean_share(np.array(self.outside), clusters=clusters), float(np.mean(self.frame))
        return Interval(share.value - even, share.low - even, share.high - even, share.n)


@dataclass(frozen=True)
class Seen:
    """The maps of all pairs, and the size (width, height) of every image that they are of."""

    maps: Maps
    sizes: Mapping[str, tuple[int, int]]


def by_mask(
    discovery: Discovery, maps: Maps, mask_of: MaskOf, *, least: int = LEAST,
    subjects: Mapping[str, int] | None = None,
) -> tuple[Annotation, ...]:  # fmt: skip
    """One annotation for every candidate of the discovery that has maps; least: masked images that a label takes.

    subjects  whose each image is, by its id; then that many subjects have to have one, and intervals count them
    Raises `SpuriosityError` where no image of any pair has a mask.
    """
    annotations: list[Annotation] = []
    for candidate in discovery.candidates:
        if (candidate.label, candidate.feature) not in maps:
            continue
        ids, of_images = maps[candidate.label, candidate.feature]
        masks = [mask_of(str(i)) for i in ids]
        whose = None if subjects is None else [subjects[i] for i, m in zip(ids, masks, strict=True) if m is not None]
        seen = outside([(a, m) for a, m in zip(of_images, masks, strict=True) if m is not None], whose)
        difference, label = seen.difference, "unsure"
        if difference is not None and seen.draws >= max(least, 2):
            label = "spurious" if difference.low > 0 else "core" if difference.high < 0 else "unsure"
        evidence: dict[str, Any] = {
            "least": least, "share": float(np.mean(seen.outside)) if seen.outside else None,
            "difference": None if difference is None else asdict(difference),
            "shares": list(seen.outside), "frame": list(seen.frame),
            "images": len(masks), "masked": sum(m is not None for m in masks),
        }  # fmt: skip
        annotations.append(annotation(discovery, candidate, label, SOURCE, evidence))
    if not any(a.evidence["mask"]["masked"] for a in annotations):
        raise SpuriosityError(
            f"none of the images that {len(annotations):,} pairs were looked at in has a mask; name the folder that "
            "the masks lie in, by the ids of the images"
        )
    return tuple(annotations)


def strongest(
    lens: ImageInspector, discovery: Discovery, *, images: int = IMAGES, batch: int = 32, progress: Progress = silent
) -> Seen:
    """The maps of every candidate in the training images of its class where it is strongest, ties by id.

    Each image is read once, whatever the number of its features. Raises `ProvenanceError` for a discovery in other
    weights, and for an image or a feature that is not what was extracted.
    """
    discovery.check(lens.cache)
    manifest = lens.manifest
    listed = [[c.feature for c in discovery.of[k]] for k in range(len(manifest.classes))]
    train = manifest.splits == SPLITS.index("train")
    values = columns(manifest, lens.cache, table(listed), train)
    wanted: dict[int, list[tuple[int, int, float]]] = {}
    chosen: dict[tuple[int, int], list[int]] = {}
    for label, features in enumerate(listed):
        for j, feature in enumerate(features):
            rows = np.flatnonzero(train & (manifest.labels == label) & np.isfinite(values[:, j]))
            chosen[label, feature] = rows[np.argsort(-values[rows, j], kind="stable")[:images]].tolist()
            for row in chosen[label, feature]:
                wanted.setdefault(row, []).append((label, feature, float(values[row, j])))
    rows = sorted(wanted)
    read = lens.images(rows, lambda image: (lens.geometry(image), image.size))
    map_of: dict[tuple[int, int, int], np.ndarray] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for start in range(0, len(rows), batch):
        progress(start, len(rows), "")
        block = rows[start : start + batch]
        first = [wanted[row][0] for row in block]
        pixels, shapes = zip(*(next(read) for _ in block), strict=True)
        sizes |= {str(manifest.ids[row]): size for row, size in zip(block, shapes, strict=True)}
        maps = lens.maps(block, np.stack(pixels), np.array([value for _, _, value in first]), [f for _, f, _ in first])
        map_of |= {(r, label, f): maps[b, f].copy() for b, r in enumerate(block) for label, f, _ in wanted[r]}
    progress(len(rows), len(rows), "")
    maps_of = {
        pair: ([str(manifest.ids[r]) for r in rows], np.stack([map_of[(r, *pair)] for r in rows]))
        for pair, rows in chosen.items()
        if rows
    }
    return Seen(maps_of, sizes)


def outside(pairs: Sequence[tuple[np.ndarray, np.ndarray]], whose: Sequence[int] | None = None) -> Shares:
    """The shares of maps (h, w) and masks (H, W); maps of zeros, which look nowhere, are left out, as are masks
    that say nothing: those that cover all of the frame, or nothing of it.

    A mask is averaged over the cells of its map. Activations below zero count as none.
    `whose`: the subject of each pair.
    """
    shares, frame, kept = [], [], []
    for at, (activation, mask) in enumerate(pairs):
        A = np.maximum(activation, 0).astype(np.float64)
        if not A.sum() > 0:
            continue
        M = averaged(mask, (A.shape[0], A.shape[1]))
        if not 0 < M.mean() < 1:
            continue
        shares.append(float((A * (1 - M)).sum() / A.sum()))
        frame.append(float(1 - M.mean()))
        kept.append(at)
    return Shares(tuple(shares), tuple(frame), None if whose is None else tuple(whose[at] for at in kept))


def averaged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) -> (h, w): the mean over each cell of an even grid, pixels on a border counted by their part."""
    if mask.ndim != 2 or mask.size == 0 or mask.min() < 0 or mask.max() > 1:
        raise ValueError(
            f"a mask is {mask.shape} with values {mask.min():g} to {mask.max():g}, expected (H, W) in 0..1"
        )
    down, across = (_overlaps(cells, pixels) for cells, pixels in zip(size, mask.shape, strict=True))
    return down @ mask.astype(np.float64) @ across.T


def _overlaps(cells: int, pixels: int) -> np.ndarray:
    """(cells, pixels): the part of each cell that each pixel covers, along one edge; rows sum to 1."""
    at, pixel = np.linspace(0, pixels, cells + 1), np.arange(pixels)
    covered = np.minimum(at[1:, None], pixel + 1) - np.maximum(at[:-1, None], pixel)
    return np.maximum(covered, 0) * (cells / pixels)


def masks_in(
    folder: Path, cache: FeatureCache, *, boxes: bool = False, dataset: str = ""
) -> Callable[..., np.ndarray | None]:
    """mask_of(id, size): masks from PNG files, resized and cropped as the images of the cache, without blurring.

    For the id `train/a.jpg`: `FOLDER/train/a.jpg/object.png`, else `FOLDER/train/a.png`. What is not black belongs to
    the object; of a picture with transparency, what is not transparent, where its colours say nothing else. Where the
    (width, height) of the image is given, a mask of another shape is refused. What a crop adds beyond the border of an
    image does not belong to the object.

    A folder that `embedx spuriosity masks` wrote is read as well, see `written_masks`: there the object of an image is
    where the soft mask of any core feature of its class reaches one half.

    boxes    the smallest box around the mask instead: for objects thinner than a cell of the maps, whose own mask no
             map could keep to
    dataset  that masks which were written have to be of; "" for any
    Raises `SpuriosityError` for a folder that is not there, a file that is no image, and rows that are no images.
    """
    reader = dict(cache.header.identity.get("reader", {}))
    if reader.get("reads") != "image":
        raise SpuriosityError(f"{cache.header.backbone} reads no images, so its features have no place in one")
    if not folder.is_dir():
        raise SpuriosityError(f"{folder} is no folder; name the one that holds the masks, by the ids of the images")
    resize = reader["resize"]
    geometry = Geometry(tuple(reader["size"]), tuple(resize) if isinstance(resize, list) else resize, "nearest")

    written = WrittenMasks.open(folder) if WrittenMasks.is_one(folder) else None
    if written is not None:
        written.check(dataset or written.of.dataset)
        if not written.core:
            raise SpuriosityError(
                f"{folder} has masks of {len(written.of.pairs):,} features, none of them core, and those of core "
                "features together are the object; say which are, with `embedx annotate`, and write the masks again"
            )

    def mask_of(row_id: str, size: tuple[int, int] | None = None) -> np.ndarray | None:
        mask = _drawn(folder, row_id, geometry, size) if written is None else written.object_mask(row_id, geometry)
        if mask is not None and boxes and mask.any():
            (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis=a))[[0, -1]].tolist() for a in (1, 0))
            mask[top : bottom + 1, left : right + 1] = 1
        return mask

    return mask_of


def _drawn(folder: Path, row_id: str, geometry: Geometry, size: tuple[int, int] | None) -> np.ndarray | None:
    """The mask of a PNG file, 0 and 1, in the frame of `geometry`; size: (width, height) of the image."""
    from PIL import Image, UnidentifiedImageError

    path = next((p for p in _places(folder, row_id) if p.is_file()), None)
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            image.load()
            there = _object(image, path)
    except (UnidentifiedImageError, OSError) as error:
        raise SpuriosityError(f"{path} is no readable image; save masks as PNG files") from error
    height, width = there.shape
    if size is not None and abs(width * size[1] - height * size[0]) > max(width + height, sum(size)) / 2:
        # By more than rounding, by half a pixel, of the sides of either.
        raise SpuriosityError(
            f"{path} is {width} x {height} and its image {row_id} is {size[0]} x {size[1]}: of another shape, so it "
            "would lie elsewhere; save the mask of the whole image, at its size or a multiple of it"
        )
    return (geometry(Image.fromarray(255 * there.astype(np.uint8))) > 0).astype(np.uint8)


def _object(image: Image, path: Path) -> np.ndarray:
    """(h, w) bool: what is not black; of an image with transparency what is not transparent, where that says it.

    Raises `SpuriosityError` where colour and transparency name different pixels.
    """
    if not (image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info):
        return np.asarray(image.convert("L")) > 0
    rgba = np.asarray(image.convert("RGBA"))
    colour, opaque = rgba[..., :3].max(axis=2) > 0, rgba[..., 3] > 0
    both = colour & opaque
    if colour.all() or not colour.any():
        return opaque
    if (both == opaque).all() or (both == colour).all():  # one lies within the other
        return both
    raise SpuriosityError(
        f"{path} names one object by its colours and another by its transparency; save it without transparency, the "
        "object white and all else black"
    )


def _places(folder: Path, row_id: str) -> Iterator[Path]:
    yield folder / row_id / "object.png"
    yield folder / PurePosixPath(row_id).with_suffix(".png")
