"""Waterbirds (Sagawa et al. 2020): birds of CUB on backgrounds of Places; `--root waterbird_complete95_forest2water2`.

The label is landbird or waterbird, the attribute the place behind it, land or water; 95 % of the training birds stand
where they belong, validation and test are balanced within class. The twelve group counts of the published files are
known, and differences are reported: other generated variants are in circulation. The published labels take three
species with "tern" in their English name for waterbirds; they are kept, so that figures stay comparable.
"""

from __future__ import annotations

from pathlib import Path

from embedx.data.download import Download
from embedx.data.manifest import SPLITS, Manifest, build
from embedx.errors import ManifestError

CLASSES = ("landbird", "waterbird")
PLACES = ("land", "water")
COUNTS = {"train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}


def read(root: Path) -> Manifest:
    """Read `metadata.csv` of the official folder. Raises `ManifestError` when it is not as published."""
    import pandas as pd

    file = root / "metadata.csv"
    if not file.is_file():
        raise ManifestError(
            f"{file} does not exist; --root must be the unpacked folder waterbird_complete95_forest2water2 "
            "(https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz)"
        )
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise ManifestError(f"{file} cannot be read as a table ({error})") from error
    wanted = ("img_filename", "y", "split", "place")
    if missing := [c for c in wanted if c not in table.columns]:
        raise ManifestError(f"{file} has no column {', '.join(missing)}; found {', '.join(table.columns)}")

    def words(column: str, names: tuple[str, ...]) -> list[str]:
        code = {str(i): name for i, name in enumerate(names)}
        if unknown := sorted(set(table[column]) - set(code)):
            raise ManifestError(f"{file}: {column} is {unknown[0]!r} somewhere; expected {', '.join(code)}")
        return [code[c] for c in table[column]]

    columns = {
        "id": table["img_filename"].tolist(),
        "label": words("y", CLASSES),
        "split": words("split", SPLITS),
        "place": words("place", PLACES),
    }
    groups = [f"{c}/{p}" for c in CLASSES for p in PLACES]
    return build(
        "waterbirds", columns, classes=CLASSES, values={"place": PLACES}, root=str(root.resolve()),
        source="https://github.com/kohpangwei/group_DRO", licence="CUB-200-2011 and Places: research use",
        expected={f"{s}/{g}": n for s, counts in COUNTS.items() for g, n in zip(groups, counts, strict=True)},
    )  # fmt: skip


# No checksum is published; the archive's own checksum and the twelve counts are what a download is held against.
DOWNLOADS = (
    Download(
        "waterbird_complete95_forest2water2.tar.gz",
        tuple(
            f"https://{place}/dro/waterbird_complete95_forest2water2.tar.gz"
            for place in ("nlp.stanford.edu/data", "downloads.cs.stanford.edu/nlp/data")
        ),
        unpack="waterbird_complete95_forest2water2",
        licence="CUB-200-2011 and Places: research use",
    ),
)
