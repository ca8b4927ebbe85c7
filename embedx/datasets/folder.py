"""A folder `split/class/image`: the layout of torchvision's ImageFolder, one folder per split.

`train`, `val` and `test` may also be called training, valid, validation or dev, and testing. Every file below a class
folder that is not hidden is a row; files that are no images keep their row and get a status when they are read.
"""

from __future__ import annotations

import os
from pathlib import Path

from embedx.errors import ManifestError
from embedx.manifest import SPLITS, Manifest, build

SPELLINGS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def read(root: Path) -> Manifest:
    """The manifest of a folder tree. Raises `ManifestError` when no split folder is found."""
    if not root.is_dir():
        raise ManifestError(f"--root {root} is no folder; expected one that holds train/CLASS/IMAGE")
    found = {
        p.name: SPELLINGS[p.name.lower()] for p in sorted(root.iterdir()) if p.is_dir() and p.name.lower() in SPELLINGS
    }
    if len(set(found.values())) != len(found):
        raise ManifestError(f"{root} holds two folders for one split: {', '.join(found)}; keep one of each")
    if "train" not in found.values():
        have = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise ManifestError(
            f"{root} holds no train folder (found {have}); expected {'/, '.join(SPLITS)}/ with a folder per class"
        )
    columns: dict[str, list[str]] = {"id": [], "label": [], "split": []}
    for name, split in found.items():
        for label in sorted(p for p in (root / name).iterdir() if p.is_dir() and not p.name.startswith(".")):
            for folder, folders, files in os.walk(label, onerror=_refuse):
                folders[:] = [f for f in folders if not f.startswith(".")]
                for file in files:
                    if not file.startswith("."):
                        columns["id"].append((Path(folder) / file).relative_to(root).as_posix())
                        columns["label"].append(label.name)
                        columns["split"].append(split)
    return build(root.resolve().name, columns, source=f"folder {root.resolve().name}", root=str(root.resolve()))


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is an error: its images must not silently be no rows."""
    raise error
