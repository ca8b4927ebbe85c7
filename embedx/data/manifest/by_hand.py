"""`manifest.csv` as people and their spreadsheets leave it: read for what was meant, or refused with its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedx.data.manifest.table import RESERVED, Manifest, UnknownWord
from embedx.data.manifest.words import tidy
from embedx.errors import ManifestError

SEPARATORS = ",;\t"  # spreadsheets take what their country uses
FEW = 20  # words that a message repeats


def columns_of(file: Path, data: bytes, stored: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The columns of the table, by their names, in words.

    stored  {column: its words as stored}: these stay as they are, all others lose the blanks around them

    The separator may be a comma, semicolon or tab, lines may end as on any system, and cells and lines without
    content are passed over. Raises `ManifestError` for text that is not UTF-8 and for lines of unlike lengths.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{file} is no UTF-8 text (byte {error.start:,}); save it as CSV in UTF-8, which spreadsheets offer"
        ) from error
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, stored), strict=True)
    try:
        header = [c if c in stored else tidy(c) for c in next(lines, [])]
        cells: list[list[str]] = [[] for _ in header]
        one: dict[str, str] = {}  # of many equal words; ids are all different
        for line in lines:
            if not any(line):
                continue
            if len(line) != len(header) and (len(line) < len(header) or any(line[len(header) :])):
                raise ManifestError(
                    f"{file}, line {lines.line_num}: {len(line)} cells, expected {len(header)}; mend the line"
                )
            for column, word in zip(cells, line, strict=False):
                column.append(word if column is cells[0] else one.setdefault(word, word))
    except csv.Error as error:
        raise ManifestError(f"{file}, line {lines.line_num}: cannot be read as a table ({error}); mend it") from error
    columns: dict[str, list[str]] = {}
    for name, words in zip(header, cells, strict=True):
        if name in columns:
            raise ManifestError(f"{file} has two columns {name!r}; rename one of them")
        if name or any(words):
            columns[name] = words if name == "id" else _tidied(words, stored.get(name, ()))
    return columns


def advice(error: UnknownWord) -> str:
    """How to name new words, ready to be copied, to follow the message that a row has one."""
    new = [w for w in error.unknown if w]
    if error.column == "split" or not new:
        return ""
    if error.column == "label":
        what, where, key = "class", "", '"classes"'
    else:
        what, where, key = "value", ' under "attributes"', _json(error.column)
    if len(error.allowed) + len(new) > FEW:
        return f"; to make it a {what}, add {_json(new[0])} at the end of {key}{where} in manifest.json"
    return f"; to make it a {what}, write in manifest.json{where}: {key}: {_json([*error.allowed, *new])}"


def noticed(
    manifest: Manifest, stored: Mapping[str, Sequence[str]], left_out: Mapping[str, list[str]]
) -> tuple[str, ...]:
    """What a person should know of the columns that were added to the table, or taken from it."""
    remarks = []
    for column in manifest.values:
        if column not in stored and column not in manifest.grouping:
            grouping = _json([*manifest.grouping, column])
            remarks.append(
                f"the column {column!r} of manifest.csv, which was not there when it was prepared, is an attribute and "
                f'forms no groups; it does with this in manifest.json: "grouping": {grouping}'
            )
    for column, words in left_out.items():
        remarks.append(
            f"the column {column!r} of manifest.csv, which was not there when it was prepared, is left out: "
            f"{words.count(''):,} of its cells are empty; it becomes an attribute when all are filled"
        )
    gone = [a for a in stored if a not in manifest.values]
    remarks += [f"manifest.csv no longer has the column {a!r} that it was prepared with" for a in gone]
    return tuple(remarks)


def _separator(text: str, stored: Mapping[str, Sequence[str]]) -> str:
    """The character between the cells: the first one that the header makes sense with."""
    for character in SEPARATORS:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=character), [])
        if {*RESERVED} <= set(map(tidy, header)):
            return character
    return SEPARATORS[0]


def _tidied(words: list[str], stored: Sequence[str]) -> list[str]:
    untouched = set(stored)
    tidy_of = {w: w if w in untouched else tidy(w) for w in set(words)}
    return [tidy_of[w] for w in words] if any(w != t for w, t in tidy_of.items()) else words


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
