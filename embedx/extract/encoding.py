"""Backbones on a device: batches that fit its memory, and what about the device can change a feature."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx import __version__
from embedx.errors import ExtractionError
from extractors._backbone import Backbone

if TYPE_CHECKING:
    import torch

ON_CPU = 32
LARGEST = 256  # larger batches made no GPU of the last ten years faster, only fuller
TRIM, MMAP = -1, -3  # what glibc's mallopt calls M_TRIM_THRESHOLD and M_MMAP_THRESHOLD


class Encoder:
    """Runs backbones on one device, and halves its batches when the device's memory does not suffice.

    batch  images per forward pass, now
    """

    def __init__(self, device: str, batch: int) -> None:
        self.device, self.batch = device, batch

    def start(self, backbone: Backbone, pixels: torch.Tensor) -> Callable[[], np.ndarray]:
        """Begin encoding; the returned function waits for the features (len(pixels), dim).

        Raises `ExtractionError` when not even a single image fits.
        """
        import torch

        while True:
            try:
                parts = [backbone.start(part, self.device) for part in pixels.split(self.batch)]
            except torch.OutOfMemoryError as error:
                if self.batch == 1:
                    raise ExtractionError(
                        f"{backbone.spec}: {self.device} has too little memory for a single image; "
                        "use another device, or --precision float16"
                    ) from error
                self.batch //= 2
                parts = []  # lets go of what did fit
                if self.device.startswith("cuda"):
                    torch.cuda.empty_cache()
                continue
            return partial(_joined, parts)


def _joined(parts: Sequence[Callable[[], np.ndarray]]) -> np.ndarray:
    return parts[0]() if len(parts) == 1 else np.concatenate([part() for part in parts])


def fitting_batch(backbones: Iterable[Backbone], device: str) -> int:
    """Images per forward pass when the user names none: on CUDA the largest power of two that fits twice."""
    import torch

    if not device.startswith("cuda"):
        return ON_CPU
    encoder = Encoder(device, 2 * LARGEST)  # twice, as the next batch arrives while this one is computed
    for backbone in backbones:
        reader = backbone.reader
        encoder.start(backbone, torch.zeros((2 * LARGEST, *reader.shape), dtype=getattr(torch, reader.dtype.name)))()
    torch.cuda.empty_cache()
    return max(1, encoder.batch // 2)


@contextmanager
def kept_memory(device: str) -> Iterator[None]:
    """On a processor, let glibc keep what a network's layers give back, not return it and fetch it anew each time.

    Fresh memory is handed out and zeroed page by page, which took up to half of a forward pass. The process keeps its
    largest size until the end; then it is left as glibc has it after large tensors, and what is free is returned.
    Nothing happens with another C library.
    """
    libc = ctypes.CDLL(None) if device == "cpu" and sys.platform == "linux" else None
    mallopt, malloc_trim = (getattr(libc, name, None) for name in ("mallopt", "malloc_trim"))
    if mallopt is None or malloc_trim is None:
        yield
        return
    for threshold in (TRIM, MMAP):
        mallopt(threshold, 1 << 30)
    try:
        yield
    finally:
        mallopt(TRIM, 64 << 20)
        mallopt(MMAP, 32 << 20)
        malloc_trim(0)


def conditions(device: str, backbones: Iterable[Backbone], *, compiled: bool) -> dict[str, Any]:
    """Under what features are computed, apart from the batch: shards of one cache must agree in these."""
    import PIL
    import torch
    import torchvision

    # With the part after the +, the build (cu128, cpu): it changes the numbers too.
    libraries = {"embedx": __version__, "torch": str(torch.__version__), "torchvision": torchvision.__version__}
    libraries |= {"pillow": PIL.__version__}
    for backbone in backbones:
        libraries |= backbone.libraries
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    return {"device": name, "libraries": libraries} | ({"compiled": True} if compiled else {})
