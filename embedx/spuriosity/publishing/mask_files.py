"""Soft masks on the disk: 8-bit PNG files under names that say what they are of, or all of them in one HDF5 file.

A mask holds round(255 m) of a map m in 0..1, see `maps.nam`. The name of a mask is a digest of all that it follows
from: the network, the feature, the id of the image and its bytes. So whatever the id looks like, the name is a safe
one, and a whole file under it need not be computed again, whoever wrote it. A PNG file carries the size of its image,
before resizing and cropping, as text.

`masks.h5` has one row for each mask, in the order of `masks.csv`: `masks` (n, H, W) uint8 in chunks of one mask,
`names`, `ids`, `class_index`, `feature`, `place`, `activation` and `sizes` (n, 2), height and width of the images.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embedx.errors import SpuriosityError
from embedx.files import abandoned, clear_faults, landing
from embedx.spuriosity.records.mask_set import COMMAND, PACKED

VERSION = 1
"""Counts the changes of how masks are computed, which have them computed again."""
LEVEL = 4
"""Of the compression of `masks.h5`."""
FORMAT = "embedx-masks"
SOURCE_SIZE = "image-size"
LAST = b"IEND\xaeB`\x82"
"""The bytes that every whole PNG file ends with."""
DATASETS = ("masks", "names", "ids", "class_index", "feature", "place", "activation", "sizes")
Size = tuple[int, int]


@dataclass(frozen=True)
class Mask:
    """One mask of a set.

    pair        number of its pair; folder: of that pair's files
    row         of the image in the manifest; id: of the image
    place       of the image, from 1, by the activation of the feature; 0 for one that is not among those that show it
                most, and has the mask for the sake of another feature
    """

    pair: int
    folder: str
    row: int
    id: str
    class_index: int
    feature: int
    place: int
    activation: float
    name: str

    @property
    def file(self) -> str:
        """Its PNG file, below the folder of the set."""
        return f"{self.folder}/{self.name}.png"


def named(common: str, feature: int, row_id: str, content: bytes) -> str:
    """The name of a mask: 20 hexadecimal digits. common: a digest of the network and its layer."""
    facts = json.dumps([VERSION, common, int(feature), row_id, content.hex()])
    return hashlib.sha256(facts.encode()).hexdigest()[:20]


def quantised(mask: np.ndarray) -> np.ndarray:
    """Values in 0..1 as 0..255, rounded; 128 and more are those of one half and more."""
    return np.rint(255 * np.asarray(mask, dtype=np.float64)).astype(np.uint8)


def encoded(mask: np.ndarray, size: Size) -> bytes:
    """A mask (H, W) uint8 as a PNG file; size: (height, width) of the image that it is of."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    data, text = io.BytesIO(), PngInfo()
    text.add_text(SOURCE_SIZE, f"{size[0]}x{size[1]}")
    Image.fromarray(mask).save(data, "PNG", pnginfo=text)
    return data.getvalue()


def decoded(path: Path, size: Size) -> tuple[np.ndarray, Size]:
    """A mask (H, W) uint8 of a PNG file, and the size of its image. Raises `SpuriosityError` for any other file."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            words = str(image.info.get(SOURCE_SIZE, "")).split("x")
            if image.mode != "L" or image.size != size[::-1] or len(words) != 2:
                raise ValueError(f"it is {image.mode} of {image.height} x {image.width} pixels")
            source = int(words[0]), int(words[1])
            return np.asarray(image), source
    except (OSError, ValueError, SyntaxError) as error:
        raise SpuriosityError(
            f"{path} is no mask of {size[0]} x {size[1]} grey pixels ({error}); remove it and run `{COMMAND}` again"
        ) from error


def is_whole(path: Path) -> bool:
    """Whether a PNG file is there to its end."""
    try:
        with path.open("rb") as file:
            file.seek(-len(LAST), io.SEEK_END)
            return file.read() == LAST
    except OSError:
        return False


@dataclass(frozen=True, eq=False)
class Packed:
    """The masks in an HDF5 file, checked when it is opened; to be closed.

    size  (H, W) of a mask
    """

    file: h5py.File
    size: Size

    @classmethod
    def open(cls, path: Path, size: Size) -> Packed:
        """Raises `SpuriosityError` for a file that is not one of ours, or would lead to others."""
        file = None
        try:
            file = h5py.File(path, "r", locking=False)
            _check(file, size)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            if file is not None:
                file.close()
            reason = str(error).partition("\n")[0]
            raise SpuriosityError(
                f"{path} is no file of masks of {size[0]} x {size[1]} pixels ({reason}); remove it and run `{COMMAND}` "
                "again"
            ) from error
        return cls(file, size)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @cached_property
    def at(self) -> dict[str, int]:
        """{name: row}."""
        names: Any = self.file["names"]
        return {name.decode(): i for i, name in enumerate(names[:])}

    def mask(self, row: int) -> tuple[np.ndarray, Size]:
        """A mask (H, W) uint8 and the size of its image."""
        masks, sizes = _dataset(self.file, "masks"), _dataset(self.file, "sizes")
        height, width = sizes[row].tolist()
        return masks[row], (height, width)


def _check(file: h5py.File, size: Size) -> None:
    """Raise `ValueError` unless all is there, stored in this file, and of one length."""
    if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
        raise ValueError("its attributes format and version are not ours")
    n = _dataset(file, "masks").shape[0]
    for name in DATASETS:
        stored = _dataset(file, name)
        more = {"masks": size, "sizes": (2,)}.get(name, ())
        if stored.shape != (n, *more):
            raise ValueError(f"{name} is {stored.shape}, expected {(n, *more)}")
    if _dataset(file, "masks").dtype != np.uint8:
        raise ValueError(f"masks are {_dataset(file, 'masks').dtype}, expected uint8")


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset whose bytes lie in this very file, not in one that it names."""
    link, stored = file.get(name, getlink=True), None
    if isinstance(link, h5py.HardLink):
        stored = file[name]
    if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual:
        raise ValueError(f"{name} is not stored in it")
    return stored


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """The masks that a folder holds already, in files of either kind.

    size    (H, W) of a mask
    packed  those in `masks.h5`, where there is one
    sizes   {row of the manifest: (height, width) of the image}, as far as they are known
    """

    folder: Path
    size: Size
    packed: Packed | None = None
    sizes: dict[int, Size] = field(default_factory=dict)

    def has(self, mask: Mask) -> bool:
        """Whether a mask is there, whole."""
        return (self.packed is not None and mask.name in self.packed.at) or is_whole(self.folder / mask.file)

    def read(self, mask: Mask) -> tuple[np.ndarray, Size]:
        """A mask (H, W) uint8 that is there, and the size of its image. Raises `SpuriosityError` for a damaged one."""
        if self.packed is not None and mask.name in self.packed.at:
            return self.packed.mask(self.packed.at[mask.name])
        return decoded(self.folder / mask.file, self.size)

    def size_of(self, mask: Mask) -> Size:
        """Height and width of the image of a mask that is there."""
        if mask.row not in self.sizes:
            self.sizes[mask.row] = self.read(mask)[1]
        return self.sizes[mask.row]

    def write(self, mask: Mask, pixels: np.ndarray, size: Size) -> None:
        """Write a mask (H, W) uint8 of an image of a size as a PNG file, whole or not at all."""
        path = self.folder / mask.file
        with clear_faults(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with landing(path, synced=False) as temporary:
            temporary.write_bytes(encoded(pixels, size))
        self.sizes[mask.row] = size

    def unpack(self, masks: Sequence[Mask]) -> None:
        """Write those masks as PNG files that lie in `masks.h5` alone."""
        for mask in masks:
            if not is_whole(self.folder / mask.file):
                self.write(mask, *self.read(mask))

    def pack(self, masks: Sequence[Mask]) -> None:
        """Write `masks.h5` of all these masks anew, whole or not at all."""
        n = len(masks)
        with landing(self.folder / PACKED) as temporary, h5py.File(temporary, "w") as file:
            pixels = file.create_dataset(
                "masks", (n, *self.size), np.uint8, chunks=(1, *self.size), compression="gzip", compression_opts=LEVEL
            )
            sizes = np.zeros((n, 2), dtype=np.int64)
            for i, mask in enumerate(masks):
                pixels[i], sizes[i] = self.read(mask)
            file["sizes"] = sizes
            file["names"] = np.array([m.name.encode() for m in masks], dtype="S20")
            file.create_dataset("ids", data=[m.id for m in masks], dtype=h5py.string_dtype())
            for name, kind in (("class_index", np.int64), ("feature", np.int64), ("place", np.int64),
                               ("activation", np.float32)):  # fmt: skip
                file[name] = np.array([getattr(m, name) for m in masks], dtype=kind)
            file.attrs.update({"format": FORMAT, "version": VERSION})

    def bytes_of(self, mask: Mask, form: str) -> int:
        """Bytes of a mask that is there, in a PNG file or as its chunk of `masks.h5`."""
        path = self.folder / mask.file
        if form == "png":
            return path.stat().st_size if is_whole(path) else len(encoded(*self.read(mask)))
        return len(zlib.compress(self.read(mask)[0].tobytes(), LEVEL))

    def tidy(self, masks: Sequence[Mask], form: str) -> None:
        """Remove the masks of the other format, PNG files of no mask, and what killed writers left."""
        stay = {self.folder / mask.file for mask in masks} if form == "png" else set[Path]()
        left = [path for folder in (self.folder, *self.folder.glob("*/*")) for path in abandoned(folder)]
        for path in [*self.folder.glob(f"*/*/{'[0-9a-f]' * 20}.png"), *left]:
            if path not in stay:
                path.unlink(missing_ok=True)
        if form == "png":
            (self.folder / PACKED).unlink(missing_ok=True)
        for parent in (*self.folder.glob("*/*"), *self.folder.glob("*")):
            if parent.is_dir() and not parent.is_symlink():
                with suppress(OSError):  # of a folder that is not empty
                    parent.rmdir()
