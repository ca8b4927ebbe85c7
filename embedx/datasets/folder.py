"""A folder `split/class/image`: the layout of torchvision's ImageFolder, one folder per split.

`train`, `val` and `test` may also be called training, valid, validation or dev, and testing. Every file below a class
folder is a row, links are followed, and files that are no images keep their row and get a status when they are read.
Hidden files, those of systems (`@eaDir`, `Thumbs.db`, ...) and what lies beside the classes are left out and counted.
"""

from __future__ import annotations

from pathlib import Path

from embedx.data.manifest import SPLITS, Manifest, build
from embedx.data.trees import Tree
from embedx.errors import ManifestError

SPELLINGS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def read(root: Path) -> Manifest:
    """The manifest of a folder tree. Raises `ManifestError` when no split folder is found."""
    if not root.is_dir():
        raise ManifestError(f"--root {root} is no folder; expected one that holds train/CLASS/IMAGE")
    tree = Tree(root)
    folders, files = tree.listed()
    split_of = {name: SPELLINGS[name.lower()] for name in folders if name.lower() in SPELLINGS}
    if len(set(split_of.values())) != len(split_of):
        raise ManifestError(f"{root} holds two folders for one split: {', '.join(split_of)}; keep one of each")
    if "train" not in split_of.values():
        have = ", ".join(sorted(folders + files)[:8]) or "nothing"
        raise ManifestError(
            f"{root} holds no train folder (found {have}); expected {'/, '.join(SPLITS)}/ with a folder per class"
        )
    beside = [f"{name}/" for name in folders if name not in split_of] + files
    tree.left_out.add("files and folders beside the splits", *beside, n=len(beside))
    columns: dict[str, list[str]] = {"id": [], "label": [], "split": []}
    for name, split in split_of.items():
        labels, loose = tree.listed(name)
        tree.left_out.add("files that lie in no class folder", *(f"{name}/{f}" for f in loose[:1]), n=len(loose))
        for label in labels:
            before = len(columns["id"])
            columns["id"] += tree.walk(f"{name}/{label}")
            n = len(columns["id"]) - before
            columns["label"] += [label] * n
            columns["split"] += [split] * n
            tree.left_out.add("class folders without a file", f"{name}/{label}", n=not n)
    remarks = tuple(tree.left_out.remarks())
    if not columns["id"]:
        raise ManifestError(
            f"{root} holds no file in a class folder ({'; '.join(remarks) or 'nothing at all'}); expected "
            "train/CLASS/IMAGE"
        )
    name = root.resolve().name
    return build(name, columns, source=f"folder {name}", root=str(root.resolve()), remarks=remarks)
