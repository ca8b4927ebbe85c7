"""Our pixels and features against those that a backbone's own library makes of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from embedx import plugins
from embedx.data.images import rgb
from embedx.data.sources.files import regular
from embedx.data.trees import Tree
from embedx.errors import BackboneError
from embedx.extract.backbones import load_backbone, split_name
from embedx.extract.graded import weights_of
from embedx.extractors import Backbone, Decode, Geometry

if TYPE_CHECKING:
    from embedx.extractors import Official

MOST = 256
AT_ONCE = 16
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
COSINE: Mapping[Decode, float] = {"exact": 0.99999, "fast": 0.999}
SIZES = ((375, 500), (9, 7), (2, 3), (640, 24), (30, 450), (224, 224))  # width, height; photographs are 640 x 427


@dataclass(frozen=True)
class Parity:
    """How far our pipeline and the library's are apart, in float32 on the CPU.

    library    what it was compared with
    images     how many
    pixels     largest difference, in levels of 255 before the normalisation; `pixels_at` names its image
    features   largest difference, beside the `largest` feature there is
    cosine     smallest cosine similarity; `cosine_at` names its image
    apart      largest length of the difference, as a share of the length of the library's features
    projected  features were compared after the stored projection
    remark     what the user should know of how the backbone was loaded, or empty
    """

    spec: str
    decode: Decode
    library: str
    images: int
    dim: int
    pixels: float
    pixels_at: str
    features: float
    largest: float
    cosine: float
    cosine_at: str
    apart: float
    projected: bool
    remark: str = ""

    def faults(self) -> list[str]:
        """What is too far apart. A cosine alone would not notice features of another length."""
        least, faults = COSINE[self.decode], []
        if self.decode == "exact" and self.pixels != 0:
            faults.append(f"pixels of {self.pixels_at} are {self.pixels:.3g} levels of 255 apart, expected none")
        if not self.cosine >= least:
            faults.append(f"features of {self.cosine_at} have a cosine of {self.cosine:.6f}, expected at least {least}")
        elif not self.apart <= (bound := (2 - 2 * least) ** 0.5):  # what this cosine means for equal lengths
            faults.append(f"features are {self.apart:.2%} of their length apart, expected at most {bound:.2%}")
        return faults


def compare(
    spec: str, images: Mapping[str, Image.Image], weights: Path | None = None, decode: Decode = "exact"
) -> Parity:
    """Run both pipelines over RGB images, {name: image}.

    Raises `BackboneError` for a backbone that cannot be had, that has no library to compare with, or whose pixels or
    features have another shape than the library's.
    """
    import torch

    _, spec = split_name(spec)
    backbone = load_backbone(spec, weights)
    if not isinstance(backbone.reader, Geometry):
        raise BackboneError(f"{spec} reads vectors, not images, and has no library to compare with")
    official = _official(spec, weights)
    try:
        backbone = backbone.placed("cpu", decode=decode)
    except ValueError as error:
        raise BackboneError(str(error)) from error
    names, parts = list(images), []
    for start in range(0, len(names), AT_ONCE):
        some = [images[name] for name in names[start : start + AT_ONCE]]
        with torch.inference_mode():
            parts.append(_both(backbone, official, some))
    levels, ours, theirs = (np.concatenate(column) for column in zip(*parts, strict=True))
    lengths = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    both = lengths[0] * lengths[1]
    empty = np.where((ours == theirs).all(1), 1.0, 0.0)  # of two vectors of zeros
    cosine = np.where(both > 0, (ours * theirs).sum(1) / np.where(both > 0, both, 1), empty)
    cosine = np.where(np.isnan(both), np.nan, cosine)
    apart = np.linalg.norm(ours - theirs, axis=1) / np.maximum(lengths[1], np.finfo(np.float32).tiny)
    return Parity(
        spec=spec, decode=decode, library=official.library, images=len(names), dim=ours.shape[1],
        pixels=float(levels.max()), pixels_at=names[int(levels.argmax())], features=float(np.abs(ours - theirs).max()),
        largest=float(np.abs(theirs).max()), cosine=float(cosine.min()), cosine_at=names[int(cosine.argmin())],
        apart=float(apart.max()), projected=official.projected,
        remark=backbone.remark,
    )  # fmt: skip


def bundled() -> dict[str, Image.Image]:
    """Two photographs that scikit-learn ships, and drawn images of awkward sizes; always the same."""
    from sklearn.datasets import load_sample_images

    photographs: Any = load_sample_images()
    out = {Path(f).name: Image.fromarray(i) for f, i in zip(photographs.filenames, photographs.images, strict=True)}
    rng = np.random.default_rng(0)
    for width, height in SIZES:
        y, x = np.mgrid[:height, :width][..., None] / 40
        waves = 127.5 + 90 * np.sin(x * rng.uniform(0.5, 3, 3) + y * rng.uniform(0.5, 3, 3) + rng.uniform(0, 6, 3))
        noise = rng.normal(0, 25, waves.shape)
        pixels = np.clip(waves + noise, 0, 255).astype(np.uint8)
        out[f"drawn {width} x {height}"] = Image.fromarray(pixels)
    return out


def of_folder(folder: Path) -> tuple[dict[str, Image.Image], list[str]]:
    """(the images below a folder, at most 256 and decoded as extraction does; remarks on what was left out)."""
    tree = Tree(folder)
    files = sorted(f for f in tree.walk() if f.lower().endswith(SUFFIXES))
    remarks = [f"the first {MOST} of {len(files):,} images below {folder} are compared"] * (len(files) > MOST)
    remarks += tree.left_out.remarks()
    out: dict[str, Image.Image] = {}
    for file in files[:MOST]:
        try:
            out[file] = rgb(regular(folder / file))
        except Exception as error:  # noqa: BLE001  decoders of damaged files raise anything at all
            remarks.append(f"{file} is left out: {str(error).partition(chr(10))[0] or type(error).__name__}")
    if not out:
        raise BackboneError(f"no readable image lies below {folder}; expected files such as .jpg or .png")
    return out, remarks


def _official(spec: str, weights: Path | None) -> Official:
    outside = plugins.OUTSIDE if spec.startswith(plugins.OUTSIDE) else ""
    family, _, model = spec.removeprefix(outside).partition(":")
    plugin = plugins.load(plugins.BACKBONES, outside + family)
    make = getattr(plugin, "official", None)
    if make is None:
        raise BackboneError(
            f"{outside}{family} has no library to compare with; its module may offer official(model, weights)"
        )
    try:
        return make(model, weights_of(plugin, model, weights))
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        raise BackboneError(f"{spec}, by its own library: {str(error).partition(chr(10))[0]}") from error


def _both(backbone: Backbone, official: Official, images: list[Image.Image]) -> tuple[np.ndarray, ...]:
    """(largest difference of pixels in levels (b,), our features (b, e), the library's (b, e)), as float64."""
    import torch

    reader: Any = backbone.reader
    pixels = torch.from_numpy(np.stack([_read(backbone.spec, reader, image) for image in images]))
    mine, wanted = backbone._normalised(pixels), torch.stack([official.transform(image) for image in images])
    if mine.shape != wanted.shape:
        sizes = [f"{tuple(x.shape[1:])}" for x in (mine, wanted)]
        raise BackboneError(f"{backbone.spec} takes pixels {sizes[0]}, expected {sizes[1]} as {official.library} does")
    spread = torch.tensor(backbone.std, dtype=torch.float64)[:, None, None] * 255
    levels = ((mine.double() - wanted.double()).abs() * spread).amax((1, 2, 3)).numpy()
    ours, theirs = backbone.encode(pixels, "cpu").astype(np.float64), official.features(wanted).double().numpy()
    if official.projected and backbone.projection is not None:
        ours = ours @ backbone.projection
        ours += 0 if backbone.projection_bias is None else backbone.projection_bias
    if ours.shape != theirs.shape:
        own, expected = ours.shape[1:], theirs.shape[1:]
        raise BackboneError(f"{backbone.spec} has features {own}, expected {expected} as {official.library} has")
    return levels, ours, theirs


def _read(spec: str, reader: Geometry, image: Image.Image) -> np.ndarray:
    try:
        return reader(image)
    except ValueError as error:
        raise BackboneError(f"{spec}: an image of {error}; leave it out") from error
