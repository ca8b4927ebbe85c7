"""Published heads as plain loops: one row of the paper's definition after the other, float64, automatic derivatives.

Two classes only. Slow, and written without the heads in `probes`, to hold these against. Every loop takes the same:

    train, held_out  `Rows`: those that are fitted, and half of validation, for the methods that take it
    settings         the parameters to try, as in the grid of the head
    seed             of what is drawn

and gives one head (d + 1,) for each of the settings, the intercept last: class 1 where it is above 0. A function `fit`
beside it is the same for any classes and one setting; `dpe`, which is not linear, and `ppa`, of text, have that
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import (
    afr,
    class_balanced_retraining,
    cvar,
    dfr,
    environments,
    george,
    group_dro,
    jtt,
    leace,
    leia,
    lff,
    lisa,
    mixup,
    self_disagreement,
    spare,
    weighted,
)
from .rows import Rows

Loop = Callable[[Rows, Rows, Sequence[Mapping[str, Any]], int], list[np.ndarray]]

LOOPS: dict[str, Loop] = {
    "plain": weighted.plain, "class-balanced": weighted.class_balanced, "reweighted": weighted.reweighted,
    "class-subsampled": weighted.class_subsampled, "group-balanced": weighted.group_balanced,
    "dfr": dfr.on_held_out, "dfr-train": dfr.on_train, "group-dro": group_dro.heads, "cvar": cvar.heads,
    "irm": environments.irm, "v-rex": environments.v_rex, "jtt": jtt.heads, "eiil": group_dro.eiil,
    "george": george.heads, "spare": spare.heads, "afr": afr.heads, "self-disagreement": self_disagreement.heads,
    "lff": lff.heads, "class-balanced-retraining": class_balanced_retraining.heads, "leace": leace.heads,
    "leia": leia.heads, "lisa": lisa.heads, "mixup": mixup.heads,
}  # fmt: skip
"""By the name of the head."""
