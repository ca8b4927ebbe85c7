"""The variants of a head: ours, and what its authors' code computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT = "default"
"""The variant of a head that is ours."""
PUBLISHED = "published"
"""The variant that its authors' code computes."""


@dataclass(frozen=True)
class Published:
    """A head as its authors compute it, which is `variant="published"`.

    departure   what the default does otherwise, in a few words; empty where both are the same
    grid        the settings that the authors choose among; None: those of the default
    tried_with  as in `Head`, for the published variant
    without     parameters that it does not look at; where one is asked for, a grid that has published settings among
                others leaves them out
    """

    departure: str = ""
    grid: tuple[Mapping[str, Any], ...] | None = None
    tried_with: Mapping[str, Any] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
