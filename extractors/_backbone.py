"""The Backbone contract: a frozen value that turns prepared pixels into features and says where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Reads = Literal["image", "vector"]
Precision = Literal["float32", "float16"]
ELONGATED = 1000  # times as long as wide: the longer edge would grow to gigabytes


@dataclass(frozen=True)
class Geometry:
    """From an RGB image of any size to uint8 pixels (height, width, 3), by torchvision's functions on PIL images.

    size           (height, width) of the result, cut from the centre after resizing
    resize         int: the shorter edge gets this length · pair: both edges do, squashing · None: no resizing
    interpolation  with PIL's antialiasing
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: Interpolation = "bilinear"
    reads: Reads = field(default="image", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.size, 3)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def __call__(self, decoded: Image) -> np.ndarray:
        """Resize and crop. Where the image is smaller than the crop, the missing border is black."""
        from torchvision.transforms import CenterCrop, InterpolationMode, Resize

        if isinstance(self.resize, int) and max(decoded.size) > ELONGATED * min(decoded.size):
            raise ValueError(f"{decoded.width} x {decoded.height} pixels, too elongated to resize its shorter edge")
        if self.resize is not None:
            decoded = Resize(self.resize, InterpolationMode(self.interpolation))(decoded)
        return np.asarray(CenterCrop(self.size)(decoded))


@dataclass(frozen=True)
class Vector:
    """Rows that are no images but vectors of `length` numbers, stored as `.npy` files."""

    length: int
    reads: Reads = field(default="vector", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def dtype(self) -> np.dtype:
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
    weights     SHA-256 over names, types, shapes and bytes of all weights
    libraries   name and version of each library that builds the network
    head        pretrained classification head (weight (classes, dim), bias (classes,)), where there is one
    projection  (dim, e) matrix from the stored to the projected feature, where there is one; `projection_bias` (e,)
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

    def __post_init__(self) -> None:
        if any(m.training for m in self.module.modules()) or any(p.requires_grad for p in self.module.parameters()):
            raise ValueError(f"{self.spec}: the network is not frozen; pass it through extractors._weights.freeze")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the numbers, as plain JSON: caches with another identity are refused."""
        return {
            "model": self.model, "weights": self.weights, "feature": self.feature,
            "reader": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.reader).items()},
            "mean": list(self.mean), "std": list(self.std), "precision": self.precision, "decode": "exact",
        }  # fmt: skip

    def placed(self, device: str, precision: Precision) -> Backbone:
        """The same backbone on another device; float16 means automatic mixed precision, on CUDA only."""
        if precision == "float16" and not device.startswith("cuda"):
            raise ValueError(f"float16 needs a CUDA device, not {device!r}; use --precision float32")
        return replace(self, module=self.module.to(device), precision=precision)

    def encode(self, batch: torch.Tensor, device: str) -> np.ndarray:
        """(b, *reader.shape) as the reader made it -> (b, dim) features, float32 or float16 as `precision` says."""
        import torch

        x = self._normalised(batch, device) if self.mean else batch.to(device)
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self.precision == "float16"):
            features = self.module(x)
        if features.shape != (len(batch), self.dim):
            raise ValueError(
                f"{self.spec}: returned features of shape {tuple(features.shape)}, expected {(len(batch), self.dim)}"
            )
        return features.to(getattr(torch, self.precision)).cpu().numpy()

    def _normalised(self, pixels: torch.Tensor, device: str) -> torch.Tensor:
        """uint8 (b, h, w, 3) -> float (b, 3, h, w): (v / 255 - mean) / std, with the bits of ToTensor and Normalize."""
        import torch

        def norm(v: torch.Tensor) -> torch.Tensor:
            return (
                v.float()
                .div_(255)
                .sub_(v.new_tensor(self.mean, dtype=torch.float))
                .div_(v.new_tensor(self.std, dtype=torch.float))
            )

        if device != "cpu":
            return norm(pixels.to(device)).permute(0, 3, 1, 2).contiguous()
        # 256 values per channel: looking them up gives the same bits, without waking other threads for each operation.
        table = norm(torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 3)).T.contiguous().numpy()
        b, h, w, _ = pixels.shape
        out = np.empty((b, 3, h, w), dtype=np.float32)
        for channel in range(3):
            np.take(table[channel], pixels.numpy()[..., channel], out=out[:, channel], mode="clip")
        return torch.from_numpy(out)
