"""SELF, LaBonte et al. 2023, early-stop disagreement, on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit, rel_entr
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .rows import Rows, at, descend, layer
from .weighted import inverse, walk


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Steps of two outputs on the n rows with the largest KL(early || final), classes alike, from the final head."""
    final = LogisticRegression(C=0.01, tol=1e-8, max_iter=5000).fit(train.Z, train.y)
    start = torch.from_numpy(np.append(final.coef_[0], final.intercept_))
    early = walk(train, np.ones(len(train.y)), {s["first_steps"] for s in settings})
    A, stops, found = held_out.matrix.numpy(), {s["steps"] for s in settings}, {}
    q = expit(A @ start.numpy())
    for s in settings:
        way = s["first_steps"], s["n"], s["learning_rate"]
        if way in found:
            continue
        p = expit(A @ early[way[0]])
        apart = rel_entr(p, q) + rel_entr(1 - p, 1 - q)
        rows = held_out.take(np.argsort(-apart)[: way[1]])
        share = torch.from_numpy(inverse(rows.y) / inverse(rows.y).sum())

        def objective(W: Tensor, rows: Rows = rows, share: Tensor = share) -> Tensor:
            return (share * rows.losses(W[1] - W[0], rows.matrix)).sum()

        found[way] = at(descend(objective, layer(start), way[2], momentum=0.0), stops)
    return [found[s["first_steps"], s["n"], s["learning_rate"]][s["steps"]] for s in settings]
