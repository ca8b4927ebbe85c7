"""The value: what a table says of the rows of a manifest, and how it is built of any form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class RealLabels:
    """What a table says of the n rows of a manifest.

    file, sha256  name of the file and digest of its bytes; form: what it is, in words
    listed  (n,) bool: rows that it lists
    known   (n,) bool: rows of which it says whether their label is right
    wrong   (n,) bool: rows whose label is not among the labels that they really have
    number  (n,) how many labels they have, -1 where that is not known
    """

    file: str
    sha256: str
    form: str
    listed: np.ndarray
    known: np.ndarray
    wrong: np.ndarray
    number: np.ndarray


@dataclass(frozen=True)
class Entry:
    """What a table says of one row: its place in the manifest, and whether the label is right.

    right   None where that is not known
    number  of its real labels, -1 where that is not known
    """

    row: int
    right: bool | None
    number: int = -1

    @classmethod
    def of(cls, row: int, label: int, real: Sequence[int]) -> Entry:
        """Of a row with its label and the labels that it really has; none of these: not known."""
        return cls(row, label in real, len(real)) if real else cls(row, None)


def collected(file: str, sha256: str, form: str, n: int, entries: Iterable[Entry]) -> RealLabels:
    """The entries of a table as columns over the n rows of the manifest."""
    listed, known, wrong = (np.zeros(n, dtype=bool) for _ in range(3))
    number = np.full(n, -1)
    for entry in entries:
        listed[entry.row], known[entry.row] = True, entry.right is not None
        wrong[entry.row], number[entry.row] = entry.right is False, entry.number
    return RealLabels(file, sha256, form, listed, known, wrong, number)
