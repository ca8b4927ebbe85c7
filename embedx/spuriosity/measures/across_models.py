"""Several models on one ranking: who holds up where the cue is absent, and do they fail in the same classes?

With G (m, c) the gaps of m models in c classes:

    effective robustness   accuracy on the least spurious rows minus what the line fitted over models, by least squares
                           on the accuracy on the most spurious ones, expects: appendix D of the paper
    correlation            Pearson's between rows of G: do two models have their gaps in the same classes?
    variance               of the mean gap of a class, over that of a model

All models see the same images, and an image that is hard for one is hard for others. So class gaps agree between
models, and vary over classes, for a ranking that means nothing: every figure stands beside its null, the same figure
when the rows of each class are put in random order, one order for all models. Split halves leave the shared images
out: a class's gap on half of its rows against that on the other half, of one model or of two.

Where rows come in clusters (patients, photographs), these are what is drawn: for the null whole clusters change places
(`statistics.exchanged_within`), halves are of whole clusters but for one, and the interval of effective robustness is
of draws of clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.errors import SpuriosityError
from embedx.spuriosity.measures.gaps import K
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.statistics import (
    Against,
    Interval,
    against,
    exchanged_within,
    mean_off_diagonal,
    percentile_limits,
    row_correlations,
    shuffled_within,
    spearman_brown,
    stratified_draws,
)

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

PERMUTATIONS = 1_000
REPLICATES = 1_000
HALVES = 100
FEWEST_CLASSES = 3
FEWEST_MODELS = 3
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Line:
    """low = slope * high + intercept over models, by least squares.

    slope, intercept  of the line
    r2                share of the variance of low that it explains
    """

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True)
class Robustness:
    """One model beside the line over models.

    high, low  accuracies (means over classes) on the most and on the least spurious rows
    effective  how far above the line it lies; None without one

    The interval is a bootstrap's, stratified by class and end; models share the rows drawn, and the line is refitted.
    None also for fewer than `FEWEST_ROWS` rows, or clusters of them.
    """

    model: str
    high: float
    low: float
    effective: Interval | None


@dataclass(frozen=True)
class Reliability:
    """Means over `HALVES` random halvings of the rows of each class, of correlations over classes between halves.

    classes        those with `FEWEST_ROWS` rows or more
    same_model     a model's gaps on one half with its own on the other
    other_model    with another model's on the other half: agreement that shared images have no part in
    mean           of the mean gap over models; `whole` what it would be for all rows, 2 r / (1 + r) (Spearman, Brown)
    """

    classes: int
    same_model: float
    other_model: float
    mean: float
    whole: float


@dataclass(frozen=True, eq=False)
class Across:
    """m models on c classes.

    class_gaps         (m, c); `labels` (c,) says of which classes
    correlations       (m, m), NaN where a model's gaps are all equal; `null_correlations` their mean over random
                       rankings; `p_correlations` how often a random ranking gives one at least as large
    mean_correlation, reliability, correlations: None for fewer than `FEWEST_CLASSES` classes
    variance_ratio     variance over classes of the mean gap over models / variance over models of that over classes
    negative           share of classes whose mean gap over models is below 0
    """

    models: tuple[str, ...]
    labels: np.ndarray
    k: float
    class_gaps: np.ndarray
    line: Line | None
    robustness: tuple[Robustness, ...]
    class_variance: Against
    model_variance: Against
    variance_ratio: Against
    negative: Against
    mean_correlation: Against | None
    correlations: np.ndarray | None
    null_correlations: np.ndarray | None
    p_correlations: np.ndarray | None
    reliability: Reliability | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes None."""
        return _listed(asdict(self))


def across(
    ranking: Ranking,
    answers: Sequence[Predictions],
    k: float = K,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Across:
    """Compare models on the rows that all of them answered; k as in `gap.gaps`.

    Raises `SpuriosityError` for fewer than two models.
    """
    if len(answers) < 2:
        raise SpuriosityError(f"{len(answers)} model, expected two or more to compare; add --model BACKBONE=HEAD")
    order, rng = RankedRows.of(ranking, answers), np.random.default_rng(seed)
    places = order.places(k)
    ends = _Ends(order.sizes, places)
    hits = np.ascontiguousarray(order.hits.T, dtype=np.uint8)  # (n, m): a row of the ranking is one piece of memory
    everywhere = np.arange(len(hits))
    G = ends.gaps(hits, everywhere)
    line, robustness = _robustness(order, places, hits, ends, [a.model for a in answers], rng)
    R = row_correlations(G)
    observed, null, larger = _figures(G, R), np.zeros_like(R), np.ones_like(R)
    drawn = np.empty((permutations, len(observed)))
    for i in range(permutations):
        random = ends.gaps(hits, _shuffled(order, rng))
        r = row_correlations(random)
        drawn[i], r = _figures(random, r), np.nan_to_num(r)
        null += r / permutations
        larger += r >= R - 1e-12
    enough = len(order.sizes) >= FEWEST_CLASSES
    judged = [against(value, random) for value, random in zip(observed, drawn.T, strict=True)]
    return Across(
        models=tuple(a.model for a in answers), labels=order.labels, k=k, class_gaps=G, line=line,
        robustness=robustness, class_variance=judged[0], model_variance=judged[1], variance_ratio=judged[2],
        negative=judged[3], mean_correlation=judged[4] if enough and np.isfinite(observed[4]) else None,
        correlations=R if enough else None, null_correlations=null if enough else None,
        p_correlations=np.where(np.isfinite(R), larger / (permutations + 1), np.nan) if enough else None,
        reliability=_reliability(order.sizes, places, hits, rng, order.clusters),
    )  # fmt: skip


def _shuffled(order: RankedRows, rng: np.random.Generator) -> np.ndarray:
    """(n,) rows in the order of a random ranking."""
    if order.clusters is None:
        return shuffled_within(order.sizes, rng)
    return exchanged_within(order.sizes, order.clusters, rng)


class _Ends:
    """Where the two ends of every class lie in rows that are sorted by class and rank."""

    def __init__(self, sizes: np.ndarray, k: np.ndarray) -> None:
        starts = np.cumsum(sizes) - sizes
        inside = np.arange(k.sum()) - np.repeat(np.cumsum(k) - k, k)
        self.k, self.borders = k, np.cumsum(k) - k
        self.low = np.repeat(starts, k) + inside
        self.high = np.repeat(starts + sizes - k, k) + inside

    def gaps(self, hits: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(m, c) gaps of hits (n, m) when the rows stand in this order."""
        top, bottom = (np.add.reduceat(hits[rows[at]], self.borders, axis=0, dtype=np.int32)
                       for at in (self.high, self.low))  # fmt: skip
        return ((top - bottom) / self.k[:, None]).T

    def draws(
        self, hits: np.ndarray, clusters: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(m, replicates) mean accuracies of hits (n, m) at the high and at the low ends, in samples of rows."""
        share, strata = 1 / len(self.k), [np.split(at, self.borders[1:]) for at in (self.high, self.low)]
        if clusters is None:
            tops, bottoms = (stratified_draws(hits.T, [(rows, share) for rows in of], rng, REPLICATES) for of in strata)
            return tops, bottoms
        # A cluster has rows in both ends: one draw of it is for both, so the ends are two figures of the same rows.
        each = np.zeros((2, *hits.T.shape))
        for end, at in enumerate((self.high, self.low)):
            each[end][:, at] = hits[at].T
        every = [(rows, share) for of in strata for rows in of]
        drawn = stratified_draws(np.concatenate(each), every, rng, REPLICATES, clusters)
        return drawn[: hits.shape[1]], drawn[hits.shape[1] :]


def _figures(G: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Class variance, model variance, their ratio, share of negative classes, mean correlation; R are those of G."""
    of_class, of_model = G.mean(axis=0), G.mean(axis=1)
    variance = float(of_class.var(ddof=1)) if len(of_class) > 1 else 0.0
    model = float(of_model.var(ddof=1))
    ratio = variance / model if model > 0 else float("nan")
    return np.array([variance, model, ratio, float((of_class < -1e-12).mean()), mean_off_diagonal(R)])


def _robustness(
    order: RankedRows,
    k: np.ndarray,
    hits: np.ndarray,
    ends: _Ends,
    models: Sequence[str],
    rng: np.random.Generator,
) -> tuple[Line | None, tuple[Robustness, ...]]:
    high, low = ((side / k).mean(axis=1) for side in order.tails(k))
    # Any line fits two points, none fits one abscissa, and of one row at either end nobody knows how far it varies.
    drawn = k.sum() if order.clusters is None else len(np.unique(order.clusters[np.concatenate([ends.high, ends.low])]))
    if len(models) < FEWEST_MODELS or np.ptp(high) < 1e-9 or drawn < FEWEST_ROWS:
        return None, tuple(Robustness(m, float(a), float(b), None) for m, a, b in zip(models, high, low, strict=True))
    above, (slope, intercept) = _above(high, low)
    line = Line(float(slope), float(intercept), float(1 - above.var() / low.var()) if np.ptp(low) > 1e-9 else 1.0)
    tops, bottoms = ends.draws(hits, order.clusters, rng)
    edges, n = [percentile_limits(of) for of in _above(tops, bottoms)[0]], int(2 * k.sum())
    robustness = [
        Robustness(m, float(high[i]), float(low[i]), Interval(float(above[i]), *edges[i], n))
        for i, m in enumerate(models)
    ]
    return line, tuple(robustness)


def _above(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """How far each of (m, ...) models lies above the least-squares line low ~ high over models, and that line."""
    x, y = high - high.mean(axis=0), low - low.mean(axis=0)
    square = (x**2).sum(axis=0)
    slope = np.divide((x * y).sum(axis=0), square, out=np.zeros_like(square), where=square > 1e-18)
    return y - slope * x, (slope, low.mean(axis=0) - slope * high.mean(axis=0))


def _reliability(
    sizes: np.ndarray,
    k: np.ndarray,
    hits: np.ndarray,
    rng: np.random.Generator,
    clusters: np.ndarray | None = None,
) -> Reliability | None:
    usable = sizes >= FEWEST_ROWS
    if np.count_nonzero(usable) < FEWEST_CLASSES:
        return None
    rows, k, sizes = np.flatnonzero(np.repeat(usable, sizes)), k[usable], sizes[usable]
    hits, half, clusters = hits[rows], sizes // 2, None if clusters is None else clusters[rows]
    ends = _Ends(half, np.minimum(np.maximum(k * half // sizes, 1), half // 2))
    starts, draws = np.cumsum(sizes) - sizes, []
    inside = np.arange(half.sum()) - np.repeat(np.cumsum(half) - half, half) + np.repeat(starts, half)
    for _ in range(HALVES):
        order = shuffled_within(sizes, rng, clusters)
        # The first half and the next as many rows, each in the order of the ranking again; an odd row is left out.
        A, B = (ends.gaps(hits, np.sort(order[at])) for at in (inside, inside + np.repeat(half, half)))
        R = row_correlations(A, B)
        mean = float(row_correlations(A.mean(axis=0)[None], B.mean(axis=0)[None])[0, 0])
        same = np.diag(R)[np.isfinite(np.diag(R))]
        draws.append((float(same.mean()) if len(same) else np.nan, mean_off_diagonal(R), mean))
    correlations = np.array(draws)
    if not np.isfinite(correlations).all():
        return None
    same, other, mean = (float(v) for v in correlations.mean(axis=0))
    return Reliability(len(sizes), same, other, mean, spearman_brown(mean))


def _listed(value: Any) -> Any:
    """For JSON: arrays and tuples as lists, None for what is not finite."""
    if isinstance(value, dict):
        return {key: _listed(v) for key, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_listed(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not np.isfinite(value) else value
