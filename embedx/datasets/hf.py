"""Hugging Face datasets: `--root` is a folder of `save_to_disk`, a folder of parquet files or images, or a hub name.

`-O label=COLUMN -O attributes=COLUMN,COLUMN -O cluster=COLUMN`, the last for whose rows are of one subject; class names
come from the dataset where it has them. Splits are those of
the dataset (train, validation, test); `-O splits=extra=train,dev=val` says what others count as, `-O split=COLUMN`
takes a column instead. `-O image=`, `-O config=` and `-O revision=` name a column of images, a configuration, a commit.
Datasets on the hub and folders of parquet are fetched into the cache of the library `datasets`; what is there already
needs no internet. Scripts are never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

from embedx.data.left_out import system
from embedx.data.manifest import RESERVED, Manifest, build
from embedx.data.sources.hugging_face import address_of, image_column, opened, split_address, stored
from embedx.data.trees import Tree
from embedx.datasets import csv, folder
from embedx.datasets.webdataset import IMAGES
from embedx.errors import ManifestError
from embedx.plugins import nearest

ADDRESS = True
SPELLINGS = {**csv.SPELLINGS, **folder.SPELLINGS}
STEP = 1000  # rows looked at at once
SAMPLE = 64  # images per split whose bytes go into the version


def read(  # noqa: PLR0913, PLR0917  the options are its parameters
    root: str,
    label: str = "label",
    attributes: tuple[str, ...] = (),
    cluster: str = "",
    splits: tuple[str, ...] = (),
    split: str = "",
    image: str = "",
    config: str = "",
    revision: str = "",
) -> Manifest:
    """The manifest of all rows of all splits. Raises `ManifestError` for a dataset or a column that cannot be used."""
    address = address_of(root, config=config, image=image, revision=revision)
    path = split_address(address)[0]
    tables = opened(address)
    column = image_column(tables, address)
    named = [*attributes, *([cluster] if cluster else [])]
    wanted = [label, *named, *([split] if split else [])]
    if twice := next((c for c in wanted if wanted.count(c) > 1 or (c in RESERVED and c in named)), None):
        raise ManifestError(f"{path}: {twice!r} cannot be the name of an attribute here; take another column")
    spelled = SPELLINGS | _mapping(splits)
    kept = {name: rows for name, rows in tables.items() if split or name.lower() in spelled}
    if not kept:
        raise ManifestError(
            f"{path} has the splits {', '.join(tables)}; "
            f"say what they count as with -O splits={next(iter(tables))}=train"
        )
    ids: list[str] = []
    words: list[list[str | None]] = [[] for _ in wanted]
    split_words: list[str | None] = []
    for name, rows in kept.items():
        ids += [f"{name}/{i:010d}" for i in range(len(rows))]
        split_words += [] if split else [spelled[name.lower()]] * len(rows)
        for i, name_of in enumerate(wanted):
            words[i] += _words(path, rows, name_of)
    if split:
        split_words = [w if w is None else spelled.get(w.strip().lower(), w) for w in words.pop()]
    files = _files(path, tables, column)
    strange = [any(map(system, file.split("/"))) for name in kept for file in files[name]]
    lacking = [None in cells for cells in zip(split_words, *words, strict=True)]
    whole = [i for i in range(len(ids)) if not strange[i] and not lacking[i]]
    remarks = [f"split {name!r} left out; -O splits={name}=train takes it in" for name in tables if name not in kept]
    if n := len(ids) - len(whole) - sum(strange):
        remarks.append(f"{n:,} rows left out, without a value of {', '.join(wanted)}")
    remarks += _unseen(path, files)
    names_of = {c: names for c in (label, *attributes) if (names := _names(path, kept, c))}
    if label in names_of:  # a folder of thumbnails is no class, though the library has counted it as one
        strangers = {words[0][i] for i, s in enumerate(strange) if s} - {words[0][i] for i in whole}
        names_of[label] = tuple(name for name in names_of[label] if name not in strangers)
    columns = {"label": words[0], "split": split_words, **dict(zip(named, words[1:], strict=True))}
    return build(
        Path(path).name,
        {"id": [ids[i] for i in whole], **{c: [str(cells[i]) for i in whole] for c, cells in columns.items()}},
        classes=names_of.get(label), values={a: names_of[a] for a in attributes if a in names_of}, root=address,
        cluster=cluster, source=f"Hugging Face dataset {Path(path).name}", version=_version(kept, column),
        remarks=tuple(remarks), licence=str(next(iter(kept.values())).info.license or ""),
    )  # fmt: skip


def _files(path: str, tables: dict[str, Any], column: str) -> dict[str, list[str]]:
    """The files that the rows of every split are, by their paths below a folder; empty for any other row."""
    import datasets
    from pyarrow import compute

    pc: Any = compute
    files: dict[str, list[str]] = {}
    for name, rows in tables.items():
        encoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False)).with_format("arrow")
        files[name] = []
        for start in range(0, len(rows), STEP) if Path(path).is_dir() else ():
            paths = pc.struct_field(encoded[start : start + STEP].column(column), "path").to_pylist()
            files[name] += [f[len(path) + 1 :] if f and f.startswith(f"{path}/") else "" for f in paths]
        files[name] += [""] * (len(rows) - len(files[name]))
    return files


def _unseen(path: str, files: dict[str, list[str]]) -> list[str]:
    """What lies in a folder of images and is no row of the library's."""
    listed = {file for some in files.values() for file in some if file}
    if not listed:
        return []
    tree = Tree(Path(path))
    lost = [f for f in tree.walk() if f.rpartition(".")[2].lower() in IMAGES and f not in listed]
    tree.left_out.add(
        "images that the library datasets does not find, as behind links to folders", *lost[:1], n=len(lost)
    )
    return tree.left_out.remarks()


def _mapping(splits: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for pair in splits:
        name, _, target = pair.rpartition("=")
        if not name or target.lower() not in SPELLINGS:
            raise ManifestError(f"-O splits={pair}: expected NAME=train, NAME=val or NAME=test")
        pairs[name.lower()] = SPELLINGS[target.lower()]
    return pairs


def _names(path: str, kept: dict[str, Any], column: str) -> tuple[str, ...] | None:
    """The names of a column's classes in order, when the dataset has them. They have to agree between splits."""
    import datasets

    kinds = [rows.features[column] for rows in kept.values()]
    names = [tuple(k.names) for k in kinds if isinstance(k, datasets.ClassLabel) and k.names]
    if not names:
        return None
    if len(names) < len(kinds) or len(set(names)) > 1:
        raise ManifestError(f"{path}: the splits name the classes of {column!r} differently; make them agree first")
    return names[0]


def _words(path: str, rows: Any, column: str) -> list[str | None]:
    """A column in words, None where there is no value; no image is touched."""
    import datasets

    if column not in rows.features:
        raise ManifestError(f"{path} has no column {column!r}: {nearest(column, rows.features)}")
    kind = rows.features[column]
    names = kind.names if isinstance(kind, datasets.ClassLabel) else None
    plain = str(getattr(kind, "dtype", ""))
    if not plain.startswith(("int", "uint", "bool", "string", "large_string")):
        raise ManifestError(f"{path}: column {column!r} is {kind}; expected one word or whole number per row")
    cells = rows.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    if names:
        return [names[c] if c is not None and 0 <= c < len(names) else None for c in cells]
    return [None if c in (None, "") else str(c).lower() if plain == "bool" else str(c) for c in cells]


def _version(tables: Any, column: str) -> str:
    """A digest of the images: of every one how many bytes it has, of some the bytes themselves.

    The library's own fingerprints depend on where and when a dataset was loaded, and on its labels; this does not.
    """
    import datasets
    import numpy as np
    from pyarrow import compute

    pc: Any = compute  # its functions come into being when it is imported, out of sight of type checkers
    digest = hashlib.sha256()
    for name, rows in sorted(tables.items()):
        encoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        arrow = encoded.with_format("arrow")
        digest.update(f"{name} {len(rows)}\n".encode())
        for start in range(0, len(rows), STEP):
            cells = arrow[start : start + STEP].column(column)
            sizes = np.array(pc.fill_null(pc.binary_length(pc.struct_field(cells, "bytes")), -1), dtype="<i8")
            for i in np.flatnonzero(sizes < 0):
                sizes[i] = _size(pc.struct_field(cells, "path")[int(i)].as_py())
            digest.update(sizes.tobytes())
        for row in range(0, len(rows), max(1, len(rows) // SAMPLE)):
            with contextlib.suppress(OSError):
                digest.update(hashlib.sha256(stored(encoded[row][column])).digest())
    return f"images {digest.hexdigest()[:16]}"


def _size(path: str | None) -> int:
    try:
        return os.stat(path).st_size if path else -1  # noqa: PTH116  a path object per image would take its time
    except OSError:
        return -1
