"""All files below a folder, in one fixed order: links are followed, and whatever is not given is counted.

A link to a folder is that folder, also where two links lead to one, as for torchvision's `ImageFolder`; a link to a
folder that it lies in, by whatever way, would lead round for ever and is left out. A folder that cannot be listed is an
error: its files must not silently be none. A link to nothing is given like a file, so that it becomes a row that fails.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from embedx.data.left_out import LeftOut, clutter

LOOP = "links to a folder that they lie in"
SPECIAL = "pipes, sockets and devices"


class Tree:
    """The files below `root`, by their paths relative to it, with `/` on every system.

    Hidden files and folders and those of systems (`embedx.data.left_out`) are passed over, unless `every` is true, and
    counted in `left_out`, as is whatever else is not given. Methods raise `OSError` for a folder that cannot be listed.
    """

    def __init__(self, root: Path, *, every: bool = False) -> None:
        self.root, self.every, self.left_out = root, every, LeftOut()
        self._ways: dict[str, frozenset[tuple[int, int]]] = {}

    def listed(self, at: str = "") -> tuple[list[str], list[str]]:
        """The names of the folders and of the files in one folder, each sorted."""
        folders, files = [], []
        with os.scandir(self._place(at)) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                path = f"{at}/{entry.name}" if at else entry.name
                if not self.every and (why := clutter(entry.name)):
                    self.left_out.add(why, path)
                elif (kind := _kind(entry)) == "other":
                    self.left_out.add(SPECIAL, path)
                elif kind == "file":
                    files.append(entry.name)
                elif entry.is_symlink() and _identity(entry.path) in self._way(at):
                    self.left_out.add(LOOP, path)
                else:
                    folders.append(entry.name)
        return folders, files

    def walk(self, at: str = "") -> Iterator[str]:
        """The paths of all files below a folder: those of a folder sorted, before those of the folders in it."""
        waiting = [at]
        while waiting:
            folder = waiting.pop()
            folders, files = self.listed(folder)
            start = f"{folder}/" if folder else ""
            yield from (start + name for name in files)
            waiting += [start + name for name in reversed(folders)]

    def _place(self, at: str) -> str:
        return f"{self.root}/{at}" if at else str(self.root)

    def _way(self, at: str) -> frozenset[tuple[int, int]]:
        """All folders that a folder lies in, itself too: those on the way down to it, and those above each of them."""
        if at not in self._ways:
            names = at.split("/") if at else []
            places = [self._place("/".join(names[:n])) for n in range(len(names) + 1)]
            real = {Path(os.path.realpath(place)) for place in places}
            folders = {folder for r in real for folder in (r, *r.parents)}
            self._ways[at] = frozenset(_identity(str(folder)) for folder in folders)
        return self._ways[at]


def count(folder: Path) -> int:
    """How many files of any name lie below a folder."""
    return sum(1 for _ in Tree(folder, every=True).walk())


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "other"]:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists()):
            return "file"
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):  # links in a circle, or through a file
            raise
        return "file"
    return "other"


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116  a string, as everywhere here: a path object per file would take its time
    return status.st_dev, status.st_ino
