"""Images by their index: a shot of a panel, or a row of the dataset. No address holds a path."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Lock

from embedx.annotation.board import Board
from embedx.data.images import decode
from embedx.data.manifest import Manifest
from embedx.data.sources import Source
from embedx.data.status import Status

KINDS = ("image", "overlay", "attack")
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"}
SIDE = 320
"""Longer side of a row's picture, in pixels."""
KEPT = 512
"""Pictures of rows that are kept."""


@dataclass(frozen=True)
class Picture:
    """The bytes of an image, and their media type."""

    data: bytes
    type: str


def shot(board: Board, label: int, feature: int, number: int, kind: str) -> Picture | None:
    """One picture of a panel; None for what there is not."""
    panel = board.panel(label, feature)
    if panel is None or not 0 <= number < len(panel.shots) or kind not in KINDS:
        return None
    return _file(board.folder, getattr(panel.shots[number], kind))


def histogram(board: Board, label: int, feature: int) -> Picture | None:
    """The histogram of a panel."""
    panel = board.panel(label, feature)
    return None if panel is None else _file(board.folder, panel.histogram)


def flagged(board: Board, place: int, kind: str) -> Picture | None:
    """The picture of an image to review, or its crop, by its place in the queue from 1."""
    flag = board.flags[place - 1] if 0 < place <= len(board.flags) else None
    return None if flag is None or kind not in ("image", "crop") else _file(board.folder, getattr(flag, kind))


def _file(folder: Path, file: str | None) -> Picture | None:
    """A picture that a record of ours names, below the folder of the analysis, wherever the record came from."""
    parts = PurePosixPath(file or "").parts
    kind = TYPES.get(PurePosixPath(file or "").suffix)
    if not file or kind is None or PurePosixPath(file).is_absolute() or ".." in parts or "\\" in file:
        return None
    try:
        path = (folder / file).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return None
        return Picture(path.read_bytes(), kind)
    except (OSError, ValueError):
        return None


@dataclass
class Rows:
    """Small pictures of the rows of a dataset, made when they are asked for; the latest are kept."""

    manifest: Manifest
    source: Source
    _made: OrderedDict[int, Picture] = field(default_factory=OrderedDict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def get(self, row: int) -> Picture | None:
        """The picture of a row; None for one that there is not, or that cannot be read. Threads may ask at once."""
        with self._lock:
            if row in self._made:
                self._made.move_to_end(row)
                return self._made[row]
        if not 0 <= row < len(self.manifest):
            return None
        decoded = decode(self.source, str(self.manifest.ids[row]), "image")
        if decoded.status != Status.OK:
            return None
        out, image = io.BytesIO(), decoded.value.copy()
        image.thumbnail((SIDE, SIDE))
        image.save(out, "JPEG", quality=88)
        picture = Picture(out.getvalue(), "image/jpeg")
        with self._lock:
            self._made[row] = picture
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        return picture
