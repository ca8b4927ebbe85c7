"""Logits of linear heads: the same bits however many rows and heads are asked about together, on any machine.

Sums of rounded products depend on their order, and matrix libraries choose it by the shapes of the arguments, the
number of threads and the processor: a row in a block of 300 gets other last bits than alone, and a tie another class.
So both factors are cut into p pieces of whole numbers that are so small that every product, and every sum of products,
is exact in float64; then no order matters (Ozaki et al. 2012). With pieces of a = floor((53 - log2 d) / 2) bits, and
as many of them as make `BITS` bits, what is left out of a logit lies below

    16 d 2^(-p a) max_j |z_j| max_c |coef_cj|        p a = 42 bits for d = 1024
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from ._errors import FitError
from ._once import content

BITS = 40
BLOCK, ANSWERS = 1 << 16, 1 << 24
"""Numbers of a block of features, which the processor's cache should hold, and of the logits of a block."""


@dataclass(frozen=True, eq=False)
class Affine:
    """coef @ z + intercept with z = (x - mean) / scale, of features x as they are: centred before anything is rounded.

    coef (k, d), intercept (k,), mean and scale (d,), all float64; k is 1 for two classes.
    """

    coef: np.ndarray
    intercept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def plain(cls, coef: np.ndarray, intercept: np.ndarray | float = 0.0) -> Affine:
        """coef @ x + intercept."""
        k, d = coef.shape
        return cls(coef.astype(np.float64), np.broadcast_to(np.float64(intercept), k), np.zeros(d), np.ones(d))

    def logits(self, X: np.ndarray) -> np.ndarray:
        """(n, k) float64 of features (n, d). Raises `NotFinite` for rows without logits, which have no class either."""
        (n, d), k = X.shape, len(self.coef)
        p, a = _cuts(d)
        # A feature counts as much as the largest of its coefficients: what is rounded off is small beside the products.
        powers = np.frexp(np.abs(self.coef).max(axis=0))[1]
        unused = ~self.coef.any(axis=0)
        cut, sizes = _pieces(np.ldexp(self.coef, -powers), p, a)
        W = np.ascontiguousarray(cut.reshape(-1, d).T)  # (d, p k), the coarsest pieces first
        scale = np.where(unused, np.inf, np.ldexp(self.scale, -powers))
        out, rows = np.empty((n, k)), max(1, min(BLOCK // max(d, 1), ANSWERS // (p * k)))
        with np.errstate(all="ignore"):
            for start in range(0, n, rows):
                block = slice(start, min(start + rows, n))
                Z, exponents = _pieces(standardised(X[block], self.mean, scale), p, a)
                sums = np.zeros((p, len(exponents), k))  # of pieces as fine as one another
                for i in range(p):
                    sums[i:] += (Z[i] @ W[:, : k * (p - i)]).reshape(-1, p - i, k).swapaxes(0, 1)
                total = sums[-1]
                for part in sums[-2::-1]:
                    total = part + total * 2.0**-a
                out[block] = np.ldexp(total, exponents[:, None] + sizes - 2 * a) + self.intercept
        if len(lost := np.flatnonzero(~np.isfinite(out).all(axis=1))):
            raise NotFinite(lost)
        return out

    @property
    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """(W, b) of the same head on features that are not centred: for the weights, not to predict with."""
        W = self.coef / self.scale
        return W, self.intercept - W @ self.mean


class NotFinite(FitError):
    """Rows whose logits are not finite: their features are not, or are so large that products overflow."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__(
            f"{len(rows)} rows (the first is row {rows[0]}, counted from 0) have logits that are not finite, so no "
            "class: their features are no numbers, or too large for this head; leave them out"
        )
        self.rows = rows


def standardised(X: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n, d) (X - mean) / scale in float64, rounded once by either operation."""
    Z = np.subtract(X, mean, dtype=np.float64)
    return np.divide(Z, scale, out=Z)


def predicted_codes(heads: Sequence[Affine], X: np.ndarray) -> np.ndarray:
    """(m, n) the class of the largest of each head's logits, the first of equal ones; of one logit, whether it is > 0.

    Exactly as `Affine.logits` has it, but faster: rounded products decide wherever the second logit is further away
    than rounding errors reach, and only the other rows are computed again. Heads of equal mean and scale share the
    products. Raises `NotFinite`.
    """
    alike: dict[tuple[bytes, int], list[int]] = {}
    for i, head in enumerate(heads):
        alike.setdefault((content(head.mean, head.scale), len(head.coef)), []).append(i)
    codes = np.empty((len(heads), len(X)), dtype=np.intp)
    for members in alike.values():
        codes[members] = _together([heads[i] for i in members], X)
    return codes


def _together(heads: Sequence[Affine], X: np.ndarray) -> np.ndarray:
    """The codes of heads of as many outputs in one standardisation."""
    (n, d), k, m = X.shape, len(heads[0].coef), len(heads)
    W, b = np.concatenate([h.coef for h in heads]).T, np.concatenate([h.intercept for h in heads])
    with np.errstate(over="ignore"):
        length = np.sqrt(np.square(W).sum(axis=0)).reshape(m, k).max(axis=1)
    size = np.abs(b).reshape(m, k).max(axis=1)
    # |sum of d rounded products - exact| <= d 2^-53 |z| |w| by any order, and what the pieces of `logits` leave out.
    p, a = _cuts(d)
    reach = (d + 8) * 2.0**-50 + 16 * d * 2.0 ** (-p * a)
    codes, unclear = np.empty((m, n), dtype=np.intp), np.empty((m, n), dtype=bool)
    rows = max(1, min(4 * BLOCK // max(d, 1), ANSWERS // (m * k)))
    with np.errstate(all="ignore"):
        for start in range(0, n, rows):
            block = slice(start, min(start + rows, n))
            Z = standardised(X[block], heads[0].mean, heads[0].scale)
            F = (Z @ W + b).reshape(-1, m, k)
            off = reach * (np.sqrt(np.einsum("ij,ij->i", Z, Z))[:, None] * length + size)
            if k == 1:
                codes[:, block] = (F[..., 0] > 0).T
                unclear[:, block] = ~(np.abs(F[..., 0]) > off).T
                continue
            best = F.argmax(axis=2)
            edge = np.take_along_axis(F, best[..., None], axis=2) - 2 * off[..., None]
            codes[:, block], unclear[:, block] = best.T, (np.count_nonzero(edge <= F, axis=2) != 1).T
    for head, row, doubtful in zip(heads, codes, unclear, strict=True):
        if len(at := np.flatnonzero(doubtful)):
            try:
                row[at] = chosen(head.logits(X[at]))
            except NotFinite as error:
                raise NotFinite(at[error.rows]) from None
    return codes


def chosen(logits: np.ndarray) -> np.ndarray:
    """(n,) the class of logits (n, 1 or k)."""
    return (logits[:, 0] > 0).astype(np.intp) if logits.shape[1] == 1 else logits.argmax(axis=1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(n, k) from the logit of the second class (n,) or (n, 1), or from logits (n, k).

    The predicted class has the largest one; where rounding makes another equal, it gets one bit more.
    """
    logits = np.ascontiguousarray(logits, dtype=np.float64)
    logits = logits[:, 0] if logits.shape[1:] == (1,) else logits
    p = softmax(logits, axis=1) if logits.ndim == 2 else np.column_stack([expit(-logits), expit(logits)])
    best = logits.argmax(axis=1) if logits.ndim == 2 else (logits > 0).astype(np.intp)
    tied = np.flatnonzero(p.argmax(axis=1) != best)
    p[tied, best[tied]] = np.nextafter(p[tied].max(axis=1), 2)
    return p


def _cuts(d: int) -> tuple[int, int]:
    """How many pieces there are, and the bits of each so that d products of them are summed exactly."""
    a = (53 - max(d - 1, 1).bit_length()) // 2
    return -(-BITS // a), a


def _pieces(T: np.ndarray, p: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(p, n, d) whole numbers up to 2^bits, and (n,) exponents: T = sum_i pieces_i 2^(exponent - (i + 1) bits)."""
    exponents = np.frexp(np.abs(T).max(axis=1, initial=0))[1]
    cut, rest = np.empty((p, *T.shape)), np.ldexp(T, (bits - exponents)[:, None])
    for i in range(p):
        cut[i] = np.rint(rest)
        rest -= cut[i]
        rest *= 2.0**bits
    return cut, exponents
