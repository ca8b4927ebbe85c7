"""What is to be done: one job per backbone, cut into the same shards of rows for all, less what earlier runs left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedx.errors import CacheError, ExtractionError, ProvenanceError
from embedx.extract.kept import Files, Kept, Looking, find
from embedx.files import locked
from embedx.home import Home
from embedx.manifest import Manifest
from embedx.sources import Source
from embedx.store import FeatureCache, Header, Rows
from embedx.store.header import STAMPED, require
from extractors._backbone import Backbone, Decode

LOOK_FIRST = 64
OF_PROCESSOR = ("processor", "threads")
Piece = tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """How to extract; of all this only device, batch, `decode` and `compiled` can change a bit of the result.

    devices     one process computes on each; several may be the same
    batch       images per forward pass; None: what fits the device. Halved where its memory does not suffice
    workers     processes that decode ahead, in all; 0 decodes where the backbones run
    shard_rows  rows per shard: what a kill can cost
    max_bad     share of rows that may fail before the cache is refused (the shards stay, nothing is lost)
    decode      "fast" resizes tensors instead of PIL images
    weights     the file that the backbone was loaded from, for processes that have to load it again
    part        (i, n): only the i-th of n equal parts of the shards, and no merge
    merge_only  compute nothing
    """

    devices: tuple[str, ...] = ("cpu",)
    batch: int | None = None
    workers: int = 0
    shard_rows: int = 1024
    max_bad: float = 0.01
    decode: Decode = "exact"
    compiled: bool = False
    weights: Path | None = None
    part: tuple[int, int] | None = None
    merge_only: bool = False


@dataclass(frozen=True)
class Job:
    """One backbone over all rows: the header of its cache, where that goes, and where the shards go until then."""

    spec: str
    header: Header
    cache: Path
    shards: Path

    @property
    def name(self) -> str:
        return self.header.backbone

    @property
    def conditions(self) -> Mapping[str, Any]:
        return self.header.provenance["conditions"]

    def shard(self, piece: Piece) -> Path:
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
        if made.header.version < STAMPED:  # these say nothing of processor and threads
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
    found = header.provenance["conditions"]["batch"]
    return found if isinstance(found, list) else [found]


def halved(whole: int, part: int) -> bool:
    """Whether one batch is the other, or a half, a quarter … of it."""
    return any(whole >> k == part for k in range(whole.bit_length()))


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a process needs to know; plain values and paths, so that it can be sent to another machine.

    lacking  by name of the backbone, the shards of which some row has to be computed
    kept     by name, where the features of the other rows lie
    stamps   by name, (n, 2) stamps of the kept rows as they are now
    settled  names of the backbones whose cache is finished and as it should be
    """

    ids: np.ndarray
    source: Source
    jobs: tuple[Job, ...]
    pieces: tuple[Piece, ...]
    lacking: Mapping[str, frozenset[Piece]]
    settings: Settings
    kept: Mapping[str, Kept]
    stamps: Mapping[str, np.ndarray]
    settled: frozenset[str]

    @property
    def batch(self) -> int:
        return self.jobs[0].conditions["batch"]

    def wanted(self) -> list[Piece]:
        """The shards that this run has to compute for at least one backbone."""
        return [piece for piece in self.mine() if any(piece in lacking for lacking in self.lacking.values())]

    def mine(self) -> tuple[Piece, ...]:
        return part_of(self.pieces, self.settings.part)

    def begun(self, job: Job, piece: Piece) -> Rows:
        """The rows of a shard: those that are kept, and zeros for those to be computed."""
        rows = self.kept[job.name].rows(*piece, self.ids[slice(*piece)], job.shard_header(piece))
        kept = ~self.todo(job.name, *piece)
        assert rows.stamps is not None
        rows.stamps[kept] = self.stamps[job.name][slice(*piece)][kept]
        return rows

    def todo(self, name: str, start: int, stop: int) -> np.ndarray:
        """(stop - start,) which of these rows a backbone has to compute."""
        return self.kept[name].todo[start:stop]

    def rows(self, name: str) -> int:
        """How many rows this run computes for a backbone."""
        return sum(int(self.todo(name, *piece).sum()) for piece in self.mine())

    def images(self, piece: Piece) -> int:
        """How many rows of a shard have to be decoded."""
        return int(self.decoded(*piece).sum())

    def decoded(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) which of these rows some backbone has to compute."""
        return np.logical_or.reduce([self.todo(job.name, start, stop) for job in self.jobs])

    def missing(self) -> list[str]:
        """The shards that no run has computed yet, as file names below the cache folder."""
        return [f"{job.shards.name}/{job.shard(p).name}" for job in self.jobs for p in sorted(self.lacking[job.name])]


def part_of(pieces: tuple[Piece, ...], part: tuple[int, int] | None) -> tuple[Piece, ...]:
    """All pieces, or the i-th of n equal parts of them."""
    if part is None:
        return pieces
    i, n = part
    return pieces[len(pieces) * i // n : len(pieces) * (i + 1) // n]


def plan(
    manifest: Manifest,
    source: Source,
    backbones: Mapping[str, Backbone],
    home: Home,
    settings: Settings,
    facts: Mapping[str, Any],
    placeless: Callable[[str], bool] = lambda name: False,
    looking: Looking = lambda done, total: None,
) -> Plan:
    """The jobs, all pieces, and what each job still lacks.

    facts      the conditions, batch included, under which the work is done
    placeless  whether a backbone, by name, gives a row the same features at every place of a batch
    looking    called while files have to be read to see whether they changed

    Raises before any work: `ProvenanceError` for files made differently, `ExtractionError` for two backbones with one
    file name or a source that holds none of the rows.
    """
    jobs = tuple(_job(name, backbone, manifest, home, facts) for name, backbone in backbones.items())
    if len({job.cache for job in jobs}) < len(jobs):
        raise ExtractionError(
            f"two of {', '.join(backbones)} would write the same file; give one another name with -b NAME=FAMILY:MODEL"
        )
    n, size = len(manifest), settings.shard_rows
    pieces = tuple((start, min(start + size, n)) for start in range(0, n, size))
    mine = np.zeros(n, dtype=bool)
    for start, stop in part_of(pieces, settings.part):
        mine[start:stop] = True
    files = Files(manifest.ids, source, mine, looking)
    found = {job.name: _survey(job, files, pieces, placeless) for job in jobs}
    if any(s.kept.todo[mine].any() for s in found.values()) and not settings.merge_only:
        _look_first(manifest.ids, source)
    here = part_of(pieces, settings.part)
    return Plan(
        manifest.ids, source, jobs, pieces,
        {name: frozenset(p for p in here if s.kept.todo[slice(*p)].any()) for name, s in found.items()}, settings,
        {name: s.kept for name, s in found.items()}, {name: s.stamps for name, s in found.items()},
        frozenset(name for name, s in found.items() if s.settled),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Survey:
    """What is there of one backbone: the fields of a plan."""

    kept: Kept
    stamps: np.ndarray
    settled: bool


def _survey(job: Job, files: Files, pieces: Sequence[Piece], placeless: Callable[[str], bool]) -> _Survey:
    """Look at every row of an earlier cache and of shards; again where another run has merged them meanwhile."""
    while True:
        before = job.before()
        try:
            found = _look_at(job, before, files, pieces, placeless)
        except CacheError:
            if _is_still(job, before):
                raise
            continue
        if _is_still(job, before):
            return found


def _is_still(job: Job, before: FeatureCache | None) -> bool:
    now = job.before()
    return (now and now.seal) == (before and before.seal)


def _look_at(
    job: Job, before: FeatureCache | None, files: Files, pieces: Sequence[Piece], placeless: Callable[[str], bool]
) -> _Survey:
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
    return _Survey(kept, stamps, settled)


def _shards_before(job: Job, pieces: Sequence[Piece]) -> list[FeatureCache]:
    """The shards of earlier runs that are not damaged. Those of other rows get out of the way of ours.

    Raises `ProvenanceError` for one made differently: shards of two kinds are never mixed.
    """
    if not job.shards.is_dir():
        return []
    ours, found = {job.shard(p): p for p in pieces}, []
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
            if path in ours and (h.ids_digest, h.start, h.stop) != (job.header.ids_digest, *ours[path]):
                aside = path.with_name(f"of-{h.ids_digest[:8]}-{path.name}")
                shard = replace(shard, path=path.replace(aside))
            found.append(shard)
    return found


def _require_alike(job: Job, before: FeatureCache, anew: int) -> None:
    """Refuse to put rows into a cache that was made under other conditions than they would be."""
    try:
        job.require(before)
    except ProvenanceError as error:
        raise ProvenanceError(f"{anew:,} rows have to be extracted again or anew, and {error}") from error


def _lost(files: Files, before: FeatureCache) -> bool:
    """Whether a row that the manifest has no more had a file that is gone, too, while others are there."""
    if before.header.ids_digest == files.ids_digest or files.gone:
        return False
    dropped = np.setdiff1d(before.ids, files.ids)
    unseen = dropped[~files.source.stamps(dropped).any(axis=1)]
    return any(not _readable(files.source, str(row_id)) for row_id in unseen)


def conditions_before(backbones: Mapping[str, Backbone], manifest: Manifest, home: Home, device: str) -> dict[str, Any]:
    """What shards, or finished caches made on such a device, were made under, with the largest of their batches.

    A run that goes on with them has to take the same batch and threads. Nothing where there are none.
    """
    shards = [p for name in backbones for p in sorted(home.shards(manifest.name, name).glob("[!.]*.h5"))]
    caches = [path for name in backbones if (path := home.cache(manifest.name, name)).exists()]
    for paths in (shards, caches):
        found = []
        for path in paths:
            try:
                header = FeatureCache.open(path).header
                found.append({**header.provenance["conditions"], "batch": max(batches_of(header))})
            except (CacheError, KeyError):
                continue
        found = [f for f in found if paths is shards or f["device"] == device]
        if found:
            return max(found, key=lambda conditions: conditions["batch"])
    return {}


def _job(name: str, backbone: Backbone, manifest: Manifest, home: Home, facts: Mapping[str, Any]) -> Job:
    n = len(manifest)
    provenance = {
        "spec": backbone.spec,
        "identity": {**backbone.identity, "dataset_version": manifest.version},
        "conditions": dict(facts),
        "licence": backbone.licence,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    header = Header(name, backbone.dim, backbone.precision, manifest.ids_digest, 0, n, n, provenance)
    return Job(backbone.spec, header, home.cache(manifest.name, name), home.shards(manifest.name, name))


def _look_first(ids: Sequence[str] | np.ndarray, source: Source) -> None:
    """A wrong root is the commonest mistake of all: find it before a model is run."""
    sample = [str(i) for i in ids[:: max(1, len(ids) // LOOK_FIRST)]]
    if not any(_readable(source, i) for i in sample):
        raise ExtractionError(
            f"none of {len(sample)} files looked for exists in {source.place} (for example {sample[0]}); "
            "say where the images lie with --root"
        )


def _readable(source: Source, row_id: str) -> bool:
    try:
        source.read(row_id)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is there; what is wrong with it will stand in its row
    return True
