"""Annotations without a person: by known attributes, by words, by masks of the objects. What was seen is kept beside.

Such a label is a measurement against a threshold, not an opinion, so it is no vote: people's votes on the same pair
decide over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.records.discovery import Candidate, Discovery


def annotation(
    discovery: Discovery, candidate: Candidate, label: str, source: str, evidence: Mapping[str, Any], cue: str = ""
) -> Annotation:
    """What `source` says of one candidate; the evidence lies under the source's own name, `mask` of `auto:mask`."""
    return Annotation(
        dataset=discovery.dataset, backbone=discovery.backbone, weights=discovery.weights,
        class_index=candidate.label, class_name=candidate.class_name, feature=candidate.feature, label=label,
        source=source, rank=candidate.rank, importance=candidate.importance,
        kind="main_object" if label == "core" else "", cue=cue,
        evidence={source.removeprefix("auto:"): dict(evidence)},
    )  # fmt: skip
