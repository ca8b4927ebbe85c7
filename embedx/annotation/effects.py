"""What the answers change: the ranking, the gap before and after tuning, of one class or of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedx.annotation.work import Note, Place, Tell
from embedx.data.manifest import SPLITS
from embedx.errors import EmbedxError, SpuriosityError
from embedx.probes.low_spuriosity import ROWS
from embedx.spuriosity import annotations
from embedx.spuriosity.gap import gap
from embedx.spuriosity.measures.gaps import ClassGap, Gaps, gaps
from embedx.spuriosity.measures.predictions import predictions
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.measures.tuned import Tuning
from embedx.spuriosity.measures.tuning import tune_head
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.spuriosity.rank import rank
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.spuriosity.tune import tune

LOW = ROWS[0]
SHOWN = 12
"""Images of a ranking that are shown, from the most to the least spurious."""


@dataclass(frozen=True)
class Strip:
    """Some images of a class from the most to the least spurious: rows of the manifest, and their places from 1."""

    split: str
    rows: tuple[int, ...]
    places: tuple[int, ...]
    n: int


@dataclass(frozen=True)
class Effect:
    """What naming cues of a class does.

    cues    in words; strip: images in the order of the ranking, None without any
    before  gap of the head that was looked into; after: of the same head tuned on the least spurious images, None where
            it was not tuned, for the `reason`
    """

    model: str
    cues: tuple[str, ...]
    strip: Strip | None
    before: ClassGap | None
    after: ClassGap | None
    reason: str = ""


def strip(ranking: Ranking, label: int, split: str = "test") -> Strip | None:
    """Images of a class in a split, evenly from the most to the least spurious."""
    of_class = (ranking.labels == label) & (ranking.splits == SPLITS.index(split)) & (ranking.positions >= 0)
    rows = np.flatnonzero(of_class)
    rows = rows[np.argsort(-ranking.positions[rows], kind="stable")]
    if not len(rows):
        return None
    at = np.unique(np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int))
    return Strip(split, tuple(rows[at].tolist()), tuple((at + 1).tolist()), len(rows))


@dataclass(frozen=True)
class Facts:
    """What needs the features: {class: (right, of)} on validation, and {class: images in the order of the ranking}."""

    accuracy: Mapping[int, tuple[int, int]]
    strips: Mapping[int, Strip]


def facts(place_of: Place, about: object, tell: Tell, note: Note) -> Facts:
    """Accuracies of the head that was looked into, and the ranking that there is."""
    analysis = place_of.open(note)
    (name,) = analysis.names(())
    answers = predictions(analysis.manifest, analysis.cache, analysis.model(name), "val")
    right, of = (
        np.bincount(answers.y[rows], minlength=len(answers.classes)) for rows in (answers.correct, slice(None))
    )
    file = place(analysis.workspace, analysis.manifest.name, analysis.cache.header.backbone)
    ranked = _strips(Ranking.load(file, analysis.manifest)) if file.is_file() else {}
    return Facts({c: (int(r), int(n)) for c, (r, n) in enumerate(zip(right, of, strict=True)) if n}, ranked)


def _strips(ranking: Ranking) -> dict[int, Strip]:
    return {c: found for c in ranking.cues if (found := strip(ranking, c)) is not None}


def of_all(place_of: Place, label: int | None, tell: Tell, note: Note) -> dict[int, Strip]:
    """Rank, gap and tune, as the commands do, all classes; their files are written. Returns the images in order."""
    analysis = place_of.open(note)
    tell(0, 3, "ranking")
    ranking = rank(analysis)
    tell(1, 3, "measuring the gap")
    gap(analysis)
    tell(2, 3, "tuning the head")
    try:
        tune(analysis)
    except EmbedxError as error:
        note(f"not tuned: {error}")
    return _strips(ranking)


def of_class(place_of: Place, label: int | None, tell: Tell, note: Note) -> Effect:
    """The same for one class alone, by the features that are called spurious for it now; nothing is written."""
    assert label is not None
    analysis = place_of.open(note)
    manifest, cache = analysis.manifest, analysis.cache
    entries = [a for a in analysis.annotations() if a.class_index == label]
    cues = annotations.spurious(entries)
    if label not in cues:
        raise SpuriosityError(f"no feature of {manifest.classes[label]} is called spurious, so nothing ranks it")
    words = {a.feature: a.cue for a in entries if a.feature is not None}
    tell(0, 3, "ranking")
    named = {label: [words.get(i) or f"feature {i}" for i in cues[label]]}
    ranking = rank_by_features(manifest, cache, cues, words=named, sources=sorted({a.source for a in entries}))
    tell(1, 3, "measuring the gap")
    (name,) = analysis.names(())
    model = analysis.model(name)
    before = _of(gaps(ranking, predictions(manifest, cache, model)), label)
    tell(2, 3, "tuning the head")
    after, reason = None, ""
    try:
        tuned, _ = tune_head(manifest, cache, ranking, model, TuningSettings(rows=(LOW,), beside=()))
        after, reason = tuned_gap([tuned], tuned.model, label)
    except EmbedxError as error:
        reason = str(error)
    return Effect(str(name), tuple(named[label]), strip(ranking, label), before, after, reason)


def _of(measured: Gaps, label: int) -> ClassGap | None:
    return next((c for c in measured.classes if c.label == label), None)


def tuned_gap(tunings: Sequence[Tuning], model: str, label: int) -> tuple[ClassGap | None, str]:
    """The gap of a class after a model was tuned on its least spurious images, or why there is none."""
    tuning = next((t for t in tunings if t.model == model), None)
    low = next((r for r in tuning.results if r.rows == LOW), None) if tuning else None
    if tuning is None or low is None:
        return None, "the head was not tuned yet"
    found = _of(low.detail, label)
    return found, "" if found else "its gap is not positive, so that it was not tuned on"
