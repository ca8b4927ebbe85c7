"""Results that grow: what a file of results keeps when more is measured, and what is said of the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from embedx.files import locked

Notice = Callable[[str], None]
T = TypeVar("T")
SHOWN = 5  # names in a notice


def kept(
    path: Path,
    before: Sequence[T],
    fresh: Sequence[T],
    name: Callable[[T], str],
    notice: Notice,
    *,
    content: Callable[[T], Any] = lambda x: x,
    foreign: str = "",
) -> list[T]:
    """The entries of `before` that stay in `path` beside the fresh ones: those that were not made again.

    name     what an entry is of: of two with one name the fresh one counts, which is told where they differ
    content  what two entries differ by
    foreign  how what `before` was made from differs from what the fresh ones were, in words; then none of it belongs
             here any more, and it is told what goes. Empty: it does not
    """
    again = {name(x): content(x) for x in fresh}
    if foreign:
        if before:
            notice(f"note: {path} of {date(path)} was made {foreign}; this goes from it: {listed(map(name, before))}")
        return []
    if changed := [name(x) for x in before if name(x) in again and again[name(x)] != content(x)]:
        notice(f"note: {path}: other figures than on {date(path)}, which go: {listed(changed)}")
    return [x for x in before if name(x) not in again]


def listed(names: Any) -> str:
    """Some names in a line, of many the first."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - SHOWN:,} more" if len(distinct) > SHOWN else ""
    return ", ".join(distinct[:SHOWN]) + more


def date(path: Path) -> str:
    """When a file was written, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


@contextmanager
def alone(path: Path, notice: Notice) -> Iterator[None]:
    """Work on what `path` is the record of, one process at a time; that another is waited for is told."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, wait=False))
        except BlockingIOError:
            notice(f"note: another process is at work on {path}; waiting until it is through")
            stack.enter_context(locked(path))
        yield
