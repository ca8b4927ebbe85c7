"""LEACE: the plain head on features from which no linear head can tell the attribute. Needs it of every training row.

Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form" (arXiv 2306.03819); their package is
`concept-erasure`. What is erased is all that a linear head, fitted by any convex loss, could know of the attribute, at
the least distance from the features as they were. Where the attribute tells the label, as a shortcut does, this
overshoots: a core feature is correlated with the attribute as well, and of both the head keeps the difference that is
not, so that it counts the attribute against the label. The default therefore erases what the attribute says under
weights that make it independent of the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from ._convex import ConvexHead, averaged, inverse_frequency
from ._data import Data
from ._declarations import Need, Partition
from ._errors import FitError
from ._features import Features
from ._fit import Fit
from ._once import recalled
from ._solver import solve
from ._supervision import Labels, Supervision
from ._variants import PUBLISHED, Published

RANK = 0.01
"""Singular values of the whitened cross-covariance up to which a direction counts as unrelated, as published."""


class Leace(ConvexHead):
    """The plain head on r(z) = m + P (z - m), m the mean of the features z, with

        P = I - S^(1/2) U U' S^(-1/2),     U the left singular vectors, with values above 0.01, of S^(-1/2) C

    S = cov(z, z) and C = cov(z, one-hot attribute). Then cov(r(z), attribute) = 0, and of all affine maps with that
    property r moves the features least, in the norm of S^(-1) as in any other (their theorem 4.2). S^(1/2) is
    the symmetric root, its inverse the pseudo-inverse. The head is linear in z: W r(z) + b = W P z + (b + W (m - P m)).

    Parameters beyond those of `ConvexHead`
    moments    "balanced": m, S and C weigh every row by n / (number of label x attribute pairs * rows of its pair), so
               that attribute and label are independent; "marginal", as published: all rows alike
    shrinkage  of S towards a multiple of the identity by the optimal linear rule (Bodnar, Gupta and Parolya 2014),
               which the package does by default; it erases as completely, and moves rows otherwise where there are not
               many more of them than features. Only with "marginal" moments: the rule counts rows
    The published variant is "marginal" with shrinkage. The package's guard against growing variance is left out: it
    leaves a trace of the attribute where it acts.

    Fitted values beyond: `erased_`, how many directions were taken out, the number of values less one where
    these are told apart at all.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.GROUPS})
    partition: ClassVar[Partition] = Partition.ATTRIBUTE
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    published: ClassVar[Published | None] = Published("erases under weights that make attribute and label independent")

    erased_: int

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        moments: str = "balanced",
        shrinkage: bool = False,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant)
        self.moments = moments
        self.shrinkage = shrinkage

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        attribute = data.known_groups()
        if attribute.max() == 0:
            raise FitError("Leace got one value of the attribute, so that there is nothing to erase; give two or more")
        kinds = [v._kind() for v in variants]

        def erasing(kind: tuple[bool, bool]) -> tuple[Eraser, Features]:
            balanced, shrunk = kind
            weights = inverse_frequency(pairs(data.y, attribute)) if balanced else np.ones(len(data.y))
            eraser = Eraser.of(data.features, attribute, weights, shrunk)
            return eraser, Features.identity(eraser.applied(data.features), data.features.device)

        fits: dict[int, Fit] = {}
        for kind in dict.fromkeys(kinds):
            mine = [i for i, other in enumerate(kinds) if other == kind]
            ((eraser, erased),) = recalled(data.memory, [("erased", *kind)], lambda _, kind=kind: [erasing(kind)])
            solutions = solve(erased, data.y, [np.ones(len(data.y))], [variants[i]._problem(0) for i in mine])
            for i, solution in zip(mine, solutions, strict=True):
                fits[i] = eraser.folded(averaged([solution])).having(erased_=eraser.left.shape[1])
        return [fits[i] for i in range(len(variants))]

    def _kind(self) -> tuple[bool, bool]:
        """(balanced, shrunk) moments."""
        if self.variant == PUBLISHED:
            return False, True
        if self.moments not in ("balanced", "marginal"):
            raise FitError(f"moments must be 'balanced' or 'marginal', found {self.moments!r}")
        if self.shrinkage and self.moments == "balanced":
            raise FitError("shrinkage goes with moments='marginal' only, whose rows all count the same")
        return self.moments == "balanced", self.shrinkage


class Eraser:
    """r(z) = z - left right (z - mean): mean (d,), left (d, r), right (r, d), float64."""

    def __init__(self, mean: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
        self.mean, self.left, self.right = mean, left, right

    @classmethod
    def of(cls, features: Features, codes: np.ndarray, weights: np.ndarray, shrunk: bool) -> Eraser:
        """From rows with codes (n,) of an attribute and weights (n,); `shrunk` asks for rows of equal weights."""
        share, n = weights / weights.sum(), len(codes)
        one_hot = np.eye(codes.max() + 1)[codes]
        mean = np.zeros(features.d)
        for part, Z in features.blocks():
            mean += share[part] @ Z.double().cpu().numpy()
        S, C = np.zeros((features.d, features.d)), np.zeros((features.d, one_hot.shape[1]))
        for part, Z in features.blocks():
            apart = Z.double().cpu().numpy() - mean
            weighted = (share[part, None] * apart).T
            S += weighted @ apart
            C += weighted @ (one_hot[part] - share @ one_hot)
        values, V = np.linalg.eigh(shrunken(S, n) if shrunk else S * n / (n - 1))
        kept = values > values[-1] * features.d * np.finfo(features.X.dtype).eps
        values, V = values[kept], V[:, kept]
        U, s, _ = np.linalg.svd((V / np.sqrt(values)) @ (V.T @ (C * n / (n - 1))), full_matrices=False)
        U = U[:, s > RANK]
        return cls(mean, (V * np.sqrt(values)) @ (V.T @ U), (U.T @ V / np.sqrt(values)) @ V.T)

    def applied(self, features: Features) -> np.ndarray:
        """(n, d) r(z) of all rows, in their precision."""
        out = np.empty((features.n, features.d), features.X.dtype)
        for part, Z in features.blocks():
            rows = Z.cpu().numpy()
            out[part] = rows - ((rows - self.mean) @ self.right.T) @ self.left.T
        return out

    def folded(self, fit: Fit) -> Fit:
        """The same head on features that were not erased."""
        W, b = fit.theta
        return fit.having(coef=W - W @ self.left @ self.right, intercept=b + W @ (self.left @ (self.right @ self.mean)))


def pairs(y: np.ndarray, attribute: np.ndarray) -> np.ndarray:
    """(n,) codes of the pairs of label and attribute that occur."""
    return np.unique(y * (attribute.max() + 1) + attribute, return_inverse=True)[1]


def shrunken(S: np.ndarray, n: int) -> np.ndarray:
    """a S + (1 - a) T, T = I tr(S) / d, a = 1 - tr(S)^2 / n / (||S||^2 - ||T||^2), for S (d, d) of n rows.

    The optimal linear shrinkage of Bodnar, Gupta and Parolya 2014 with the multiple of the identity as its target.
    """
    T = np.eye(len(S)) * np.trace(S) / len(S)
    apart = (S**2).sum() - (T**2).sum()
    a = min(max(1 - np.trace(S) ** 2 / n / apart, 0.0), 1.0) if apart > 0 else 0.0
    return a * S + (1 - a) * T
