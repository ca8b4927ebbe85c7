"""Stochastic gradient descent of a linear head, followed along its path: stops are settings to choose among."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_random_state

from ._data import Data
from ._fit import Fit
from ._once import once

Batch = tuple[np.ndarray, np.ndarray]
"""Features (b, d) of some rows, and the shares (b, k) of the classes in their labels."""


class Mixed(NamedTuple):
    """Rows first (b,) and second (b,), and the share (b,) of the first in what is between them."""

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Sgd:
    """Steps theta <- theta - rate * v, v <- momentum * v + gradient + decay * theta, from a new layer.

    theta (k, d + 1) holds the intercepts last; it starts uniform in +- 1 / sqrt(d), as torch makes a layer. The
    gradient is that of the mean cross-entropy of a batch.
    """

    rate: float
    momentum: float = 0.0
    decay: float = 0.0

    def path(self, theta: np.ndarray, batches: Iterable[Batch], stops: Sequence[int]) -> dict[int, Fit]:
        """The head after each of the stops, by their numbers of steps."""
        velocity, fits = np.zeros_like(theta), {}
        for step, (Z, T) in enumerate(batches, 1):
            R = (softmax(Z @ theta[:, :-1].T + theta[:, -1], axis=1) - T) / len(Z)
            gradient = np.column_stack([R.T @ Z, R.sum(axis=0)])
            velocity = self.momentum * velocity + gradient + self.decay * theta
            theta = theta - self.rate * velocity
            if step in stops:
                fits[step] = head_of(theta)
            if step == max(stops):
                break
        return fits


def head_of(theta: np.ndarray) -> Fit:
    """The linear head of weights (k, d + 1), of two classes the second less the first; it has converged if finite."""
    theta = theta[1:] - theta[:1] if len(theta) == 2 else theta
    return Fit(bool(np.isfinite(theta).all()), theta[:, :-1].copy(), theta[:, -1].copy())


def sgd_fits(
    data: Data,
    variants: Sequence[Any],
    sgd: Sgd,
    names: Sequence[str],
    steps: Callable[[Any], int],
    draws: Callable[[Any, np.random.RandomState], Iterator[Mixed]],
) -> list[Fit]:
    """One fit per variant; those that agree in the parameters `names` and in the seed share one way.

    steps  of a variant, at which it stops
    draws  the rows of every step of a variant, without end
    """
    ways, at = once([tuple(repr(getattr(v, name)) for name in (*names, "random_state")) for v in variants], lambda i: i)
    fits: dict[int, Fit] = {}
    for way, place in enumerate(ways):
        first, mine = variants[place], [i for i, w in enumerate(at) if w == way]
        rng, T = check_random_state(first.random_state), np.eye(data.k)[data.y]
        start = rng.uniform(-1, 1, (data.k, data.features.d + 1)) / np.sqrt(data.features.d)
        path = sgd.path(start, mixtures(data, draws(first, rng), T), [steps(variants[i]) for i in mine])
        fits |= {i: path[steps(variants[i])] for i in mine}
    return [fits[i] for i in range(len(variants))]


def mixtures(data: Data, draws: Iterable[Mixed], T: np.ndarray) -> Iterator[Batch]:
    """Features and labels, of T (n, k), of what is between the drawn rows."""
    for first, second, share in draws:
        Z = data.features.take(np.concatenate([first, second])).double().cpu().numpy()
        s, b = share[:, None], len(first)
        yield s * Z[:b] + (1 - s) * Z[b:], s * T[first] + (1 - s) * T[second]
