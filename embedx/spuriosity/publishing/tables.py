"""The tables beside a set of masks: `pairs.csv`, `masks.csv` and `ranking.csv`. UTF-8, a line of names first.

What a cell may hold is what an id may hold: quotes, commas, any script. Numbers are written so that they come back to
the last bit; an empty cell is what is not known.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from embedx.errors import SpuriosityError
from embedx.files import write_bytes
from embedx.spuriosity.annotations.validations import ANSWERS as MAPS
from embedx.spuriosity.annotations.votes import ANSWERS
from embedx.spuriosity.publishing.mask_files import Mask, MaskFiles
from embedx.spuriosity.records.mask_set import COMMAND, PAIRS, TABLE, MaskedPair

OF_PAIRS: Mapping[str, str] = {
    "class_index": "code of the class", "class_name": "name of the class", "class_id": "public key of the class",
    "feature": "number of the feature in the network",
    "rank": "place of the feature by importance for the class, from 1",
    "importance": "mean contribution of the feature to the logit of the class",
    "label": "core, spurious or unsure", "kind": "where the feature looks: main_object, separate_object or background",
    "cue": "what the feature shows, in words", "source": "who or what said it first",
    "rule": "votes that it takes to call a feature spurious",
    **{f"votes_{answer}": f"votes for {answer}" for answer in ANSWERS},
    **{f"maps_{answer}": f"votes for {answer}: do the maps show one thing on all images?" for answer in MAPS},
    "validated": "whether the maps were found to show one thing: yes or no; empty where nobody was asked",
    "masks": "images that show the feature most and have a mask of it",
    "beside": "other images with a mask of it",
}  # fmt: skip
"""{column of `pairs.csv`: what it holds}."""
OF_MASKS: Mapping[str, str] = {
    "file": "where the mask is", "id": "id of the image in the source dataset",
    "class_index": "code of the class of the image", "feature": "number of the feature in the network",
    "place": "place of the image by activation, 1 is the strongest; 0 for an image that shows another feature most",
    "activation": "of the feature in the image", "height": "of the image, in pixels",
    "width": "of the image, in pixels",
    "elsewhere": "votes that this mask shows something else than most of its pair; empty for none",
}  # fmt: skip
"""{column of `masks.csv`: what it holds}; in the format h5, `row` in place of `file`."""
OF_RANKING: Mapping[str, str] = {
    "id": "id of the image in the source dataset", "label": "name of the class", "split": "train, val or test",
    "spuriosity": "how strongly the image shows the spurious features of its class; empty for none",
    "position": "place within class and split, 0 is the least spurious; empty for none",
}  # fmt: skip
"""{column of `ranking.csv`: what it holds}."""
ROW = "row of the mask in masks.h5"
WHOLE = ("class_index", "feature", "rank", "masks", "beside", "place", "height", "width", "row", "position",
         "elsewhere")  # fmt: skip
"""Columns of whole numbers; those that begin with `votes_` or `maps_` are, too."""
NUMBERS = ("importance", "activation", "spuriosity")


def columns_of_masks(form: str) -> dict[str, str]:
    """{column: what it holds} of `masks.csv` in a format."""
    return dict(OF_MASKS) if form == "png" else {"row": ROW, **{k: v for k, v in OF_MASKS.items() if k != "file"}}


def write_pairs(folder: Path, pairs: Sequence[MaskedPair]) -> str:
    """Write `pairs.csv`; returns its SHA-256."""

    def cells(pair: MaskedPair) -> list[Any]:
        votes = {f"votes_{answer}": pair.votes.get(answer, 0) for answer in ANSWERS} if pair.votes else {}
        votes |= {f"maps_{answer}": pair.maps.get(answer, 0) for answer in MAPS} if pair.maps else {}
        verdict = {None: "", True: "yes", False: "no"}[pair.valid]
        values = dict.fromkeys(OF_PAIRS, "") | vars(pair) | votes | {"validated": verdict}
        return [values[name] for name in OF_PAIRS]

    return _write(folder / PAIRS, OF_PAIRS, map(cells, pairs))


def write_masks(files: MaskFiles, pairs: Sequence[MaskedPair], masks: Sequence[Mask], form: str) -> str:
    """Write `masks.csv` of masks that are there; returns its SHA-256."""
    names = columns_of_masks(form)

    def cells(row: int, mask: Mask) -> list[Any]:
        height, width = files.size_of(mask)
        values = {**vars(mask), "file": mask.file, "row": row, "height": height, "width": width}
        values["elsewhere"] = pairs[mask.pair].elsewhere.get(mask.id, "")
        return [values[name] for name in names]

    return _write(files.folder / TABLE, names, (cells(i, mask) for i, mask in enumerate(masks)))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_masks(folder: Path, sha256: str, form: str) -> Iterator[dict[str, str]]:
    """The rows of `masks.csv` by column. Raises `SpuriosityError` for a table that is not the one written.

    A file that a row names lies in the folder: one that would lead out of it is refused.
    """
    path = folder / TABLE
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        state = "was edited or replaced" if data else "is not there"
        raise SpuriosityError(f"{path} {state}, expected the table that masks.json was written for; run `{COMMAND}`")
    table = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
    if list(table.fieldnames or []) != list(columns_of_masks(form)):
        raise SpuriosityError(f"{path} has columns {table.fieldnames}, expected {list(columns_of_masks(form))}")
    for cells in table:
        if form == "png":
            inside(folder, cells["file"])
        yield cells


def inside(folder: Path, name: str) -> Path:
    """A file by its name below a folder. Raises `SpuriosityError` for one elsewhere, also through a link."""
    parts = PurePosixPath(name).parts
    path = folder.joinpath(*parts)
    if not parts or name.startswith("/") or ".." in parts or not path.resolve().is_relative_to(folder.resolve()):
        raise SpuriosityError(f"{folder / TABLE} names {name!r}, which is not in {folder}; expected a file in it")
    return path


def _write(path: Path, names: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    table.writerows(["" if cell is None else cell for cell in row] for row in rows)
    data = text.getvalue().encode()
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()
