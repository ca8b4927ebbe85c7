"""A CSV of one's own: the labels that a person found in each image.

Columns `id`, as in the manifest, and `labels`: names of classes with `;` between them; or `label`: one name, and as
many lines for an image as it has labels. An empty cell means that nobody knows. Other columns are passed over. Cells
may be separated by commas, semicolons or tabs; the file is UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from embedx.data.manifest import Manifest, tidy
from embedx.plugins import nearest
from embedx.spuriosity.real_labels.public import SYNSET
from embedx.spuriosity.real_labels.table import Entry

SEPARATORS = ",;\t"
BETWEEN = ";"


@dataclass(frozen=True)
class _Line:
    """One line: its number, the id, and the text of its label cell."""

    number: int
    id: str
    text: str


def entries(data: bytes, manifest: Manifest) -> list[Entry]:
    """What the table says. Raises `ValueError` for a table, an id or a name that is none."""
    lines, several = _lines(data)
    rows, names = {row: i for i, row in enumerate(manifest.ids)}, _names(manifest)
    said: dict[int, list[int]] = {}
    first: dict[int, _Line] = {}
    for line in lines:
        row = rows.get(line.id)
        if row is None:
            close = nearest(line.id, _alike(line.id, rows))
            raise ValueError(f"line {line.number}: {line.id!r} is no id of {manifest.name}; {close}")
        codes = _codes(line, names, several)
        if row in first and (several or not codes or not said[row] or set(codes) & set(said[row])):
            raise ValueError(
                f"line {line.number}: {line.id!r} is there already, in line {first[row].number}, with "
                f"{first[row].text!r}, here with {line.text!r}; expected "
                + ("every id once" if several else "a line for each label of an image")
            )
        first.setdefault(row, line)
        said.setdefault(row, []).extend(codes)
    if not said:
        raise ValueError("it has a header and no row; expected a line for every image")
    return [Entry.of(row, int(manifest.labels[row]), real) for row, real in said.items()]


def _lines(data: bytes) -> tuple[list[_Line], bool]:
    """The lines, and whether a cell holds several labels."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is no UTF-8 text (byte {error.start:,}); save it as CSV in UTF-8, which spreadsheets offer"
        ) from error
    for separator in SEPARATORS:
        header = [tidy(cell) for cell in next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])]
        if "id" in header and {"label", "labels"} & {*header}:
            break
    else:
        header = [tidy(cell) for cell in next(csv.reader(io.StringIO(text, newline="")), [])]
        raise ValueError(f"its first line has the columns {', '.join(map(repr, header))}; expected id, and labels")
    both = {"label", "labels"} <= {*header}
    if both or header.count("id") > 1 or header.count("label") > 1 or header.count("labels") > 1:
        raise ValueError("it has two columns of ids or of labels; keep id, and one of labels and label")
    column = "labels" if "labels" in header else "label"
    return list(_cells(text, separator, header.index("id"), header.index(column))), column == "labels"


def _cells(text: str, separator: str, of_id: int, of_label: int) -> Iterator[_Line]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        next(lines)
        for cells in lines:
            if not any(map(str.strip, cells)):
                continue
            if len(cells) <= max(of_id, of_label):
                raise ValueError(
                    f"line {lines.line_num}: {len(cells)} cells, expected {max(of_id, of_label) + 1} or more; an image "
                    "whose labels nobody knows has an empty cell"
                )
            yield _Line(lines.line_num, cells[of_id], cells[of_label].strip())
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num} cannot be read as a table ({error}); mend it") from error


def _codes(line: _Line, names: Mapping[str, int], several: bool) -> list[int]:
    """The classes that a line names, each once."""
    whole = not several or line.text in names  # a name may hold the separator
    words = [line.text] if whole else [word.strip() for word in line.text.split(BETWEEN)]
    codes = []
    for word in filter(None, words):
        code = names.get(word)
        if code is None:
            between = f"; several labels go into a column labels, with {BETWEEN} between" * (not several)
            raise ValueError(f"line {line.number}: {word!r} is no class; {nearest(word, names)}{between}")
        if code in codes:
            raise ValueError(f"line {line.number}: {word!r} is there twice, expected every label of an image once")
        codes.append(code)
    return codes


def _names(manifest: Manifest) -> dict[str, int]:
    """{name: code}; of ImageNet's classes the synset alone will do."""
    names = {name: code for code, name in enumerate(manifest.classes)}
    synsets = {m[0]: code for name, code in names.items() if (m := SYNSET.match(name))}
    return {k: v for k, v in synsets.items() if len(synsets) == len(names)} | names


def _alike(row_id: str, rows: Mapping[str, int]) -> list[str]:
    """Ids that may have been meant: those of the same file name, else some of all."""
    name = row_id.rpartition("/")[2]
    return [r for r in rows if r.rpartition("/")[2] == name][:20] or list(rows)[:1000]
