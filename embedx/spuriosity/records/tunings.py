"""The record of tuned models, `tuning.json`, which grows: models are added as long as they go by one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedx.documents import Kind, built, plain
from embedx.errors import SpuriosityError
from embedx.evaluation.model import ModelName
from embedx.evaluation.records import Notice, kept
from embedx.evaluation.runs import supervision_as_values
from embedx.files import locked
from embedx.spuriosity.measures.tuned import Tuning
from embedx.spuriosity.records.saved_names import names_before

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

FILE = "tuning.json"


@dataclass(frozen=True)
class RankingDigest:
    """The ranking that models were tuned by.

    backbone  whose features ranked; digest: of the ranking
    """

    backbone: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Tunings:
    """What `tuning.json` holds; all accuracies and gaps are fractions, every interval is at 95 %.

    ranking  the one that all of them go by; earlier versions did not say
    models   each model, tuned in every way
    """

    ranking: RankingDigest | None = None
    models: tuple[Tuning, ...]


def _second_version(document: Mapping[str, Any]) -> dict[str, Any]:
    """Version 1 held the supervision of rivals in words."""
    models = [{**m, "rivals": [supervision_as_values(rival) for rival in m["rivals"]]} for m in document["models"]]
    return {**document, "models": models}


KIND = Kind(Tunings, FILE, "embedx spuriosity tune", SpuriosityError, "embedx-tuning", 3,
            again="move it away and run `embedx spuriosity tune` again",
            steps={1: _second_version, 2: dict})  # fmt: skip


def add(folder: Path, ranking: Ranking, tunings: Sequence[Tuning], notice: Notice) -> Path:
    """Add models to `tuning.json`, whoever else adds to it.

    Models tuned before by the same ranking stay, one that is tuned again is replaced, as is its head; by another
    ranking than before nothing can stay. `notice` is told of every figure that goes. Raises `SpuriosityError` for a
    file that cannot be read.
    """
    path, by = folder / FILE, RankingDigest(ranking.backbone, ranking.digest)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(path):
        before = load(path) if path.is_file() else Tunings(ranking=by, models=())
        foreign = "" if before.ranking == by else "by another ranking"
        fresh = [built(plain(t), Tuning) for t in tunings]  # as a file gives them back
        now = names_before(ModelName(t.backbone, t.head) for t in fresh)
        stay = kept(path, before.models, fresh, lambda t: now.get(t.model, t.model), notice, foreign=foreign)
        KIND.write(path, Tunings(ranking=by, models=(*fresh, *stay)))
    return path


def load(file: Path) -> Tunings:
    """What `tuning.json` holds. Raises `SpuriosityError` for what is missing, foreign, newer or damaged."""
    return KIND.read(file)
