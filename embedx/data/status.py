"""What became of a row. A row that fails keeps its place, with a status and a reason."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """The codes stored in a feature cache."""

    OK = 0
    MISSING = 1
    UNREADABLE = 2
    NOT_FINITE = 3
