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
    """{rule: (n,) which test rows its head gets right}, in an order of the rows; each head predicts once."""
    hits = {id(head): (head.predict(test.X) == test.y)[order] for head in {id(h): h for h in taken.values()}.values()}
    return {rule: hits[id(head)] for rule, head in taken.items()}
