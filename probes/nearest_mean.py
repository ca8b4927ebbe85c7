"""Nearest mean: the class whose mean is closest. No regularisation to choose, one pass over the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from ._data import Data
from ._fit import Fit
from ._head import LinearHead


class NearestMean(LinearHead):
    """log p(c | z) = -||z - m_c||^2 / (2 s) + const, with m_c the mean of class c and s the mean variance around it.

    That is Gaussian classes of equal shares and of one variance in all directions, as likely as the rows allow; the
    quadratic term is common to all classes, so that the head is linear. `standardize` as in `Head`.

    Fitted values beyond those of `LinearHead`: `means_` (k, d) of the standardised features, and `variance_`, s.
    """

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        import torch

        sums = torch.zeros(data.k, data.features.d, dtype=torch.float64, device=data.features.device)
        y, within = torch.from_numpy(data.y).to(sums.device), 0.0
        for part, Z in data.features.blocks(torch.float64):
            sums += torch.nn.functional.one_hot(y[part], data.k).to(Z).T @ Z
        at = sums / torch.bincount(y, minlength=data.k)[:, None]
        for part, Z in data.features.blocks(torch.float64):
            within += float((Z - at[y[part]]).square().sum())
        means = at.cpu().numpy()
        variance, size = within / means.shape[1] / len(data.y), float(np.square(means).max(initial=0))
        if not variance > 1e-28 * size:
            variance = 1.0  # every row is its class's mean; any width gives the same predictions
        W, b = means / variance, -np.square(means).sum(1) / (2 * variance)
        if data.k == 2:
            W, b = W[1:] - W[:1], b[1:] - b[:1]
        return [Fit(True, W, b, {"means_": means, "variance_": variance})] * len(variants)
