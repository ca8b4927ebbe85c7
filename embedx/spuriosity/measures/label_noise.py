"""Does a review find the images that are labelled wrongly? Orders of the rows against the labels they really have.

A row is an error when its label is not among the labels that it really has; rows of which no real label is known are
left out. Every order gives every row a score, the most suspicious the highest:

    review              the rows of the queue by their place, then all others by 1 - p of the label (the head's own)
    confident learning  see `confident_learning`, by probabilities of a head that did not see the row
    label probability   1 - p of the label, by the same probabilities as confident learning
    spuriosity          the most spurious first, among the rows of classes with a negative gap alone

The first k rows hold so many errors; of these

    precision at k  errors / k, Wilson's interval: k is fixed, and the rows are taken as independent
    random          the base rate of errors; the exact 95 % range of a random order, and the chance of as many errors
                    or more (hypergeometric), of each k by itself
    lift            precision over the base rate, see `statistics.lift`
    ratio           precision over that of confident learning at the same k, see `statistics.precision_ratios`
    AUROC           chance that an error stands before a row that is none; its interval is safe rather than narrow
                    (`statistics.auroc_interval`); the difference from confident learning is DeLong's

A class has precision, lift and p at as many rows as the review flags in it; p is adjusted over classes (Holm; Benjamini
and Hochberg). All figures are fractions, every interval is at 95 %. The check of flags by ReaL labels in Moayeri et
al., "Spuriosity Rankings", NeurIPS 2023, section 5, is a share of images with several objects: see `Group`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedx.data.manifest import SPLITS
from embedx.statistics import (
    Interval,
    auroc_difference,
    auroc_interval,
    benjamini_hochberg,
    found_at,
    holm,
    lift,
    precision_ratios,
    proportion,
    random_p,
    random_precision,
)

REVIEW, CONFIDENT, PROBABILITY, SPURIOSITY = "review", "confident learning", "label probability", "spuriosity"
DRAWS = 1_000
EVERY = "all"


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """n rows whose real labels are known.

    labels, splits  (n,) codes
    wrong           (n,) bool: the label is not among the real ones
    several         (n,) 1 for several real labels, 0 for one, -1 where their number is not known
    flagged         (n,) bool: rows in the queue of the review; suspected: those that confident learning calls wrong
    scores          {order: (n,)}, NaN for rows of which an order says nothing
    """

    labels: np.ndarray
    splits: np.ndarray
    wrong: np.ndarray
    several: np.ndarray
    flagged: np.ndarray
    suspected: np.ndarray
    scores: Mapping[str, np.ndarray]

    def take(self, rows: np.ndarray) -> ScoredRows:
        """Some of the rows."""
        return ScoredRows(
            self.labels[rows], self.splits[rows], self.wrong[rows], self.several[rows], self.flagged[rows],
            self.suspected[rows], {name: s[rows] for name, s in self.scores.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class FirstRows:
    """The first k rows of an order.

    k          how many
    found      errors among them; precision: their share
    lift       precision over the base rate; n is k
    random     range that holds 95 % of the precisions of random orders; p: chance of as many errors in one
    ratio      precision over that of confident learning at the same k; null for that itself, where it finds none, and
               for an order of other rows
    """

    k: int
    found: int
    precision: Interval
    lift: Interval
    random: tuple[float, float]
    p: float
    ratio: Interval | None


@dataclass(frozen=True)
class Order:
    """One order of rows.

    name     review, confident learning, label probability or spuriosity
    rows     that it has; errors: among these
    auroc    n are the errors
    beyond   AUROC minus that of confident learning on the same rows; null as `ratio` of `FirstRows`
    depths   at several k: 10, 20, 50, ..., the rows flagged, the rows suspected and the errors
    """

    name: str
    rows: int
    errors: int
    auroc: Interval
    beyond: Interval | None
    depths: tuple[FirstRows, ...]

    def at(self, k: int) -> FirstRows | None:
        """The first k rows, where they were looked at."""
        return next((d for d in self.depths if d.k == k), None)


@dataclass(frozen=True)
class Part:
    """All rows, or those of one split.

    name       all, train, val or test
    n          rows with known real labels; errors: rows of these that are labelled wrongly; base: their share
    flagged    rows in the queue of the review; suspected: rows that confident learning calls wrong
    orders     empty where no row is an error, or every one
    """

    name: str
    n: int
    errors: int
    base: Interval
    flagged: int
    suspected: int
    orders: tuple[Order, ...]

    def order(self, name: str) -> Order | None:
        """One of its orders."""
        return next((o for o in self.orders if o.name == name), None)


@dataclass(frozen=True)
class ClassNoise:
    """One class, by the labels as given.

    n, errors  rows with known real labels, and those of them that are labelled wrongly
    flagged    rows in the queue of the review; found: errors among them; precision: their share
    several    share of the flagged rows with several real labels
    lift, random, p  as in `FirstRows`, for the flagged rows; holm, fdr: p adjusted over classes
    suspected  errors among as many rows of confident learning; null where it says nothing of some rows
    auroc      of the order of the review
    """

    label: int
    name: str
    n: int
    errors: int
    flagged: int
    found: int
    precision: Interval | None
    several: Interval | None
    lift: Interval | None
    random: tuple[float, float] | None
    p: float | None
    holm: float | None
    fdr: float | None
    suspected: int | None
    auroc: Interval | None


@dataclass(frozen=True)
class Group:
    """Rows of one kind: how many are labelled wrongly, and how many have several real labels.

    name     what they have in common
    wrong    share of errors
    several  share with several real labels, of the rows whose number of labels is known
    either   share of which one or the other is true: what there is to see for somebody who looks
    """

    name: str
    n: int
    wrong: Interval
    several: Interval | None
    either: Interval


def parts(rows: ScoredRows, *, seed: int = 0) -> tuple[Part, ...]:
    """All rows, then those of each split where there are several; seed: of the bootstrap."""
    splits = np.unique(rows.splits)
    chosen = [(EVERY, np.arange(len(rows.labels)))]
    if len(splits) > 1:
        chosen += [(SPLITS[s], np.flatnonzero(rows.splits == s)) for s in splits]
    return tuple(_part(name, rows.take(at), np.random.default_rng(seed)) for name, at in chosen)


def _part(name: str, rows: ScoredRows, rng: np.random.Generator) -> Part:
    n, errors = len(rows.wrong), int(rows.wrong.sum())
    flagged, suspected = int(rows.flagged.sum()), int(rows.suspected.sum())
    orders = []
    for order, scores in rows.scores.items():
        at = np.flatnonzero(~np.isnan(scores))
        wrong = rows.wrong[at]
        if not 0 < np.count_nonzero(wrong) < len(at):
            continue
        other = rows.scores.get(CONFIDENT) if order != CONFIDENT and len(at) == n else None
        if other is not None and np.isnan(other).any():
            other = None
        orders.append(_order(order, wrong, scores[at], other, depths(len(at), (flagged, suspected, errors)), rng))
    return Part(name, n, errors, proportion(errors, n), flagged, suspected, tuple(orders))


def depths(n: int, also: Sequence[int]) -> np.ndarray:
    """(m,) rising: 10, 20, 50, 100, ... up to half of n rows, and others that are asked for, from 1 to n."""
    steps = [d * 10**e for e in range(1, len(str(n))) for d in (1, 2, 5)]
    return np.array(sorted({k for k in steps if k <= n / 2} | {k for k in also if 1 <= k <= n}), dtype=np.int64)


def _order(
    name: str,
    wrong: np.ndarray,
    scores: np.ndarray,
    other: np.ndarray | None,
    ks: np.ndarray,
    rng: np.random.Generator,
) -> Order:
    """One order against the errors, beside `other` scores of the same rows."""
    n, errors = len(wrong), int(wrong.sum())
    found = found_at(wrong, scores, ks)
    ratios = [None] * len(ks) if other is None else precision_ratios(wrong, (scores, other), ks, rng, DRAWS)
    looked_at = tuple(
        FirstRows(k, a, proportion(a, k), lift(a, k, errors, n), random_precision(n, errors, k),
              random_p(n, errors, k, a), ratio)
        for k, a, ratio in zip(ks.tolist(), found.tolist(), ratios, strict=True)
    )  # fmt: skip
    paired = other is not None and min(errors, n - errors) > 1
    beyond = auroc_difference(wrong, scores, other) if paired and other is not None else None
    return Order(name, n, errors, auroc_interval(wrong, scores), beyond, looked_at)


def classes(rows: ScoredRows, names: Sequence[str]) -> tuple[ClassNoise, ...]:
    """Every class that has rows with known real labels."""
    measured = [_class(rows.take(np.flatnonzero(rows.labels == c)), str(names[int(c)])) for c in np.unique(rows.labels)]
    p = [c.p for c in measured if c.p is not None]
    adjusted = iter(zip(holm(p), benjamini_hochberg(p).tolist(), strict=True) if p else ())
    done = []
    for c in measured:
        of_family, of_discoveries = (None, None) if c.p is None else next(adjusted)
        done.append(ClassNoise(**vars(c) | {"holm": of_family, "fdr": of_discoveries}))
    return tuple(done)


def _class(rows: ScoredRows, name: str) -> ClassNoise:
    n, errors, k = len(rows.wrong), int(rows.wrong.sum()), int(rows.flagged.sum())
    found, varied = int(rows.wrong[rows.flagged].sum()), 0 < errors < n
    other, suspected = rows.scores[CONFIDENT], None
    if not np.isnan(other).any():
        suspected = int(found_at(rows.wrong, other, np.array([k]))[0]) if k else 0
    judged = bool(k and varied)
    return ClassNoise(
        int(rows.labels[0]), name, n, errors, k, found, proportion(found, k) if k else None,
        _several(rows.several[rows.flagged]), lift(found, k, errors, n) if k and errors else None,
        random_precision(n, errors, k) if k else None, random_p(n, errors, k, found) if judged else None, None, None,
        suspected, auroc_interval(rows.wrong, rows.scores[REVIEW]) if varied else None,
    )  # fmt: skip


def group(name: str, rows: ScoredRows, chosen: np.ndarray) -> Group | None:
    """The chosen (n,) bool rows; None where there are none."""
    n = int(np.count_nonzero(chosen))
    if not n:
        return None
    wrong, several = rows.wrong[chosen], rows.several[chosen]
    either = np.count_nonzero(wrong | (several > 0))
    return Group(name, n, proportion(int(wrong.sum()), n), _several(several), proportion(int(either), n))


def _several(several: np.ndarray) -> Interval | None:
    known = several[several >= 0]
    return proportion(int(known.sum()), len(known)) if len(known) else None
