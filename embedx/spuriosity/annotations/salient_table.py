"""The table of votes of Salient ImageNet as rows: a worker's answer each, checked one by one and against each other."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from embedx.errors import SpuriosityError
from embedx.plugins import nearest
from embedx.spuriosity.annotations.votes import CONFIDENCE

COLUMNS = (
    "WorkerId", "Input.wordnet_id", "Input.class_index", "Input.feature_index", "Input.feature_rank", "Answer.main",
    "Answer.confidence", "Answer.reasons",
)  # fmt: skip
ANSWERS = ("main_object", "separate_object", "background")
SYNSET = re.compile(r"n\d{8}")


class Row(NamedTuple):
    """One worker's answer; `line` is where it stands."""

    line: int
    worker: str
    synset: str
    class_index: int
    feature: int
    rank: int
    answer: str
    confidence: float | None
    reasons: str


def content(path: Path) -> bytes:
    """The bytes of the table. Raises `SpuriosityError` where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SpuriosityError(
            f"{path} does not exist; name your copy of discover_spurious_features.csv of Salient ImageNet"
        ) from error


def rows_of(path: Path, data: bytes) -> list[Row]:
    """All rows, each value checked on its own. Raises `SpuriosityError` naming the line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpuriosityError(f"{path}, line {line}: no UTF-8 text; save the table as UTF-8") from error
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        heading = next(table, [])
        if absent := [c for c in COLUMNS if c not in heading]:
            raise ValueError(f"no column {absent[0]!r}; {nearest(absent[0], heading)}")
        at = [heading.index(c) for c in COLUMNS]
        for cells in table:
            if not cells:
                continue
            if len(cells) != len(heading):
                raise ValueError(f"{len(cells)} values, expected {len(heading)}")
            rows.append(_row(table.line_num, [cells[i].strip() for i in at]))
    except (ValueError, csv.Error) as error:
        raise SpuriosityError(
            f"{path}, line {table.line_num}: {error}; expected the table of Salient ImageNet"
        ) from error
    if not rows:
        raise SpuriosityError(f"{path} holds no votes; expected the table of Salient ImageNet")
    return rows


def _row(line: int, cells: Sequence[str]) -> Row:
    worker, synset, class_index, feature, rank, answer, confidence, reasons = cells
    if not worker:
        raise ValueError("WorkerId is empty")
    if not SYNSET.fullmatch(synset):
        raise ValueError(f"Input.wordnet_id is {synset!r}, expected a synset like n01440764")
    for name, cell, least in zip(COLUMNS[2:5], (class_index, feature, rank), (0, 0, 1), strict=True):
        if not (cell.isascii() and cell.isdecimal()) or int(cell) < least:
            raise ValueError(f"{name} is {cell!r}, expected a whole number from {least} on")
    if answer not in ANSWERS:
        raise ValueError(f"Answer.main is {answer!r}; {nearest(answer, ANSWERS)}")
    try:
        sure = float(confidence) if confidence else None
    except ValueError:
        sure = float("nan")
    if sure is not None and not CONFIDENCE[0] <= sure <= CONFIDENCE[1]:
        raise ValueError(f"Answer.confidence is {confidence!r}, expected {CONFIDENCE[0]:g} to {CONFIDENCE[1]:g}")
    return Row(line, worker, synset, int(class_index), int(feature), int(rank), answer, sure, reasons)


def pairs_of(path: Path, rows: Sequence[Row], votes: int | None) -> dict[tuple[str, int], list[Row]]:
    """Rows by synset and feature, each value checked against the others; likewise."""
    pairs: dict[tuple[str, int], list[Row]] = {}
    number: dict[str, int] = {}
    synset_of: dict[int, str] = {}
    ranked: dict[tuple[str, int], int] = {}

    def same(kept: Mapping, key: object, value: object, what: str, row: Row) -> None:
        if (before := kept.get(key, value)) != value:
            raise SpuriosityError(f"{path}, line {row.line}: {what} {value}, and {before} before; mend the table")

    for row in rows:
        group = pairs.setdefault((row.synset, row.feature), [])
        if earlier := next((r for r in group if r.worker == row.worker), None):
            raise SpuriosityError(
                f"{path}, line {row.line}: worker {row.worker} votes again on feature {row.feature} of {row.synset} "
                f"(first in line {earlier.line}), expected one vote of each; remove one"
            )
        same(number, row.synset, row.class_index, f"{row.synset} is class", row)
        same(synset_of, row.class_index, row.synset, f"class {row.class_index} is", row)
        same(ranked, (row.synset, row.rank), row.feature, f"rank {row.rank} of {row.synset} is feature", row)
        if group and group[0].rank != row.rank:
            what = f"feature {row.feature} of {row.synset} has rank"
            raise SpuriosityError(
                f"{path}, line {row.line}: {what} {row.rank}, and {group[0].rank} before; mend the table"
            )
        number[row.synset], synset_of[row.class_index] = row.class_index, row.synset
        ranked[row.synset, row.rank] = row.feature
        group.append(row)
    for (synset, feature), group in pairs.items():
        if votes is not None and len(group) != votes:
            raise SpuriosityError(
                f"{path}: feature {feature} of {synset} (line {group[0].line}) has {len(group)} votes, expected "
                f"{votes} on every pair; fetch the table again"
            )
    return pairs
