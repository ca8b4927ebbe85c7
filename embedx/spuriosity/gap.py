"""Gap: how much worse models do where the cues of a class are absent."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedx.data.manifest import Manifest
from embedx.errors import SpuriosityError
from embedx.evaluation.model import Model, ModelName
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.measures.across_models import Across
from embedx.spuriosity.measures.collisions import Collision, Evidence, collisions
from embedx.spuriosity.measures.gaps import Gaps, K, among_others, gaps
from embedx.spuriosity.measures.importance import group_means, importance
from embedx.spuriosity.measures.peers import PEERS, Pool, nearest, pool_of
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
    among: int | str | Path = PEERS,
    progress: Progress = silent,
) -> Measurement:
    """Measure models by the ranking of the analysis and add them to gaps.json.

    models    as `BACKBONE[=HEAD]`, see `Analysis.model`; by default the backbone that ranks
    k, split  rows at each end of a class, a number or a fraction; the rows to report on
    controls  {name: another ranking, or its file} to set the gaps beside
    among     the features of a class whose gaps this one is set among: so many that are nearest in importance, "core"
              for those annotated so, or a table with the columns class and feature
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
        measured = among_others(ranking, measured, predicted, _pool(analysis, ranking, evidence.model, among, split))
    pulls = [tuple(collisions(g, ranking, p, evidence)) for g, p in zip(measured, predicted, strict=True)]
    table, across = add(folder, ranking, measured, pulls, analysis.notice)
    return Measurement(tuple(measured), tuple(pulls), table, across)


def _pool(analysis: Analysis, ranking: Ranking, own: Model, among: int | str | Path, split: str) -> Pool:
    """The features that sets are drawn from; own: the head on the ranking backbone, by which they count."""
    manifest, cache = analysis.manifest, analysis.cache
    (groups,) = group_means(manifest, cache, [(own, "label")])
    weighed, name = importance(own, groups), "nearest"
    if isinstance(among, int):
        features: Mapping[int, Sequence[int]] = nearest(weighed, ranking.features, among)
    elif among == "core":
        core = [(a.class_index, a.feature) for a in analysis.annotations() if a.label == "core"]
        if not core:
            raise SpuriosityError(
                f"{analysis.annotations_file} calls no feature core; annotate some, or draw by number"
            )
        name, features = "core", {c: [f for label, f in core if label == c and f is not None] for c in ranking.features}
    else:
        name, features = Path(among).name, _listed(Path(among), manifest)
    return pool_of(
        manifest, cache, ranking.features, weighed, features, among=name, split=split, statistics=ranking.statistics
    )


def _listed(file: Path, manifest: Manifest) -> dict[int, list[int]]:
    """{class: features} of a table with the columns class and feature. Raises `SpuriosityError` for another."""
    code, features = {name: c for c, name in enumerate(manifest.classes)}, {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as rows:
            for row in csv.DictReader(rows):
                features.setdefault(code[row["class"]], []).append(int(row["feature"]))
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise SpuriosityError(
            f"{file} is no table of features ({type(error).__name__}: {error}); expected the columns class, a name of "
            f"{manifest.name}, and feature, a number"
        ) from error
    return features
