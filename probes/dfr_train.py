"""DFR on train: as DFR, on group-balanced draws of the training rows. Needs group labels on train.

DFR^Tr_Tr of Kirichenko et al. 2023. On frozen features it is group subsampling with an L1 penalty.
"""

from __future__ import annotations

from typing import ClassVar

from ._supervision import Labels, On, Supervision
from ._variants import Published
from .dfr import Dfr


class DfrTrain(Dfr):
    """As `Dfr`, with the 10 draws of the authors' code, and one while C is chosen. Their search over class weights is
    left out, for the draws are balanced already."""

    published: ClassVar[Published | None] = Dfr.published
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.GROUPS),)
    fits_on: ClassVar[On] = On.TRAIN

    def __init__(
        self,
        C: float = 1.0,
        draws: int = 10,
        penalty: str = "l1",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(C, draws, penalty, standardize, tol, max_iter, random_state, variant)
