"""Nearest neighbours: the classes of the closest training rows vote. Not linear: what the features hold without a fit.

With `metric` "cosine" and a temperature it is the k-NN evaluation of DINO (Caron et al. 2021).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._data import Data
from ._errors import FitError
from ._features import SAFE, Features, moments
from ._fit import Fit
from ._head import Head
from ._products import product
from ._variants import Published

BLOCK = 1024


class NearestNeighbours(Head):
    """p(c | x) = (votes for c + 1/k) / (all votes + 1), over the `neighbours` closest rows of k classes.

    neighbours   how many rows vote, >= 1; all of them where there are fewer. Published for DINO: 10, 20, 100, 200
    metric       "euclidean", or "cosine" of the angle seen from the mean of the standardised features
    temperature  with "cosine": a vote counts exp((similarity - 1) / temperature), published 0.07; None: every vote is 1
    standardize  as in `Head`

    Equal votes go to the class that comes first. Fitted values beyond those of `Head`: `index_`, the training rows.
    """

    published: ClassVar[Published | None] = Published()
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"neighbours": m} for m in (201, 101, 51, 21, 11, 5, 1))

    def __init__(
        self,
        neighbours: int = 21,
        metric: str = "euclidean",
        temperature: float | None = None,
        standardize: bool = True,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(standardize=standardize, random_state=random_state, variant=variant)
        self.neighbours = neighbours
        self.metric = metric
        self.temperature = temperature

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            if v.metric not in ("euclidean", "cosine"):
                raise FitError(f"metric must be 'euclidean' or 'cosine', found {v.metric!r}")
            if v.temperature is not None and not (v.metric == "cosine" and v.temperature > 0):
                raise FitError(
                    f"temperature must be positive and go with metric 'cosine', found {v.temperature} with {v.metric!r}"
                )
        most = max(v.neighbours for v in variants)
        indices = {m: _Index(data.features, data.y, m == "cosine", most) for m in {v.metric for v in variants}}
        return [Fit(True, more={"index_": indices[v.metric]}) for v in variants]

    def decision_function(self, X: Any) -> np.ndarray:
        """(n,) logit of the second class for two classes, (n, k) logits for more."""
        check_is_fitted(self, "index_")
        similarity, y = self.index_.closest(self._rows(X))
        m, k = min(self.neighbours, y.shape[1]), len(self.classes_)
        votes = np.ones((len(y), m))
        if self.temperature is not None:
            votes = np.exp((similarity[:, :m] - 1) / self.temperature)
        total = np.stack([(votes * (y[:, :m] == c)).sum(1) for c in range(k)], axis=1)
        logits = np.log(total + 1 / k)
        return logits[:, 1] - logits[:, 0] if k == 2 else logits

    index_: _Index


class _Index:
    """Training rows (n, d) and their class codes; `most` is the largest number of neighbours asked for.

    The heads of a path share it, and it remembers the last rows that were looked up, by their digest: a path of
    numbers of neighbours searches once.
    """

    def __init__(self, features: Features, y: np.ndarray, cosine: bool, most: int) -> None:
        self.features, self.y, self.cosine, self.most = in_reach(features, cosine), y, cosine, min(most, len(y))
        self.last: tuple[bytes, tuple[np.ndarray, np.ndarray]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last": None}

    def closest(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, most) similarities and class codes of the closest rows for X (m, d), the closest first."""
        key = hashlib.blake2b(np.ascontiguousarray(X).data).digest()
        if self.last is None or self.last[0] != key:
            parts = [self._search(X[i : i + BLOCK]) for i in range(0, len(X), BLOCK)]
            self.last = key, (np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
        return self.last[1]

    def _search(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        Q = self._scaled(self.features.of(X))
        nearest: tuple[Any, Any] | None = None
        for part, Z in self.features.blocks():
            Z = self._scaled(Z)  # noqa: PLW2901
            S = product(Q, Z)
            if not self.cosine:  # half the squared distance, |q|^2 / 2 - S + |z|^2 / 2, orders the rows without |q|
                S -= torch.linalg.vector_norm(Z, dim=1).square() / 2
            block_nearest = torch.topk(S, min(self.most, S.shape[1]), dim=1)
            values, rows = block_nearest.values, block_nearest.indices + part.start
            if nearest is not None:
                values, rows = torch.cat([nearest[0], values], 1), torch.cat([nearest[1], rows], 1)
                top = torch.topk(values, min(self.most, values.shape[1]), dim=1)
                values, rows = top.values, rows.gather(1, top.indices)
            nearest = values, rows
        assert nearest is not None
        values, rows = nearest
        if not self.cosine:
            values = 2 * values - Q.square().sum(1, keepdim=True)
        return values.double().cpu().numpy(), self.y[rows.cpu().numpy()]

    def _scaled(self, Z: Any) -> Any:
        import torch

        return torch.nn.functional.normalize(Z, dim=1) if self.cosine else Z


def in_reach(features: Features, cosine: bool) -> Features:
    """Standardised features as they are; others seen from their mean, and in float64 where squares need it.

    Neighbours stay the same, and the differences between rows keep their digits. Angles are seen from 0.
    """
    if features.standardised:
        return features
    X, d = features.X, features.d
    mean, scale = moments(X)
    unit = np.ones(d)
    if not ((np.abs(mean) < SAFE**0.5) & (scale < SAFE**0.5) & (scale > SAFE**-0.5)).all():
        X = np.asarray(X, np.float64)
        unit *= np.ldexp(1.0, int(np.frexp(np.abs(X).max(initial=0))[1]))
    return Features(X, np.zeros(d) if cosine else mean, unit, features.device)
