"""EIIL: two environments in which a first head's invariance is broken the most, then GroupDRO. Needs no group labels.

Creager et al. 2021, "Environment Inference for Invariant Learning" (arXiv 2010.07249). The search for the environments
has a closed form, `environments` in `_inference`: no thousands of gradient steps, and for two classes the second
environment is exactly the set of rows that the first head gets wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import ConvexHead
from ._data import Data
from ._declarations import ChosenBy
from ._fit import Fit
from ._group_objectives import Use, fits_over
from ._inference import First, early_logits, environments, first_logits
from ._online import Online, online_fits
from ._parameters import LADDERS
from ._path import LONGEST, STOPS
from ._variants import PUBLISHED, Published

STOPPED = tuple(
    {"steps": s, "first_steps": first, "eta": eta} for s in STOPS for first in (1, 3, 10, 30) for eta in (0.01, 0.1)
)


class Eiil(ConvexHead):
    """Groups: the environment of a row, or its class and environment, code 2 * class + environment.

    Parameters beyond those of `ConvexHead`
    use        "worst-case": GroupDRO, as published for Waterbirds; "reweight"; "subsample" (class by environment only,
               unless both environments hold all classes)
    by_class   class by environment; without, as published, the two environments are the groups
    first_C    of the first head, which is plain and has to be underfitted: strong regularisation in the place of the
               published single epoch
    errors     "out-of-fold": the first head is asked about rows that it was not fitted on; "in-sample": about those
               that it was, as published
    folds      of "out-of-fold"
    draws      of "subsample"
    no_errors  "refuse", or "plain": what to do when there is one environment only
    first_steps, eta, steps   of variant "published": the first head is stopped after `first_steps`, its environments
               are those on the rows that it was fitted on, and GroupDRO is the published one (`group-dro`)

    Fitted values beyond: `inferred_groups_` (n,); with "worst-case" also `group_weights_`, the worst mixture by group,
    and `gap_`, its duality gap; else `effective_sample_size_`.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = (
        *({"C": C, "first_C": first} for C in (1e-4, 1e-3, 1e-2, 0.1) for first in (1e-4, 1e-2)),
        *({"variant": PUBLISHED} | setting for setting in STOPPED if setting["steps"] <= LONGEST),
    )
    grows: ClassVar[Mapping[str, tuple[float, float]]] = LADDERS | {"steps": (1, STOPS[-1])}
    published: ClassVar[Published | None] = Published(
        "stopped early, as by the authors, or solved on out-of-fold errors", STOPPED,
        without=frozenset({"C", "use", "by_class", "first_C", "errors", "folds", "draws", "no_errors"}),
    )  # fmt: skip

    inferred_groups_: np.ndarray

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1.0,
        use: str = "worst-case",
        by_class: bool = False,
        first_C: float = 1e-3,
        errors: str = "out-of-fold",
        folds: int = 5,
        draws: int = 10,
        no_errors: str = "refuse",
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
        steps: int = 100,
        first_steps: int = 10,
        eta: float = 0.1,
    ) -> None:
        super().__init__(C, penalty, standardize, tol, max_iter, random_state, variant, steps)
        self.use = use
        self.by_class = by_class
        self.first_C = first_C
        self.errors = errors
        self.folds = folds
        self.draws = draws
        self.no_errors = no_errors
        self.first_steps = first_steps
        self.eta = eta

    def __sklearn_tags__(self) -> Any:
        """Tells scikit-learn that this head does not aim at accuracy.

        Where no linear head can get the first head's errors right, both environments cost at least log k, and the
        head with the least worst case is the one that does not decide.
        """
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        firsts = [First.asked(v, v.first_C, v.errors, v.folds) for v in variants]
        codes = {
            first: environments(logits, data.y)
            for first, logits in zip(firsts, first_logits(data, firsts), strict=True)
        }
        by_class = {first: 2 * data.y + environment for first, environment in codes.items()}
        for v, first in zip(variants, firsts, strict=True):
            first.refuse_one_group(codes[first], v.no_errors)
        groups = [(by_class if v.by_class else codes)[first] for v, first in zip(variants, firsts, strict=True)]
        return fits_over(data, variants, groups, [Use(v.use, v.draws, 0.0, v.random_state) for v in variants])

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        logits = early_logits(data, [v.first_steps for v in variants])
        groups = [environments(logits[v.first_steps], data.y) for v in variants]
        ways = [Online(v.eta, 0.0) for v in variants]
        fits = online_fits(data, groups, ways, [v.steps for v in variants])
        return [fit.having(inferred_groups_=g) for fit, g in zip(fits, groups, strict=True)]
