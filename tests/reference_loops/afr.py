"""AFR, Qiu et al. 2023: the head is refitted on a fifth of the rows, those it finds unlikely counting more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .rows import Rows, at, descend, layer
from .weighted import inverse


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Steps of 0.01 of a layer with two outputs, gradients cut to 1, from the first head, with a pull to it."""
    rng = np.random.RandomState(seed)
    each = [np.flatnonzero(train.y == c) for c in (0, 1)]
    second = np.concatenate([rng.choice(rows, round(0.2 * len(rows)), replace=False) for rows in each])
    first = np.setdiff1d(np.arange(len(train.y)), second)
    erm = LogisticRegression(C=0.01, tol=1e-8, max_iter=5000).fit(train.Z[first], train.y[first])
    start = torch.from_numpy(np.append(erm.coef_[0], erm.intercept_))
    rows = train.take(second)
    A = rows.matrix
    p = expit((2 * rows.y - 1) * (A @ start).numpy())
    stops, found = {s["steps"] for s in settings}, {}
    for gamma, pull in {(s["gamma"], s["pull"]) for s in settings}:
        mu = inverse(rows.y) * np.exp(-gamma * p)
        share = torch.from_numpy(mu / mu.sum())

        def objective(W: Tensor, share: Tensor = share, pull: float = pull) -> Tensor:
            return (share * rows.losses(W[1] - W[0], A)).sum() + pull * (W - layer(start)).square().sum()

        found[gamma, pull] = at(descend(objective, layer(start), 0.01, momentum=0.0, clip=1.0), stops)
    return [found[s["gamma"], s["pull"]][s["steps"]] for s in settings]
