"""What heads in the space of text prompts share."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._declarations import Need
from ._fit import Fit
from ._head import Head
from ._logits import Affine
from ._prompts import Prompts, embedded
from ._supervision import Labels, Supervision


class TextHead(Head):
    """logits = W u + b with u = scale * z / ||z||, z = x P, for the projection P (d, p) and the scale of the prompts.

    Features are not standardised: their length is divided out. Fitted values beyond those of `Head`: `prompts_`, and
    `coef_` (1 or k, p) and `intercept_` in the coordinates u.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PROMPTS})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.PROMPTS),)

    prompts_: Prompts
    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(self, random_state: int | None = None, variant: str = "default") -> None:
        super().__init__(standardize=False, random_state=random_state, variant=variant)

    def decision_function(self, X: Any) -> np.ndarray:
        """(n,) logit of the second class for two classes, (n, k) logits for more."""
        check_is_fitted(self, "coef_")
        logits = Affine.plain(self.coef_, self.intercept_).logits(embedded(self._rows(X), self.prompts_))
        return logits[:, 0] if len(self.classes_) == 2 else logits


def zero_shot(prompts: Prompts) -> Fit:
    """W: the text vectors, or for two classes the second less the first; b = 0."""
    W = prompts.text[1:] - prompts.text[:1] if len(prompts.text) == 2 else prompts.text
    return Fit(True, W, np.zeros(len(W)), {"prompts_": prompts})
