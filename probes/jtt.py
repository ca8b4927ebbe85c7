"""JTT: the rows that a first head gets wrong count more for the second. Needs no group labels.

Liu et al. 2021, "Just Train Twice: Improving Group Robustness without Training Group Information" (arXiv 2107.09044).
There (`variant="published"`) the first head is kept from fitting its own training rows by stopping it early; on strong
features a head fits them all the same and there is no error left. Here regularisation (`first_C`) takes the place of
stopping, and the errors are by default those on rows that the first head was not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import ConvexHead, weighted_fits
from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._fit import Fit
from ._inference import First, early_logits, effective_size, first_logits, misclassified
from ._once import content, once
from ._path import STOPS, stopped_fits
from ._variants import Published


class Jtt(ConvexHead):
    """w_i = u where the first head errs and 1 elsewhere, divided by their mean: `C` weighs n rows, as in all heads.

    Parameters beyond those of `ConvexHead`
    upweight      lambda >= 0; published: 20, 50, 100
    first_C       of the first head, which is plain; published runs give both stages the same regularisation, and so
                  does the grid
    errors        "out-of-fold": of first heads that were fitted without the row; "in-sample": of one fitted on all
                  rows, as published
    folds         of "out-of-fold"
    multiplicity  "weight": u = lambda (Idrissi et al. 2022); "copies": u = 1 + lambda, as in the original code, which
                  appends lambda copies of every error to the rows that are there
    no_errors     "refuse", or "plain": what to do when the first head makes no error
    first_steps   of variant "published": steps after which the first head is stopped, whose errors count 1 + `upweight`
                  times in the steps of the second; without any error these are those of the plain head

    Fitted values beyond: `inferred_groups_` (n,), 1 for an error; `effective_sample_size_`, how many equally weighted
    rows the weights are worth. Label noise is upweighted like any other error.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"C": C, "first_C": C, "upweight": u} for C in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0) for u in (20.0, 50.0, 100.0)
    )

    published: ClassVar[Published | None] = Published(
        "solved on out-of-fold errors; the authors stop both heads early, on errors of rows that are fitted",
        tuple(
            {"first_steps": first, "upweight": u, "steps": s}
            for s in STOPS for first in (1, 3, 10, 30, 100) for u in (20.0, 50.0, 100.0)
        ),
    )  # fmt: skip

    inferred_groups_: np.ndarray
    effective_sample_size_: float

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        upweight: float = 20.0,
        first_C: float = 1e-3,
        errors: str = "out-of-fold",
        folds: int = 5,
        multiplicity: str = "weight",
        no_errors: str = "refuse",
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
        first_steps: int = 10,
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant, steps)
        self.upweight = upweight
        self.first_C = first_C
        self.errors = errors
        self.folds = folds
        self.multiplicity = multiplicity
        self.no_errors = no_errors
        self.first_steps = first_steps

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        firsts = [First.asked(v, v.first_C, v.errors, v.folds) for v in variants]
        factors = [v._factor() for v in variants]
        sets = {
            first: misclassified(logits, data.y)
            for first, logits in zip(firsts, first_logits(data, firsts), strict=True)
        }
        for v, first in zip(variants, firsts, strict=True):
            first.refuse_one_group(sets[first], v.no_errors)

        return self._attending(data, variants, [sets[f] for f in firsts], factors, weighted_fits)

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        logits = early_logits(data, [v.first_steps for v in variants])
        sets = [misclassified(logits[v.first_steps], data.y) for v in variants]

        def stopped(data: Data, variants: Sequence[Self], weightings: list[np.ndarray], at: list[int]) -> list[Fit]:
            return stopped_fits(data, weightings, at, [v.steps for v in variants])

        return self._attending(data, variants, sets, [1 + v.upweight for v in variants], stopped)

    @staticmethod
    def _attending(
        data: Data, variants: Sequence[Jtt], sets: Sequence[np.ndarray], factors: Sequence[float], fit: Any
    ) -> list[Fit]:
        """Fits, by `fit`, with each variant's error set (n,) counting its factor."""

        def weighting(i: int) -> np.ndarray:
            w = np.where(sets[i] == 1, factors[i], 1.0)
            return (w / w.mean())[None]

        weightings, at = once([(content(s), f) for s, f in zip(sets, factors, strict=True)], weighting)
        return [
            fit.having(inferred_groups_=errors, effective_sample_size_=effective_size(weightings[i]))
            for fit, errors, i in zip(fit(data, variants, weightings, at), sets, at, strict=True)
        ]

    def _factor(self) -> float:
        if self.multiplicity not in ("weight", "copies"):
            raise FitError(f"multiplicity must be 'weight' or 'copies', found {self.multiplicity!r}")
        factor = self.upweight + (self.multiplicity == "copies")
        if not factor > 0:
            raise FitError(f"an error must count something: its weight would be {factor:g}; raise upweight")
        return factor
