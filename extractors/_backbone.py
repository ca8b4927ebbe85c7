"""The Backbone contract: a frozen value that turns prepared pixels into features and says where they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Reads = Literal["image", "vector"]
Decode = Literal["exact", "fast"]
Precision = Literal["float32", "float16"]
PATCHES = 4  # most convolutions of a vision transformer, which cuts its patches with one
ELONGATED = 1000  # times as long as wide: the longer edge would grow to gigabytes


@dataclass(frozen=True)
class Geometry:
    """From an RGB image of any size to uint8 pixels (height, width, 3), by torchvision's functions.

    size           (height, width) of the result, cut from the centre after resizing
    resize         int: the shorter edge gets this length · pair: both edges do, squashing · None: no resizing
    interpolation  with antialiasing
    decode         "exact": PIL resizes, as the published pipelines do · "fast": torch does, with its own rounding
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: Interpolation = "bilinear"
    decode: Decode = "exact"
    reads: Reads = field(default="image", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""
        return (*self.size, 3)

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        return np.dtype(np.uint8)

    def __call__(self, decoded: Image) -> np.ndarray:
        """Resize and crop. Where the image is smaller than the crop, the missing border is black."""
        import torch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2.functional import center_crop, resize

        if isinstance(self.resize, int) and max(decoded.size) > ELONGATED * min(decoded.size):
            raise ValueError(f"{decoded.width} x {decoded.height} pixels, too elongated to resize its shorter edge")
        # As a tensor with the channels last in memory, which torch resizes fastest.
        fast = self.decode == "fast"
        image: Any = torch.from_numpy(np.array(decoded)).permute(2, 0, 1) if fast else decoded
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            image = resize(image, size, InterpolationMode(self.interpolation), antialias=True)
        image = center_crop(image, list(self.size))
        return image.permute(1, 2, 0).numpy() if fast else np.asarray(image)


@dataclass(frozen=True)
class Vector:
    """Rows that are no images but vectors of `length` numbers, stored as `.npy` files."""

    length: int
    reads: Reads = field(default="vector", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.length,)

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    def __call__(self, decoded: np.ndarray) -> np.ndarray:
        """Check the length. Raises `ValueError` for another shape."""
        if decoded.shape != self.shape:
            raise ValueError(f"holds an array of shape {decoded.shape}, expected ({self.length},)")
        return decoded.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network with everything that decides its features.

    spec        how it was asked for, `timm:resnet50.tv_in1k`
    dim         features per row
    reader      Geometry or Vector: from a decoded row to the array that `encode` takes
    module      maps a normalised float batch to (batch, dim); in eval mode, without gradients
    mean, std   per channel, on pixels scaled to 0..1; empty for vectors
    feature     kind of feature, such as "pooled pre-logits"
    model       the exact identifier, defaults resolved
    weights     SHA-256 over names, types, shapes and bytes of all weights; of a family outside the tree also its code
    libraries   name and version of each library that builds the network
    head        pretrained classification head (weight (classes, dim), bias (classes,)), where there is one
    projection  (dim, e) matrix from the stored to the projected feature, where there is one; `projection_bias` (e,)
    code        SHA-256 of the code of a family outside the tree; empty for those that come along
    remark      what the user should know about how it was loaded, or empty
    """

    spec: str
    dim: int
    reader: Geometry | Vector
    module: torch.nn.Module
    feature: str
    model: str
    weights: str
    libraries: dict[str, str]
    licence: str = "unknown"
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    precision: Precision = "float32"
    head: tuple[np.ndarray, np.ndarray] | None = None
    projection: np.ndarray | None = None
    projection_bias: np.ndarray | None = None
    code: str = ""
    remark: str = ""

    def __post_init__(self) -> None:
        if any(m.training for m in self.module.modules()) or any(p.requires_grad for p in self.module.parameters()):
            raise ValueError(f"{self.spec}: the network is not frozen; pass it through embedx.extractors.freeze")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the numbers, as plain JSON: caches with another identity are refused."""
        reader = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.reader).items()}
        return {
            "model": self.model, "weights": self.weights, "feature": self.feature,
            "decode": reader.pop("decode", "exact"), "reader": reader, "mean": list(self.mean), "std": list(self.std),
            "precision": self.precision, **({"code": self.code} if self.code else {}),
        }  # fmt: skip

    def placed(
        self, device: str, precision: Precision = "float32", decode: Decode = "exact", *, compiled: bool = False
    ) -> Backbone:
        """The same backbone on another device; float16 means automatic mixed precision, on CUDA only.

        decode    "fast" resizes tensors instead of PIL images: quicker, and up to two levels of 255 apart
        compiled  through torch.compile, which takes a while at first and rounds differently
        Convolutional networks keep their channels last in memory: faster on processors and GPUs alike.
        """
        import torch

        if precision == "float16" and not device.startswith("cuda"):
            raise ValueError(f"float16 needs a CUDA device, not {device!r}; use --precision float32")
        reader = self.reader
        if decode == "fast" and isinstance(reader, Geometry):
            if reader.interpolation == "lanczos":
                raise ValueError(f"{self.spec} resizes with lanczos, which tensors cannot; use --decode exact")
            reader = replace(reader, decode="fast")
        module: Any = self.module.to(device)
        if sum(isinstance(m, torch.nn.Conv2d) for m in module.modules()) > PATCHES:
            module = module.to(memory_format=torch.channels_last)
        if compiled:
            module = torch.compile(module)
        return replace(self, module=module, precision=precision, reader=reader)

    def encode(self, batch: torch.Tensor, device: str) -> np.ndarray:
        """(b, *reader.shape) as the reader made it -> (b, dim) features, float32 or float16 as `precision` says."""
        return self.start(batch, device)()

    def start(self, batch: torch.Tensor, device: str) -> Callable[[], np.ndarray]:
        """Begin `encode`; the function that it returns waits for the features.

        On CUDA nothing waits here: the pixels (best in pinned memory) go up on a stream of their own while the last
        batch is computed, and the features come down into pinned memory behind them.
        """
        import torch

        cuda = device.startswith("cuda")
        with (
            torch.inference_mode(),
            torch.autocast("cuda", torch.float16, enabled=cuda and self.precision == "float16"),
        ):
            sent = _sent(batch, device) if cuda else batch
            features = self.module(self._normalised(sent) if self.mean else sent)
            if features.shape != (len(batch), self.dim):
                shape, wanted = tuple(features.shape), (len(batch), self.dim)
                raise ValueError(f"{self.spec}: returned features of shape {shape}, expected {wanted}")
            features = features.to(getattr(torch, self.precision))
            if not cuda:
                return features.numpy
            back = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            back.copy_(features, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(device))

        def finish() -> np.ndarray:
            arrived.synchronize()
            return back.numpy()

        return finish

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (b, h, w, 3) -> float (b, 3, h, w): (v / 255 - mean) / std, with the bits of ToTensor and Normalize.

        The result is a view of channels that lie last in memory.
        """
        import torch

        def norm(v: torch.Tensor) -> torch.Tensor:
            return (
                v.float()
                .div_(255)
                .sub_(v.new_tensor(self.mean, dtype=torch.float))
                .div_(v.new_tensor(self.std, dtype=torch.float))
            )

        if pixels.device.type != "cpu":
            return norm(pixels).permute(0, 3, 1, 2)
        # 256 values per channel: looking them up gives the same bits, without waking other threads for each operation.
        table = norm(torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 3)).T.contiguous().numpy()
        out = np.empty(tuple(pixels.shape), dtype=np.float32)
        for channel in range(3):
            np.take(table[channel], pixels.numpy()[..., channel], out=out[..., channel], mode="clip")
        return torch.from_numpy(out).permute(0, 3, 1, 2)


def _sent(batch: torch.Tensor, device: str) -> torch.Tensor:
    """A batch on a CUDA device, copied on a stream of its own so that computing goes on meanwhile."""
    import torch

    copies, computes = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        sent = batch.to(device, non_blocking=True)
    computes.wait_stream(copies)
    sent.record_stream(computes)
    return sent


@cache
def _copy_stream(device: str) -> torch.cuda.Stream:
    import torch

    return torch.cuda.Stream(device)
