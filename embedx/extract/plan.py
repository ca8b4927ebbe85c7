"""What is to be done: one job per backbone, cut into the same shards of rows for all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedx import __version__
from embedx.errors import CacheError, ExtractionError, ProvenanceError
from embedx.home import Home
from embedx.manifest import Manifest
from embedx.status import Status
from embedx.store import FeatureCache, Header
from embedx.store.header import require
from extractors._backbone import Backbone

LOOK_FIRST = 64
LOOK_AGAIN = 32
Piece = tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """How to extract; nothing here but device and batch can change a bit of the result.

    batch       images per forward pass
    workers     processes that decode ahead; 0 decodes in the main process
    shard_rows  rows per shard: what a kill can cost
    max_bad     share of rows that may fail before the cache is refused (the shards stay, nothing is lost)
    progress    called with rows done and rows to do in this run
    """

    device: str = "cpu"
    batch: int = 32
    workers: int = 0
    shard_rows: int = 1024
    max_bad: float = 0.01
    progress: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Job:
    """One backbone over all rows: the header of its cache, where that goes, and where the shards go until then."""

    backbone: Backbone
    header: Header
    cache: Path
    shards: Path

    @property
    def name(self) -> str:
        return self.header.backbone

    def shard(self, piece: Piece) -> Path:
        return self.shards / f"{piece[0]:010d}-{piece[1]:010d}.h5"

    def shard_header(self, piece: Piece) -> Header:
        return replace(self.header, start=piece[0], stop=piece[1])

    def finished(self, manifest: Manifest, root: Path) -> bool:
        """Is the cache there, made from exactly this? Raises `ProvenanceError` when it was made from something else.

        A cache may hold more rows than the manifest (rows dropped since); of its files a sample is looked at again.
        """
        if not self.cache.exists():
            return False
        cache = FeatureCache.open_complete(self.cache)
        header = cache.header
        if header.ids_digest != self.header.ids_digest and set(manifest.ids) <= set(cache.ids):
            header = replace(header, ids_digest=self.header.ids_digest)
        require(header, self.header, self.cache, conditions=False)
        if changed := changed_files(cache, root):
            raise ProvenanceError(
                f"{self.cache}: {len(changed)} of the files looked at under {root} are not those it was made from "
                f"(for example {changed[0]}); delete it to extract again, or use another dataset name (NAME=SOURCE)"
            )
        return True

    def usable(self, piece: Piece, root: Path) -> bool:
        """Can a shard of an earlier run be kept? Not when damaged, nor when a file looked at again has changed since.

        Raises `ProvenanceError` for a sound shard made differently: shards of two kinds are never mixed.
        """
        path = self.shard(piece)
        if not path.exists():
            return False
        try:
            shard = FeatureCache.open(path)
            require(shard.header, self.shard_header(piece), self.shards, conditions=True)
            return not shard.damaged() and not changed_files(shard, root)
        except ProvenanceError:
            raise
        except CacheError:
            return False


def plan(
    manifest: Manifest, root: Path, backbones: dict[str, Backbone], home: Home, settings: Settings
) -> tuple[list[Job], list[Piece], dict[str, list[Piece]]]:
    """The jobs, all pieces, and the pieces that each job still lacks by name of its backbone.

    Raises before any work: `ProvenanceError` for files made differently, `ExtractionError` for two backbones with one
    file name or a root that holds none of the files.
    """
    settings = replace(settings, batch=min(settings.batch, len(manifest)))
    jobs = [_job(name, backbone, manifest, home, settings) for name, backbone in backbones.items()]
    if len({job.cache for job in jobs}) < len(jobs):
        raise ExtractionError(
            f"two of {', '.join(backbones)} would write the same file; give one another name with -b NAME=FAMILY:MODEL"
        )
    n, size = len(manifest), settings.shard_rows
    pieces = [(start, min(start + size, n)) for start in range(0, n, size)]
    lacking = {j.name: [] if j.finished(manifest, root) else [p for p in pieces if not j.usable(p, root)] for j in jobs}
    if any(lacking.values()):
        _look_first(manifest, root)
    return jobs, pieces, lacking


def _job(name: str, backbone: Backbone, manifest: Manifest, home: Home, settings: Settings) -> Job:
    n = len(manifest)
    provenance = {
        "spec": backbone.spec,
        "identity": {**backbone.identity, "dataset_version": manifest.version},
        "conditions": {
            "device": _device_name(settings.device),
            "batch": settings.batch,
            "libraries": _versions() | backbone.libraries,
        },
        "licence": backbone.licence,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    header = Header(name, backbone.dim, backbone.precision, manifest.ids_digest, 0, n, n, provenance)
    return Job(backbone, header, home.cache(manifest.name, name), home.shards(manifest.name, name))


def changed_files(cache: FeatureCache, root: Path) -> list[str]:
    """Ids whose file is not the one the row was made from: all rows that failed, and a sample of the others.

    A file that is gone or may not be read says nothing: caches outlive their images.
    """
    n, failed = cache.header.rows, cache.status != Status.OK
    looked_at = np.union1d(np.flatnonzero(failed), np.arange(0, n, max(1, n // LOOK_AGAIN)))
    changed = []
    for row in looked_at:
        path = root / cache.ids[row]
        known = cache.content_hash[row].tobytes()
        try:
            same = not path.is_file() or hashlib.sha256(path.read_bytes()).digest() == known
        except OSError:
            continue
        if not same:
            changed.append(str(cache.ids[row]))
    return changed


def _look_first(manifest: Manifest, root: Path) -> None:
    """A wrong root is the commonest mistake of all: find it before a model is run."""
    sample = manifest.ids[:: max(1, len(manifest) // LOOK_FIRST)]
    if not any((root / i).exists() for i in sample):
        raise ExtractionError(
            f"none of {len(sample)} files looked for exists under {root} (for example {sample[0]}); "
            "say where the images lie with --root"
        )


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def _versions() -> dict[str, Any]:
    import PIL
    import torch
    import torchvision

    # With the part after the +, the build (cu128, cpu): it changes the numbers too.
    return {
        "embedx": __version__,
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
    }
