"""Discover: which features of the backbone a head leans on, class by class."""

from __future__ import annotations

from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, silent
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.records.discovery import Discovery, replaced


def discover(
    analysis: Analysis,
    *,
    recipe: str = "convex",
    grouping: str = "label",
    k: int = 5,
    seeds: int = 3,
    progress: Progress = silent,
) -> Discovery:
    """Find the k features of every class that add most to its logit; write discovery.json and the head.

    recipe, grouping, seeds  as for `important_features`
    Raises as that does, and before the work for a folder that cannot be written or that holds annotations of another
    network (`ProvenanceError`).
    """
    cache = analysis.cache
    analysis.folder.mkdir(parents=True, exist_ok=True)
    analysis.annotations()  # people's work on the features of one network, which stays
    discovery = important_features(
        analysis.manifest, cache, recipe=recipe, grouping=grouping, k=k, seeds=seeds, progress=progress
    )
    if line := replaced(analysis.folder, discovery):
        analysis.notice(line)
    discovery.save(analysis.folder)
    return discovery
