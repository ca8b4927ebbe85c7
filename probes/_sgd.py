"""Stochastic gradient descent of a linear head, followed along its path: stops are settings to choose among."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_random_state

from ._data import Data
from ._features import Features
from ._fit import Fit
from ._once import once

if TYPE_CHECKING:
    from torch import Tensor


class Mixed(NamedTuple):
    """Rows first (b,) and second (b,), and the share (b,) of the first in what is between them; or whole rows first."""

    first: np.ndarray
    second: np.ndarray | None = None
    share: np.ndarray | None = None

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (m,) and their shares (m,): a row and what it is mixed with are b places apart."""
        if self.second is None or self.share is None:
            return self.first, np.ones(len(self.first))
        return np.concatenate([self.first, self.second]), np.concatenate([self.share, 1 - self.share])


@dataclass(frozen=True)
class Sgd:
    """Steps theta <- theta - rate * v, v <- momentum * v + gradient + decay * theta, from a new layer.

    theta (k, d + 1) holds the intercepts last; it starts uniform in +- 1 / sqrt(d), as torch makes a layer. The
    gradient is that of the mean cross-entropy of a batch. Logits are linear: those of what is between two rows are
    between theirs, so that rows are read as they are and no mixture is made.
    """

    rate: float
    momentum: float = 0.0
    decay: float = 0.0

    def path(
        self, theta: np.ndarray, features: Features, T: np.ndarray, batches: Iterable[Mixed], stops: Sequence[int]
    ) -> dict[int, Fit]:
        """The head after each of the stops, by their numbers of steps; T (n, k) are the rows' labels."""
        velocity, fits = np.zeros_like(theta), {}
        for step, batch in enumerate(batches, 1):
            rows, share = batch.parts
            b = len(batch.first)
            mixed = share.reshape(-1, b, 1)  # 2 of each, or 1
            Z = features.take(rows)
            logits = (Z @ tensor(theta[:, :-1], Z).T).double().cpu().numpy().reshape(len(mixed), b, -1)
            labels = (mixed * T[rows].reshape(len(mixed), b, -1)).sum(axis=0)
            R = mixed * (softmax((mixed * logits).sum(axis=0) + theta[:, -1], axis=1) - labels) / b
            R = R.reshape(len(rows), -1)
            along = (tensor(R, Z).T @ Z).double().cpu().numpy()
            velocity = self.momentum * velocity + self.decay * theta
            velocity += np.column_stack([along, R.sum(axis=0)])
            theta = theta - self.rate * velocity
            if step in stops:
                fits[step] = head_of(theta)
            if step == max(stops):
                break
        return fits


def tensor(values: np.ndarray, like: Tensor) -> Tensor:
    """The same numbers in the type, and on the device, of another tensor."""
    import torch

    return torch.from_numpy(values).to(like)


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
        path = sgd.path(start, data.features, T, draws(first, rng), [steps(variants[i]) for i in mine])
        fits |= {i: path[steps(variants[i])] for i in mine}
    return [fits[i] for i in range(len(variants))]
