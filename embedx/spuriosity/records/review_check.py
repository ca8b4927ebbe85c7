"""The record `review-check.json`: how well a review finds the images that are labelled wrongly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.evaluation.records import Notice, date
from embedx.spuriosity.measures.label_noise import ClassNoise, Group, Part
from embedx.spuriosity.records import flags

FILE = "review-check.json"
HEAD, FOLDS = "head", "cross-validated"


@dataclass(frozen=True)
class ReviewCheck:
    """A review against the labels that its images really have.

    dataset        that was reviewed
    backbone       that ranked it
    model          whose probabilities the review goes by
    review         SHA-256 of the review.csv that was judged
    table          name of the file of real labels; table_sha256: of its bytes; form: what it is
    splits         that were reviewed and have rows in the table
    probabilities  {split: whose probabilities confident learning takes there}: `head`, those of the model,
                   `cross-validated`, those of a plain head, or `none`, where it says nothing of the split
    rows           with known real labels, which all figures are of; unknown: rows that the table lists without one
    unlisted       rows of these splits that are not in it; left_out: rows that have no features
    parts          all rows, and each split; classes: by the labels as given
    groups         kinds of rows with their shares of wrong labels and of several objects
    """

    dataset: str
    backbone: str
    model: str
    review: str
    table: str
    table_sha256: str
    form: str
    splits: tuple[str, ...]
    probabilities: Mapping[str, str]
    rows: int
    unknown: int
    unlisted: int
    left_out: int
    parts: tuple[Part, ...]
    classes: tuple[ClassNoise, ...]
    groups: tuple[Group, ...]


KIND = Kind(ReviewCheck, FILE, "embedx spuriosity review --against", SpuriosityError, "embedx-review-check", 1)


def save(folder: Path, check: ReviewCheck, notice: Notice = lambda text: None) -> Path:
    """Write `review-check.json`, whole or not at all; that another one is replaced is told."""
    file, text = folder / FILE, KIND.text(check)
    if file.is_file() and file.read_bytes() != text.encode():
        notice(f"note: {file} of {date(file)} has other figures, and is replaced")
    KIND.write(file, check)
    return file


def load(folder: Path, notice: Notice = lambda text: None) -> ReviewCheck | None:
    """The check of the review.csv that lies there; None where there is none, or one of another review, which is told.

    Raises `SpuriosityError` for one that is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    check = KIND.read(folder / FILE)
    if check.review == digest(folder):
        return check
    notice(
        f"note: {folder / FILE} is of another {flags.FILE}; `embedx spuriosity review --against FILE` checks this one"
    )
    return None


def digest(folder: Path) -> str:
    """SHA-256 of `review.csv`; empty where there is none."""
    file = folder / flags.FILE
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
