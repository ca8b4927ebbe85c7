"""Backbones on a device: batches that fit its memory, and what about the device can change a feature."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx import __version__
from embedx.errors import ExtractionError
from embedx.extractors import Backbone

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


@contextmanager
def threads(device: str, number: int | None) -> Iterator[None]:
    """On a processor, compute with so many threads: some networks' sums are cut by them, and round differently."""
    import torch

    before = torch.get_num_threads()
    if device == "cpu" and number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def placeless(backbone: Backbone, device: str, batch: int) -> bool:
    """Whether an image has the same features, to the last bit, at every place of a batch, and among other images.

    Then a row keeps its features when rows before it are added or dropped. Tried out on one image of noise.
    """
    import torch

    reader = backbone.reader
    rng = np.random.default_rng(0)
    kind = np.dtype(reader.dtype)
    one = rng.integers(0, 256, reader.shape).astype(kind) if kind.kind == "u" else rng.normal(size=reader.shape)
    everywhere = torch.from_numpy(np.broadcast_to(one.astype(kind), (batch, *reader.shape)).copy())
    alone = torch.zeros_like(everywhere)
    alone[batch // 2] = everywhere[0]
    encoded = [Encoder(device, batch).start(backbone, pixels)() for pixels in (everywhere, alone)]
    expected = encoded[0][0].tobytes()
    return all(row.tobytes() == expected for row in (*encoded[0], encoded[1][batch // 2]))


SETS = re.compile(r"avx.*|fma|sse4.*|amx.*|asimd.*|sve.*|i8mm|bf16|sme.*")
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_DEFAULT_FPMATH_MODE")


def processor() -> str:
    """What of a processor decides the last bits: kind, maker, the instruction sets in use, and what limits them.

    Libraries choose their code by these, and other code adds in another order.
    """
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    maker = facts.get("vendor_id") or facts.get("cpu implementer") or platform.processor()
    sets = sorted({s for s in (facts.get("flags") or facts.get("features") or "").split() if SETS.fullmatch(s)})
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return " ".join([platform.machine(), maker, torch.backends.cpu.get_cpu_capability(), *sets, *limits])


def conditions(device: str, backbones: Iterable[Backbone], *, compiled: bool) -> dict[str, Any]:
    """Under what features are computed, apart from batch and threads: shards of one cache must agree in these."""
    import PIL
    import torch
    import torchvision

    # With the part after the +, the build (cu128, cpu): it changes the numbers too.
    libraries = {"embedx": __version__, "torch": str(torch.__version__), "torchvision": torchvision.__version__}
    libraries |= {"pillow": PIL.__version__}
    for backbone in backbones:
        libraries |= backbone.libraries
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    facts = {"device": name, "libraries": libraries} | ({"compiled": True} if compiled else {})
    return facts if device.startswith("cuda") else facts | {"processor": processor()}
