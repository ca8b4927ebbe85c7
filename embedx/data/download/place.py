"""The files of a dataset in one folder, fetched and unpacked, once. `complete.json` says what is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

from embedx.data.download.fetch import fetch
from embedx.data.download.item import Download, Progress, silent
from embedx.data.download.unpack import unpack
from embedx.data.trees import count
from embedx.errors import DownloadError
from embedx.files import locked, write_text

RECORD = "complete.json"


@dataclass(frozen=True)
class Got:
    """Where the dataset lies now, which files were fetched or unpacked for it, and what may be deleted."""

    root: Path
    done: tuple[str, ...]
    spare: tuple[Path, ...]


def get(
    items: Sequence[Download], folder: Path, by_hand: str = "", progress: Progress = silent,
    pause: Callable[[float], None] = sleep,
) -> Got:  # fmt: skip
    """Fetch and unpack what is not there yet; the dataset's root is the folder that all its files end up in.

    by_hand  where the files without an address come from

    Raises `DownloadError`. What was done is recorded file by file, and not done again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, progress):
        record = _record(folder)
        wanted = [i for i in items if not _complete(i, folder, record.get(i.name, {}))]
        lost = [i.name for i in wanted if not i.urls and not (folder / i.name).exists()]
        if lost:
            raise DownloadError(f"{by_hand}; put {', '.join(lost)} into {folder} and give the same command again")
        for item in wanted:
            file = fetch(item, folder, progress, pause)
            facts = {"size": file.stat().st_size, "sha256": _sha256(file)}

            def note(files: int, name: str = item.name, facts: dict[str, Any] = facts) -> None:
                record[name] = facts | {"files": files}
                write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")

            if item.unpack:
                unpack(file, folder / item.unpack, item.unpacked, progress, note)
            else:
                note(1)
    places = {item.unpack for item in items}
    root = folder / places.pop() if len(places) == 1 else folder
    spare = tuple(folder / i.name for i in items if i.unpack and (folder / i.name).exists())
    return Got(root, tuple(i.name for i in wanted), spare)


def _complete(item: Download, folder: Path, facts: dict[str, Any]) -> bool:
    """Whether nothing is left to do. Raises `DownloadError` for a folder that is not ours, or no longer whole."""
    if not item.unpack:
        file = folder / item.name
        return file.exists() and file.stat().st_size == facts.get("size")
    place = folder / item.unpack
    if not place.exists():
        return False
    if not facts:
        raise DownloadError(
            f"{place} exists and was not made by this command; use it with --root {place}, or move it away"
        )
    present = count(place)
    if present < facts["files"]:
        raise DownloadError(
            f"{place} holds {present:,} files, {item.name} has {facts['files']:,}; move it away and give the same "
            "command again"
        )
    return True


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DownloadError(
            f"{folder / RECORD} cannot be read ({error}); move the folder away and start anew"
        ) from error
    return record


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Two processes must not write one file: the second waits, and finds it done. The lock goes with the process."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / RECORD, wait=False))
        except BlockingIOError:
            progress(0, 0, f"another process is at work in {folder}: waiting")
            stack.enter_context(locked(folder / RECORD))
        yield
