"""What earlier runs left of one backbone's work: a finished cache, shards, or both; looked at row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedx.data.sources import readable
from embedx.errors import CacheError, ProvenanceError
from embedx.extract.job import Job, Piece
from embedx.extract.kept import Files, Kept, find
from embedx.files import locked
from embedx.store import FeatureCache
from embedx.store.header import require


@dataclass(frozen=True, eq=False)
class Survey:
    """What is there of one backbone.

    kept     where the features of every row lie that need not be computed
    stamps   (n, 2) of the kept rows as they are now
    settled  the cache is finished and as it should be
    """

    kept: Kept
    stamps: np.ndarray
    settled: bool


def survey(job: Job, files: Files, pieces: Sequence[Piece], placeless: Callable[[str], bool]) -> Survey:
    """Look at every row of an earlier cache and of shards; again where another run has merged them meanwhile.

    That run writes the cache before it takes the shards away, so that they may go while they are looked at here even
    where its cache is the one that was found.
    """
    while True:
        before, shards = job.before(), _names(job)
        try:
            outcome = _look_at(job, before, files, pieces, placeless)
        except CacheError:
            if _is_still(job, before) and _names(job) == shards:
                raise
            continue
        if _is_still(job, before):
            return outcome


def _is_still(job: Job, before: FeatureCache | None) -> bool:
    now = job.before()
    return (now and now.seal) == (before and before.seal)


def _names(job: Job) -> set[str]:
    """Of the shards that are there."""
    return {path.name for path in job.shards.glob("[!.]*.h5")}


def _look_at(
    job: Job, before: FeatureCache | None, files: Files, pieces: Sequence[Piece], placeless: Callable[[str], bool]
) -> Survey:
    made = [*([before] if before else []), *_shards_before(job, pieces)]
    version = job.header.identity["dataset_version"]
    doubted = [before] if before is not None and before.header.identity.get("dataset_version") != version else []
    kept = find(files, made, doubted)
    if doubted and files.gone:  # nothing tells whether these are the rows of the version that is asked for
        require(doubted[0].header, job.header, job.cache, conditions=False)
    row, batch = np.arange(len(files.ids)), job.conditions["batch"]
    moved = ~kept.todo & (kept.origin % batch != row % batch)
    if moved.any() and not placeless(job.name):
        kept = kept.without(moved)
    if before is not None and (anew := int(((kept.file != 0) & files.mine).sum())):
        _require_alike(job, before, anew)
    stored = kept.stamps()
    stamps = stored if files.gone or not made else np.where((files.unsure | kept.todo)[:, None], stored, files.stamps)
    settled = (
        before is not None
        and not kept.file.any()
        and not doubted
        and np.array_equal(stamps, stored)
        and not _lost(files, before)
    )
    return Survey(kept, stamps, settled)


def _shards_before(job: Job, pieces: Sequence[Piece]) -> list[FeatureCache]:
    """The shards of earlier runs that are not damaged. Those of other rows get out of the way of ours.

    Raises `ProvenanceError` for one made differently: shards of two kinds are never mixed.
    """
    if not job.shards.is_dir():
        return []
    ours, shards = {job.shard(p): p for p in pieces}, []
    with locked(job.shards):
        for path in sorted(job.shards.glob("[!.]*.h5")):
            try:
                shard = FeatureCache.open(path)
                if shard.damaged():
                    continue
            except CacheError:
                continue
            job.require(shard)
            h = shard.header
            if shards and h.provenance == (same := shards[-1].header.provenance):
                shard = replace(shard, header=(h := replace(h, provenance=same)))  # held once by thousands of shards
            if path in ours and (h.ids_digest, h.start, h.stop) != (job.header.ids_digest, *ours[path]):
                aside = path.with_name(f"of-{h.ids_digest[:8]}-{path.name}")
                shard = replace(shard, path=path.replace(aside))
            shards.append(shard)
    return shards


def _require_alike(job: Job, before: FeatureCache, anew: int) -> None:
    """Refuse to put rows into a cache that was made under other conditions than they would be."""
    try:
        job.require(before)
    except ProvenanceError as error:
        raise ProvenanceError(f"{anew:,} of {job.header.total:,} rows have to be extracted now, and {error}") from error


def _lost(files: Files, before: FeatureCache) -> bool:
    """Whether a row that the manifest has no more had a file that is gone, too, while others are there."""
    if before.header.ids_digest == files.ids_digest or files.gone:
        return False
    dropped = np.setdiff1d(before.ids, files.ids)
    unseen = dropped[~files.source.stamps(dropped).any(axis=1)]
    return any(not readable(files.source, str(row_id)) for row_id in unseen)
