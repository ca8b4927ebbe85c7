"""Where a head by default departs from what its authors compute, and what that changes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from embedx.evaluation.heads import HeadRequest, load_head

FILE = "_departures.csv"
"""Beside the heads; written by `python -m benchmarks.fidelity`."""


class Change(NamedTuple):
    """What a departure changes: worst group of the default minus that of the published variant.

    features  of the simulated set, which has the numbers of rows by group of Waterbirds
    points    the mean over seeds
    error     its standard error
    """

    features: int
    points: float
    error: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} ± {self.error:.1f} at {self.features} features"


@dataclass(frozen=True)
class Departure:
    """What the default of a head does otherwise than its authors.

    words    in a few words; empty where both are the same
    changes  what comes of it, by set; none where it was not measured
    """

    words: str
    changes: tuple[Change, ...] = ()

    def __str__(self) -> str:
        if not self.words:
            return "as published"
        return f"{self.words} ({', '.join(map(str, self.changes))})" if self.changes else self.words


def departure(head: str) -> Departure | None:
    """Of a head by name, or as `HeadRequest.label` writes it; None where nobody published the head, it does not follow
    its authors to the letter, or it is asked for as published.

    Raises `UnknownName` or `HeadError` as `load_head`.
    """
    name, _, rest = head.partition(" ")
    published = load_head(name).published
    if published is None or (rest and dict(HeadRequest.parse(head).parameters).get("variant") == "published"):
        return None
    changes = (Change(int(r["features"]), float(r["points"]), float(r["error"])) for r in _rows() if r["head"] == name)
    return Departure(published.departure, tuple(changes))


@cache
def _rows() -> tuple[Mapping[str, str], ...]:
    return tuple(csv.DictReader((files("embedx.probes") / FILE).read_text(encoding="utf-8").splitlines()))
