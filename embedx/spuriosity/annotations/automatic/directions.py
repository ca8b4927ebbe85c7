"""Directions of the space that phrases lie in: that of the head itself, and random ones that phrases stand beside.

A model that answers by features of the same space is right where its own logit is high. A direction that has nothing to
do with any phrase correlates with that logit, and orders the images with a gap that is far beyond a random order. So
where the model shares the space, a phrase is no cue unless its gap lies beyond those of random directions, too. Beside
it stands the gap that is left of the phrase without

    v_c    the head's own direction: the weights of class c minus the mean of the other classes', brought into the space
           of the text by least squares

which says how much of the gap goes by way of that direction alone. It decides nothing: where features vary alike in all
directions and independently, nothing is left of a cue that the head leans on either.

Random directions are uniform on the sphere, without the class name. A direction and its opposite are equally likely, so
their gaps lie around 0; p is that of a normal variable with their mean square.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedx.data.manifest import Manifest
from embedx.evaluation.model import Model
from embedx.spuriosity.annotations.automatic.words import Words, similar
from embedx.spuriosity.features.activations import stream
from embedx.spuriosity.measures.clustered import gap_error
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.spuriosity.records.ranking import Ranking
from embedx.statistics import normal_p, random_ranking
from embedx.store import FeatureCache

DIRECTIONS = 500
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Control:
    """The gaps of random directions.

    spread  {class: root of the mean square of their gaps}; tests: directions times classes
    beyond  share of the tests with p <= 0.05 by a random order of the images, or of subjects that have several: 0.05
            or less where there is nothing to it
    without (n, t) similarity to the phrases without the head's own direction, where the model shares the space
    """

    spread: Mapping[int, float]
    tests: int
    beyond: float
    without: np.ndarray | None = None

    def p_value(self, label: int, gap: float) -> float:
        """Chance of a gap as far from 0 of a random direction."""
        return normal_p(gap, self.spread[label])


def own_directions(model: Model, projection: np.ndarray | None, names: np.ndarray) -> np.ndarray:
    """(k, p) v_c at right angles to the class names (k, p) and of length 1; 0 where none is left, or no linear model.

    projection  (d, p) into the space of the text, None where the features lie in it
    """
    if model.numbers is None:
        return np.zeros_like(names)
    W = model.weight.astype(np.float64)
    W = W - (W.sum(axis=0) - W) / max(len(W) - 1, 1)
    V = W if projection is None else np.linalg.lstsq(projection.astype(np.float64), W.T, rcond=None)[0].T
    lengths = np.linalg.norm(V, axis=1, keepdims=True)
    V = V - (V * names).sum(axis=1, keepdims=True) * names
    left = np.linalg.norm(V, axis=1, keepdims=True)
    return np.where(left > 1e-3 * lengths, V / np.where(left > 0, left, 1), 0.0)


def random_directions(
    manifest: Manifest,
    cache: FeatureCache,
    words: Words,
    answers: Predictions,
    k: float,
    *,
    count: int = DIRECTIONS,
    seed: int = 0,
) -> Control:
    """The gaps of random directions in the space of the phrases, on the rows that a model answered."""
    drawn = np.random.default_rng(seed).normal(size=(count, words.classes.shape[1]))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    wanted = np.isin(manifest.ids, answers.ids)
    blocks = [(rows, similar(X, manifest.labels[rows], words, drawn)) for rows, X in stream(manifest, cache, wanted)]
    rows, scores = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    any_order = np.full(len(manifest), np.nan)
    any_order[rows] = 0.0
    by = Ranking.of(manifest, cache.header.backbone, "", any_order, statistics="train", cues={}, dropped={})
    order = RankedRows.of(by, [answers])  # equal scores: by id, as the rows of the manifest
    places, at = order.places(k), np.searchsorted(rows, np.searchsorted(manifest.ids, order.ids))
    spread, beyond = {}, 0
    for c, label in enumerate(order.labels.tolist()):
        mine = slice(order.starts[c], order.starts[c] + order.sizes[c])
        hits, m = order.hits[0, mine].astype(np.int64), int(places[c])
        ranked = np.argsort(scores[at[mine]], axis=0, kind="stable")
        high, low = ranked[-m:], ranked[:m]
        difference = hits[high].sum(axis=0) - hits[low].sum(axis=0)
        if order.clusters is not None and order.clustered(c):
            nulls = [gap_error(hits, *ends, order.clusters[mine]) for ends in zip(high.T, low.T, strict=True)]
            beyond += sum(null.p(d / m) <= ALPHA for null, d in zip(nulls, difference, strict=True))
        else:
            null = random_ranking(int(order.sizes[c]), int(hits.sum()), m)
            beyond += sum(null.p_value(int(d)) <= ALPHA for d in difference)
        spread[label] = float(np.sqrt(np.mean((difference / m) ** 2)))
    tests = count * len(spread)
    return Control(spread, tests, beyond / tests)
