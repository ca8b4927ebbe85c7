"""`review.csv`: a row for each image to look at again, with the fields of `Flag`, empty where nothing is to be said."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from embedx.errors import SpuriosityError
from embedx.evaluation.records import Notice, date
from embedx.files import write_bytes

FILE = "review.csv"
NEGATIVE, SURE = "negative gap", "confident"


@dataclass(frozen=True)
class Flag:
    """One image.

    place         from 1, the most suspicious
    reason        `NEGATIVE` or `SURE`
    label         code of its class; label_probability of the head for it
    predicted     code of the class that the head takes it for; probability, and those of the next two classes
    spuriosity, position  as in the ranking, 0 the least spurious of the `ranked` images of its class and split
    gap, gap_low, gap_high, gap_n, holm  of its class, where that has one
    other         the class that its class collides with: the predicted one where that is such; else, for `NEGATIVE`,
                  the commonest; feature, towards, own: which feature pulls, and what it adds to either logit
    core_predicted, core_probability  what the head takes the core crop for, and how probable it finds the label there
    core_activation  of the core features here, over that in the training images of the class; mean over these features.
                  Where they hardly see anything, so does the crop
    image, crop   files, where it was drawn
    """

    place: int
    reason: str
    id: str
    split: str
    label: int
    class_name: str
    label_probability: float
    predicted: int
    predicted_name: str
    probability: float
    second_name: str
    second_probability: float
    third_name: str = ""
    third_probability: float | None = None
    spuriosity: float | None = None
    position: int | None = None
    ranked: int | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    gap_n: int | None = None
    holm: float | None = None
    other: int | None = None
    other_name: str = ""
    feature: int | None = None
    towards: float | None = None
    own: float | None = None
    core_predicted: str = ""
    core_probability: float | None = None
    core_activation: float | None = None
    image: str = ""
    crop: str = ""


def require(folder: Path) -> None:
    """Refuse to replace a table to which somebody has added columns, of notes for instance: `SpuriosityError`."""
    file = folder / FILE
    if not file.is_file():
        return
    heading = next(csv.reader(io.StringIO(file.read_bytes().decode(errors="replace"), newline="")), [])
    if added := [name for name in heading if name not in {f.name for f in fields(Flag)}]:
        raise SpuriosityError(
            f"{file} has a column {added[0]!r} that is not ours, and a new review would replace it; rename the file"
        )


def save(folder: Path, flags: Sequence[Flag], notice: Notice = lambda text: None) -> Path:
    """Write `review.csv`, whole or not at all; that another one is replaced is told."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(Flag)])  # its line ends, \r\n, quote either in an id
    table.writeheader()
    table.writerows(asdict(flag) for flag in flags)
    folder.mkdir(parents=True, exist_ok=True)
    file, data = folder / FILE, text.getvalue().encode()
    if file.is_file() and file.read_bytes() != data:
        notice(f"note: {file} of {date(file)} listed other images, or said other things of them, and is replaced")
    write_bytes(file, data)
    return file


def load(folder: Path) -> list[Flag]:
    """Read `review.csv`. Raises `SpuriosityError` for what is missing or no such table."""
    file = folder / FILE
    if not file.is_file():
        raise SpuriosityError(f"{file} does not exist: make it with `embedx spuriosity review`")
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))
        return [Flag(**{f.name: _value(str(f.type), row[f.name]) for f in fields(Flag)}) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise SpuriosityError(f"{file} is no such table ({error}); run `embedx spuriosity review` again") from error


def _value(kind: str, text: str) -> Any:
    if kind == "str":
        return text
    if not text and "None" in kind:
        return None
    return int(text) if kind.startswith("int") else float(text)


def counts(flags: Sequence[Flag]) -> Mapping[str, int]:
    """How many there are of either kind."""
    return {reason: sum(f.reason == reason for f in flags) for reason in (NEGATIVE, SURE)}
