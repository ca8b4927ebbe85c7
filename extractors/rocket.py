"""ROCKET: random convolutions over vectors, each read off by its largest value and by how often it is positive.

Dempster, Petitjean and Webb 2020, "ROCKET: exceptionally fast and accurate time series classification using random
convolutional kernels" (arXiv 1910.13051). `rocket:1000` has 1,000 kernels over vectors of 40 numbers, hence 2,000
features; `rocket:1000-length512-seed1` has others over vectors of 512. No weights, no licence: the name says it all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ._backbone import Backbone, Vector
from ._weights import fingerprint, freeze

if TYPE_CHECKING:
    import torch

LENGTHS = (7, 9, 11)
FORM = re.compile(r"([1-9]\d{0,4})(?:-length([1-9]\d{0,4}))?(?:-seed(\d{1,9}))?")


@dataclass(frozen=True, eq=False)
class Kernel:
    """One convolution: weights (l,) of mean 0, a bias, the step between the numbers it takes, zeros at both ends."""

    weights: np.ndarray
    bias: float
    dilation: int
    padding: int


def models() -> tuple[str, ...]:
    """Examples: any number of kernels, length of the vectors and seed will do."""
    return ("1000", "1000-seed1", "10000-length512")


def kernels(number: int, length: int, seed: int) -> list[Kernel]:
    """Random kernels for vectors of so many numbers, drawn as the authors do.

    The length l is 7, 9 or 11, weights are standard normal and then centred, the bias is uniform in -1..1, the dilation
    is the whole part of 2^a with a uniform in 0..log2((length - 1) / (l - 1)), and in one case of two the vector is
    padded so that a kernel is centred on every number.
    """
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(number):
        size = int(rng.choice(LENGTHS))
        weights = rng.standard_normal(size)
        bias = rng.uniform(-1, 1)
        dilation = int(2 ** rng.uniform(0, np.log2((length - 1) / (size - 1))))
        padding = (size - 1) * dilation // 2 if rng.integers(2) else 0
        drawn.append(Kernel(weights - weights.mean(), bias, dilation, padding))
    return drawn


def network(drawn: list[Kernel], length: int) -> torch.nn.Module:
    """Vectors (b, n) -> features (b, 2 k): of each kernel the share of positive values, then the largest value.

    Kernels of one dilation are one convolution with as many numbers as the longest and a value for each of the n
    places. A kernel that is not padded has none at places near the ends, which a bias of minus infinity takes out.
    """
    import torch
    from torch.nn import functional

    class Rocket(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            dilations = np.array([k.dilation for k in drawn])
            self.dilations = np.unique(dilations).tolist()
            order = []
            for dilation in self.dilations:
                rows = np.flatnonzero(dilations == dilation)
                weights, bias = _laid_out([drawn[i] for i in rows], length)
                self.register_buffer(f"weights{dilation}", torch.from_numpy(weights).float())
                self.register_buffer(f"bias{dilation}", torch.from_numpy(bias).float())
                order.append(rows)
            self.register_buffer("place", torch.from_numpy(np.argsort(np.concatenate(order))))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = []
            for d in self.dilations:
                weights, bias = self.get_buffer(f"weights{d}"), self.get_buffer(f"bias{d}")
                values = functional.conv1d(x[:, None], weights, padding=d * (max(LENGTHS) // 2), dilation=d) + bias
                positive = (values > 0).sum(2) / bias.isfinite().sum(1)
                found.append(torch.stack([positive, values.amax(2)], 2))
            return torch.cat(found, 1)[:, self.get_buffer("place")].flatten(1)

    return Rocket()


def _laid_out(alike: list[Kernel], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (k, 1, 11) with zeros at both ends, and the bias at each place (k, n), of kernels of one dilation."""
    weights, bias = np.zeros((len(alike), 1, max(LENGTHS))), np.full((len(alike), length), -np.inf)
    for i, kernel in enumerate(alike):
        half, centre = len(kernel.weights) // 2, max(LENGTHS) // 2
        weights[i, 0, centre - half : centre + half + 1] = kernel.weights
        margin = half * kernel.dilation - kernel.padding
        bias[i, margin : length - margin] = kernel.bias
    return weights, bias


def load(model: str, weights: Path | None = None) -> Backbone:
    """`KERNELS`, `KERNELS-lengthN`, with `-seedS` after it. Raises `ValueError` for another form, and for weights."""
    if weights is not None:
        raise ValueError("rocket draws its kernels by its name; leave --weights out")
    if not (match := FORM.fullmatch(model)):
        raise ValueError(f"rocket:{model} is unknown; use rocket:KERNELS[-lengthN][-seedS], such as rocket:1000-seed1")
    number, length, seed = int(match[1]), int(match[2] or 40), int(match[3] or 0)
    if length < max(LENGTHS):
        raise ValueError(f"rocket:{model}: kernels have up to {max(LENGTHS)} numbers; expected vectors of as many")
    module = freeze(network(kernels(number, length, seed), length))
    return Backbone(
        spec=f"rocket:{model}", model=f"{number}-length{length}-seed{seed}", dim=2 * number, reader=Vector(length),
        module=module, weights=fingerprint(module), feature="positive share and maximum of random convolutions",
        libraries={}, licence="none",
    )  # fmt: skip
