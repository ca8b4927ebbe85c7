"""Every head that there is, as cases of a test: those whose thousands of stochastic steps take long are slow ones."""

from __future__ import annotations

from typing import Any

import pytest

from embedx import plugins
from embedx.evaluation.heads import load_head

DEAR = frozenset({"dpe", "leia", "lisa", "mixup", "ppa"})


def cases(*, kinds: bool = False) -> list[Any]:
    """The names of all heads, or their classes, each known by its name."""
    return [
        pytest.param(load_head(name) if kinds else name, id=name, marks=[pytest.mark.slow] * (name in DEAR))
        for name in plugins.names(plugins.HEADS)
    ]
