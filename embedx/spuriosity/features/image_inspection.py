"""Looking at images of a cache again: through the very backbone that made it, and only if they are still the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from embedx.data.images import decode
from embedx.data.manifest import Manifest
from embedx.data.prepare import source_of
from embedx.data.sources import Source
from embedx.data.status import Status
from embedx.errors import BackboneError, ExtractionError, ProvenanceError
from embedx.evaluation.split import rows_in
from embedx.extract import load_backbone
from embedx.extractors import Backbone, Geometry
from embedx.spuriosity.features.maps import Mapper, mapper
from embedx.store import FeatureCache
from embedx.workspace import Workspace

if TYPE_CHECKING:
    from PIL.Image import Image

Read = TypeVar("Read")
AHEAD = 4
"""Images per thread that may wait."""
OFF = 0.02
"""How far, of the largest, features may lie from those in the cache: float16 and other devices round differently."""


@dataclass(frozen=True, eq=False)
class ImageInspector:
    """A dataset with the cache of one convolutional backbone, that backbone, and the images.

    Raises `ProvenanceError` for a mapper of another backbone than the one that made the cache.
    """

    manifest: Manifest
    cache: FeatureCache
    source: Source
    mapper: Mapper

    def __post_init__(self) -> None:
        require_same(self.mapper.backbone, self.cache)

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        manifest: Manifest,
        cache: FeatureCache,
        device: str = "cpu",
        weights: Path | None = None,
    ) -> ImageInspector:
        """Load the backbone; see `open_backbone` and `maps.mapper` for errors."""
        backbone_mapper = mapper(open_backbone(cache, device, weights), device)
        return cls(manifest, cache, source_of(workspace, manifest), backbone_mapper)

    @property
    def geometry(self) -> Geometry:
        """How the backbone sees an image."""
        reader = self.mapper.backbone.reader
        assert isinstance(reader, Geometry)  # a mapper has no other
        return reader

    @cached_property
    def at(self) -> np.ndarray:
        """(n,) row of the cache of each row of the manifest."""
        return rows_in(self.manifest, self.cache)

    def images(self, rows: Sequence[int], make: Callable[[Image], Read], workers: int = 0) -> Iterator[Read]:
        """make(image) for some rows of the manifest, in their order, each read and decoded once.

        workers  threads that read, decode and make ahead; 0: none
        Raises `ExtractionError` for an image that is gone or cannot be read, `ProvenanceError` for one whose bytes are
        not those that were extracted.
        """
        hashes, at = self.cache.content_hash, self.at  # read here, before threads ask for them

        def one(row: int) -> Read:
            row_id = str(self.manifest.ids[row])
            decoded = decode(self.source, row_id, "image")
            if decoded.status != Status.OK:
                raise ExtractionError(
                    f"{row_id} in {self.source.place}: {decoded.reason}; maps, panels and corruptions need the images "
                    "again: say where they lie with `embedx extract DATASET --root`"
                )
            expected = hashes[at[row]].tobytes()
            if any(expected) and decoded.content_hash != expected:
                raise ProvenanceError(
                    f"{row_id} in {self.source.place} has changed since {self.cache.path} was extracted; bring the "
                    "image back, or delete the cache and extract again"
                )
            return make(decoded.value)

        if not workers:
            yield from map(one, rows)
            return
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[Read]] = deque()
            try:
                for row in rows:
                    waiting.append(pool.submit(one, row))
                    if len(waiting) >= workers * AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def maps(self, rows: Sequence[int], pixels: np.ndarray, cached: np.ndarray, feature: Sequence[int]) -> np.ndarray:
        """The maps (b, dim, h, w) of images (b, H, W, 3) as `geometry` made them, rows of the manifest.

        cached  (b,) the value that the cache holds of one `feature` of each image. Raises `ProvenanceError` where that
               is not, beyond rounding, what comes out now.
        """
        import torch

        features, maps = self.mapper.maps(torch.from_numpy(pixels))
        off = np.abs(features[np.arange(len(rows)), list(feature)] - cached)
        if len(wrong := np.flatnonzero(off > OFF * np.maximum(np.abs(features).max(axis=1), 1e-6))):
            raise ProvenanceError(
                f"{self.cache.path}: features of {self.manifest.ids[rows[wrong[0]]]} computed again are off by "
                f"{off[wrong[0]]:.3g}; the libraries differ too much from those it was extracted with: extract again"
            )
        return maps


def open_backbone(cache: FeatureCache, device: str = "cpu", weights: Path | None = None) -> Backbone:
    """The backbone that made a cache, in single precision on `device`.

    weights  the local file, where the backbone was loaded from one. Raises `ProvenanceError` for another network.
    """
    spec = str(cache.header.provenance.get("spec", cache.header.backbone))
    try:
        backbone = load_backbone(spec, weights).placed(device, "float32", cache.header.identity.get("decode", "exact"))
    except (ValueError, RuntimeError) as error:
        raise BackboneError(str(error).partition("\n")[0]) from error
    require_same(backbone, cache)
    return backbone


def require_same(backbone: Backbone, cache: FeatureCache) -> None:
    """Raise `ProvenanceError` where a backbone is not the one that made the cache; its precision may be another."""
    identity, expected = backbone.identity, cache.header.identity
    for key in sorted(identity.keys() - {"precision"}):
        if identity[key] != expected.get(key):
            raise ProvenanceError(
                f"{cache.path} was made by another network: {key} is {str(expected.get(key))[:60]}, that of "
                f"{backbone.spec} is {str(identity[key])[:60]}; give the weights it was extracted with (--weights)"
            )
