"""Stochastic gradient descent of a linear head, followed along its path: stops are settings to choose among."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax
from sklearn.utils import check_random_state

from ._data import Data
from ._features import Features
from ._fit import Fit

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
    gradient is that of the mean cross-entropy of a batch.
    """

    rate: float
    momentum: float = 0.0
    decay: float = 0.0


class Way:
    """The steps of one layer on the rows of `features`, whose labels are T (n, k), batch after batch.

    Logits are linear: those of what is between two rows are between theirs, so that rows are read as they are and no
    mixture is made. Of two classes only the difference of the outputs is followed, which moves twice as far as either.
    """

    def __init__(
        self, sgd: Sgd, theta: np.ndarray, features: Features, T: np.ndarray, batches: Iterator[Mixed]
    ) -> None:
        self.sgd, self.features, self.batches = sgd, features, batches
        self.two = len(theta) == 2
        self.theta, self.T = (theta[1:] - theta[:1], T[:, 1:]) if self.two else (theta, T)
        self.velocity, self.step = np.zeros_like(self.theta), 0
        self.found: dict[int, Fit] = {}

    def to(self, stops: Sequence[int]) -> dict[int, Fit]:
        """The head after each of the stops, by their numbers of steps; none of them lies behind."""
        for stop in sorted({*stops} - self.found.keys()):
            for _ in range(stop - self.step):
                self._go(next(self.batches))
            self.step, W = stop, self.theta
            self.found[stop] = Fit(bool(np.isfinite(W).all()), W[:, :-1].copy(), W[:, -1].copy())
        return self.found

    def _go(self, batch: Mixed) -> None:
        rows, share = batch.parts
        b = len(batch.first)
        mixed = share.reshape(-1, b, 1)  # 2 of each, or 1
        Z = self.features.take(rows)
        logits = (Z @ tensor(self.theta[:, :-1], Z).T).double().cpu().numpy().reshape(len(mixed), b, -1)
        labels = (mixed * self.T[rows].reshape(len(mixed), b, -1)).sum(axis=0)
        F = (mixed * logits).sum(axis=0) + self.theta[:, -1]
        R = 2 * (expit(F) - labels) if self.two else softmax(F, axis=1) - labels
        R = (mixed * R / b).reshape(len(rows), -1)
        along = (tensor(R, Z).T @ Z).double().cpu().numpy()
        self.velocity = self.sgd.momentum * self.velocity + self.sgd.decay * self.theta
        self.velocity += np.column_stack([along, R.sum(axis=0)])
        self.theta = self.theta - self.sgd.rate * self.velocity


def tensor(values: np.ndarray, like: Tensor) -> Tensor:
    """The same numbers in the type, and on the device, of another tensor."""
    import torch

    return torch.from_numpy(values).to(like)


def sgd_fits(
    data: Data,
    variants: Sequence[Any],
    sgd: Sgd,
    names: Sequence[str],
    steps: Callable[[Any], int],
    draws: Callable[[Any, np.random.RandomState], Iterator[Mixed]],
) -> list[Fit]:
    """One fit per variant; those that agree in the parameters `names` and in the seed share one way.

    steps  of a variant, at which it stops; a way that the memory of the data holds goes on from where it is
    draws  the rows of every step of a variant, without end
    """

    def begun(head: Any) -> Way:
        rng = check_random_state(head.random_state)
        start = rng.uniform(-1, 1, (data.k, data.features.d + 1)) / np.sqrt(data.features.d)
        return Way(sgd, start, data.features, np.eye(data.k)[data.y], draws(head, rng))

    keys = [("way", *(repr(getattr(v, name)) for name in (*names, "random_state"))) for v in variants]
    fits: dict[int, Fit] = {}
    for key in dict.fromkeys(keys):
        mine = [i for i, other in enumerate(keys) if other == key]
        stops, way = [steps(variants[i]) for i in mine], data.memory.get(key)
        if way is None or any(stop < way.step for stop in {*stops} - way.found.keys()):
            way = data.memory[key] = begun(variants[mine[0]])
        found = way.to(stops)
        fits |= {i: found[stop] for i, stop in zip(mine, stops, strict=True)}
    return [fits[i] for i in range(len(variants))]
