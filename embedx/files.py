"""Files that land whole or not at all: temporary name, flush, fsync, rename."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: Path, text: str) -> None:
    """Write a text file; a kill at any moment leaves the old one or the new one."""
    with _landing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file, likewise whole or not at all."""
    import numpy as np

    with _landing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()


@contextmanager
def _landing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with clear_faults(path):
            yield temporary
            publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def clear_faults(path: Path) -> Iterator[None]:
    """Whatever fails while `path` is written becomes an `OSError` with that name and one line that says what to do.

    HDF5 for one tells of a full device in several lines, and not always as an `OSError`; NumPy does not name it at all.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        said = re.search(r"errno = (\d+)", str(error))
        number = getattr(error, "errno", None) or (int(said[1]) if said else 0)
        if "requested and" in str(error):  # NumPy's words for a write that was cut short
            number = errno.ENOSPC
        if not number:
            raise
        text = os.strerror(number)
        if number in FULL:
            text = f"the device is full ({text}); what is finished stays: make room and run the same command again"
        raise OSError(number, text, str(path)) from error


def publish(temporary: Path, path: Path, *, lasting: bool = True) -> None:
    """Rename a finished file to its final name, its bytes safe on disk, and so is the rename when it is `lasting`.

    A rename that is not may be undone by a power cut, never half done.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    if not lasting:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
