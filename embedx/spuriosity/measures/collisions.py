"""Classes that do worse where their cue is present: what are their most spurious images taken for, and why?

A feature that is spurious for class b and counts more for class a pulls the images of b that show it towards a: a
collision. For every class with a negative gap the predictions on its high end are counted; of the rows taken for a, and
of each spurious feature f of b, the ranking backbone's head W tells what f adds to either logit:

    towards = mean W[a, f] r_f        own = mean W[b, f] r_f        the feature that pulls most: largest towards - own

After section 5 of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedx.data.manifest import Manifest
from embedx.evaluation.model import Model
from embedx.spuriosity.annotations import Cues
from embedx.spuriosity.features.activations import stream
from embedx.spuriosity.measures.gaps import Gaps
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.statistics import Interval
from embedx.store import FeatureCache

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

MOST = 3
"""Classes that are told of each colliding class."""


@dataclass(frozen=True)
class Pull:
    """A spurious feature of the class, and what it adds to logits.

    towards  to that of the other class; own: to that of its own
    """

    feature: int
    towards: float
    own: float


@dataclass(frozen=True)
class Collision:
    """Class `label`, with a negative gap, and a class that its most spurious rows are taken for.

    other          code of that class, other_name: its name
    gap, holm      as in `ClassGap`
    taken, of      so many of the k most spurious rows are taken for `other`; `low` as many of the k least spurious
    pull           None without features, as of a ranking by text, or without spurious features on record
    """

    label: int
    name: str
    other: int
    other_name: str
    gap: Interval
    holm: float
    taken: int
    low: int
    of: int
    pull: Pull | None


@dataclass(frozen=True, eq=False)
class Evidence:
    """The ranking backbone: its features and a linear model on them, in the classes of the manifest."""

    manifest: Manifest
    cache: FeatureCache
    model: Model


def collisions(
    measured: Gaps, ranking: Ranking, predictions: Predictions, evidence: Evidence | None = None
) -> list[Collision]:
    """Of one model, the most negative class first, and of each at most `MOST` other classes, the commonest first.

    measured  its gaps, by `ranking`; evidence: to tell which feature pulls
    """
    ranked = RankedRows.of(ranking, [predictions])
    predicted = ranked.predicted[0]
    listed = []
    for c in sorted((c for c in measured.classes if c.gap.value < 0), key=lambda c: c.gap.value):
        high, low = ranked.end(c.label, c.k, most=True), ranked.end(c.label, c.k, most=False)
        kinds, counts = np.unique(predicted[high][predicted[high] != c.label], return_counts=True)
        for other in kinds[np.argsort(-counts, kind="stable")[:MOST]]:
            listed.append((c, int(other), high[predicted[high] == other], np.count_nonzero(predicted[low] == other)))
    pulls = _pulls(ranked, [(c.label, other, rows) for c, other, rows, _ in listed], ranking.features, evidence)
    return [
        Collision(c.label, c.name, other, predictions.classes[other], c.gap, c.holm, len(rows), int(low), c.k, pull)
        for (c, other, rows, low), pull in zip(listed, pulls, strict=True)
    ]


def _pulls(
    ranked: RankedRows, listed: Sequence[tuple[int, int, np.ndarray]], cues: Cues, evidence: Evidence | None
) -> list[Pull | None]:
    """For each (class, other class, ranked rows) the feature that pulls most."""
    if evidence is None or not listed:
        return [None] * len(listed)
    rows = np.unique(np.concatenate([rows for *_, rows in listed]))
    features = np.array(sorted({f for label, *_ in listed for f in cues.get(label, ())}), dtype=np.int64)
    wanted = np.isin(evidence.manifest.ids, ranked.ids[rows])
    at, r = zip(*((at, X[:, features]) for at, X in stream(evidence.manifest, evidence.cache, wanted)), strict=True)
    index = {row: i for i, row in enumerate(evidence.manifest.ids[np.concatenate(at)])}
    r = np.concatenate(r).astype(np.float64)[[index[row] for row in ranked.ids[rows]]]
    pulls: list[Pull | None] = []
    for label, other, taken in listed:
        own = np.array(cues.get(label, ()), dtype=np.int64)
        mean = r[np.searchsorted(rows, taken)][:, np.searchsorted(features, own)].mean(axis=0)
        to, of = (evidence.model.weight[c, own] * mean for c in (other, label))
        best = int((to - of).argmax()) if len(own) else None
        pulls.append(None if best is None else Pull(int(own[best]), float(to[best]), float(of[best])))
    return pulls
