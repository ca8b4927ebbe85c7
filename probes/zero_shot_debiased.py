"""Zero-shot with what is spurious projected out of the text. Needs prompts of the classes and of what is spurious.

Chuang et al. 2023, "Debiasing Vision-Language Models via Biased Prompts" (arXiv 2302.00070). No label is used, and no
image: the training rows only say which classes there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ._data import Data
from ._declarations import ChosenBy, Need
from ._errors import FitError
from ._fit import Fit
from ._prompts import Prompts
from ._text_head import TextHead, zero_shot
from ._variants import Published


class ZeroShotDebiased(TextHead):
    """logit_c = scale * cos(x P, T t_c) for the text vector t_c of class c, the projection P and the model's scale:

        T = I - Q Q'                                     `projection` "orthogonal": Q spans the spurious texts
        T = (I - Q Q') (I + strength M)^-1               "calibrated": M = mean over pairs of (a - b)(a - b)'

    a, b unit vectors of texts that differ in what is spurious, such as "a waterbird on land" and "a waterbird on
    water", which T brings together. Images stay as they are.

    Parameters
    projection  "calibrated", the authors' best, or "orthogonal", which needs no pairs
    strength    >= 0; published: 1,000
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PROMPTS, Need.SPURIOUS_PROMPTS})
    chosen_by: ClassVar[ChosenBy] = ChosenBy.AVERAGE
    published: ClassVar[Published | None] = Published()
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def __init__(
        self,
        projection: str = "calibrated",
        strength: float = 1000.0,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(random_state=random_state, variant=variant)
        self.projection = projection
        self.strength = strength

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        prompts = data.known_prompts()
        return [zero_shot(prompts._replace(text=v._debiased(prompts))) for v in variants]

    def _debiased(self, prompts: Prompts) -> np.ndarray:
        """(k, p) unit text vectors of the classes."""
        if self.projection not in ("calibrated", "orthogonal"):
            raise FitError(f"projection must be 'calibrated' or 'orthogonal', found {self.projection!r}")
        if not self.strength >= 0:
            raise FitError(f"strength must be at least 0, found {self.strength}")
        text = prompts.text
        if self.projection == "calibrated":
            if prompts.pairs is None or not len(prompts.pairs):
                raise FitError(
                    "the calibrated projection needs pairs of texts that differ in what is spurious, such as those of "
                    "the groups of a class; give them, or take projection='orthogonal'"
                )
            apart = prompts.pairs[:, 0] - prompts.pairs[:, 1]
            M = apart.T @ apart / len(apart)
            text = np.linalg.solve(np.eye(len(M)) + self.strength * M, text.T).T
        assert prompts.spurious is not None  # `fit` has refused already
        _, s, V = np.linalg.svd(prompts.spurious, full_matrices=False)
        Q = V[s > s.max(initial=0) * max(prompts.spurious.shape) * np.finfo(float).eps]
        before, text = text, text - (text @ Q.T) @ Q
        lengths = np.linalg.norm(text, axis=1, keepdims=True)
        if (lost := lengths[:, 0] <= 1e-9 * np.linalg.norm(before, axis=1)).any():
            raise FitError(
                f"nothing is left of the text of class {int(lost.argmax())} (counted from 0) without what is spurious; "
                "give fewer or other texts of it"
            )
        return text / lengths
