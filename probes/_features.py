"""Standardised features: what every fit multiplies by, in memory or streamed in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ._products import LARGE

if TYPE_CHECKING:
    import torch

BLOCK_BYTES, CONVERTED = 64 << 20, 4 << 20
"""Bytes of a block that is read, and of one that is only converted, which the processor's caches should hold."""
COPIED = 1 << 27
"""Numbers of which a transposed copy is kept as well, half a GiB in float32."""
SMALL = 1 << 22
"""Most numbers that one core standardises alone: torch's threads wait longer than that takes, where those of another
library have just been busy."""
NEAR = 16
"""Spreads between 0 and the mean up to which float32 standardises to its own rounding."""
SAFE = 1e30
"""Numbers up to which, and down to whose inverse, float32 squares and divides."""
COARSE = 5e-6
"""A tolerance of gradients beside which the rounding errors of float32 do not matter."""


class Features:
    """Z (n, d) = (X - mean) / scale, in X's precision (float32 or float64), on a device.

    It is computed in float64 where float32 would lose digits: features far from 0, very large or very small ones.

    X  an array, also one mapped from a file. A mapped one (`numpy.memmap`) is never read whole: it is standardised
       block by block, each time it is passed over; any other is standardised once, in memory.
    mean, scale  (d,) float64; `standardize` computes them from X (variance 0 counts as 1), `identity` takes X as it is
    """

    def __init__(self, X: np.ndarray, mean: np.ndarray, scale: np.ndarray, device: str = "cpu") -> None:
        self.X, self.mean, self.scale, self.device = X, mean, scale, device
        self.n, self.d = X.shape
        self.streamed = isinstance(X, np.memmap)
        self.spectrum: Any = None
        self.standardised = bool(mean.any() or (scale != 1).any())
        in_reach = (np.abs(mean) <= NEAR * scale) & (scale < SAFE) & (scale > 1 / SAFE)
        self._finely = X.dtype == np.float64 or not (in_reach | ((scale == 1) & (np.abs(mean) < SAFE))).all()

    @classmethod
    def standardize(cls, X: np.ndarray, device: str = "cpu") -> Features:
        """Mean 0 and variance 1 for every feature."""
        mean, scale = moments(X)
        return cls(X, mean, scale, device)

    @classmethod
    def identity(cls, X: np.ndarray, device: str = "cpu") -> Features:
        """X as it is."""
        return cls(X, np.zeros(X.shape[1]), np.ones(X.shape[1]), device)

    @property
    def dtype(self) -> Any:
        """The torch type of Z."""
        import torch

        return torch.float64 if self.X.dtype == np.float64 else torch.float32

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Z[rows] on the device."""
        if not self.streamed:
            import torch

            return self.tensor.index_select(0, torch.from_numpy(np.asarray(rows, np.int64)).to(self.device))
        return self._standardised(self.X[rows])

    def of(self, X: np.ndarray) -> torch.Tensor:
        """Other rows in the same standardisation."""
        return self._standardised(np.asarray(X, self.X.dtype))

    def blocks(self, dtype: Any = None) -> Iterator[tuple[slice, torch.Tensor]]:
        """Z in consecutive blocks of rows, as `dtype`; one block where Z is in memory and has that type already."""
        dtype = dtype or self.dtype
        if not self.streamed and dtype == self.dtype:
            yield slice(0, self.n), self.tensor
            return
        size = CONVERTED if not self.streamed and self.device == "cpu" else BLOCK_BYTES
        rows = max(1, size // (8 * self.d))
        for start in range(0, self.n, rows):
            part = slice(start, min(start + rows, self.n))
            Z = self._standardised(self.X[part]) if self.streamed else self.tensor[part]
            yield part, Z.to(dtype)

    def turned(self, dtype: Any = None) -> Iterator[tuple[slice, torch.Tensor]]:
        """Z' (d, rows) in the same blocks: views, or one copy where that makes products faster and takes little memory.

        Products then read it row by row, which is fastest.
        """
        small = LARGE <= self.n * self.d <= COPIED and self.device == "cpu" and (dtype or self.dtype).itemsize == 4
        if small and not self.streamed and self.X.itemsize == 4:
            yield slice(0, self.n), self._copied
            return
        for part, Z in self.blocks(dtype):
            yield part, Z.T

    @cached_property
    def radius(self) -> float:
        """The largest ||z|| of all rows."""
        import torch

        return max(float(torch.linalg.vector_norm(Z, dim=1).max()) for _, Z in self.blocks()) if self.n else 0.0

    @cached_property
    def _copied(self) -> torch.Tensor:
        return self.tensor.T.contiguous()

    @cached_property
    def tensor(self) -> torch.Tensor:
        """All of Z."""
        return self._standardised(np.asarray(self.X))

    def _standardised(self, X: np.ndarray) -> torch.Tensor:
        import torch

        if self._finely and self.standardised:
            return torch.from_numpy(self._in_float64(X)).to(self.device)
        if self.device == "cpu" and X.size <= SMALL and self.standardised:
            Z = np.subtract(X, self.mean.astype(X.dtype))
            return torch.from_numpy(np.divide(Z, self.scale.astype(X.dtype), out=Z))
        Z = torch.from_numpy(np.ascontiguousarray(X) if X.flags.writeable else np.array(X)).to(self.device)
        if not self.standardised:
            return Z
        mean, scale = (torch.from_numpy(x).to(Z) for x in (self.mean, self.scale))
        return (Z - mean).div_(scale)

    def _in_float64(self, X: np.ndarray) -> np.ndarray:
        """(X - mean) / scale computed in float64, clipped to what X's precision holds."""
        most, Z = np.finfo(X.dtype).max, np.empty(X.shape, X.dtype)
        rows = max(1, CONVERTED // (8 * max(self.d, 1)))
        with np.errstate(over="ignore", under="ignore"):
            for start in range(0, len(X), rows):
                part = np.subtract(X[start : start + rows], self.mean, dtype=np.float64)
                np.divide(part, self.scale, out=part)
                Z[start : start + rows] = np.clip(part, -most, most, out=part)
        return Z


def moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and scale in float64: the standard deviation, or 1 where all values are the same.

    All features get one pass in X's own precision. Those that overflow or underflow in it, or that hardly vary beside
    their size, get two more in float64. These are right to a few units of float64's rounding, the others of float32's.
    """
    safe = SAFE if X.dtype == np.float32 else 1e250
    with np.errstate(all="ignore"):
        mean, variance = _quick(X)
        least = np.maximum(1 / safe, (64 * np.finfo(X.dtype).eps * mean) ** 2)
        settled = (variance > least) & (variance < safe)
        scale = np.sqrt(variance)
    if len(columns := np.flatnonzero(~settled)):
        mean[columns], scale[columns] = _careful(X, columns)
    return mean, np.where(scale > 0, scale, 1.0)


def _quick(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and variance; blocks of rows are joined by the rule of Chan et al. 1983."""
    n, d = X.shape
    mean, squares, seen = np.zeros(d), np.zeros(d), 0
    rows = min(max(1, (1 << 20) // (8 * max(d, 1))), 512)  # for the processor's cache, and few for sums in float32
    # numpy, on one core: for blocks so small torch's threads wait for each other longer than they work.
    buffer = np.empty((min(rows, n), d), X.dtype)
    for start in range(0, n, rows):
        block = X[start : start + rows]
        m = len(block)
        centre = block.mean(axis=0)
        apart = np.subtract(block, centre, out=buffer[:m])
        # What rounding left of the mean is taken off as well.
        rest, block_mean = apart.mean(axis=0).astype(np.float64), centre.astype(np.float64)
        variance, block_mean = np.square(apart, out=apart).mean(axis=0).astype(np.float64) - rest**2, block_mean + rest
        moved = block_mean - mean
        squares += m * variance + moved**2 * seen * m / (seen + m)
        mean += moved * m / (seen + m)
        seen += m
    return mean, np.maximum(squares / n, 0)


def _careful(X: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(c,) mean and standard deviation of some columns of any finite numbers: in float64, centred before squaring.

    Numbers are taken in units of a power of 2, so that their squares neither overflow nor vanish.
    """
    n = len(X)
    rows = max(1, CONVERTED // (8 * len(columns)))
    starts = range(0, n, rows)
    top = np.max([np.abs(X[i : i + rows, columns]).max(axis=0) for i in starts], axis=0)
    unit = np.frexp(top.astype(np.float64))[1]

    def blocks() -> Iterator[np.ndarray]:
        for i in starts:
            yield np.ldexp(X[i : i + rows, columns].astype(np.float64), -unit)

    first = np.ldexp(X[0, columns].astype(np.float64), -unit)  # equal values are then 0 apart, to the last bit
    mean = first + sum((B - first).sum(axis=0) for B in blocks()) / n
    rest, squares = np.zeros(len(columns)), np.zeros(len(columns))
    for B in blocks():
        np.subtract(B, mean, out=B)
        rest += B.sum(axis=0) / n
        squares += np.square(B, out=B).sum(axis=0) / n
    return np.ldexp(mean + rest, unit), np.ldexp(np.sqrt(np.maximum(squares - rest**2, 0)), unit)
