"""CVaR-DRO, Levy et al. 2020: descent on the mean of the worst share of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rows import Rows, at, descend, length


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """1 / (alpha n) for each of the alpha n largest losses, the last of them by its fraction."""
    A, n, found = train.matrix, len(train.y), {}
    zero = torch.zeros(A.shape[1], dtype=torch.float64)
    for alpha in {s["alpha"] for s in settings}:

        def worst(theta: Tensor, size: float = alpha * n) -> Tensor:
            losses = train.losses(theta, A).sort(descending=True).values
            whole = int(size)
            return (losses[:whole].sum() + (size - whole) * losses[min(whole, n - 1)]) / size

        found[alpha] = at(descend(worst, zero, alpha * length(A)), {s["steps"] for s in settings})
    return [found[s["alpha"]][s["steps"]] for s in settings]
