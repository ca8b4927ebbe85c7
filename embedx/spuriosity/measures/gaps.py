"""The spurious gap of one model: accuracy on the most spurious images of each class minus that on the least spurious.

    gap_c = accuracy on the k most spurious rows of class c - accuracy on the k least spurious,    k <= n_c / 2

Overall the mean over the classes that have a ranking, and pooled over their rows, which is the same for one k. Of a
single class with few rows the gap says little (for ten rows at each end its standard error is up to 22 points), so
each figure has its interval and is set beside what a random ranking would give. "Random" means: the rows of each class
in random order, with the model's answers as they are.

    one class   interval: Wilson limits of both ends, combined (Newcombe 1998). p and null: exact (`order.random_law`)
    overall     interval: likewise, of means over classes, which are worth a number of rows (Korn and Graubard 1998).
                Beside it the percentiles of a bootstrap stratified by class and end: narrower where classes differ
                much, and of no width where all is right. p and null: random orders, from their exact law in each class
    k curve     intervals as overall; null: normal, with the exact variance of a random order
    positions   accuracy by relative position, mean over classes, Wilson limits likewise
    trend       Spearman's correlation of correctness with spuriosity, which uses all rows; p from its exact variance
                under a random ranking, as a normal variable

`gaps.json`, all accuracies and gaps as fractions, every interval {value, low, high, n} at 95 %:

    format, version   "embedx-gaps", 1
    ranking           dataset, backbone, weights, statistics, cues, features, dropped, digest: of the ranking
    models            one of `Gaps` for each model, its fields by name: `classes` holds `ClassGap`, `mean`, `pooled` and
                      `controls` hold `Overall`, `depths` `Depth`, `positions` intervals, `trend` `Trend`; those that
                      were measured last come first
    across            of all models measured on the same split with the same k as the first one, the fields of
                      `models.Across`; null for fewer than two
    collisions        for each model, in their order, a list of `collisions.Collision`

After Moayeri et al., "Spuriosity Rankings", NeurIPS 2023, section 4.1, which gives no intervals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import false_discovery_control

from embedx.data.manifest import SPLITS
from embedx.errors import SpuriosityError
from embedx.evaluation.metrics import LEVEL, Interval, wilson
from embedx.evaluation.runs import pack, unpack
from embedx.evaluation.verdict import holm
from embedx.files import write_text
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows, random_law

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

FORMAT, VERSION, FILE = "embedx-gaps", 1, "gaps.json"
K = 0.2
"""Share of a class at each end: ten of the fifty validation images of an ImageNet class, as published."""
DEPTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
POSITIONS = 10
REPLICATES = 2_000
FEW = 40
"""Rows below which a class is called small."""

_wilson = cache(wilson)


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
    """Over `classes` classes; fields as in `ClassGap`, and the 95 % range of the gap in bootstrap samples."""

    high: Interval
    low: Interval
    gap: Interval
    bootstrap: tuple[float, float]
    null: tuple[float, float]
    p: float
    classes: int


@dataclass(frozen=True)
class Depth:
    """The mean gap over classes at another k."""

    k: float
    gap: Interval
    bootstrap: tuple[float, float]
    null: tuple[float, float]


@dataclass(frozen=True)
class Trend:
    """Mean over `classes` of Spearman's correlation of correctness with spuriosity, and its p."""

    rho: float
    p: float
    classes: int


@dataclass(frozen=True)
class Gaps:
    """The gaps of one model on one split.

    ranker    the backbone that ranked
    k         as asked for: a number of rows, or a fraction of each class
    single    classes with one ranked row, which have no gap; left_out: rows of the split that have no features
    controls  {name: the mean over classes for another ranking of the same rows}
    answered, right  which of the split's ranked rows, in the order of their ids, the model answered, and got right:
              `runs.pack`. Empty where an earlier version measured
    """

    dataset: str
    ranker: str
    backbone: str
    head: str
    split: str
    k: float
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

    @property
    def model(self) -> str:
        return f"{self.backbone}={self.head}"

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gaps:
        """The inverse of `dataclasses.asdict`, also after JSON."""
        lists = {
            "classes": tuple(ClassGap(**_filled(c)) for c in values["classes"]),
            "depths": tuple(Depth(**_filled(d)) for d in values["depths"]),
            "positions": tuple(Interval(**p) for p in values["positions"]),
        }
        both = {name: Overall(**_filled(values[name])) for name in ("mean", "pooled")}
        rest = {
            "trend": None if values["trend"] is None else Trend(**values["trend"]),
            "controls": {name: Overall(**_filled(c)) for name, c in values["controls"].items()},
            "single": tuple(values["single"]),
        }
        return cls(**{**values, **lists, **both, **rest})


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
    found = {}
    for name, other in (controls or {}).items():
        control = RankedRows.of(other, [answers], among=order.labels)
        found[name] = _overall(control, control.places(k), rng)[0]
    known = dict(zip(answers.ids, answers.correct.tolist(), strict=True))
    hits = [known.get(i) for i in ranking.ids[_ranked(ranking, answers.split)]]
    return Gaps(
        dataset=ranking.dataset, ranker=ranking.backbone, backbone=answers.backbone, head=answers.head,
        split=answers.split, k=k, classes=_classes(order, places, k, answers.classes), mean=mean, pooled=pooled,
        depths=tuple(_depth(order, depth, rng) for depth in DEPTHS), positions=_positions(order), trend=_trend(order),
        single=order.single, left_out=answers.left_out, controls=found,
        answered=pack(np.array([h is not None for h in hits])), right=pack(np.array([h is True for h in hits])),
    )  # fmt: skip


def _ranked(ranking: Ranking, split: str) -> np.ndarray:
    """The ranked rows of a split."""
    return np.flatnonzero((ranking.splits == SPLITS.index(split)) & (ranking.positions >= 0))


def _classes(order: RankedRows, k: np.ndarray, asked: float, names: tuple[str, ...]) -> tuple[ClassGap, ...]:
    high, low = (side[0] for side in order.tails(k))
    right, rho, tied = order.totals[0], order.spearman()[0], order.tied(k)
    laws = [random_law(int(n), int(r), int(m)) for n, r, m in zip(order.sizes, right, k, strict=True)]
    p = [law.p_value(int(d)) for law, d in zip(laws, high - low, strict=True)]
    adjusted, discovery = holm(p), false_discovery_control(p)
    rho_p = 2 * ndtr(-np.abs(rho) * np.sqrt(order.sizes - 1))
    cut = np.zeros(len(k), dtype=bool) if isinstance(asked, float) else k < asked
    found = []
    for c, label in enumerate(order.labels):
        m = int(k[c])
        top, bottom = (Interval(int(side[c]) / m, *_wilson(int(side[c]), m), m) for side in (high, low))
        edge = laws[c].limits(LEVEL)
        known = bool(np.isfinite(rho[c]))
        found.append(ClassGap(
            int(label), names[label], int(order.sizes[c]), m, top, bottom, difference(top, bottom),
            (edge[0] / m, edge[1] / m), p[c], adjusted[c], float(discovery[c]), float(rho[c]) if known else None,
            float(rho_p[c]) if known else None, bool(tied[c]), bool(order.sizes[c] < FEW or cut[c]),
        ))  # fmt: skip
    return tuple(found)


def difference(a: Interval, b: Interval) -> Interval:
    """a - b of different rows, the limits of both combined (Newcombe 1998, method 10)."""
    value = a.value - b.value
    low = value - float(np.hypot(a.value - a.low, b.high - b.value))
    high = value + float(np.hypot(a.high - a.value, b.value - b.low))
    return Interval(value, max(-1.0, low), min(1.0, high), a.n + b.n)


def _overall(order: RankedRows, k: np.ndarray, rng: np.random.Generator) -> tuple[Overall, Overall]:
    """The mean over classes, and pooled over rows."""
    right = [side[0] for side in order.tails(k)]
    random = _random_gaps(order.sizes, order.totals[0], k, rng)
    mean, pooled = 1 / (len(k) * k), np.full(len(k), 1 / k.sum())
    found = []
    for weights, drawn in zip((mean, pooled), random, strict=True):
        high, low = (worth(side, k, weights) for side in right)
        tops, bottoms = (resampled(side, k, weights, rng) for side in right)
        gap = difference(high, low)
        p = (1 + np.count_nonzero(np.abs(drawn) >= abs(gap.value) - 1e-12)) / (1 + len(drawn))
        found.append(Overall(high, low, gap, _middle(tops - bottoms), _middle(drawn), float(p), len(k)))
    return found[0], found[1]


def worth(right: np.ndarray, k: np.ndarray, weights: np.ndarray) -> Interval:
    """v = sum_c weights_c right_c, right answers (c,) of k (c,) rows, with Wilson limits for the rows that it is worth.

    These are v (1 - v) / variance of v, and no more than the rows would be if all classes were alike; n is all rows.
    """
    value, share = float(np.clip(weights @ right, 0, 1)), _shares(right, k)
    variance = float(weights**2 @ (k * share * (1 - share) * k / np.maximum(k - 1, 1)))
    rows = float(1 / (weights**2 @ k))
    if variance > 0 < value < 1:
        rows = min(rows, value * (1 - value) / variance)
    return Interval(value, *wilson(value * rows, rows), int(k.sum()))


def _shares(right: np.ndarray, k: np.ndarray) -> np.ndarray:
    """right / k, and where k is 1, so that a class has no variance of its own, the mean of all such classes."""
    share, lone = right / k, k == 1
    if lone.any():
        share[lone] = share[lone].mean()
    return share


def resampled(right: np.ndarray, k: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(replicates,) sums of weights (c,) x right answers (c,) in bootstrap samples of the k (c,) rows of each class.

    k - 1 rows are drawn with replacement and scaled up (Rao and Wu 1988), as k of k underestimate the variance by
    1 - 1/k. Classes that are alike are drawn at once: their sum is binomial, so no row is touched.
    """
    kinds, counts = np.unique(np.stack([k, _shares(right, k), weights]), axis=1, return_counts=True)
    drawn = np.maximum(kinds[0] - 1, 1)
    sums = rng.binomial((drawn * counts).astype(np.int64), kinds[1], size=(REPLICATES, len(counts)))
    return sums @ (kinds[2] * kinds[0] / drawn)


def _random_gaps(
    n: np.ndarray, right: np.ndarray, k: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(replicates,) gaps of random rankings, mean over classes and pooled; classes that are alike are drawn at once."""
    kinds, counts = np.unique(np.stack([n, right, k]), axis=1, return_counts=True)
    mean, pooled = np.zeros(REPLICATES), np.zeros(REPLICATES)
    for size, hits, places, count in zip(*kinds, counts, strict=True):
        law = random_law(int(size), int(hits), int(places))
        sums = rng.multinomial(count, law.chances, size=REPLICATES) @ law.values
        mean += sums / (len(k) * places)
        pooled += sums / k.sum()
    return mean, pooled


def _middle(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _depth(order: RankedRows, depth: float, rng: np.random.Generator) -> Depth:
    """The mean gap at one k; a random order of n rows, h of them right, has variance 2 k h (n - h) / (n (n - 1))."""
    k = order.places(depth)
    right = [side[0] for side in order.tails(k)]
    weights = 1 / (len(k) * k)
    tops, bottoms = (resampled(side, k, weights, rng) for side in right)
    n, h = order.sizes, order.totals[0]
    edge = float(ndtri((1 + LEVEL) / 2) * np.sqrt(weights**2 @ (2 * k * h * (n - h) / (n * (n - 1)))))
    high, low = (worth(side, k, weights) for side in right)
    return Depth(depth, difference(high, low), _middle(tops - bottoms), (-edge, edge))


def _positions(order: RankedRows) -> tuple[Interval, ...]:
    """A mean over c classes with m_c rows in a bin is worth c^2 / sum_c 1 / m_c rows, if classes are alike."""
    accuracy = np.clip(order.by_position(POSITIONS)[0].mean(axis=0), 0, 1)
    rows = max(1.0, len(order.sizes) ** 2 / float((POSITIONS / order.sizes).sum()))
    n = int(order.sizes.sum() // POSITIONS)
    return tuple(Interval(float(a), *wilson(float(a) * rows, rows), n) for a in accuracy)


def _trend(order: RankedRows) -> Trend | None:
    rho = order.spearman()[0]
    known = np.isfinite(rho)
    if not known.any():
        return None
    z = rho[known].sum() / np.sqrt((1 / (order.sizes[known] - 1)).sum())
    return Trend(float(rho[known].mean()), float(2 * ndtr(-abs(z))), int(known.sum()))


def save(
    folder: Path,
    ranking: Ranking,
    found: Sequence[Gaps],
    across: Mapping[str, Any] | None = None,
    collisions: Sequence[Sequence[Any]] = (),
) -> Path:
    """Write `gaps.json` anew, whole or not at all; `across` as `models.Across.to_dict` gives it."""
    facts = ("dataset", "backbone", "weights", "statistics", "cues", "features", "dropped", "digest")
    document = {
        "format": FORMAT, "version": VERSION, "ranking": {name: getattr(ranking, name) for name in facts},
        "models": [asdict(g) for g in found], "across": across,
        "collisions": [[asdict(c) for c in of] for of in collisions],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return folder / FILE


def read(folder: Path) -> Mapping[str, Any]:
    """What `gaps.json` holds. Raises `SpuriosityError` where there is none or it is of another version."""
    path = folder / FILE
    if not path.is_file():
        raise SpuriosityError(f"{path} does not exist: make it with `embedx spuriosity gap`")
    found = json.loads(path.read_text(encoding="utf-8"))
    kind = (found.get("format"), found.get("version"))
    if kind != (FORMAT, VERSION):
        raise SpuriosityError(
            f"{path}: expected {FORMAT} version {VERSION}, found {kind[0]!r} {kind[1]!r}; make it again"
        )
    return found


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Intervals and ranges back from JSON."""
    made = {key: Interval(**v) if isinstance(v, Mapping) else v for key, v in values.items()}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in made.items()}
