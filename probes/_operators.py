"""Products with the features and inverses of their second moment: the two things a solver asks of a feature matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._features import Features
from ._products import product

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 8192
REACH = 40
"""Exponent of 2 up to which float32 holds sums of squares."""
ROUNDED = 1e-6
"""Least curvature, as a share of the largest, that rounded directions can tell from 0."""
FLATTEST = 1e-4
"""Least curvature that an intercept is taken to have: no penalty holds it where the loss is flat."""


class Shared:
    """One feature matrix for all problems, passed over in blocks of rows."""

    def __init__(self, features: Features, dtype: Any) -> None:
        self.features, self.dtype = features, dtype

    def forward(self, W: Tensor) -> Tensor:
        """(1, p, d + 1) -> logits (1, p, n)."""
        d, out = self.features.d, None
        for part, Z in self.features.blocks(self.dtype):
            G = product(W[0, :, :d], Z).add_(W[0, :, d:])
            if len(Z) == self.features.n:
                return G[None]
            out = W.new_empty(len(G), self.features.n) if out is None else out
            out[:, part] = G
        assert out is not None
        return out[None]

    def backward(self, R: Tensor) -> Tensor:
        """(1, p, n) -> (1, p, d + 1)."""
        d = self.features.d
        W = R.new_zeros(1, R.shape[1], d + 1)
        for part, T in self.features.turned(self.dtype):
            W[0, :, :d] += product(R[0, :, part], T)
        W[..., d] = R.sum(-1)
        return W

    def keep(self, stacks: Tensor) -> Shared:
        """There is one stack, which stays to the end."""
        return self


@dataclass(frozen=True, eq=False)
class Stacked:
    """A feature matrix per stack: Z (b, n, d)."""

    Z: Tensor

    def forward(self, W: Tensor) -> Tensor:
        """(b, p, d + 1) -> logits (b, p, n)."""
        import torch

        return torch.baddbmm(W[..., -1:], W[..., :-1], self.Z.mT)

    def backward(self, R: Tensor) -> Tensor:
        """(b, p, n) -> (b, p, d + 1)."""
        import torch

        return torch.cat([torch.bmm(R, self.Z), R.sum(-1, keepdim=True)], -1)

    def keep(self, stacks: Tensor) -> Stacked:
        """The stacks that are left."""
        return self if stacks.all() else Stacked(self.Z[stacks])


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Second moments of stacks of features, M = V' diag(s) V + tail * (I - V' V): V (r, d) or None for I, s (b, r)."""

    V: Tensor | None
    s: Tensor
    tail: float

    @classmethod
    def of(cls, features: Features) -> Spectrum:
        """Of one matrix, by randomised subspace iteration on at most `SAMPLE` rows (Halko et al. 2011).

        All eigenvectors for d up to 512, else so many that products with them cost a fraction of those with the
        features; what is left has the mean of the other eigenvalues. Computed once.
        """
        import numpy as np
        import torch

        if features.spectrum is not None:
            return features.spectrum
        n, d = features.n, features.d
        rank = d if d <= 512 else min(d // 4, max(n // 16, 128))
        rng = np.random.RandomState(0)
        Z = features.take(np.sort(rng.choice(n, SAMPLE, replace=False))) if n > SAMPLE else features.take(np.arange(n))
        exponent = int(np.frexp(float(Z.abs().max()))[1]) if Z.numel() else 0
        unit = 2.0**exponent if abs(exponent) > REACH else 1.0  # squares that would overflow or vanish in float32
        Z = (Z / unit if unit != 1 else Z).to(torch.float32) / len(Z) ** 0.5
        if rank < d:
            Q = torch.from_numpy(rng.standard_normal((rank, d)).astype(np.float32)).to(Z)
            Q = torch.linalg.qr(product(product(Q, Z), Z.T).T)[0].T
            B = product(Q, Z)
            s, U = torch.linalg.eigh(product(B, B))
            V = U.T @ Q
        else:
            s, U = torch.linalg.eigh(Z.T @ Z)
            V = U.T.contiguous()
        s = s.clamp_min(0)
        tail = float(Z.square().sum() - s.sum()) / max(d - rank, 1) if rank < d else 0.0
        s = s.double() * unit**2 if unit != 1 else s
        features.spectrum = cls(V, s[None], max(tail, 0.0) * unit**2)
        return features.spectrum

    def to(self, like: Tensor) -> Spectrum:
        """In the precision of another tensor."""
        return Spectrum(None if self.V is None else self.V.to(like), self.s.to(like), self.tail)

    def solve(self, Q: Tensor, h: Tensor, ridge: Tensor) -> Tensor:
        """(h * M + ridge * I)^-1 Q for Q (b, p, k, d + 1), h (b, p, k), ridge (b, p, 1, d + 1).

        The intercept goes by itself.
        """
        import torch

        h = h[..., None].clamp_min(torch.finfo(Q.dtype).tiny ** 0.5)
        ridge, free = self._held(ridge[..., :1], h), ridge[..., -1:] + h.clamp_min(FLATTEST)
        inverse = 1 / (h * self.s[:, None, None] + ridge)
        if self.V is None:
            X = Q[..., :-1] * inverse
        else:
            rest = self._rest(ridge, h)
            rotated = _rotated(Q[..., :-1], self.V) * (inverse - rest)
            X = _rotated(rotated, self.V.T) + rest * Q[..., :-1]
        return torch.cat([X, Q[..., -1:] / free], -1)

    def _held(self, ridge: Tensor, h: Tensor) -> Tensor:
        """The ridge; where it is 0, the rounding error of the largest curvature, so that no inverse is infinite."""
        import torch

        return torch.where(ridge > 0, ridge, torch.finfo(torch.float32).eps * h * self.s.amax(-1)[:, None, None, None])

    def _rest(self, ridge: Tensor, h: Tensor) -> Tensor:
        """The inverse outside the directions of V; 0 where these are all, since only rounding errors lie there."""
        assert self.V is not None
        if len(self.V) == self.V.shape[1]:
            return ridge.new_zeros(())
        return 1 / (h * self.tail + ridge.maximum(ROUNDED * h * self.s.amax(-1)[:, None, None, None]))

    def norm(self, Q: Tensor, h: Tensor, ridge: Tensor) -> Tensor:
        """(b, p) Q' (h * M + ridge * I)^-1 Q, with half the products of `solve`."""
        import torch

        h = h[..., None].clamp_min(torch.finfo(Q.dtype).tiny ** 0.5)
        ridge, free = self._held(ridge[..., :1], h), ridge[..., -1:] + h.clamp_min(FLATTEST)
        inverse = 1 / (h * self.s[:, None, None] + ridge)
        own = (Q[..., -1:].square() / free).sum((2, 3))
        if self.V is None:
            return own + (Q[..., :-1].square() * inverse).sum((2, 3))
        rest = self._rest(ridge, h)
        own += (Q[..., :-1].square() * rest).sum((2, 3))
        return own + (_rotated(Q[..., :-1], self.V).square() * (inverse - rest)).sum((2, 3))

    def keep(self, stacks: Tensor) -> Spectrum:
        """The stacks that are left."""
        return self if len(self.s) == 1 or stacks.all() else Spectrum(self.V, self.s[stacks], self.tail)


def _rotated(Q: Tensor, V: Tensor) -> Tensor:
    """Q V' for Q (..., d)."""
    return product(Q.flatten(0, -2), V).unflatten(0, Q.shape[:-1])
