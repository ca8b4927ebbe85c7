"""Nearest mean: the class whose mean is closest. No regularisation to choose, one pass over the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from probes._machinery import Data, Fit, LinearHead


class NearestMean(LinearHead):
    """log p(c | z) = -||z - m_c||^2 / (2 s) + const, with m_c the mean of class c and s the mean variance around it.

    That is Gaussian classes of equal shares and of one variance in all directions, as likely as the rows allow; the
    quadratic term is common to all classes, so that the head is linear. `standardize` as in `Head`.

    Fitted values beyond those of `LinearHead`: `means_` (k, d) of the standardised features, and `variance_`, s.
    """

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        import torch

        sums = torch.zeros(data.k, data.features.d, dtype=torch.float64, device=data.features.device)
        y, squares = torch.from_numpy(data.y).to(sums.device), 0.0
        for part, Z in data.features.blocks():
            onehot = torch.nn.functional.one_hot(y[part], data.k).to(Z)
            sums += (onehot.T @ Z).double()
            squares += float(torch.linalg.vector_norm(Z, dim=1).double().square().sum())
        sizes = np.bincount(data.y, minlength=data.k)
        means = sums.cpu().numpy() / sizes[:, None]
        within = squares - float(sizes @ np.square(means).sum(1))
        variance = within / means.shape[1] / len(data.y)
        if not variance > 1e-12 * squares / means.shape[1] / len(data.y):
            variance = 1.0  # every row is its class's mean; any width gives the same predictions
        W, b = means / variance, -np.square(means).sum(1) / (2 * variance)
        if data.k == 2:
            W, b = W[1:] - W[:1], b[1:] - b[:1]
        fit: Fit = {"coef_": W, "intercept_": b, "means_": means, "variance_": variance, "converged_": True}
        return [fit] * len(variants)
