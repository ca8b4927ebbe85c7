"""Where a head by default departs from what its authors compute, and what that changes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from embedx.evaluation.heads import HeadRequest, load_head

FILE = "_departures.csv"
"""Beside the heads; written by `python -m benchmarks.fidelity`."""


@dataclass(frozen=True)
class Departure:
    """What the default of a head does otherwise than its authors.

    words   in a few words; empty where both are the same
    points  worst group of the default minus that of the published variant, on simulated sets with Waterbirds' counts,
            in points, with the standard error of this mean over sets and seeds; None where it was not measured
    """

    words: str
    points: tuple[float, float] | None = None

    def __str__(self) -> str:
        if not self.words:
            return "as published"
        if self.points is None:
            return self.words
        return f"{self.words} ({self.points[0]:+.1f} ± {self.points[1]:.1f} points)"


def departure(head: str) -> Departure | None:
    """Of a head by name, or as `HeadRequest.label` writes it; None where nobody published the head, it does not follow
    its authors to the letter, or it is asked for as published.

    Raises `UnknownName` or `HeadError` as `load_head`.
    """
    name, _, rest = head.partition(" ")
    published = load_head(name).published
    if published is None or (rest and dict(HeadRequest.parse(head).parameters).get("variant") == "published"):
        return None
    return Departure(published.departure, _measured().get(name))


def any_measured() -> bool:
    """Whether what departures change was measured, for any head."""
    return bool(_measured())


@cache
def _measured() -> dict[str, tuple[float, float]]:
    file = files("embedx.probes") / FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {row["head"]: (float(row["points"]), float(row["error"])) for row in csv.DictReader(lines)}
