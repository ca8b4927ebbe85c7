"""The signals of MNIST-1D (Greydanus and Kobak 2024, arXiv 2011.14439), made as the public generator makes them.

A template of 12 numbers, one for each digit, is padded with zeros, stretched to 72, scaled, rolled, laid over smooth
noise, made noisy itself, sheared and drawn at 40 points. Draws are made in the order of the public code from the same
stream, so that a seed gives the same signals here and there: seed 42 is the published data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

PUBLISHED = 42
"""The seed of the published data set."""
CLASSES, LENGTH, TRAIN = 10, 40, 4000
OF_CLASS = 500
_STRETCHED, _PADDING, _SHIFTS = 72, (36, 60), 48

_TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


@dataclass(frozen=True, eq=False)
class Signals:
    """Signals x (n, 40), float64, and their digits y (n,), in random order.

    mean, std  of all numbers before they were standardised
    """

    x: np.ndarray
    y: np.ndarray
    mean: float
    std: float


@cache
def signals(seed: int = PUBLISHED) -> Signals:
    """The 5,000 signals of a seed, 500 of each digit, standardised by mean and deviation of all their numbers.

    Of the published seed the first 4,000 are for training and the others for test: the scale is of both, as published.
    """
    rng, templates = np.random.RandomState(seed), _templates()  # the legacy stream, which the public code draws from
    x = np.stack([_signal(template, rng) for template in templates for _ in range(OF_CLASS)])
    y = np.repeat(np.arange(CLASSES), OF_CLASS)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    mean, std = x.mean(), x.std()
    x = (x - mean) / std
    x.setflags(write=False)
    y.setflags(write=False)
    return Signals(x, y, float(mean), float(std))


def on_the_published_scale(fresh: Signals) -> np.ndarray:
    """x (n, 40) of further signals, standardised as the published ones are and not by themselves."""
    published = signals()
    return (fresh.x * fresh.std + fresh.mean - published.mean) / published.std


def _templates() -> np.ndarray:
    """(10, 12): each of mean 0 and deviation 1/6, then moved to start at 0."""
    t = np.array(_TEMPLATES)
    t -= t.mean(1, keepdims=True)
    t /= t.std(1, keepdims=True)
    t -= t[:, :1]
    return t / 6


def _signal(template: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    low, high = _PADDING
    zeros = np.zeros(low + int(rng.rand() * (high - low + 1)))
    x = _drawn_at(np.concatenate([template + 1e-8, zeros]), _STRETCHED)  # a number that is exactly 0 is padding
    x *= 1 + 0.4 * (rng.rand() - 0.5)
    x = np.roll(x, rng.choice(_SHIFTS))
    x = np.where(x != 0, x, gaussian_filter1d(0.25 * rng.randn(_STRETCHED), 2))
    x = x + 0.02 * rng.randn(_STRETCHED)
    x = x - 0.75 * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, _STRETCHED)
    return _drawn_at(x, LENGTH)


def _drawn_at(x: np.ndarray, n: int) -> np.ndarray:
    """The broken line through x at n points from its first to its last."""
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(x)), x)
