"""Where the bytes of a row come from: a file below a folder, a member of a tar archive, a row of a dataset on disk.

A source is a small value that can be sent to other processes; it opens nothing until it is asked for bytes.
"""

from pathlib import Path
from typing import Protocol

from embedx.sources.files import Folder as Folder
from embedx.sources.hugging_face import PREFIX, HuggingFace
from embedx.sources.tars import Tars


class Source(Protocol):
    """Bytes by id. `read` raises `FileNotFoundError` for what is not there, `OSError` for what cannot be read."""

    @property
    def place(self) -> str: ...

    def read(self, row_id: str) -> bytes: ...


def open_source(root: str, index: Path) -> Source:
    """The source for a manifest's root: tar members where the manifest has an index of them, else files."""
    if root.startswith(PREFIX):
        return HuggingFace(root)
    return Tars(root, index) if index.exists() else Folder(Path(root))
