"""LEIA: a head adapted only along the directions in which its errors spread. Needs no group labels.

Gourabathina et al. 2026, "Robustness Beyond Known Groups with Low-rank Adaptation" (arXiv 2602.06924). A first head
says which rows it finds hard; the leading principal directions of the rows, weighted so, span what is adapted, on
rows of another part. The definition is that of the authors' code, where the method is also called MARLA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackError, eigsh
from scipy.special import softmax

from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._features import Features
from ._fit import Fit
from ._head import LinearHead
from ._inference import First, logits_of
from ._losses import Logistic
from ._once import once, recalled
from ._problem import Solution
from ._two_stage import Halves, first_solutions, part_of
from ._variants import PUBLISHED, Published

RATE, LONGEST = 0.01, 1.0
"""Of a step; the length to which its gradient is cut."""


FEW = 8
"""From so many times fewer directions than features on, Lanczos finds them faster: 20 of 2,048 in a sixth."""


class Leia(LinearHead):
    """W = W_1 + (V A)', b = b_1: W_1, b_1 a plain first head, V (d, rank) the leading eigenvectors of

        sum_i mu_i (z_i - m)(z_i - m)',   mu_i proportional to exp(gamma (1 - p_i)),   m = sum_i mu_i z_i

    over rows i of the first part, p_i the first head's probability of the row's label, sum mu_i = 1; and A (rank, k)
    after some gradient steps from 0 on sum_j mu_j loss_j over rows j of the second part, with weights of the same
    make. A step is 0.01 times the gradient, which is cut to length 1.

    Parameters
    gamma     >= 0; published: 5, 10, 15, 20
    rank      directions, at most d; published: 1, 5, 10, 20
    steps     published: 1,000 at most, stopped where the worst group of validation is best
    first_C   of the first head
    share     of each class in the first part (published: 0.8)
    seen      whether the first head is fitted on the second part too, as the published variant does; where it separates
              the rows it errs on none of them then, and all count the same
    tol, max_iter  of the first head; the rest as in `Head`, the seed draws the parts

    Fitted values beyond those of `LinearHead`: `directions_` (d, rank), V; `spread_`, the share of the weighted
    variance that lies along them; `n_iter_`, iterations of the first head.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"gamma": gamma, "rank": rank, "steps": steps}
        for gamma in (5.0, 10.0, 15.0, 20.0) for rank in (1, 5, 10, 20) for steps in (30, 100, 300, 1000)
    )  # fmt: skip
    grows: ClassVar[Mapping[str, tuple[float, float]]] = {}
    published: ClassVar[Published | None] = Published("the first head does not see the rows that adapt it")

    directions_: np.ndarray
    spread_: float
    n_iter_: int

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        gamma: float = 10.0,
        rank: int = 10,
        steps: int = 1000,
        first_C: float = 0.01,
        share: float = 0.8,
        seen: bool = False,
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(standardize, random_state, variant)
        self.gamma = gamma
        self.rank = rank
        self.steps = steps
        self.first_C = first_C
        self.share = share
        self.seen = seen
        self.tol = tol
        self.max_iter = max_iter

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            v._check()
        halves = [Halves(v.share, v.random_state) for v in variants]
        seconds = {half: half.second(data.y, data.clusters) for half in dict.fromkeys(halves)}
        asked = [
            (First(v.first_C, tol=v.tol, max_iter=v.max_iter), None if v.seen or v.variant == PUBLISHED else half)
            for v, half in zip(variants, halves, strict=True)
        ]
        firsts, at = first_solutions(data, asked, seconds)
        ways, way_of = once(list(zip(halves, asked, strict=True)), lambda i: (halves[i], firsts[at[i]]))

        def parts(places: list[int]) -> list[tuple[Part, Part]]:
            """The rows along whose errors heads are adapted, and those that adapt them."""
            both = []
            for half, first in (ways[i] for i in places):
                rest = np.setdiff1d(np.arange(len(data.y)), seconds[half])
                both.append((Part.of(data, rest, first), Part.of(data, seconds[half], first)))
            return both

        keys = [("parts", halves[i], asked[i]) for i in map(way_of.index, range(len(ways)))]
        fits: dict[int, Fit] = {}
        for w, (base, part) in enumerate(recalled(data.memory, keys, parts)):
            mine = [i for i, way in enumerate(way_of) if way == w]
            fits |= zip(mine, adapted(ways[w][1], base, part, [variants[i] for i in mine]), strict=True)
        return [fits[i] for i in range(len(variants))]

    def _check(self) -> None:
        if not self.gamma >= 0:
            raise FitError(f"gamma must be at least 0, found {self.gamma}")
        if self.rank < 1:
            raise FitError(f"rank must be at least 1, found {self.rank}")


class Part:
    """Some rows: their features, labels y (n,) and the logits (n, k) that a first head gives them."""

    def __init__(self, features: Features, y: np.ndarray, logits: np.ndarray) -> None:
        self.features, self.y, self.logits = features, y, logits
        self._spans: dict[tuple[float, int], tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def of(cls, data: Data, rows: np.ndarray, first: Solution) -> Part:
        """These rows of the training rows."""
        features = part_of(data.features, rows)
        return cls(features, data.y[rows], logits_of(features, [first])[0])

    def attention(self, gamma: float) -> np.ndarray:
        """(n,) weights of sum 1, proportional to exp(gamma (1 - p)), p the probability of the label."""
        p = softmax(self.logits, axis=1)[np.arange(len(self.y)), self.y]
        weights = np.exp(gamma * (p.min() - p))
        return weights / weights.sum()

    def span(self, gamma: float, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """(d, rank) leading directions of the errors, and the shares of the variance along them; found once."""
        if (gamma, rank) not in self._spans:
            self._spans[gamma, rank] = self._directions(self.attention(gamma), rank)
        return self._spans[gamma, rank]

    def _directions(self, weights: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """(d, rank) leading eigenvectors of the weighted covariance, and the shares of the variance along them."""
        import torch

        d = self.features.d
        mu = torch.from_numpy(weights).to(self.features.device, self.features.dtype)
        mean = sum(mu[part] @ Z for part, Z in self.features.blocks())
        S = np.zeros((d, d))
        for part, Z in self.features.blocks():
            apart = (mu[part, None].sqrt() * (Z - mean)).cpu().numpy()
            S += apart.T @ apart  # which numpy knows to be symmetric, at half the cost
        values, V = leading(S, min(rank, d))
        return V[:, ::-1], values[::-1] / max(np.trace(S), np.finfo(float).tiny)


def leading(S: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of S (d, d), ascending, and their vectors (d, rank); by Lanczos where they are few."""
    d = len(S)
    if FEW * rank < d:
        try:
            values, V = eigsh(S, rank, which="LA", v0=np.ones(d))
            order = values.argsort()
            return values[order], V[:, order]
        except ArpackError:  # of a matrix of lower rank, such as 0
            pass
    return eigh(S, subset_by_index=(d - rank, d - 1))


def adapted(first: Solution, base: Part, part: Part, heads: Sequence[Leia]) -> list[Fit]:
    """The first head adapted as each of `heads` asks: along the errors of `base`, by steps on `part`; all together."""
    gammas, ranks = list(dict.fromkeys(h.gamma for h in heads)), list(dict.fromkeys(h.rank for h in heads))
    spans = [base.span(gamma, max(ranks)) for gamma in gammas]
    path = descended(part, [V for V, _ in spans], [part.attention(g) for g in gammas], ranks, {h.steps for h in heads})
    fits = []
    for head in heads:
        V, shares = (values[..., : head.rank] for values in spans[gammas.index(head.gamma)])
        A = path[head.steps][gammas.index(head.gamma), ranks.index(head.rank)][:, : V.shape[1]]
        coef = first.coef + A @ V.T
        fine = first.converged and bool(np.isfinite(coef).all())
        more = {"directions_": V.copy(), "spread_": float(shares.sum()), "n_iter_": first.iterations}
        fits.append(Fit(fine, coef, first.intercept.copy(), more))
    return fits


def descended(
    part: Part, spans: Sequence[np.ndarray], weights: Sequence[np.ndarray], ranks: Sequence[int], stops: set[int]
) -> dict[int, np.ndarray]:
    """{step: A (g, r, 1 or k, R)} after gradient steps on sum_j mu_j loss_j, for g spans (d, R) and weights mu (n,).

    Of the R directions the r ranks use the first so many. Two classes have one logit, that of the second less that of
    the first, which moves twice as far as either.
    """
    import torch

    features, k = part.features, part.logits.shape[1]
    like = {"dtype": features.dtype, "device": features.device}
    Z = features.take(np.arange(features.n)) @ torch.tensor(np.stack(spans), **like)  # (g, n, R)
    F0 = part.logits[:, 1:] - part.logits[:, :1] if k == 2 else part.logits
    F0 = torch.tensor(F0.T.copy(), **like)[None, None]
    loss = Logistic(
        torch.from_numpy(part.y)[None].to(features.device), torch.tensor(np.stack(weights), **like)[:, None]
    )
    used = (torch.arange(Z.shape[2])[None, :] < torch.tensor(ranks)[:, None]).to(**like)[None, :, None]
    A = torch.zeros((len(spans), len(ranks), F0.shape[2], Z.shape[2]), **like)
    g, r, outputs, R = A.shape
    both, path = 2 if k == 2 else 1, {}
    for step in range(1, max(stops) + 1):
        F = F0 + torch.bmm(A.view(g, r * outputs, R), Z.mT).view(g, r, outputs, -1)
        gradient = torch.bmm(loss.residual(F)[0].reshape(g, r * outputs, -1), Z).view(A.shape) * used
        length = both**0.5 * torch.linalg.vector_norm(gradient, dim=(2, 3), keepdim=True)
        A = A - RATE * both * gradient * (LONGEST / length.clamp_min(LONGEST))
        if step in stops:
            path[step] = A.double().cpu().numpy()
    return path
