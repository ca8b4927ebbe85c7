"""Which of the heads that were tried other selection rules would have taken, and which test rows these get right.

The verdict hangs on how the plain head's C is chosen; with this it can be told for every rule without fitting again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedx.errors import SplitError
from embedx.evaluation.selection import RULES, choose, rule_named
from embedx.evaluation.split import Part, Split
from embedx.probes import affine_of, predicted_codes


def by_rule(rule: str, heads: Sequence[Any], codes: np.ndarray, split: Split, shares: np.ndarray) -> dict[str, Any]:
    """{rule: the head that it takes} of every rule but `rule` that validation can answer.

    codes  (m, n) what each of the heads predicts for validation; shares (g,) of the groups in train
    """
    taken = {}
    for name in RULES:
        try:
            if name != rule:
                taken[name] = heads[choose(rule_named(name, split), codes, split.val, shares, split.train)[0]]
        except SplitError:
            continue  # no groups, no ranking, or a group without a row
    return taken


def hits_by_rule(taken: Mapping[str, Any], test: Part, order: np.ndarray) -> dict[str, np.ndarray]:
    """{rule: (n,) which test rows its head gets right}, in an order of the rows."""
    heads = list(taken.values())
    return dict(zip(taken, (predicted(heads, test.X) == test.y)[:, order], strict=True)) if heads else {}


def predicted(heads: Sequence[Any], X: np.ndarray) -> np.ndarray:
    """(m, n) label codes, those of `predict`; linear heads share products with X."""
    numbers = [a for h in heads if (a := affine_of(h)) is not None]
    if len(numbers) < len(heads):
        return np.array([h.predict(X) for h in heads])
    return np.array([h.classes_[c] for h, c in zip(heads, predicted_codes(numbers, X), strict=True)])
