"""Where the bytes of a row come from: a file below a folder, a member of a tar archive, a row of a dataset on disk.

A source is a small value that can be sent to other processes; it opens nothing until it is asked for bytes.
"""

import errno
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from embedx.data.sources.archives import remote
from embedx.data.sources.files import Folder as Folder
from embedx.data.sources.hugging_face import PREFIX, HuggingFace
from embedx.data.sources.tars import Tars


class Source(Protocol):
    """Bytes by id. `read` raises `FileNotFoundError` for what is not there, `OSError` for what cannot be read.

    `stamps` (n, 2) tells a row that may have changed without reading it: see `embedx.data.sources.stamps`.
    """

    @property
    def place(self) -> str:
        """Where the bytes are, in words for a message."""
        ...

    def read(self, row_id: str) -> bytes:
        """The bytes of one row."""
        ...

    def stamps(self, ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """(n, 2) int64 size and mark of each row, zeros where the source knows none."""
        ...


PASSING = frozenset(
    number
    for name in (
        "EAGAIN", "EBUSY", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ESTALE", "ETIMEDOUT",
        "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET",
        "ENETUNREACH", "ENODEV", "ENOLINK", "ENOTCONN", "ENXIO", "EPIPE", "EREMOTEIO", "ESHUTDOWN",
    )
    if (number := getattr(errno, name, None)) is not None
)  # fmt: skip
"""Errors of a disk, a network or a process, which say nothing of the file: a moment later it may be read."""
PAUSES = (0.1, 0.5, 2.0)
"""Seconds before a row is read again after such an error."""

_hopeless = False  # the last row could not be read in spite of all pauses: the next ones are not waited for as well


def passing(error: OSError) -> bool:
    """Whether an error says nothing of the file itself."""
    return error.errno in PASSING


def patiently(source: Source, row_id: str) -> bytes:
    """`source.read`, again after a pause where an error may pass; after a row that took all pauses, without any."""
    global _hopeless  # noqa: PLW0603  of this process: so a disk that is gone is noticed within seconds
    for pause in (*(() if _hopeless else PAUSES), None):
        try:
            content = source.read(row_id)
        except OSError as error:
            if not passing(error):
                raise
            if pause is None:
                _hopeless = True
                raise
            time.sleep(pause)
        else:
            _hopeless = False
            return content
    raise AssertionError("unreachable")


def readable(source: Source, row_id: str) -> bool:
    """Whether a row is there, whatever may be wrong with it."""
    try:
        source.read(row_id)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is there; what is wrong with it will stand in its row
    return True


def near(source: Source) -> bool:
    """Whether stamps are to be had from this machine's disks, without a request to a server."""
    return isinstance(source, Folder) or (isinstance(source, Tars) and not remote(source.root))


def open_source(root: str, index: Path) -> Source:
    """The source for a manifest's root: tar members where the manifest has an index of them, else files."""
    if root.startswith(PREFIX):
        return HuggingFace(root)
    return Tars(root, index) if index.exists() else Folder(Path(root))
