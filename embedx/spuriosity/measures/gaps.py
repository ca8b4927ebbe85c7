"""The spurious gap of one model: accuracy on the most spurious images of each class minus that on the least spurious.

    gap_c = accuracy on the k most spurious rows of class c - accuracy on the k least spurious,    k <= n_c / 2

Overall the mean over the classes that have a ranking, and pooled over their rows, which is the same for one k. Of a
single class with few rows the gap says little (for ten rows at each end its standard error is up to 22 points), so
each figure has its interval and is set beside what a random ranking would give. "Random" means: the rows of each class
in random order, with the model's answers as they are.

    one class   interval: Wilson limits of both ends, combined (Newcombe 1998). p and null: exact (`random_ranking`)
    overall     interval: likewise, of means over classes, which are worth a number of rows (Korn and Graubard 1998).
                Beside it the percentiles of a bootstrap stratified by class and end: narrower where classes differ
                much, and of no width where all is right. p and null: random orders, from their exact law in each class
    k curve     intervals as overall; null: normal, with the exact variance of a random order
    peers       the mean gap and those of classes among those by other features of the class: `measures/peers.py`
    positions   accuracy by relative position, mean over classes, Wilson limits likewise
    trend       Spearman's correlation of correctness with spuriosity, which uses all rows; p from its exact variance
                under a random ranking, as a normal variable

Where the manifest names a cluster (patient, clip, photograph) with several ranked rows, all of these count clusters:
`measures/clustered.py`. P-values are not exact then.

All accuracies and gaps are fractions, every interval is at 95 %. `records.gaps` keeps them in `gaps.json`.

After Moayeri et al., "Spuriosity Rankings", NeurIPS 2023, section 4.1, which gives no intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from embedx.data.manifest import SPLITS
from embedx.evaluation.model import ModelName
from embedx.evaluation.runs import pack, unpack
from embedx.spuriosity.measures.clustered import ClusteredGap, rows_by_position, trend_error
from embedx.spuriosity.measures.peers import Peers, Pool, peers
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.statistics import (
    Interval,
    benjamini_hochberg,
    difference,
    effective_proportion,
    holm,
    mean_spearman,
    p_from_draws,
    percentile_limits,
    proportion,
    random_gap_limits,
    random_gaps,
    random_ranking,
    resampled_sums,
    spearman_p,
    sum_of_strata,
)

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

FILE = "gaps.json"
K = 0.2
"""Share of a class at each end: ten of the fifty validation images of an ImageNet class, as published."""
DEPTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
POSITIONS = 10
REPLICATES = 2_000
FEW = 40
"""Rows below which a class is called small."""


@dataclass(frozen=True)
class ClassGap:
    """One class.

    n, k      its ranked rows, and how many of them form each end
    high, low accuracy on the k most and the k least spurious rows
    null      range that holds 95 % of the gaps of a random ranking; p: chance of one as far from 0; holm, fdr: the same
              adjusted over classes (Holm; Benjamini and Hochberg)
    rho       Spearman's correlation of correctness with spuriosity, rho_p its p; None where all is right or all wrong
    tied      rows of equal score lie on both sides of a border, so that their ids decided
    small     fewer than `FEW` rows, or k cut to half of the class
    """

    label: int
    name: str
    n: int
    k: int
    high: Interval
    low: Interval
    gap: Interval
    null: tuple[float, float]
    p: float
    holm: float
    fdr: float
    rho: float | None
    rho_p: float | None
    tied: bool
    small: bool


@dataclass(frozen=True)
class Overall:
    """Over several classes.

    high, low accuracy on the most and on the least spurious rows
    gap       high minus low; bootstrap: its 95 % range in bootstrap samples
    null      range that holds 95 % of the gaps of a random ranking; p: chance of one as far from 0
    """

    high: Interval
    low: Interval
    gap: Interval
    bootstrap: tuple[float, float]
    null: tuple[float, float]
    p: float
    classes: int


@dataclass(frozen=True)
class Depth:
    """The mean gap over classes at another k.

    k          a share of each class
    bootstrap, null as in `Overall`
    """

    k: float
    gap: Interval
    bootstrap: tuple[float, float]
    null: tuple[float, float]


@dataclass(frozen=True)
class Trend:
    """Mean over classes of Spearman's correlation of correctness with spuriosity.

    rho  the mean
    """

    rho: float
    p: float
    classes: int


@dataclass(frozen=True)
class Gaps:
    """The gaps of one model on one split.

    ranker    the backbone that ranked
    k         as asked for: a number of rows, or a fraction of each class
    classes   every class with a gap; mean: over these, each counted once; pooled: over their rows
    depths    the mean at other k; positions: accuracy by place in the ranking, least spurious first; trend: of
              correctness with spuriosity
    single    classes with one ranked row, which have no gap; left_out: rows of the split that have no features
    controls  {name: the mean over classes for another ranking of the same rows}
    peers     how the gaps stand among those by other features of the class; None for a ranking by words, and where an
              earlier version measured
    answered, right  which of the split's ranked rows, in the order of their ids, the model answered, and got right:
              `runs.pack`. Empty where an earlier version measured
    """

    dataset: str
    ranker: str
    backbone: str
    head: str
    split: str
    k: int | float
    classes: tuple[ClassGap, ...]
    mean: Overall
    pooled: Overall
    depths: tuple[Depth, ...]
    positions: tuple[Interval, ...]
    trend: Trend | None
    single: tuple[int, ...] = ()
    left_out: int = 0
    controls: Mapping[str, Overall] = field(default_factory=dict)
    answered: str = ""
    right: str = ""
    peers: Peers | None = None

    @property
    def model(self) -> str:
        """The model's name, as `--model` takes it."""
        return str(ModelName(self.backbone, self.head))

    @property
    def name(self) -> str:
        """What was measured, by which two measurements are told apart."""
        return f"{self.model} ({self.split}, k = {self.k:g})"

    def answers(self, ranking: Ranking) -> Predictions:
        """Answers that are right and wrong where the model's were, on the rows that were measured."""
        rows = _ranked(ranking, self.split)
        there, right = (unpack(bits, len(rows)) for bits in (self.answered, self.right))
        rows, right = rows[there], right[there]
        y = ranking.labels[rows]
        predicted = np.where(right, y, (y + 1) % max(len(ranking.classes), 2))
        about = (self.dataset, self.backbone, self.head, self.split, ranking.classes)
        return Predictions(*about, ranking.ids[rows], y, predicted, self.left_out)


def gaps(
    ranking: Ranking,
    answers: Predictions,
    k: float = K,
    *,
    controls: Mapping[str, Ranking] | None = None,
    seed: int = 0,
) -> Gaps:
    """Measure one model on one ranking.

    k         rows at each end of a class: a whole number, or a fraction up to 0.5
    controls  rankings by other scores, such as a core feature of each class or a random one: a gap as large on these
              tells of hard images, not of the cue. They are measured on the classes that they share with `ranking`
    seed      of the bootstrap and of the random rankings

    Raises `ValueError` for a k that is neither, `SpuriosityError` for a ranking and answers that do not fit.
    """
    order = RankedRows.of(ranking, [answers])
    places, rng = order.places(k), np.random.default_rng(seed)
    mean, pooled = _overall(order, places, rng)
    control_gaps = {}
    for name, other in (controls or {}).items():
        control = RankedRows.of(other, [answers], among=order.labels)
        control_gaps[name] = _overall(control, control.places(k), rng)[0]
    correct = dict(zip(answers.ids, answers.correct.tolist(), strict=True))
    hits = [correct.get(i) for i in ranking.ids[_ranked(ranking, answers.split)]]
    return Gaps(
        dataset=ranking.dataset, ranker=ranking.backbone, backbone=answers.backbone, head=answers.head,
        split=answers.split, k=k, classes=_classes(order, places, k, answers.classes), mean=mean, pooled=pooled,
        depths=tuple(_depth(order, depth, rng) for depth in DEPTHS), positions=_positions(order), trend=_trend(order),
        single=order.single, left_out=answers.left_out, controls=control_gaps,
        answered=pack(np.array([h is not None for h in hits])), right=pack(np.array([h is True for h in hits])),
    )  # fmt: skip


def among_others(ranking: Ranking, measured: Sequence[Gaps], answers: Sequence[Predictions], pool: Pool) -> list[Gaps]:
    """The gaps of models with how they stand among those by other features; models of the same rows go together."""
    together: dict[bytes, list[int]] = {}
    for i, a in enumerate(answers):
        together.setdefault("\n".join(map(str, a.ids)).encode(), []).append(i)
    found = list(measured)
    for members in together.values():
        order = RankedRows.of(ranking, [answers[i] for i in members])
        k = order.places(measured[members[0]].k)
        for i, standing in zip(members, peers(order, k, pool), strict=True):
            found[i] = replace(found[i], peers=standing)
    return found


def _ranked(ranking: Ranking, split: str) -> np.ndarray:
    """The ranked rows of a split."""
    return np.flatnonzero((ranking.splits == SPLITS.index(split)) & (ranking.positions >= 0))


def _classes(order: RankedRows, k: np.ndarray, asked: float, names: tuple[str, ...]) -> tuple[ClassGap, ...]:
    """Every class by itself; `asked` is what k was asked for."""
    high, low = (side[0] for side in order.tails(k))
    right, rho, tied, single = order.totals[0], order.spearman()[0], order.tied(k), np.eye(len(k))
    figures: list[tuple[Interval, Interval, Interval, tuple[float, float]]] = []
    p, rho_p = [], spearman_p(rho, order.sizes)
    for c in range(len(k)):
        m = int(k[c])
        if order.clusters is None or not order.clustered(c):
            null = random_ranking(int(order.sizes[c]), int(right[c]), m)
            top, bottom = (proportion(int(side[c]), m) for side in (high, low))
            below, above = null.limits()
            figures.append((top, bottom, difference(top, bottom), (below / m, above / m)))
            p.append(null.p_value(int(high[c] - low[c])))
            continue
        one = ClusteredGap(order, order.clusters, k, single[c] / m)
        error = one.null()
        figures.append((*one.ends(), (-error.half, error.half)))
        p.append(error.p(figures[-1][2].value))
        rho_p[c] = trend_error(order, order.clusters, single[c] > 0).p(rho[c]) if np.isfinite(rho[c]) else 1.0
    adjusted, discovery = holm(p), benjamini_hochberg(p)
    cut = np.zeros(len(k), dtype=bool) if isinstance(asked, float) else k < asked
    measured = []
    for c, (top, bottom, gap, null) in enumerate(figures):
        varies, label = bool(np.isfinite(rho[c])), int(order.labels[c])
        measured.append(ClassGap(
            label, names[label], int(order.sizes[c]), int(k[c]), top, bottom, gap, null, p[c], adjusted[c],
            float(discovery[c]), float(rho[c]) if varies else None, float(rho_p[c]) if varies else None,
            bool(tied[c]), bool(order.sizes[c] < FEW or cut[c]),
        ))  # fmt: skip
    return tuple(measured)


def _overall(order: RankedRows, k: np.ndarray, rng: np.random.Generator) -> tuple[Overall, Overall]:
    """The mean over classes, and pooled over rows."""
    right = [side[0] for side in order.tails(k)]
    mean, pooled = 1 / (len(k) * k), np.full(len(k), 1 / k.sum())
    figures = []
    if order.clusters is not None:
        for weights in (mean, pooled):
            of = ClusteredGap(order, order.clusters, k, weights)
            high, low, gap = of.ends()
            error, bootstrap = of.null(), of.drawn(rng, REPLICATES)
            figures.append(Overall(high, low, gap, bootstrap, (-error.half, error.half), error.p(gap.value), len(k)))
        return figures[0], figures[1]
    random = random_gaps(order.sizes, order.totals[0], k, rng, REPLICATES)
    for weights, draws in zip((mean, pooled), random, strict=True):
        high, low, bootstrap = _ends(right, k, weights, rng)
        gap = difference(high, low)
        null, p = percentile_limits(draws), p_from_draws(gap.value, draws)
        figures.append(Overall(high, low, gap, bootstrap, null, p, len(k)))
    return figures[0], figures[1]


def _ends(
    right: Sequence[np.ndarray], k: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> tuple[Interval, Interval, tuple[float, float]]:
    """High, low, and the 95 % range of their difference in bootstrap samples, of right answers (c,) at both ends."""
    high, low = (sum_of_strata(side, k, weights) for side in right)
    tops, bottoms = (resampled_sums(side, k, weights, rng, REPLICATES) for side in right)
    return high, low, percentile_limits(tops - bottoms)


def _depth(order: RankedRows, depth: float, rng: np.random.Generator) -> Depth:
    """The mean gap at one k."""
    k = order.places(depth)
    weights = 1 / (len(k) * k)
    if order.clusters is not None:
        of = ClusteredGap(order, order.clusters, k, weights)
        half = of.null().half
        return Depth(depth, of.ends()[2], of.drawn(rng, REPLICATES), (-half, half))
    high, low, bootstrap = _ends([side[0] for side in order.tails(k)], k, weights, rng)
    null = random_gap_limits(order.sizes, order.totals[0], k, weights)
    return Depth(depth, difference(high, low), bootstrap, null)


def _positions(order: RankedRows) -> tuple[Interval, ...]:
    """A mean over c classes with m_c rows in a bin is worth c^2 / sum_c 1 / m_c rows, if classes are alike."""
    accuracy = np.clip(order.by_position(POSITIONS)[0].mean(axis=0), 0, 1)
    rows = max(1.0, len(order.sizes) ** 2 / float((POSITIONS / order.sizes).sum()))
    n, worth = int(order.sizes.sum() // POSITIONS), [rows] * POSITIONS
    if order.clusters is not None:
        worth = [min(rows, w) for w in rows_by_position(order, order.clusters, POSITIONS)]
    return tuple(effective_proportion(float(a), w, n) for a, w in zip(accuracy, worth, strict=True))


def _trend(order: RankedRows) -> Trend | None:
    rho = order.spearman()[0]
    mean, finite = mean_spearman(rho, order.sizes), np.isfinite(rho)
    if mean is None:
        return None
    value, p = mean
    if order.clusters is not None:
        p = trend_error(order, order.clusters, finite).p(value)
    return Trend(value, p, int(finite.sum()))
