"""Rows that are files."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedx.data.sources import stamps


@dataclass(frozen=True)
class Folder:
    """Files; an id is the path relative to `root`."""

    root: Path

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)

    def read(self, row_id: str) -> bytes:
        """The file's bytes."""
        return regular(self.root / row_id)

    def stamps(self, ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """(n, 2) size and modification time of every file."""
        root = f"{self.root}/"
        return stamps.each(lambda row_id, now: stamps.of_file(root + row_id, now), ids)


def regular(path: Path) -> bytes:
    """The bytes of a regular file."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path)) from error
