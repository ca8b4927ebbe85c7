"""From bytes to a decoded row, under one stated policy. A row that fails stays a row, with its status and reason.

The policy, as the published pipelines: EXIF orientation is not applied; palettes are expanded before any resizing;
16-bit greys are rescaled to 8 bits, never clipped; transparency is dropped; CMYK goes through Pillow's conversion; of
an animation the first frame counts.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from embedx.data.sources import Source, passing, patiently
from embedx.data.status import Status
from embedx.extractors import Reads

# Formats whose decoders are part of Pillow itself: EPS, for one, would start another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
MAX_PIXELS = 150_000_000  # below the size at which Pillow itself refuses
NPY = b"\x93NUMPY"  # how a .npy file begins
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True, eq=False)
class Decoded:
    """One row as read: `value` is an RGB image or a vector when the status is OK, else None and `reason` says why.

    passing  what went wrong says nothing of the file
    """

    status: Status
    reason: str = ""
    content_hash: bytes = bytes(32)
    value: Any = None
    passing: bool = False


def decode(source: Source, row_id: str, reads: Reads) -> Decoded:
    """Read and decode one row; never raises for what it holds."""
    try:
        data = patiently(source, row_id)
    except FileNotFoundError as error:
        return Decoded(Status.MISSING, error.strerror or "no such file")
    except OSError as error:
        return Decoded(Status.UNREADABLE, error.strerror or type(error).__name__, passing=passing(error))
    content_hash = hashlib.sha256(data).digest()
    if not data:
        return Decoded(Status.UNREADABLE, "empty file", content_hash)
    try:
        value = rgb(data) if reads == "image" else vector(data)
    except Exception as error:  # noqa: BLE001  decoders of damaged files raise anything at all
        return Decoded(Status.UNREADABLE, _reason(error), content_hash, passing=isinstance(error, MemoryError))
    return Decoded(Status.OK, "", content_hash, value)


def rgb(data: bytes) -> Image.Image:
    """Decode image bytes to 8-bit RGB under the policy above. Raises whatever Pillow raises on a damaged file."""
    if data.startswith(NPY):
        raise ValueError("a .npy array and no image; take a backbone that reads vectors, such as raw:vector-LENGTH")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata; our own limit on the size stands below
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            if image.mode == "RGB":
                return image  # converting would copy it
            if image.mode in SIXTEEN_BIT:
                return _grey(image)
            if image.mode == "F":
                raise ValueError("floating-point image; its range is unknown, convert it to 8 or 16 bits")
            if image.mode == "P" and "transparency" in image.info:
                return image.convert("RGBA").convert("RGB")  # straight to RGB Pillow would warn and guess
            return image.convert("RGB")


def vector(data: bytes) -> np.ndarray:
    """Decode the bytes of a `.npy` file of finite numbers; objects are refused, nothing is unpickled."""
    if not data.startswith(NPY):
        raise ValueError("no .npy array, which backbones of vectors read; take a backbone that reads images")
    stream = io.BytesIO(data)
    array = np.load(stream, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise ValueError("not a .npy array of numbers")
    if stream.read(1):
        raise ValueError(f"{len(data) - stream.tell() + 1:,} bytes behind the array; a file holds one array")
    return array


def _grey(image: Image.Image) -> Image.Image:
    """16 bits to 8 by v / 257, so that 65,535 becomes 255; Pillow's own conversion would clip everything above 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("grey values beyond 16 bits; convert the image to 8 or 16 bits")
    grey = np.empty(values.shape, dtype=np.uint8)
    for row, line in enumerate(values):  # line by line: of the whole, a few copies in 64 bits would be gigabytes
        grey[row] = (line.astype(np.int64) + 128) // 257
    return Image.fromarray(grey, "L").convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0].strip()
    if type(error).__name__ == "UnidentifiedImageError":
        text = "not an image of a known format"
    return (text or type(error).__name__)[:200]
