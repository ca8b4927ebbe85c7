"""The files of a dataset in one folder, fetched and unpacked, once. `complete.json` says what is done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from embedx.data.download.fetch import fetch
from embedx.data.download.item import Download, Progress, silent
from embedx.data.download.unpack import unpack
from embedx.data.trees import count
from embedx.documents import Kind
from embedx.errors import DownloadError
from embedx.files import locked

RECORD = "complete.json"


@dataclass(frozen=True)
class Done:
    """One downloaded file that nothing is left to do with.

    size    bytes; sha256: of them
    files   how many it was unpacked to; 1 where it was not
    """

    size: int
    sha256: str
    files: int


@dataclass(frozen=True)
class Complete:
    """What is done in a folder of downloads.

    items  {name of the downloaded file: what it was}
    """

    items: Mapping[str, Done]


KIND = Kind(
    Complete, RECORD, "embedx data get", DownloadError, "embedx-download", 2, indent=2, unmarked=1,
    again="move the folder away and start anew", steps={1: lambda values: {"items": values}},
)  # fmt: skip


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
        record = dict(KIND.read(folder / RECORD).items) if (folder / RECORD).exists() else {}
        wanted = [i for i in items if not _complete(i, folder, record.get(i.name))]
        lost = [i.name for i in wanted if not i.urls and not (folder / i.name).exists()]
        if lost:
            raise DownloadError(f"{by_hand}; put {', '.join(lost)} into {folder} and give the same command again")
        for item in wanted:
            file = fetch(item, folder, progress, pause)
            size, digest = file.stat().st_size, _sha256(file)

            def note(files: int, name: str = item.name, size: int = size, digest: str = digest) -> None:
                record[name] = Done(size, digest, files)
                KIND.write(folder / RECORD, Complete(record))

            if item.unpack:
                unpack(file, folder / item.unpack, item.unpacked, progress, note)
            else:
                note(1)
    places = {item.unpack for item in items}
    root = folder / places.pop() if len(places) == 1 else folder
    spare = tuple(folder / i.name for i in items if i.unpack and (folder / i.name).exists())
    return Got(root, tuple(i.name for i in wanted), spare)


def _complete(item: Download, folder: Path, done: Done | None) -> bool:
    """Whether nothing is left to do. Raises `DownloadError` for a folder that is not ours, or no longer whole."""
    if not item.unpack:
        file = folder / item.name
        return done is not None and file.exists() and file.stat().st_size == done.size
    place = folder / item.unpack
    if not place.exists():
        return False
    if done is None:
        raise DownloadError(
            f"{place} exists and was not made by this command; use it with --root {place}, or move it away"
        )
    present = count(place)
    if present < done.files:
        raise DownloadError(
            f"{place} holds {present:,} files, {item.name} has {done.files:,}; move it away and give the same "
            "command again"
        )
    return True


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
