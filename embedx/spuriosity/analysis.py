"""One analysis: a dataset, the backbone whose features rank its images, and the folder that the steps add to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from embedx.data.manifest import Manifest
from embedx.data.prepare import open_prepared
from embedx.evaluation.model import Model, ModelName
from embedx.evaluation.records import Notice
from embedx.spuriosity import annotations
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.models import completed, model_named
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.findings import Findings
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.store import FeatureCache, open_cache
from embedx.workspace import Workspace, slug


def unheard(text: str) -> None:
    """No remarks."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What every step starts from. `open` is the usual way to one.

    backbone  whose features rank the images, or `text:BACKBONE` where words do
    folder    holds what the steps have found, a file a step
    notice    is told, a line at a time, what a person should know
    prepared  the manifest of the dataset, where it is open already
    """

    workspace: Workspace
    dataset: str
    backbone: str
    folder: Path
    notice: Notice = unheard
    prepared: Manifest | None = field(default=None, repr=False)
    _caches: dict[str, FeatureCache] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        dataset: str | Manifest,
        backbone: str,
        folder: Path | None = None,
        *,
        notice: Notice = unheard,
    ) -> Analysis:
        """The analysis of a prepared dataset, given by its name or its manifest.

        folder  by default results/DATASET/spuriosity
        Raises `ManifestError` for a dataset that is not prepared.
        """
        if isinstance(dataset, str):
            dataset, notes = open_prepared(workspace, dataset)
            for line in notes:
                notice(f"note: {line}")
        return cls(workspace, dataset.name, backbone, folder or default_folder(dataset.name), notice, dataset)

    @cached_property
    def manifest(self) -> Manifest:
        """The rows of the dataset. Raises `ManifestError` where it is not prepared."""
        return self.prepared or open_prepared(self.workspace, self.dataset)[0]

    @cached_property
    def cache(self) -> FeatureCache:
        """The features of the backbone that ranks, opened once. Raises `CacheError` where there are none."""
        return open_cache(self.workspace, self.manifest, self.backbone)

    @property
    def is_cached(self) -> bool:
        """Whether the backbone that ranks has features; words rank without."""
        return slug(self.backbone) in self.workspace.backbones(self.manifest.name)

    def cache_of(self, backbone: str) -> FeatureCache:
        """The features of any backbone of the dataset, opened once. Raises `CacheError` where there are none."""
        name = slug(backbone)
        if name not in self._caches:
            own = self.is_cached and name == slug(self.backbone)
            self._caches[name] = self.cache if own else open_cache(self.workspace, self.manifest, backbone)
        return self._caches[name]

    def discovery(self) -> Discovery:
        """What `discover` found. Raises `SpuriosityError` for none, `ProvenanceError` for one in other weights."""
        discovery = Discovery.load(self.folder)
        discovery.check(self.cache)
        return discovery

    @property
    def annotations_file(self) -> Path:
        """Where people and rules say which features are spurious; it need not be there."""
        return self.folder / annotations.FILE

    def annotations(self) -> tuple[Annotation, ...]:
        """What is said of features so far, none without the file. Raises as `annotations.read` and `check` do."""
        file = self.annotations_file
        entries = annotations.read(file, self.notice) if file.is_file() else ()
        annotations.check(entries, self.cache, self.manifest)
        return entries

    def ranking(self) -> Ranking:
        """The ranking beside the backbone's cache; that annotations have changed since is told.

        Raises `SpuriosityError` where there is none or it is damaged, `ProvenanceError` for one in other weights.
        """
        ranking = Ranking.load(place(self.workspace, self.manifest.name, self.backbone), self.manifest)
        if not (ranking.features and self.is_cached):
            return ranking
        ranking.check(self.cache)
        file = self.annotations_file
        if file.is_file():
            cues = annotations.spurious(annotations.read(file, self.notice), ranking.min_votes)
            if cues != ranking.features:
                self.notice(
                    f"note: {file} calls other features spurious than those that ranked; `embedx spuriosity rank "
                    f"{self.manifest.name} -b {self.backbone}` brings the ranking up to date"
                )
        return ranking

    def names(self, models: Sequence[str | ModelName]) -> tuple[ModelName, ...]:
        """Each model asked for once, by its whole name, see `models.completed`; by default that of the backbone.

        Fits nothing. Raises `UnknownName` for what names no model, `CacheError` where a backbone has no features.
        """
        asked = [ModelName.parse(m) if isinstance(m, str) else m for m in models or (self.backbone,)]
        whole = (completed(name, self.manifest, self.cache_of(name.backbone), self.folder) for name in asked)
        return tuple(dict.fromkeys(whole))

    def model(self, name: str | ModelName) -> Model:
        """The model that `BACKBONE[=HEAD]` names, in the classes of the manifest; raises as `models.model_named`."""
        name = ModelName.parse(name) if isinstance(name, str) else name
        return model_named(name, self.manifest, self.cache_of(name.backbone), self.folder, self.notice)

    def findings(self) -> Findings:
        """All that the folder holds, read together. Needs neither manifest nor features; raises as `Findings.load`."""
        return Findings.load(self.folder, self.notice)


def default_folder(dataset: str) -> Path:
    """Where an analysis of a dataset lies unless another folder is named."""
    return Path("results") / slug(dataset) / "spuriosity"
