"""Rows of datasets of the `datasets` library: on disk, or on the hub and in the library's own cache."""

from __future__ import annotations

import errno
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import numpy as np

from embedx.data.sources import stamps
from embedx.data.sources.files import regular
from embedx.errors import ManifestError

PREFIX = "hf-datasets:"
STEP = 1000  # rows looked at at once
HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class HuggingFace:
    """Rows of a dataset; an id is `SPLIT/ROW`, the bytes are those of its image column.

    address  `hf-datasets:PATH?config=…&image=…&revision=…`, PATH a folder or a name on the hub
    """

    address: str

    @property
    def place(self) -> str:
        """The dataset as it was named."""
        return self.address

    @cached_property
    def _splits(self) -> Any:
        return load(self.address)

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}  # other processes map the files themselves

    def read(self, row_id: str) -> bytes:
        """The encoded image as stored, not decoded. Raises `ManifestError` when the dataset cannot be opened at all."""
        split, _, row = row_id.partition("/")
        rows = self._splits.get(split)
        if rows is None or not row.isdecimal() or int(row) >= len(rows):
            raise FileNotFoundError(errno.ENOENT, "no such row in the dataset", row_id)
        try:
            (cell,) = rows[int(row)].values()
        except OSError:
            raise
        except Exception as error:  # damaged files raise anything at all
            raise OSError(errno.EBADMSG, line(error)) from error
        return stored(cell)

    def stamps(self, ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """(n, 2) of rows in the dataset their bytes' number and a digest of its files; else those of the row's file."""
        all_stamps = stamps.nothing_known(len(ids))
        places: dict[str, list[tuple[int, int]]] = {}
        for i, row_id in enumerate(ids):
            split, _, row = row_id.partition("/")
            if split in self._splits and row.isdecimal() and int(row) < len(self._splits[split]):
                places.setdefault(split, []).append((i, int(row)))
        for split, pairs in places.items():
            at, rows = np.array(pairs).T
            all_stamps[at] = _stamps(self._splits[split], rows)
        return all_stamps


def _stamps(dataset: Any, rows: np.ndarray) -> np.ndarray:
    """(k, 2) stamps of some rows of a split; no image is read."""
    from pyarrow import compute

    pc: Any = compute  # its functions come into being when it is imported, out of sight of type checkers
    now = time.time_ns()
    files = [(Path(f["filename"]).name, *stamps.of_file(f["filename"], now)) for f in dataset.cache_files]
    mark = stamps.digest(sorted(files)) if files and all(mark for _, _, mark in files) else 0
    marks, arrow = stamps.nothing_known(len(rows)), dataset.with_format("arrow")
    for start in range(0, len(rows), STEP):
        chunk = slice(start, start + STEP)
        (cells,) = arrow[rows[chunk]].columns
        sizes = np.array(pc.fill_null(pc.binary_length(pc.struct_field(cells, "bytes")), -1), dtype=np.int64)
        marks[chunk, 0], marks[chunk, 1] = sizes, mark
        for i in np.flatnonzero(sizes < 0):
            path = pc.struct_field(cells, "path")[int(i)].as_py()
            marks[start + i] = stamps.each(stamps.of_file, [path])[0] if path else (0, 0)
    return marks


def stored(cell: Any) -> bytes:
    """The bytes of a cell of an image column: in the dataset itself, or in the file it names."""
    if cell is None or (cell["bytes"] is None and not cell["path"]):
        raise FileNotFoundError(errno.ENOENT, "no image in this row")
    if cell["bytes"] is not None:
        return cell["bytes"]
    if not Path(cell["path"]).is_absolute():
        raise OSError(errno.EINVAL, "the image is neither in the dataset nor a file on this machine")
    return regular(Path(cell["path"]))


def address_of(root: str, **options: str) -> str:
    """`hf-datasets:PATH?…`; a path that exists is made absolute, anything else has to be a name on the hub."""
    path, given = split_address(root) if root.startswith(PREFIX) else (root, {})
    if Path(path).exists():
        path = str(Path(path).resolve())
    elif not HUB.fullmatch(path):
        raise ManifestError(f"{path} does not exist and is no name of a dataset on the hub, like cifar10 or user/birds")
    options = {**given, **{key: word for key, word in options.items() if word}}
    return PREFIX + quote(path) + ("?" + urlencode(options) if options else "")


def split_address(address: str) -> tuple[str, dict[str, str]]:
    """(path, options) of `hf-datasets:PATH?config=…`."""
    path, _, query = address.removeprefix(PREFIX).partition("?")
    return unquote(path), dict(parse_qsl(query))


def opened(address: str) -> Any:
    """All splits with all columns, as a `DatasetDict`. Only data files are read: the library refuses scripts."""
    path, options = split_address(address)
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ManifestError(f"{path} needs the library datasets: pip install 'embedx[hf]'") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    if Path(path).is_absolute() and not Path(path).exists():
        raise ManifestError(f"{path} does not exist; say with --root where the dataset lies")
    saved = any((Path(path) / mark).exists() for mark in ("dataset_dict.json", "state.json"))
    try:
        if saved:
            content: Any = datasets.load_from_disk(path)
        else:
            content = datasets.load_dataset(path, options.get("config"), revision=options.get("revision"))
    except ConnectionError as error:
        raise ManifestError(
            f"{path} is no folder here, not in the cache of the library datasets, and the hub cannot be reached "
            f"({line(error)}); fetch it where there is internet and name the folder with --root"
        ) from error
    except Exception as error:  # as many kinds of errors as there are formats
        raise ManifestError(
            f"{path} cannot be opened as a dataset ({line(error)}); expected a folder of save_to_disk, of parquet "
            "files or of images, or a name on the hub"
        ) from error
    return content if isinstance(content, datasets.DatasetDict) else datasets.DatasetDict({"train": content})


def load(address: str) -> Any:
    """All splits, with the image column alone, left encoded."""
    import datasets

    tables = opened(address)
    column = image_column(tables, address)
    return tables.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def image_column(tables: Any, address: str) -> str:
    """The column named in the address, else the only one of images. Raises `ManifestError` when there is none."""
    import datasets

    path, options = split_address(address)
    features = next(iter(tables.values())).features
    images = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    column = options.get("image") or (images[0] if len(images) == 1 else "")
    if column not in features:
        raise ManifestError(
            f"{path} has {'no column ' + repr(column) if column else f'{len(images)} columns of images'}; name one of "
            f"{', '.join(images or features)} with -O image=COLUMN"
        )
    kind = features[column]
    if not isinstance(kind, datasets.Image) and getattr(kind, "dtype", "") not in ("binary", "large_binary"):
        raise ManifestError(f"{path}: column {column!r} is {kind}; expected images, or bytes of encoded images")
    return column


def line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]
