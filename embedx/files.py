"""Files that land whole or not at all: temporary name, flush, fsync, rename."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def write_text(path: Path, text: str) -> None:
    """Write a text file; a kill at any moment leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text, encoding="utf-8", newline="")
    publish(temporary, path)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file, likewise whole or not at all."""
    import numpy as np

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished file to its final name, with its bytes and the rename itself safe on disk."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
