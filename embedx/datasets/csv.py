"""Any table with a path, a label, a split and attribute columns; `--root` is the table (CSV or TSV).

Options name the columns: `-O path=filename -O label=species -O split=fold -O attributes=place,camera`, and
`-O cluster=patient` the one that says which images are of one subject and so no independent draws. Paths are relative
to the table's folder, or to `-O images=FOLDER`; absolute paths must lie below it. Splits are spelled
train/val/test or 0/1/2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedx.data.manifest import RESERVED, Manifest, build, tidy
from embedx.errors import ManifestError
from embedx.plugins import nearest

if TYPE_CHECKING:
    import pandas as pd

SPELLINGS = {
    "0": "train", "train": "train", "training": "train", "1": "val", "val": "val", "valid": "val",
    "validation": "val", "2": "test", "test": "test", "testing": "test",
}  # fmt: skip


def read(
    root: Path,
    path: str = "path",
    label: str = "label",
    split: str = "split",
    attributes: tuple[str, ...] = (),
    cluster: str = "",
    images: str = "",
) -> Manifest:
    """The manifest of a table. Raises `ManifestError` for an absent column or a path outside the image folder."""
    import pandas as pd

    if not root.is_file():
        raise ManifestError(f"--root {root} is no file; the csv dataset needs the table itself")
    try:
        table = pd.read_csv(
            root, sep="\t" if root.suffix == ".tsv" else ",", dtype=str, keep_default_na=False, header=None,
            index_col=False, encoding="utf-8-sig",
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise ManifestError(f"{root} cannot be read as a table ({str(error).strip()})") from error
    if table.shape[1] == 1:
        raise ManifestError(
            f"{root} has one column only ({table.iloc[0, 0]}); expected separation by commas, or tabs in .tsv"
        )
    # The header by hand: pandas would rename a column that occurs twice.
    table = table.fillna("")  # a line that ends early has no values, not the word nan
    table.columns = [tidy(c) for c in table.iloc[0]]
    table = table.iloc[1:]
    if twice := [c for c in table.columns if c and list(table.columns).count(c) > 1]:
        raise ManifestError(f"{root} has two columns {twice[0]!r}; rename one of them")
    for option, column in (
        ("path", path),
        ("label", label),
        ("split", split),
        *(("attributes", a) for a in attributes),
        *(("cluster", c) for c in (cluster,) if c),
    ):
        if column not in table.columns:
            raise ManifestError(
                f"{root} has no column {column!r}: {nearest(column, table.columns)}; name it with -O {option}=COLUMN"
            )
    if reserved := sorted({*RESERVED} & {*attributes, cluster}):
        raise ManifestError(f"{reserved[0]!r} cannot be the name of an attribute; rename that column of {root}")
    folder = root.parent / images
    columns = {
        "id": [_relative(p, folder) for p in table[path]],
        "label": table[label].tolist(),
        "split": [SPELLINGS.get(s.strip().lower(), s) for s in table[split]],
        **{a: table[a].tolist() for a in (*attributes, cluster) if a},
    }
    used = (path, label, split, *attributes, *([cluster] if cluster else []))
    return build(
        root.stem, columns, cluster=cluster, grouping=attributes, source=f"table {root.name}",
        root=str(folder.resolve()), remarks=_doubts(root, table, used),
    )  # fmt: skip


def _doubts(file: Path, table: pd.DataFrame, used: Sequence[str]) -> tuple[str, ...]:
    """Where rows may be missing though the table can be read: a line cut off, a quote that took lines into its cell."""
    remarks = []
    with file.open("rb") as raw:
        raw.seek(-1, os.SEEK_END)
        if raw.read() not in (b"\n", b"\r"):
            cells = ", ".join(repr(cell) for cell in table.iloc[-1])
            remarks.append(
                f"the last line of {file.name} has no end ({cells}); if the table was cut off, fetch it again"
            )
    for place, name in enumerate(table.columns):
        broken = table.iloc[:, place].str.contains("\n", regex=False).to_numpy(dtype=bool)
        if name not in used and broken.any():
            row = table[used[0]].iloc[int(broken.argmax())]
            remarks.append(
                f"{int(broken.sum()):,} cells of column {name!r} hold line breaks, the first in the row of {row!r}; if "
                "a quote there was never closed, the lines up to the next quote are no rows"
            )
    return tuple(remarks)


def _relative(path: str, folder: Path) -> str:
    if not path or not os.path.isabs(path):  # noqa: PTH117
        return path and Path(path).as_posix()  # an empty one is refused with its row, not taken for "."
    for spelling in (folder.absolute(), folder.resolve()):  # with symbolic links and without
        if Path(path).is_relative_to(spelling):
            return Path(path).relative_to(spelling).as_posix()
    raise ManifestError(f"{path} lies outside {folder}; name the folder of the images with -O images=FOLDER")
