"""SELF: a head fine-tuned on held-out rows where it and an earlier stage of it disagree most. Needs no group labels.

LaBonte et al. 2023, "Towards Last-Layer Retraining for Group Robustness with Fewer Annotations" (arXiv 2309.08534),
early-stop disagreement: the authors take half of validation for it, and the other half chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import log_softmax

from ._convex import ConvexHead, inverse_frequency
from ._data import Data, HeldOut
from ._declarations import ChosenBy, Need
from ._errors import FitError
from ._features import Features
from ._fit import Fit
from ._inference import First, early_heads, logits_of
from ._once import once
from ._path import Steps, fit_of, walked, weighted
from ._problem import Solution
from ._supervision import Labels, On, Supervision
from ._two_stage import first_solutions
from ._variants import PUBLISHED, Published

RATES = (1e-4, 1e-3, 1e-2)


class SelfDisagreement(ConvexHead):
    """Gradient steps from theta_1 on n of the held-out rows, classes of equal mass; coefficients and intercept alike.

    theta_1 is a plain head fitted on all rows of X; the n rows are those with the largest KL(p_early || p), p its
    probabilities and p_early those of a plain head that is stopped early on the same rows. There is no regularisation
    but the number of steps. They are of all n rows at once, with momentum 0.9.
    Variant "published" steps without momentum, which the authors set in a way that does not reach torch's optimiser,
    and with an output for each class, for two as well; but not in batches of 32, nor with their weight decay of 1e-4.

    Parameters
    n              rows to fine-tune on, or all there are (published: 20, 100, 500)
    learning_rate  length of a step (published: 1e-4, 1e-3, 1e-2); steps: how many (published: 250)
    first_steps    after which the early head is stopped (published: the first, second or fifth of a hundred epochs)
    by_class       take n / k rows of each of the k classes; without, as published, the n rows whatever their class; a
                   class that they lack has no mass then
    C              of theta_1, `penalty` "l2" only; the rest as in `ConvexHead`

    Fitted values beyond: `rows_`, the held-out rows that were fine-tuned on, the largest disagreement first;
    `disagreements_`, theirs, in nats.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.HELD_OUT})
    supervision: ClassVar[tuple[Supervision, ...]] = (
        Supervision(Labels.OTHER, On.VALIDATION, source="class labels on validation, to fit"),
    )
    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"learning_rate": rate, "steps": s, "n": n, "first_steps": first}
        for s in (10, 30, 100, 250) for rate in (*RATES, 0.1) for n in (20, 100, 500) for first in (1, 3, 10)
    )  # fmt: skip
    published: ClassVar[Published | None] = Published(
        "steps with momentum, also larger and fewer ones",
        tuple(
            {"learning_rate": rate, "steps": 250, "n": n, "first_steps": first}
            for rate in RATES for n in (20, 100, 500) for first in (1, 3, 10)
        ),
    )  # fmt: skip

    rows_: np.ndarray
    disagreements_: np.ndarray

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 0.01,
        n: int = 100,
        learning_rate: float = 1e-2,
        steps: int = 250,
        first_steps: int = 3,
        by_class: bool = False,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant, steps)
        self.n = n
        self.learning_rate = learning_rate
        self.first_steps = first_steps
        self.by_class = by_class

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        if other := {v.penalty for v in variants} - {"l2"}:
            raise FitError(f"SelfDisagreement fits its first head with penalty 'l2' only, found {min(other)!r}")
        final, start = first_solutions(data, [(First.asked(v, v.C), None) for v in variants], {})
        heads = early_heads(data, [v.first_steps for v in variants])
        before, early = [*heads.values()], [[*heads].index(v.first_steps) for v in variants]
        fits: dict[int, Fit] = {}
        for place, held_out in enumerate(data.held_out):
            mine = [i for i in range(len(variants)) if data.steered_by[i] == place]
            some = [(variants[i], start[i], early[i]) for i in mine]
            fits |= zip(mine, _fine_tuned(data, held_out, some, final, before), strict=True)
        return [fits[i] for i in range(len(variants))]


def _fine_tuned(
    data: Data,
    held_out: HeldOut,
    variants: Sequence[tuple[SelfDisagreement, int, int]],
    final: Sequence[Solution],
    before: Sequence[Solution],
) -> list[Fit]:
    """Fits of variants, each with the places of its first head and of its early one, on the same held-out rows."""
    import torch

    part, y = Features.identity(held_out.X, data.features.device), held_out.y
    logs = log_softmax(logits_of(part, [*final, *before]), axis=2)

    def chosen(i: int) -> tuple[np.ndarray, np.ndarray]:
        v, first, early = variants[i]
        apart = divergence(logs[len(final) + early], logs[first])
        rows = most(apart, y, v.n, v.by_class, data.k)
        return rows, apart[rows]

    drawn, of = once([(first, early, v.n, v.by_class) for v, first, early in variants], chosen)
    ways, at = once(
        [(first, o, v.learning_rate) for (v, first, _), o in zip(variants, of, strict=True)],
        lambda i: (variants[i][1], of[i], variants[i][0].learning_rate),
    )
    theta = np.array([np.column_stack([final[first].coef, final[first].intercept]) for first, _, _ in ways])
    start = torch.from_numpy(theta).to(part.device, part.dtype)
    v = torch.from_numpy(np.array([balanced(drawn[o][0], y) for _, o, _ in ways])).to(start)
    asked = [(w, one.steps) for w, (one, _, _) in zip(at, variants, strict=True)]
    residual = weighted(torch.from_numpy(y).to(start.device), v)
    rates = np.array([rate for _, _, rate in ways])
    published = variants[0][0].variant == PUBLISHED
    steps = Steps(rates, momentum=0.0).of_layer(data.k) if published else Steps(rates)
    thetas = walked(part, start, residual, asked, steps)
    fits = []
    for (w, stop), o, (_, first, _) in zip(asked, of, variants, strict=True):
        fit = fit_of(thetas[w, stop], rows_=drawn[o][0], disagreements_=drawn[o][1], n_iter_=stop)
        fits.append(fit.having(converged=fit.converged and final[first].converged))
    return fits


def balanced(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(m,) weights of classes y (m,): those rows alone, every class that they hold of equal mass, sum 1."""
    weights = np.zeros(len(y))
    weights[rows] = inverse_frequency(y[rows]) / len(rows)
    return weights


def divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """(m,) KL(p || q) = sum_c p_c (log p_c - log q_c) of log probabilities (m, k)."""
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def most(apart: np.ndarray, y: np.ndarray, n: int, by_class: bool, k: int) -> np.ndarray:
    """Rows of the n largest values, or of the n / k largest of each of k classes, the largest first.

    Raises `FitError` where there would be no row.
    """
    if n < (k if by_class else 1):
        raise FitError(f"n must be at least {k if by_class else 1}, found {n}")
    rows = np.argsort(-apart, kind="stable")
    if not by_class:
        return rows[:n]
    return rows[np.isin(rows, np.concatenate([rows[y[rows] == c][: n // k] for c in range(k)]))]
