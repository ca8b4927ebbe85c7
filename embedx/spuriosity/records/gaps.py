"""`gaps.json` as a record that grows: models are added to it as long as they are measured by one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from embedx.documents import Kind, built
from embedx.errors import ProvenanceError, SpuriosityError
from embedx.evaluation.model import ModelName
from embedx.evaluation.records import Notice, kept
from embedx.files import locked
from embedx.spuriosity.measures import gaps as gap
from embedx.spuriosity.measures.across_models import Across, Line, Reliability, Robustness, across
from embedx.spuriosity.measures.collisions import Collision
from embedx.spuriosity.measures.gaps import Gaps
from embedx.spuriosity.records.saved_names import names_before

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking


Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class RankedBy:
    """The ranking that gaps were measured by.

    statistics, cues, features, dropped as in the record of the ranking
    digest      of the ranking; "" where an earlier version measured
    """

    dataset: str
    backbone: str
    weights: str
    statistics: str
    cues: Mapping[int, tuple[str, ...]]
    features: Mapping[int, tuple[int, ...]]
    dropped: Mapping[int, tuple[int, ...]]
    digest: str = ""

    @classmethod
    def of(cls, ranking: Ranking) -> RankedBy:
        """The facts of a ranking, as a file gives them back."""
        return built({name: getattr(ranking, name) for name in cls.__annotations__}, cls)


@dataclass(frozen=True)
class Against:
    """As `across_models.Against`: a figure beside its null; null for a number that there is not.

    value      the figure; null, low, high: median and 95 % range over random rankings; p two-sided
    """

    value: float | None
    null: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Shared:
    """As `across_models.Across`: what m models measured on the same c classes share; null for a number that is not.

    models             BACKBONE=HEAD of each; labels: the classes; k as in `Gaps`
    class_gaps         (m, c)
    line               of accuracy at the two ends, over models; robustness: each model against it
    class_variance     of the mean gap over models; model_variance of that over classes; variance_ratio of the two
    negative           share of classes whose mean gap over models is below 0
    correlations       (m, m) between models; null_correlations: their mean over random rankings; p_correlations: how
                       often one gives one at least as large; mean_correlation: their mean off the diagonal
    reliability        correlations between halves of the rows of each class
    """

    models: tuple[str, ...]
    labels: tuple[int, ...]
    k: int | float
    class_gaps: Matrix
    line: Line | None
    robustness: tuple[Robustness, ...]
    class_variance: Against
    model_variance: Against
    variance_ratio: Against
    negative: Against
    mean_correlation: Against | None
    correlations: Matrix | None
    null_correlations: Matrix | None
    p_correlations: Matrix | None
    reliability: Reliability | None

    @classmethod
    def of(cls, together: Across) -> Shared:
        """As a file gives it back."""
        return built(together.to_dict(), cls)


@dataclass(frozen=True)
class Document:
    """What `gaps.json` holds; all accuracies and gaps are fractions, every interval is at 95 %.

    ranking     what ranked
    models      the gaps of each model; those that were measured last come first
    across      of all models measured on the split and with the k of the first; null for fewer than two
    collisions  of each model, in their order; empty where an earlier version measured
    """

    ranking: RankedBy
    models: tuple[Gaps, ...]
    across: Shared | None
    collisions: tuple[tuple[Collision, ...], ...]

    def __post_init__(self) -> None:
        if self.collisions and len(self.collisions) != len(self.models):
            raise ValueError(f"collisions of {len(self.collisions)} models, gaps of {len(self.models)}")


KIND = Kind(Document, gap.FILE, "embedx spuriosity gap", SpuriosityError, "embedx-gaps", 2, steps={1: dict})


@dataclass(frozen=True, eq=False)
class Measured:
    """For each model its gaps and its collisions, what they share, and the ranking; None: there is none."""

    models: tuple[Gaps, ...] = ()
    collisions: tuple[tuple[Collision, ...], ...] = ()
    across: Shared | None = None
    ranking: RankedBy | None = None

    @classmethod
    def load(cls, folder: Path) -> Measured:
        """Read `gaps.json`. Raises `SpuriosityError` for what is missing, foreign, newer or damaged."""
        document = KIND.read(folder / gap.FILE)
        return cls(
            document.models, document.collisions or ((),) * len(document.models), document.across, document.ranking
        )  # fmt: skip

    def alike(self) -> Measured:
        """Those on the split and with the k of the first: what stands in one table, and what `across` is of."""
        same = [(g.split, g.k) == (self.models[0].split, self.models[0].k) for g in self.models]
        models, pulls = (tuple(compress(of, same)) for of in (self.models, self.collisions))
        return replace(self, models=models, collisions=pulls)

    def check(self, ranking: Ranking, folder: Path) -> None:
        """Refuse gaps of another ranking: `ProvenanceError`. Earlier versions did not say which."""
        if self.ranking and self.ranking.digest not in ("", ranking.digest):
            raise ProvenanceError(
                f"{folder / gap.FILE} was measured by another ranking than that of {ranking.dataset} by "
                f"{ranking.backbone} there is now; run `embedx spuriosity gap {ranking.dataset} -b {ranking.backbone}` "
                "again"
            )

    def of(self, model: ModelName) -> tuple[Gaps, tuple[Collision, ...]]:
        """One model as measured last; earlier versions called a saved head by its file's name alone.

        Raises `SpuriosityError` for one that was not measured.
        """
        for name in (str(model), *names_before([model])):
            for gaps, pulls in zip(self.models, self.collisions, strict=True):
                if gaps.model == name:
                    return gaps, pulls
        measured = ", ".join(g.model for g in self.models)
        raise SpuriosityError(
            f"{gap.FILE} has the gaps of {measured}, not of {model}; measure it with `embedx spuriosity gap --model`"
        )


def save(
    folder: Path,
    ranking: Ranking,
    models: Sequence[Gaps],
    together: Across | None = None,
    collisions: Sequence[Sequence[Collision]] = (),
) -> Path:
    """Write `gaps.json` anew, whole or not at all."""
    pulls, shared = tuple(map(tuple, collisions)), together and Shared.of(together)
    folder.mkdir(parents=True, exist_ok=True)
    KIND.write(folder / gap.FILE, Document(RankedBy.of(ranking), tuple(models), shared, pulls))
    return folder / gap.FILE


def add(
    folder: Path, ranking: Ranking, added: Sequence[Gaps], collisions: Sequence[Sequence[Collision]], notice: Notice
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
        same = before.ranking and before.ranking.digest == ranking.digest
        foreign = "" if same else "by another ranking"
        pairs = list(zip(before.models, before.collisions, strict=True))
        fresh = [(g, tuple(of)) for g, of in zip(added, collisions, strict=True)]
        now = names_before(ModelName(g.backbone, g.head) for g in added)

        def name(pair: tuple[Gaps, tuple[Collision, ...]]) -> str:
            model = ModelName.parse(now.get(pair[0].model, pair[0].model))
            return replace(pair[0], head=model.head).name

        every = [*fresh, *kept(path, pairs, fresh, name, notice, foreign=foreign)]
        models, pulls = tuple(g for g, _ in every), tuple(of for _, of in every)
        measured = Measured(models, pulls).alike()
        together = None
        if len(measured.models) > 1:
            together = across(ranking, [g.answers(ranking) for g in measured.models], added[0].k)
        save(folder, ranking, models, together, pulls)
    return measured, together


def readable(folder: Path) -> Measured:
    """What there is to add to. Raises `SpuriosityError` for what nothing can be added to."""
    file = folder / gap.FILE
    try:
        return Measured.load(folder) if file.is_file() else Measured()
    except SpuriosityError as error:
        raise SpuriosityError(f"nothing can be added to {file}: {error}, after moving it away") from error
