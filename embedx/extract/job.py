"""One backbone's work on one dataset: what its cache has to be like, and what may be put into it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedx.data.manifest import Manifest
from embedx.errors import CacheError
from embedx.extractors import Backbone
from embedx.store import FeatureCache, Header
from embedx.store.header import STAMPED, require
from embedx.workspace import Workspace

OF_PROCESSOR = ("processor", "threads")
"""Conditions that files of earlier versions say nothing of."""
Piece = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """One backbone over all rows: the header of its cache, where that goes, and where the shards go until then."""

    spec: str
    header: Header
    cache: Path
    shards: Path

    @property
    def name(self) -> str:
        """Name of the backbone."""
        return self.header.backbone

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Under what the rows are computed: device, batch, versions of libraries, ..."""
        return self.header.provenance["conditions"]

    def shard(self, piece: Piece) -> Path:
        """The file of the shard of rows start to stop."""
        return self.shards / f"{piece[0]:010d}-{piece[1]:010d}.h5"

    def shard_header(self, piece: Piece, batch: int | None = None) -> Header:
        """The header of one shard, computed with `batch` images per pass at the least."""
        conditions = dict(self.conditions) | ({"batch": batch} if batch else {})
        provenance = {**self.header.provenance, "conditions": conditions}
        return replace(self.header, start=piece[0], stop=piece[1], provenance=provenance)

    def before(self) -> FeatureCache | None:
        """The finished cache of an earlier run, if there is one. Raises `ProvenanceError` for one of other features.

        Of which rows it is, and of which version of the dataset, does not matter: its rows are looked at one by one.
        """
        if not self.cache.exists():
            return None
        cache = FeatureCache.open_complete(self.cache)
        require(self._of_these_rows(cache.header), self.header, self.cache, conditions=False)
        return cache

    def require(self, made: FeatureCache) -> None:
        """Refuse to mix rows with those of a file of another kind, or made under other conditions.

        Raises `ProvenanceError`. The batch may be a half, a quarter … of ours: memory did not suffice then.
        """
        theirs = made.header.provenance["conditions"]
        expected = dict(self.conditions)
        if all(halved(expected["batch"], batch) for batch in batches_of(made.header)):
            expected["batch"] = theirs["batch"]
        if made.header.version < STAMPED:
            expected = {key: value for key, value in expected.items() if key in theirs or key not in OF_PROCESSOR}
        header = self._of_these_rows(made.header) if made.header.complete else made.header
        wanted = replace(self.header, provenance={**self.header.provenance, "conditions": expected})
        require(replace(header, ids_digest=self.header.ids_digest), wanted, made.path, conditions=True)

    def _of_these_rows(self, header: Header) -> Header:
        """The same features of our rows, in our version of the dataset."""
        version = {"dataset_version": self.header.identity["dataset_version"]}
        provenance = {**header.provenance, "identity": header.identity | version}
        return replace(header, ids_digest=self.header.ids_digest, provenance=provenance)


def batches_of(header: Header) -> list[int]:
    """The batch sizes that a cache or shard was computed with; several where memory made some smaller."""
    batch = header.provenance["conditions"]["batch"]
    return batch if isinstance(batch, list) else [batch]


def halved(whole: int, part: int) -> bool:
    """Whether one batch is the other, or a half, a quarter … of it."""
    return any(whole >> k == part for k in range(whole.bit_length()))


def job_of(name: str, backbone: Backbone, manifest: Manifest, workspace: Workspace, facts: Mapping[str, Any]) -> Job:
    """The job of a backbone, by the name of its cache, under the conditions `facts`."""
    n = len(manifest)
    provenance = {
        "spec": backbone.spec,
        "identity": {**backbone.identity, "dataset_version": manifest.version},
        "conditions": dict(facts),
        "licence": backbone.licence,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    header = Header(name, backbone.dim, backbone.precision, manifest.ids_digest, 0, n, n, provenance)
    return Job(backbone.spec, header, workspace.cache(manifest.name, name), workspace.shards(manifest.name, name))


def conditions_before(
    backbones: Mapping[str, Backbone], manifest: Manifest, workspace: Workspace, device: str
) -> dict[str, Any]:
    """What shards, or finished caches made on such a device, were made under, with the largest of their batches.

    A run that goes on with them has to take the same batch and threads. Nothing where there are none.
    """
    shards = [p for name in backbones for p in sorted(workspace.shards(manifest.name, name).glob("[!.]*.h5"))]
    caches = [path for name in backbones if (path := workspace.cache(manifest.name, name)).exists()]
    for paths in (shards, caches):
        candidates = []
        for path in paths:
            try:
                header = FeatureCache.open(path).header
                candidates.append({**header.provenance["conditions"], "batch": max(batches_of(header))})
            except (CacheError, KeyError):
                continue
        candidates = [f for f in candidates if paths is shards or f["device"] == device]
        if candidates:
            return max(candidates, key=lambda conditions: conditions["batch"])
    return {}
