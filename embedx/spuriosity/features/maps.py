"""Neural activation maps: where in an image a feature comes from, and what would amplify it.

A feature r_i that is the average over space of a last map A_i, mean over places of A_i = r_i, is explained by that map
(Singla and Feizi, Salient ImageNet, ICLR 2022). Divided by its own largest value and enlarged it is a soft mask of what
the feature sees. The division hides how strong the feature is, so wherever a map is shown its activation belongs beside
it. All of it is in the frame of the image as the backbone saw it, resized and cropped; `onto_image` leads back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.errors import BackboneError
from embedx.extractors import Backbone, Geometry

if TYPE_CHECKING:
    import torch

AGREE = {"float32": 1e-4, "float16": 1e-2}
"""How far, of the largest feature, rounding may take a map's average from the feature."""
STEP, STEPS = 10.0, 100
"""Of the feature attack on 224 x 224 pixels: length of a step in values of 0..1, and how many (Salient ImageNet)."""
CROP_AT, CROP_MORE = 0.9, 0.2
"""Of the core crop: share of the largest value that is kept, and how much its box grows, in all, along each side."""


@dataclass(frozen=True, eq=False)
class Mapper:
    """A backbone with the place in its network where its last maps are; made by `mapper`.

    backbone  on `device`, not compiled
    layer     name of the module whose output is the maps
    channels  axis of its output that counts the features: 1, or 3 where they lie last
    """

    backbone: Backbone
    device: str
    layer: str
    channels: int

    def maps(self, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(b, H, W, 3) as the reader made it -> features (b, dim) and their maps (b, dim, h, w), float32.

        The maps are as the network computes them: their average over the places is the feature.
        """
        held: list[Any] = []
        module: Any = self.backbone.module.get_submodule(self.layer)
        hook = module.register_forward_hook(lambda module, inputs, output: held.append(output))
        try:
            features = self.backbone.encode(pixels, self.device)
        finally:
            hook.remove()
        maps = held[-1].movedim(self.channels, 1).float().cpu().numpy()
        return features.astype(np.float32), maps


def mapper(backbone: Backbone, device: str = "cpu") -> Mapper:
    """Find the last map by what it has to do: its average over space is the feature, on an image of noise.

    Raises `BackboneError` for a backbone without such a map: vision transformers, attention pooling, a norm or a
    further layer between the average and the feature.
    """
    import torch

    reader, module = backbone.reader, backbone.module
    if not isinstance(reader, Geometry):
        raise BackboneError(f"{backbone.spec} reads vectors, no images; activation maps need a convolutional backbone")
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *reader.shape), dtype=np.uint8))
    seen: list[tuple[str, Any]] = []
    hooks = [
        part.register_forward_hook(lambda part, inputs, output, name=name: seen.append((name, output)))
        for name, part in module.named_modules()
        if name
    ]
    try:
        features = backbone.encode(noise, device)
    finally:
        for hook in hooks:
            hook.remove()
    wanted = torch.from_numpy(features.astype(np.float32))
    near = AGREE[backbone.precision] * float(wanted.abs().max())
    for name, output in reversed(seen):
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            continue
        for channels in (1, 3):
            places = [axis for axis in (1, 2, 3) if axis != channels]
            if output.shape[channels] != backbone.dim or output.shape[places[0]] * output.shape[places[1]] == 1:
                continue
            if float((output.float().mean(places).cpu() - wanted).abs().max()) <= near:
                return Mapper(backbone, device, name, channels)
    raise BackboneError(
        f"{backbone.spec} has no activation maps: none of its layers has maps whose average over space is the feature "
        f"({backbone.feature}); use a convolutional backbone with average pooling, such as tiny:broad, "
        "robust:madry-l2-eps3 or timm:resnet50.tv_in1k"
    )


def nam(maps: np.ndarray) -> np.ndarray:
    """Maps (..., h, w) divided by their own largest value: 0..1; what is below zero, and maps of zeros, become 0."""
    positive = np.maximum(maps, 0.0, dtype=np.float32)
    top = positive.max(axis=(-2, -1), keepdims=True)
    return np.divide(positive, top, out=np.zeros_like(positive), where=top > 0)


def enlarge(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., h, w) -> (..., H, W) for size (H, W): bilinear, every value standing for the middle of its cell."""
    import torch

    flat = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32)).reshape(-1, 1, *maps.shape[-2:])
    out = torch.nn.functional.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return out.numpy().reshape(*maps.shape[:-2], *size)


def onto_image(mask: np.ndarray, geometry: Geometry, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) of what the backbone saw, laid onto the image of `size` (height, width) that it was cut from.

    The crop and the resizing of `geometry` undone; what lay outside the crop becomes 0.
    """
    resized = size
    if isinstance(geometry.resize, int):
        short = min(size)
        resized = tuple(geometry.resize if side == short else int(geometry.resize * side / short) for side in size)
    elif geometry.resize is not None:
        resized = geometry.resize
    canvas = np.zeros(resized, dtype=np.float32)
    to, of = zip(*(_overlap(whole, part) for whole, part in zip(resized, mask.shape, strict=True)), strict=True)
    canvas[to] = mask[of]
    return enlarge(canvas, size)


def _overlap(whole: int, part: int) -> tuple[slice, slice]:
    """Where a centre crop of length `part` lies along an edge, and which part of the crop that is (not its border)."""
    if part <= whole:
        start = round((whole - part) / 2)  # to even at halves, as torchvision
        return slice(start, start + part), slice(0, part)
    start = (part - whole) // 2
    return slice(0, whole), slice(start, start + whole)


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """What of an image (H, W, ...) lies in it."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def core_crop(nams: np.ndarray, size: tuple[int, int], at: float = CROP_AT, more: float = CROP_MORE) -> Box:
    """The square around what the core features see together: for nams (features, h, w) of an image of size (H, W).

    The mean of the maps, enlarged and divided by its largest value (a mean of several seldom reaches 0.9 by itself);
    the box around all pixels of at least `at`; larger by the share `more` in all, half on either side; its shorter side
    made as long as the longer; moved, and where it is too large cut, so that it lies in the image. Maps of zeros alone
    give the whole image. After the paper's appendix H, which leaves open all but the order.
    """
    mean = nam(enlarge(nams.mean(axis=0), size)) if len(nams) else np.zeros(size)
    kept = [np.flatnonzero((mean >= at).any(axis=axis)) for axis in (1, 0)]
    if not all(map(len, kept)) or not mean.any():
        return Box(0, 0, *size)
    spans = [(float(k[0] + k[-1] + 1) / 2, float(k[-1] + 1 - k[0])) for k in kept]
    side = round((1 + more) * max(length for _, length in spans))
    lengths = [min(side, whole) for whole in size]
    starts = [
        min(max(round(middle - length / 2), 0), whole - length)
        for (middle, _), length, whole in zip(spans, lengths, size, strict=True)
    ]
    return Box(*starts, *lengths)


@dataclass(frozen=True, eq=False)
class Attack:
    """Attacked images (b, H, W, 3) uint8, and the features attacked before and after, (b,) float32."""

    pixels: np.ndarray
    before: np.ndarray
    after: np.ndarray


def attack(
    mapper: Mapper,
    pixels: torch.Tensor,
    features: Sequence[int],
    *,
    step: float | None = None,
    steps: int = STEPS,
    radius: float | None = None,
) -> Attack:
    """Amplify one feature in each image, by ascent along its gradient.

    With x in 0..1 and g = d r_i / d x, `steps` times: x <- clip(x + step g / |g|), |.| the Euclidean norm over the
    whole image; where there is a `radius`, x is first pulled back into the ball |x - original| <= radius. The last x
    counts. An image whose gradient is zero (the feature is at zero everywhere, beneath its ReLU) stays as it is.

    pixels    (b, H, W, 3) uint8; features (b,) index of the feature of each image
    step      by default 10 sqrt(H W) / 224: the same for each pixel, whatever their number
    """
    import torch

    step = STEP * float(np.sqrt(pixels.shape[1] * pixels.shape[2])) / 224 if step is None else step

    backbone, device = mapper.backbone, mapper.device
    start = pixels.to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (start.new_tensor(v).reshape(-1, 1, 1) for v in (backbone.mean, backbone.std))
    chosen = torch.as_tensor(list(features), device=device)
    tiny = torch.finfo(start.dtype).tiny

    def activation(x: torch.Tensor) -> torch.Tensor:
        return backbone.module((x - mean) / std).gather(1, chosen[:, None])[:, 0]

    with torch.no_grad():
        before = activation(start)
    x = start
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(activation(x).sum(), x)
        norm = gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        unit = gradient / norm.clamp_min(tiny)
        x = x.detach() + step * unit
        if radius is not None:
            away = x - start
            length = away.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            x = start + away * (radius / length.clamp_min(max(radius, tiny)))
        x = x.clamp(0, 1)  # after the ball: the box holds the original too, so this takes nothing out of the ball
    with torch.no_grad():
        after = activation(x)
    out = (x * 255).round().byte().permute(0, 2, 3, 1)
    return Attack(out.cpu().numpy(), before.cpu().numpy(), after.cpu().numpy())
