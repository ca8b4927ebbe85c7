"""DPE: an ensemble of prototype classifiers, each led away from those before it. No group labels; it is not linear.

To et al. 2025, "Diverse Prototypical Ensembles Improve Robustness to Subpopulation Shift" (ICML; arXiv 2505.23027); the
numbers are those of their package `dpe`. Every member learns one prototype for each class on another class-balanced
draw of validation rows; that prototypes of a class should be uncorrelated makes members lean on other features. Their
variant on group-balanced draws is not here: it is what `dfr` is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._data import Data
from ._declarations import ChosenBy
from ._draws import balanced_draws
from ._errors import FitError
from ._fit import Fit
from ._head import Head
from ._logits import Affine, standardised
from ._prompts import Prompts, embedded
from ._supervision import On

BATCH, RATE, MOMENTUM = 256, 1e-3, 0.9
LENGTH, FALL = 10.0, 0.05
"""What the mean squared length of a member's prototypes counts; how the weight of diversity falls with the members."""
NEAR = 1e-6
"""Least distance that counts, below which its gradient has no direction."""


class Dpe(Head):
    """p(c | x) = mean_m softmax_c(-s_m ||u - q_mc||),  u and q_mc of length 1

    u = x less the mean of its d features, brought to length 1; q_mc is the prototype p_mc of member m for class c,
    likewise; s_m a scale. Members are fitted in turn, by stochastic gradient descent (batches of 256 rows or, of fewer,
    all; rate 1e-3, momentum 0.9) from p of normal numbers of spread 0.01 and s = 1, on

        mean_i loss(-sharpness s ||u_i - q_c||, y_i) + 10 mean_c ||p_c||^2
          + diversity / (1 + 0.05 max(m - 2, 0)) |mean_c <p_c, sum_{j < m} p_jc>| / ((d - 1) m),      m = 1, 2, ...

    over the rows of a draw that holds as many of every class; rows that fill no batch are left out of an epoch. Of a
    member's epochs that one is kept after which the worst class is best on all rows that are fitted, the last of equals
    (the package takes the worst group, for which it needs group labels).

    Parameters
    members      published: 15
    epochs       of each member; published: 20
    sharpness    above 0, of the training loss alone; published: 30, and 10 in the paper's script
    diversity    >= 0; published: 5e4, and 1e5 in the paper's script, for d = 2,048: of fewer features it moves more
    standardize  published: no; prototypes of length 1 tell no classes apart whose rows lie on one side of the origin
    random_state as in `Head`

    Fitted values beyond those of `Head`: `prototypes_` (members, k, d), of length 1, and `scales_` (members,).
    """

    fits_on: ClassVar[On] = On.VALIDATION
    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    stored: ClassVar[Mapping[str, tuple[str, ...]]] = {"prototypes_": ("members", "k", "d"), "scales_": ("members",)}

    prototypes_: np.ndarray
    scales_: np.ndarray

    def __init__(
        self,
        members: int = 15,
        epochs: int = 20,
        sharpness: float = 30.0,
        diversity: float = 5e4,
        standardize: bool = False,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(standardize, random_state, variant)
        self.members = members
        self.epochs = epochs
        self.sharpness = sharpness
        self.diversity = diversity

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            v._check()
        Z = np.concatenate([part.double().cpu().numpy() for _, part in data.features.blocks()])
        fits, U = [], directions(Z).astype(data.features.X.dtype)
        for v in variants:
            rng, members = check_random_state(v.random_state), list[Member]()
            for _ in range(v.members):
                (draw,) = balanced_draws(data.y, 1, rng, data.clusters)
                member = Member(data.k, members, v, rng, data.features.d)
                members.append(member.fitted(U, data.y, np.flatnonzero(draw), rng))
            prototypes, scales = np.stack([m.units for m in members]), np.array([abs(m.scale) for m in members])
            fine = bool(np.isfinite(prototypes).all() and np.isfinite(scales).all())
            fits.append(Fit(fine, more={"prototypes_": prototypes, "scales_": scales}))
        return fits

    def decision_function(self, X: Any) -> np.ndarray:
        """(n,) log-odds of the second class for two classes, (n, k) log-probabilities for more."""
        check_is_fitted(self, "prototypes_")
        U = directions(standardised(self._rows(X), self.mean_, self.scale_))
        m, k, d = self.prototypes_.shape
        cosines = Affine.plain(self.prototypes_.reshape(m * k, d)).logits(U).reshape(-1, m, k)
        logits = np.asarray(logsumexp(log_softmax(-self.scales_[:, None] * distances(cosines), axis=2), axis=1))
        return logits[:, 1] - logits[:, 0] if k == 2 else logits - np.log(m)

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's checks have two features, of which one sign is left once their mean is taken off."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def _check(self) -> None:
        for name, fine, wanted in (
            ("members", self.members >= 1, "at least 1"), ("epochs", self.epochs >= 1, "at least 1"),
            ("sharpness", self.sharpness > 0, "above 0"), ("diversity", self.diversity >= 0, "at least 0"),
        ):  # fmt: skip
            if not fine:
                raise FitError(f"{name} must be {wanted}, found {getattr(self, name)}")


class Member:
    """Prototypes p (k, d) and a scale, led away from `others`, the sum (k, d) of the prototypes before them."""

    def __init__(self, k: int, before: Sequence[Member], head: Dpe, rng: np.random.RandomState, d: int) -> None:
        number = len(before) + 1
        self.p, self.scale, self.head = rng.normal(scale=0.01, size=(k, d)), 1.0, head
        self.others = sum((m.p for m in before), np.zeros((k, d)))
        fall = 1 + FALL * max(number - 2, 0)
        self.apart = head.diversity / fall / (max(d - 1, 1) * number * k) if before else 0.0

    @property
    def units(self) -> np.ndarray:
        """(k, d) the prototypes, of length 1."""
        return self.p / np.linalg.norm(self.p, axis=1, keepdims=True)

    def fitted(self, U: np.ndarray, y: np.ndarray, rows: np.ndarray, rng: np.random.RandomState) -> Member:
        """Itself after its best epoch on these rows of U (n, d), judged on all."""
        speed, best = [np.zeros_like(self.p), 0.0], (-1.0, self.p, self.scale)
        size = min(BATCH, len(rows))
        for _ in range(self.head.epochs):
            order = rng.permutation(rows)
            for start in range(0, len(rows) - size + 1, size):
                batch = order[start : start + size]
                gradients = self.gradients(U[batch], y[batch])
                speed = [MOMENTUM * v + g for v, g in zip(speed, gradients, strict=True)]
                self.p, self.scale = self.p - RATE * speed[0], self.scale - RATE * speed[1]
            right = (U @ self.units.astype(U.dtype).T).argmax(axis=1) == y
            worst = float((np.bincount(y, weights=right) / np.bincount(y)).min())
            if worst >= best[0]:
                best = worst, self.p, self.scale
        _, self.p, self.scale = best
        return self

    def gradients(self, U: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        """Of the loss of the rows U (b, d), by the prototypes and by the scale."""
        sharpness, q = self.head.sharpness, self.units
        D = distances((U @ q.astype(U.dtype).T).astype(float))
        R = (softmax(-sharpness * abs(self.scale) * D, axis=1) - np.eye(len(q))[y]) / len(U)
        by_unit = ((sharpness * abs(self.scale) * R / D).astype(U.dtype).T @ U).astype(float)
        by_p = (by_unit - (by_unit * q).sum(axis=1, keepdims=True) * q) / np.linalg.norm(self.p, axis=1, keepdims=True)
        by_p += 2 * LENGTH / len(q) * self.p
        by_p += self.apart * np.sign((self.p * self.others).sum()) * self.others
        return by_p, -sharpness * float(np.sign(self.scale)) * float((R * D).sum())


def directions(Z: np.ndarray) -> np.ndarray:
    """(n, d) rows less their mean, of length 1, each computed by itself; what is 0 stays 0."""
    return embedded(Z - Z.mean(axis=1, keepdims=True), Prompts(np.empty((0, 0)), None, 1.0))


def distances(cosines: np.ndarray) -> np.ndarray:
    """Distances of vectors of length 1 with these cosines."""
    return np.sqrt(np.maximum(2 - 2 * cosines, NEAR**2))
