"""`gaps.json` as a record that grows: models are added to it as long as they are measured by one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedx.errors import ProvenanceError, SpuriosityError
from embedx.evaluation.metrics import Interval
from embedx.evaluation.records import Notice, kept
from embedx.files import locked
from embedx.spuriosity.measures import gaps as gap
from embedx.spuriosity.measures.across_models import Across, across
from embedx.spuriosity.measures.collisions import Collision, Pull
from embedx.spuriosity.measures.gaps import Gaps

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking


@dataclass(frozen=True, eq=False)
class Measured:
    """`gaps.json`: for each model its gaps and its collisions, what they share, and the facts of the ranking."""

    models: tuple[Gaps, ...] = ()
    collisions: tuple[tuple[Collision, ...], ...] = ()
    across: Mapping[str, Any] | None = None
    ranking: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Measured:
        """Raises `SpuriosityError` where there is none, or it is of another version or damaged."""
        file = folder / gap.FILE
        try:
            document = gap.read(folder)
            models = tuple(Gaps.from_dict(m) for m in document["models"])
            listed = document["collisions"] or [[] for _ in models]
            pulls = tuple(tuple(_collision(c) for c in of) for of in listed)
            if len(pulls) != len(models):
                raise ValueError(f"collisions of {len(pulls)} models, gaps of {len(models)}")
            return cls(models, pulls, document["across"], document["ranking"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpuriosityError(f"{file} cannot be read ({error}); run `embedx spuriosity gap` again") from error

    def alike(self) -> Measured:
        """Those on the split and with the k of the first: what stands in one table, and what `across` is of."""
        same = [(g.split, g.k) == (self.models[0].split, self.models[0].k) for g in self.models]
        models, pulls = (tuple(compress(of, same)) for of in (self.models, self.collisions))
        return replace(self, models=models, collisions=pulls)

    def check(self, ranking: Ranking, folder: Path) -> None:
        """Refuse gaps of another ranking: `ProvenanceError`. Earlier versions did not say which."""
        if self.ranking.get("digest", ranking.digest) != ranking.digest:
            raise ProvenanceError(
                f"{folder / gap.FILE} was measured by another ranking than that of {ranking.dataset} by "
                f"{ranking.backbone} there is now; run `embedx spuriosity gap {ranking.dataset} -b {ranking.backbone}` "
                "again"
            )

    def of(self, model: str) -> tuple[Gaps, tuple[Collision, ...]]:
        """One model, as `BACKBONE=HEAD`, as measured last. Raises `SpuriosityError` for one that was not."""
        for found, pulls in zip(self.models, self.collisions, strict=True):
            if found.model == model:
                return found, pulls
        known = ", ".join(g.model for g in self.models)
        raise SpuriosityError(
            f"{gap.FILE} has the gaps of {known}, not of {model}; measure it with `embedx spuriosity gap --model`"
        )


def _collision(values: Mapping[str, Any]) -> Collision:
    pull = None if values["pull"] is None else Pull(**values["pull"])
    return Collision(**{**values, "gap": Interval(**values["gap"]), "pull": pull})


def add(
    folder: Path, ranking: Ranking, found: Sequence[Gaps], collisions: Sequence[Sequence[Collision]], notice: Notice
) -> tuple[Measured, Across | None]:
    """Add models to `gaps.json`, whoever else adds to it; returns those that stand in one table with them.

    Models measured before on the same ranking stay, and what all of them share is worked out anew; one that is
    measured again, on the same split and with the same k, is replaced. On another ranking than before nothing can stay.
    `notice` is told of every figure that goes. Raises `SpuriosityError` for a `gaps.json` that cannot be read.
    """
    path = folder / gap.FILE
    folder.mkdir(parents=True, exist_ok=True)
    with locked(path):
        before = readable(folder)
        foreign = "" if before.ranking.get("digest") == ranking.digest else "by another ranking"
        pairs = list(zip(before.models, before.collisions, strict=True))
        fresh = [(g, tuple(of)) for g, of in zip(found, collisions, strict=True)]
        every = [*fresh, *kept(path, pairs, fresh, lambda pair: pair[0].name, notice, foreign=foreign)]
        models, pulls = tuple(g for g, _ in every), tuple(of for _, of in every)
        measured = Measured(models, pulls).alike()
        together = None
        if len(measured.models) > 1:
            together = across(ranking, [g.answers(ranking) for g in measured.models], found[0].k)
        gap.save(folder, ranking, models, together and together.to_dict(), pulls)
    return measured, together


def readable(folder: Path) -> Measured:
    """What there is to add to. Raises `SpuriosityError` for what nothing can be added to."""
    file = folder / gap.FILE
    try:
        return Measured.load(folder) if file.is_file() else Measured()
    except SpuriosityError as error:
        raise SpuriosityError(f"nothing can be added to {file}: {error}, after moving it away") from error
