"""Products with the features and inverses of their second moment: the two things a solver asks of a feature matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes._features import Features

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 8192
WORTH = 1 << 20
"""Numbers in a feature matrix from which its products are worth computing in half precision."""
FLATTEST = 1e-4
"""Least curvature that an intercept is taken to have: no penalty holds it where the loss is flat."""


class Shared:
    """One feature matrix for all problems, passed over in blocks of rows."""

    def __init__(self, features: Features, dtype: Any) -> None:
        self.features, self.dtype = features, dtype

    @property
    def rough(self) -> Shared | None:
        """The same in half precision, where that is faster."""
        import torch

        worth = (
            self.dtype == torch.float32
            and self.features.n * self.features.d >= WORTH
            and fast_halves(self.features.device)
        )
        return Shared(self.features, torch.bfloat16) if worth else None

    def forward(self, W: Tensor) -> Tensor:
        """(1, p, d + 1) -> logits (1, p, n)."""
        d, out = self.features.d, None
        coef, intercept = W[0, :, :d].to(self.dtype), W[0, :, d:]
        for part, Z in self.features.blocks(self.dtype):
            G = _affine(coef, Z.T, intercept)
            if len(Z) == self.features.n:
                return G[None]
            out = W.new_empty(len(G), self.features.n) if out is None else out
            out[:, part] = G
        assert out is not None
        return out[None]

    def backward(self, R: Tensor) -> Tensor:
        """(1, p, n) -> (1, p, d + 1)."""
        d, mine = self.features.d, R[0].to(self.dtype)
        W = R.new_zeros(1, R.shape[1], d + 1)
        for part, Z in self.features.blocks(self.dtype):
            if self.dtype == R.dtype:
                W[0, :, :d].addmm_(mine[:, part], Z)
            else:
                W[0, :, :d] += mine[:, part] @ Z
        W[..., d] = R.sum(-1)
        return W

    def keep(self, stacks: Tensor) -> Shared:
        """There is one stack, and it is left as long as anything is."""
        return self


@dataclass(frozen=True, eq=False)
class Stacked:
    """A feature matrix per stack: Z (b, n, d)."""

    Z: Tensor

    @property
    def rough(self) -> Stacked | None:
        """The same in half precision, where that is faster."""
        import torch

        worth = self.Z.dtype == torch.float32 and self.Z.numel() >= WORTH and fast_halves(self.Z.device)
        return Stacked(self.Z.bfloat16()) if worth else None

    def forward(self, W: Tensor) -> Tensor:
        """(b, p, d + 1) -> logits (b, p, n)."""
        return _affine(W[..., :-1].to(self.Z.dtype), self.Z.mT, W[..., -1:])

    def backward(self, R: Tensor) -> Tensor:
        """(b, p, n) -> (b, p, d + 1)."""
        import torch

        return torch.cat([torch.bmm(R.to(self.Z.dtype), self.Z).to(R.dtype), R.sum(-1, keepdim=True)], -1)

    def keep(self, stacks: Tensor) -> Stacked:
        """The stacks that are left."""
        return self if stacks.all() else Stacked(self.Z[stacks])


def _affine(coef: Tensor, Z: Tensor, intercept: Tensor) -> Tensor:
    """coef Z + intercept in the intercept's precision; coef and Z may have less."""
    import torch

    if coef.dtype == intercept.dtype:
        return (torch.addmm if coef.ndim == 2 else torch.baddbmm)(intercept, coef, Z)
    return (coef @ Z).to(intercept.dtype).add_(intercept)


def fast_halves(device: Any) -> bool:
    """Whether products in bfloat16 are faster on a device: on accelerators, and on processors that have them."""
    import torch

    if torch.device(device).type != "cpu":
        return True
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Second moments of stacks of features, M = V' diag(s) V + tail * (I - V' V): V (r, d) or None for I, s (b, r)."""

    V: Tensor | None
    s: Tensor
    tail: float

    @classmethod
    def of(cls, features: Features) -> Spectrum:
        """Of one matrix, by randomised subspace iteration on at most `SAMPLE` rows (Halko et al. 2011).

        All eigenvectors for d up to 512, else so many that products with them cost a fraction of those with the features;
        what is left has the mean of the other eigenvalues. Computed once.
        """
        import numpy as np
        import torch

        if features.spectrum is not None:
            return features.spectrum
        n, d = features.n, features.d
        rng = np.random.RandomState(0)
        Z = features.take(np.sort(rng.choice(n, SAMPLE, replace=False))) if n > SAMPLE else features.take(np.arange(n))
        Z = Z.to(torch.float32) / len(Z) ** 0.5
        rank = d if d <= 512 else min(d // 4, max(n // 16, 64))
        if rank < d:
            Q = torch.from_numpy(rng.standard_normal((d, rank)).astype(np.float32)).to(Z)
            Q = torch.linalg.qr(Z.T @ (Z @ Q))[0]
            B = Z @ Q
            s, U = torch.linalg.eigh(B.T @ B)
            V = (Q @ U).T.contiguous()
        else:
            s, U = torch.linalg.eigh(Z.T @ Z)
            V = U.T.contiguous()
        s = s.clamp_min(0)
        tail = float(Z.square().sum() - s.sum()) / max(d - rank, 1) if rank < d else 0.0
        features.spectrum = cls(V, s[None], max(tail, 0.0))
        return features.spectrum

    def to(self, like: Tensor) -> Spectrum:
        """In the precision of another tensor."""
        return Spectrum(None if self.V is None else self.V.to(like), self.s.to(like), self.tail)

    @property
    def scale(self) -> float:
        """Root mean square of the features."""
        d = self.s.shape[1] if self.V is None else self.V.shape[1]
        r = self.s.shape[1]
        return ((float(self.s.sum(1).mean()) + self.tail * (d - r)) / d) ** 0.5

    def solve(self, Q: Tensor, h: Tensor, ridge: Tensor) -> Tensor:
        """(h * M + ridge * I)^-1 Q for Q (b, p, k, d + 1), h (b, p, k), ridge (b, p, 1, d + 1).

        The intercept goes by itself.
        """
        import torch

        h = h[..., None].clamp_min(torch.finfo(Q.dtype).tiny ** 0.5)
        ridge, free = ridge[..., :1], ridge[..., -1:] + h.clamp_min(FLATTEST)
        inverse = 1 / (h * self.s[:, None, None] + ridge)
        if self.V is None:
            X = Q[..., :-1] * inverse
        else:
            rest = 1 / (h * self.tail + ridge)
            X = ((Q[..., :-1] @ self.V.T) * (inverse - rest)) @ self.V + rest * Q[..., :-1]
        return torch.cat([X, Q[..., -1:] / free], -1)

    def norm(self, Q: Tensor, h: Tensor, ridge: Tensor) -> Tensor:
        """(b, p) Q' (h * M + ridge * I)^-1 Q, with half the products of `solve`."""
        import torch

        h = h[..., None].clamp_min(torch.finfo(Q.dtype).tiny ** 0.5)
        ridge, free = ridge[..., :1], ridge[..., -1:] + h.clamp_min(FLATTEST)
        inverse = 1 / (h * self.s[:, None, None] + ridge)
        own = (Q[..., -1:].square() / free).sum((2, 3))
        if self.V is None:
            return own + (Q[..., :-1].square() * inverse).sum((2, 3))
        rest = 1 / (h * self.tail + ridge)
        own += (Q[..., :-1].square() * rest).sum((2, 3))
        return own + ((Q[..., :-1] @ self.V.T).square() * (inverse - rest)).sum((2, 3))

    def keep(self, stacks: Tensor) -> Spectrum:
        """The stacks that are left."""
        return self if len(self.s) == 1 or stacks.all() else Spectrum(self.V, self.s[stacks], self.tail)
