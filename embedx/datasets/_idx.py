"""IDX, the format of the MNIST files: two zero bytes, a type, the number of dimensions, their sizes, the values.

Sizes are four bytes each, the highest first; all values of MNIST are bytes (type 8).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from embedx.errors import ManifestError

FOLDERS = (".", "raw", "MNIST/raw")
LARGEST = 1 << 29  # eleven times MNIST; a damaged header must not ask for all memory


def find(root: Path, stem: str) -> Path:
    """The file `stem` below a root, packed or not, also spelled `train-images.idx3-ubyte`."""
    names = [n + end for n in (stem, stem.replace("-idx", ".idx")) for end in ("", ".gz")]
    for folder in FOLDERS:
        for name in names:
            if (root / folder / name).is_file():
                return root / folder / name
    raise ManifestError(f"{root} holds no {stem} or {stem}.gz; --root must be the folder of the four MNIST files")


def read(path: Path, dimensions: int) -> np.ndarray:
    """The array in a file, uint8. Raises `ManifestError` unless the file is whole and holds nothing more."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"  # by its bytes: downloads are often unpacked and keep their name
        with gzip.open(path) if packed else path.open("rb") as file:
            return _parse(path, file, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ManifestError(f"{path} is damaged ({error}); fetch it again") from error


def mnist(root: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) and digits (n,) of one half of MNIST."""
    files = [find(root, f"{stem}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    digits, values = read(files[0], 3), read(files[1], 1)
    if digits.shape[1:] != (28, 28) or values.max() > 9:
        raise ManifestError(
            f"{files[0]} holds images of {digits.shape[1]} x {digits.shape[2]} and labels up to {values.max()}; "
            "expected 28 x 28 and 9: is it MNIST?"
        )
    if len(digits) != len(values):
        raise ManifestError(
            f"{files[0]} holds {len(digits):,} images and {files[1]} {len(values):,} labels; fetch both again"
        )
    return digits, values


def _swapped(head: bytes, dimensions: int) -> str:
    """What the file rather is, where that is known."""
    kinds = {1: "labels", 3: "images"}
    found = {bytes((0, 0, 8, d)): kind for d, kind in kinds.items() if d != dimensions}.get(head[:4], "")
    return f": it holds {found}; were the files of images and labels swapped?" if found else ""


def _parse(path: Path, file: gzip.GzipFile | BinaryIO, dimensions: int) -> np.ndarray:
    head = file.read(4 + 4 * dimensions)
    if head[:4] != bytes((0, 0, 8, dimensions)):
        raise ManifestError(
            f"{path} begins with {head[:4].hex(' ') or 'nothing'}; expected 00 00 08 {dimensions:02x}, an IDX file of "
            f"bytes in {dimensions} dimensions{_swapped(head, dimensions)}"
        )
    shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4))
    size = math.prod(shape)
    if len(head) == 4 + 4 * dimensions and not 0 < size <= LARGEST:
        raise ManifestError(f"{path} claims {size:,} values ({shape}); expected 1 to {LARGEST:,}; fetch it again")
    values = file.read(size + 1) if len(head) == 4 + 4 * dimensions else b""
    if len(values) != size or not values:
        present = f"{len(values):,}" if len(values) < size else "more"
        raise ManifestError(f"{path} should hold {size:,} values and holds {present}; fetch it again")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)
