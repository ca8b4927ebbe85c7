"""What a repair starts from: the head, the rows by what they are for, and the candidates drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedx.data.manifest import Manifest
from embedx.data.status import Status
from embedx.errors import UnknownName
from embedx.evaluation.model import Model
from embedx.evaluation.records import Notice
from embedx.evaluation.split import rows_in
from embedx.plugins import nearest
from embedx.repair.concept import Concept, concept_of
from embedx.repair.descent import Draw, Try
from embedx.repair.rows import Division, Kept
from embedx.repair.settings import RepairSettings, Restraint, Setting
from embedx.repair.start import Start
from embedx.store import FeatureCache

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Problem:
    """What a repair starts from: the head, the rows by what they are for, and their coordinates."""

    manifest: Manifest
    cache: FeatureCache
    start: Start
    target: int
    concept: Concept
    division: Division
    kept: Kept
    settings: RepairSettings

    @classmethod
    def of(
        cls, manifest: Manifest, cache: FeatureCache, model: Model, spec: str, target: str, settings: RepairSettings,
        notice: Notice,
    ) -> Problem:  # fmt: skip
        """Everything that can be refused is refused here; raises as `repair_head`."""
        if target not in manifest.classes:
            raise UnknownName(f"the head does not know the class {target!r}: {nearest(target, manifest.classes)}")
        code, start = manifest.classes.index(target), Start.of(model)
        settings = replace(settings, classes=settings.resolved(manifest.classes))
        usable = cache.status[rows_in(manifest, cache)] == Status.OK
        concept = concept_of(spec, manifest, cache, usable, code, notice)
        division = Division.of(concept, manifest, max(settings.shots))
        kept = Kept.of(manifest, usable, np.concatenate([concept.rows, concept.copies]))
        kept.require(settings.classes, manifest)
        return cls(manifest, cache, start, code, concept, division, kept, settings)

    @cached_property
    def grid(self) -> tuple[Setting, ...]:
        """The settings of the sweep."""
        return self.settings.grid(self.manifest.classes)

    @cached_property
    def at(self) -> np.ndarray:
        """(n,) row of the cache of each row of the manifest."""
        return rows_in(self.manifest, self.cache)

    def z(self, rows: np.ndarray) -> torch.Tensor:
        """(m, d) coordinates of rows of the manifest."""
        return self.start.z(self.cache.take(self.at[rows]))

    @cached_property
    def z_concept(self) -> torch.Tensor:
        """(m, d) coordinates of all images of the concept."""
        return self.z(self.concept.rows) if self.concept.X is None else self.start.z(self.concept.X)

    def clusters(self, rows: np.ndarray) -> np.ndarray | None:
        """(m,) whose rows of the manifest are, where it names a cluster."""
        return None if self.manifest.subjects is None else self.manifest.subjects.codes[rows]

    @cached_property
    def clusters_of_concept(self) -> np.ndarray | None:
        """(m,) whose the images of the concept are; None for a folder, of which nobody said."""
        return self.clusters(self.concept.rows) if self.concept.X is None else None

    def labels(self, rows: np.ndarray) -> torch.Tensor:
        """(m,) labels of rows of the manifest."""
        import torch

        return torch.from_numpy(self.manifest.labels[rows])

    def targets(self, n: int) -> torch.Tensor:
        """(n,) labels that are all the target."""
        import torch

        return torch.full((n,), self.target)

    def tries(self) -> list[Try]:
        """Every setting with the first seed, then with the second, ...; those with equal rows share a draw."""
        import torch

        out = []
        for seed in range(self.settings.seeds):
            fit, stop, _ = self.division.drawn(seed)
            rows = self.kept.drawn(seed)[: max(self.settings.classes)]
            Z, y, draws = self.z(rows), self.labels(rows), {}
            for s in self.grid:
                if (s.shots, s.classes) not in draws:
                    shots = self.z_concept[fit[: s.shots]]
                    draws[s.shots, s.classes] = Draw(
                        torch.cat([Z[: s.classes], shots]), torch.cat([y[: s.classes], self.targets(len(shots))]),
                        s.classes, self.z_concept[stop], self.targets(len(stop)),
                    )  # fmt: skip
                out.append(Try(draws[s.shots, s.classes], s.rate, Restraint.parse(s.pull)))
        return out
