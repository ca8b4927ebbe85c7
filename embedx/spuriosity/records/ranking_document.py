"""The record of a ranking, `NAME.spuriosity.json`, beside the table of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.spuriosity.annotations.votes import Rule


@dataclass(frozen=True)
class Document:
    """What `NAME.spuriosity.csv` is of.

    backbone    whose features rank, or "text:..."
    weights     SHA-256 of what made them
    statistics  the rows of mean and deviation: "train" or "per-split"
    rows        of the table
    classes     names of the classes, in the order of their codes
    cues        {class: its cues in words}; features: {class: features that are spurious for it}, empty for a ranking
                by words
    dropped     {class: features left out for a standard deviation of 0, in any of the splits}
    sources     who said which features are spurious
    min_votes   the rule that the cues follow from, where another than that of the annotations was asked for
    sha256      of the table; "" where an earlier version wrote it
    """

    dataset: str
    backbone: str
    weights: str
    statistics: str
    rows: int
    classes: tuple[str, ...]
    cues: Mapping[int, tuple[str, ...]]
    features: Mapping[int, tuple[int, ...]]
    dropped: Mapping[int, tuple[int, ...]]
    sources: tuple[str, ...] = ()
    min_votes: Rule | None = None
    sha256: str = ""


KIND = Kind(Document, "NAME.spuriosity.json", "embedx spuriosity rank", SpuriosityError, "embedx-spuriosity", 1)
