"""Rank: every image by how strongly it shows the features that are spurious for its class."""

from __future__ import annotations

from pathlib import Path

from embedx.errors import SpuriosityError
from embedx.spuriosity import annotations
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotations.votes import Rule
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.records.ranking import Ranking, place, replaced


def rank(
    analysis: Analysis, *, statistics: str = "train", min_votes: Rule | None = None, progress: Progress = silent
) -> Ranking:
    """Rank the images by the annotated features and write the ranking beside the cache.

    statistics  the rows that mean and deviation are of: "train" or "per-split", see `measures/scores.py`
    min_votes   the rule by which votes call a feature spurious, where another than the annotations' own is wanted
    Raises `SpuriosityError` where there are no annotations or no feature is spurious, `ProvenanceError` for annotations
    of another network.
    """
    manifest, cache, file = analysis.manifest, analysis.cache, analysis.annotations_file
    if not file.is_file():
        raise SpuriosityError(f"{file} does not exist: make it with `embedx spuriosity annotate {manifest.name}`")
    entries = [a for a in annotations.read(file, analysis.notice) if a.feature is not None]
    annotations.check(entries, cache, manifest)  # without those in words, which rank in their own backbone
    cues = annotations.spurious(entries, min_votes)
    words = {(a.class_index, a.feature): a.cue for a in entries}
    ranking = rank_by_features(
        manifest, cache, cues, statistics=statistics,
        words={c: [words.get((c, i)) or f"feature {i}" for i in features] for c, features in cues.items()},
        sources=sorted({a.source for a in entries if a.feature in cues.get(a.class_index, ())}),
        min_votes=min_votes, progress=progress,
    )  # fmt: skip
    path = ranking_file(analysis)
    if line := replaced(path, manifest, ranking):
        analysis.notice(line)
    ranking.save(path)
    return ranking


def ranking_file(analysis: Analysis) -> Path:
    """The table that `rank` writes, beside the cache."""
    return place(analysis.workspace, analysis.manifest.name, analysis.cache.header.backbone)
