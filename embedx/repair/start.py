"""The head that is repaired, in the coordinates in which it was fitted, and what a change makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedx.evaluation.model import Model
from embedx.probes import Affine

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Start:
    """A linear head: the logits of features x are W z + b with z = (x - mean) / scale, as it was fitted.

    model  what it comes from
    W      (k, d) float32, b (k,) float32; a head with one logit for two classes counts half for the second class and
           half against the first, and every step of the descent leaves that so
    """

    model: Model
    W: torch.Tensor
    b: torch.Tensor

    @classmethod
    def of(cls, model: Model) -> Start:
        """The start of a linear model. Raises `HeadError` for one that is not linear."""
        import torch

        numbers = model.affine
        W, b = numbers.coef, numbers.intercept
        if len(W) == 1:
            W, b = np.concatenate([-W, W]) / 2, np.concatenate([-b, b]) / 2
        return cls(model, *(torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in (W, b)))

    def z(self, X: np.ndarray) -> torch.Tensor:
        """(n, d) float32 coordinates of features X (n, d), rounded once from float64."""
        import torch

        numbers = self.model.affine
        return torch.from_numpy(((X.astype(np.float64) - numbers.mean) / numbers.scale).astype(np.float32))

    def changed(self, weight: np.ndarray, bias: np.ndarray) -> Model:
        """The model with changes of W (k, d) and b (k,); it has no record of a run, as no run fitted it."""
        before = self.model.affine
        if len(before.coef) == 1:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        numbers = Affine(before.coef + weight, before.intercept + bias, before.mean, before.scale)
        return replace(self.model, outputs=self.model.classes, numbers=numbers, fitted=None, run=None)
