"""WiSE: between the zero-shot head and one fitted from there. Needs prompts and a cache of the same image-text model.

Wortsman et al. 2022, "Robust Fine-tuning of Zero-Shot Models". For two linear heads on the same coordinates a mean of
weights is the mean of logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._convex import averaged
from ._data import Data
from ._errors import FitError
from ._features import Features
from ._fit import Fit
from ._problem import Problem
from ._prompts import embedded
from ._solver import solve
from ._text_head import TextHead, zero_shot
from ._variants import Published

ROWS = 8192


class Wise(TextHead):
    """W = (1 - alpha) W0 + alpha W1, and b likewise: W0, b0 = 0 the zero-shot head and W1, b1 the fitted one,

        min over W1, b1:  1/2 ||W1 - V||^2  +  C sum_i loss(W1 u_i + b1, y_i),     u as in `TextHead`

    alpha  0 is the zero-shot head, 1 the fitted one; published 0, 0.1, ..., 1, and 0.5 without choosing
    C      inverse strength of regularisation, > 0
    start  "zero-shot": V = W0, as fine-tuning starts from there; or "zero": V = 0, a probe without memory of the text
    tol, max_iter as in `ConvexHead`

    Fitted values beyond those of `TextHead`: `n_iter_`, `gradient_` and `converged_` of the fitted head.
    """

    published: ClassVar[Published | None] = Published()
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"alpha": 0.0, "C": 1e-4},
        *({"alpha": i / 10, "C": C} for C in (1e-4, 1e-2, 1.0) for i in range(1, 11)),
    )

    n_iter_: int
    gradient_: float

    def __init__(
        self,
        alpha: float = 0.5,
        C: float = 1.0,
        start: str = "zero-shot",
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(random_state=random_state, variant=variant)
        self.alpha = alpha
        self.C = C
        self.start = start
        self.tol = tol
        self.max_iter = max_iter

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            if not 0 <= v.alpha <= 1:
                raise FitError(f"alpha must lie between 0 and 1, found {v.alpha}")
            if v.start not in ("zero-shot", "zero"):
                raise FitError(f"start must be 'zero-shot' or 'zero', found {v.start!r}")
        prompts, X = data.known_prompts(), data.features.X
        zero = zero_shot(prompts)
        parts = (embedded(np.asarray(X[i : i + ROWS]), prompts).astype(X.dtype) for i in range(0, len(X), ROWS))
        U = np.concatenate(list(parts))
        problems = [
            Problem(0, v.C, tol=v.tol, max_iter=v.max_iter, anchor=0 if v.start == "zero-shot" else None)
            for v in variants
        ]
        standing = Features.identity(U, data.features.device)
        solutions = solve(standing, data.y, np.ones((1, len(U))), problems, anchors=[zero.theta])
        return [_between(zero, averaged([s]), v.alpha) for v, s in zip(variants, solutions, strict=True)]


def _between(zero: Fit, fitted: Fit, alpha: float) -> Fit:
    coef, intercept = ((1 - alpha) * a + alpha * b for a, b in zip(zero.theta, fitted.theta, strict=True))
    return fitted.having(coef=coef, intercept=intercept, **zero.more)
