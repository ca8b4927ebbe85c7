"""Gap: how much worse models do where the cues of a class are absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedx.evaluation.model import Model, ModelName
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.measures.across_models import Across
from embedx.spuriosity.measures.collisions import Collision, Evidence, collisions
from embedx.spuriosity.measures.gaps import Gaps, K, gaps
from embedx.spuriosity.measures.predictions import predictions
from embedx.spuriosity.records.gaps import Measured, add, readable
from embedx.spuriosity.records.ranking import Ranking


@dataclass(frozen=True, eq=False)
class Measurement:
    """What `gap` measured, and what it stands beside.

    gaps        one for each model asked for; collisions: of each, in the same order
    table       the models of gaps.json that compare with them, these first
    across      what the models of the table share; None for a single one
    """

    gaps: tuple[Gaps, ...]
    collisions: tuple[tuple[Collision, ...], ...]
    table: Measured
    across: Across | None


def gap(
    analysis: Analysis,
    models: Sequence[str | ModelName] = (),
    *,
    k: float = K,
    split: str = "test",
    controls: Mapping[str, Ranking | Path | str] | None = None,
    progress: Progress = silent,
) -> Measurement:
    """Measure models by the ranking of the analysis and add them to gaps.json.

    models    as `BACKBONE[=HEAD]`, see `Analysis.model`; by default the backbone that ranks
    k, split  rows at each end of a class, a number or a fraction; the rows to report on
    controls  {name: another ranking, or its file} to set the gaps beside
    Raises as `Analysis.ranking` and `Analysis.model` do, and `SpuriosityError` for a gaps.json that cannot be added to.
    """
    manifest, folder = analysis.manifest, analysis.folder
    folder.mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be written
    readable(folder)
    ranking = analysis.ranking()
    others = {
        name: other if isinstance(other, Ranking) else Ranking.load(Path(other), manifest)
        for name, other in (controls or {}).items()
    }
    judges: dict[ModelName, Model] = {}
    names, predicted = analysis.names(models), []
    for done, name in enumerate(names):
        progress(done, len(names), str(name))
        judges[name] = analysis.model(name)
        predicted.append(predictions(manifest, analysis.cache_of(name.backbone), judges[name], split))
    measured = [gaps(ranking, p, k, controls=others) for p in predicted]
    evidence = None
    if ranking.features and analysis.is_cached:  # the model on the backbone that ranks tells which feature pulls
        (own,) = analysis.names(())
        evidence = Evidence(manifest, analysis.cache, judges.get(own) or analysis.model(own))
    pulls = [tuple(collisions(g, ranking, p, evidence)) for g, p in zip(measured, predicted, strict=True)]
    table, across = add(folder, ranking, measured, pulls, analysis.notice)
    return Measurement(tuple(measured), tuple(pulls), table, across)
