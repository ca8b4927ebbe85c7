"""Tune: fit heads once more on the images that show the cues least, and see what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedx.errors import HeadError
from embedx.evaluation import saved
from embedx.evaluation.model import ModelName
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.measures.tuned import Tuning
from embedx.spuriosity.measures.tuning import Second, tune_head
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.spuriosity.records import tunings
from embedx.spuriosity.records.ranking import Ranking


@dataclass(frozen=True, eq=False)
class TunedHead:
    """The record of a tuning, and the file of the tuned head, which `embedx predict` applies."""

    tuning: Tuning
    file: Path


def tune(
    analysis: Analysis,
    models: Sequence[str | ModelName] = (),
    settings: TuningSettings | None = None,
    *,
    second: Ranking | Path | str | None = None,
    progress: Progress = silent,
) -> tuple[TunedHead, ...]:
    """Tune heads by the ranking of the analysis; write the tuned heads and add them to tuning.json.

    Where validation speaks against tuning, `analysis.notice` is told, and the head is written as it was, see
    `TuningSettings.keep`.

    models  as `BACKBONE[=HEAD]`, see `Analysis.model`; by default the backbone that ranks
    second  another ranking, or its file, to check the tuning by; by default one half of the spurious features of each
            class checks a tuning by the other, where there are two
    Raises as `Analysis.ranking` and `tune_head` do, and `SpuriosityError` for a tuning.json that cannot be added to.
    """
    manifest, folder = analysis.manifest, analysis.folder
    folder.mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be written
    if (folder / tunings.FILE).is_file():
        tunings.load(folder / tunings.FILE)
    ranking, settings = analysis.ranking(), settings or TuningSettings()
    names = analysis.names(models)
    _require_apart(names)
    starts = [analysis.model(name) for name in names]  # all of them before the first is tuned
    check, tuned = _second(analysis, ranking, second), []
    for start in starts:
        cache = analysis.cache_of(start.name.backbone)
        tuning, head = tune_head(
            manifest, cache, ranking, start, settings, second=check, notice=analysis.notice, progress=progress
        )  # fmt: skip
        if tuning.warning:
            analysis.notice(tuning.warning)
        tuned.append(TunedHead(tuning, saved.save_model(head, folder)))
    tunings.add(folder, ranking, [t.tuning for t in tuned], analysis.notice)
    return tuple(tuned)


def _second(analysis: Analysis, ranking: Ranking, given: Ranking | Path | str | None) -> Second | None:
    """The ranking to check by; None where none is given, and no class has two spurious features to make one of."""
    manifest = analysis.manifest
    if given is not None:
        return Second(given if isinstance(given, Ranking) else Ranking.load(Path(given), manifest))
    halves = [
        {c: half for c, features in ranking.features.items() if len(features) > 1 and (half := features[first::2])}
        for first in (0, 1)
    ]
    if not (halves[0] and analysis.is_cached):
        analysis.notice(
            "note: no class has two spurious features, so no second ranking checks the tuning; --second FILE names one"
        )
        return None
    by, other = (
        rank_by_features(manifest, analysis.cache, half, statistics=ranking.statistics, sources=ranking.sources)
        for half in halves
    )
    return Second(other, tuned_by=by)


def _require_apart(names: Sequence[ModelName]) -> None:
    """Refuse models whose tuned heads would be one file: saved heads of one file name. Raises `HeadError`."""
    files: dict[tuple[str, str], ModelName] = {}
    for name in names:
        other = files.setdefault((name.backbone, name.short), name)
        if other != name:
            raise HeadError(
                f"the heads tuned from {other} and from {name} would be one file; tune them into two folders (-o), or "
                "give one of the files another name"
            )
