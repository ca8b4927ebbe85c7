"""Means of what was drawn several times: over seeds, and over images and seeds at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from embedx.statistics.intervals import LEVEL, Interval
from embedx.statistics.linearised import codes_of, spread


def mean_of_draws(values: Sequence[float]) -> Interval:
    """The mean with Student's interval, n the draws; of a single one, or of equal ones, the interval is that point."""
    x = np.asarray(values, dtype=float)
    mean, n = float(x.mean()), len(x)
    half = float(student.ppf((1 + LEVEL) / 2, n - 1) * x.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return Interval(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class CrossedMean:
    """The mean of differences d_sj in -1..1 over images j and seeds s, where both are draws.

        variance = variance over images of their means / (n + 2) + variance over seeds of their means / seeds

    which is never too small in the mean (Owen 2007), as what is drawn by both counts twice. The degrees of freedom are
    Satterthwaite's. To the images one of +1 and one of -1 are added for the variance (as Bonett and Price 2012), so
    that it is never 0; with one seed it is that over images alone.

    Where images come in C clusters, those are in the place of images: y_c = m + n_c C / n (mean of c - m) with m the
    mean of all n images, n_c of them in c. Degrees of freedom are of (sum n_c)^2 / sum n_c^2 clusters (Kish 1965).

    value, error, freedom   the mean, its standard error, the degrees of freedom
    images, seeds           how many it is over
    """

    value: float
    error: float
    freedom: float
    images: int
    seeds: int

    @classmethod
    def of(cls, values: np.ndarray, clusters: np.ndarray | None = None) -> CrossedMean:
        """Of differences (seeds, images), NaN where an image has none for a seed; each row and some column has one.

        clusters  (images,) of any kind, whose the images are; None: each is its own
        """
        seen = np.flatnonzero(~np.isnan(values).all(0))
        by_image, cluster = np.nanmean(values[:, seen], axis=0), codes_of(clusters, seen)
        drawn, freedom = by_image, float(len(by_image))
        if cluster is not None:
            each, mean = np.bincount(cluster), by_image.mean()
            drawn, freedom = mean + np.bincount(cluster, by_image - mean) * len(each) / len(seen), spread(each)
        padded, seeds = np.append(drawn, [1.0, -1.0]), len(values)
        parts = [(padded.var(ddof=1) / len(padded), freedom + 1)]
        if seeds > 1:
            parts.append((np.nanmean(values, axis=1).var(ddof=1) / seeds, seeds - 1))
        variance = sum(v for v, _ in parts)
        freedom = variance**2 / sum(v**2 / df for v, df in parts)
        return cls(float(by_image.mean()), float(np.sqrt(variance)), float(freedom), len(by_image), seeds)

    @property
    def interval(self) -> Interval:
        """The 95 % interval, n the images."""
        half = float(student.ppf((1 + LEVEL) / 2, self.freedom)) * self.error
        return Interval(self.value, max(-1.0, self.value - half), min(1.0, self.value + half), self.images)

    def p_above(self, bound: float) -> float:
        """One-sided p of the test that the mean is not above a bound."""
        return float(student.sf((self.value - bound) / self.error, self.freedom))
