"""Work in the background: one piece at a time, in a process of its own, so that the page stays usable meanwhile.

All that the steps write lands whole or not at all, so a process may be ended at any moment.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from embedx.annotation import copies, effects, work
from embedx.annotation.work import Place
from embedx.errors import EmbedxError

KINDS: dict[str, Callable[..., Any]] = {
    "facts": effects.facts, "panels": work.panels, "heatmaps": work.heatmaps, "effect": effects.of_class,
    "effects": effects.of_all, "least-sure": work.least_sure, "extremes": work.extremes, "drawn": work.drawn,
    "corrected": copies.write_corrected, "grouped": copies.write_grouped,
}  # fmt: skip
"""What can be done: {kind: function of (place, what it is about, tell, note)}."""
NAMES = {
    "facts": "accuracies and the ranking", "panels": "pictures of {}", "heatmaps": "heatmaps of {}",
    "effect": "what the answers change for {}", "effects": "rank, gap and tune of {}",
    "least-sure": "the images of which the head is least sure", "extremes": "the extremes of the ranking",
    "drawn": "images drawn from test", "corrected": "a copy with corrected labels", "grouped": "a copy with {}",
}  # fmt: skip
OPEN = ("panels", "heatmaps", "least-sure", "extremes", "drawn")
"""What tells nothing of the answers of others."""
QUIET = ("facts",)
"""What is done without being asked for, and so is not told of."""


@dataclass
class Task:
    """One piece of work.

    about  the class that it is for, None for all; or the name of an attribute
    state  waiting, running, done, failed or ended
    done, total, text  how far it is, and in words; value: what came out
    """

    id: int
    kind: str
    about: int | str | None
    name: str
    state: Literal["waiting", "running", "done", "failed", "ended"] = "waiting"
    done: int = 0
    total: int = 0
    text: str = "waiting"
    notes: list[str] = field(default_factory=list)
    value: Any = None

    @property
    def open(self) -> bool:
        """Whether it still has to be done."""
        return self.state in ("waiting", "running")

    def summary(self) -> dict[str, Any]:
        """What a page is told of it."""
        told = {"id": self.id, "name": self.name, "state": self.state, "done": self.done, "total": self.total}
        return told | {"text": " ".join([self.text, *self.notes[-3:]])}


class Background:
    """A line of tasks. `finished` is called, from a thread, with each task that is done."""

    def __init__(self, place: Place, finished: Callable[[Task], None]) -> None:
        self._place, self._finished = place, finished
        self._tasks: list[Task] = []
        self._numbers = itertools.count(1)
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._closed = False
        self._process: BaseProcess | None = None
        self._thread = threading.Thread(target=self._work, name="embedx-background", daemon=True)
        self._thread.start()

    def add(self, kind: str, about: int | str | None, name: str) -> Task:
        """Put a task at the end of the line; one that is there already stays the only one of its kind and class."""
        with self._lock:
            for task in self._tasks:
                if task.open and (task.kind, task.about) == (kind, about):
                    return task
            task = Task(next(self._numbers), kind, about, name)
            self._tasks = [t for t in self._tasks if (t.kind, t.about) != (kind, about)] + [task]
        self._wake.set()
        return task

    def look(self) -> None:
        """Have done what is done without being asked for."""
        for kind in QUIET:
            self.add(kind, None, NAMES[kind])

    def busy(self, kind: str) -> bool:
        """Whether such a task is still to be done."""
        with self._lock:
            return any(t.open and t.kind == kind for t in self._tasks)

    def tasks(self) -> list[Task]:
        """What a page shows: all that was asked for, the last one of each kind and class."""
        with self._lock:
            return [t for t in self._tasks if t.kind not in QUIET or t.state == "failed"]

    def close(self) -> None:
        """End what is under way."""
        self._closed = True
        self._wake.set()
        process = self._process
        if process is not None and process.is_alive():
            process.terminate()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while not self._closed:
            with self._lock:
                task = next((t for t in self._tasks if t.state == "waiting"), None)
                if task is None:
                    self._wake.clear()
            if task is None:
                self._wake.wait()
            else:
                self._do(task)

    def _do(self, task: Task) -> None:
        task.state, task.text = "running", "starting"
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(theirs, task.kind, self._place, task.about), daemon=True)
        self._process.start()
        theirs.close()
        try:
            while not self._take(task, *ours.recv()):
                pass
        except (EOFError, OSError):
            self._process.join()
            if self._closed:
                task.state, task.text = "ended", "ended with the server; what is finished stays"
            else:
                task.state, task.text = "failed", f"its process ended by itself (code {self._process.exitcode})"
        self._process.join()

    def _take(self, task: Task, what: str, *told: Any) -> bool:
        """Take in what the other process tells; whether that is the last of it."""
        if what == "progress":
            task.done, task.total, task.text = told
        elif what == "note":
            task.notes.append(told[0])
        elif what == "done":
            task.value, task.done = told[0], task.total
            self._finished(task)  # before it is called done: who asks then finds what it found
            task.text, task.state = told[0] if isinstance(told[0], str) else "done", "done"
        else:
            task.text, task.state = told[0], "failed"
        return not task.open


def _end_with(server: BaseProcess | None) -> None:
    """End when the server has, however that was."""
    if server is not None:
        server.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _run(pipe: Connection, kind: str, place: Place, about: int | str | None) -> None:
    """In the other process: do it, and tell how it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()

    def tell(done: int, total: int, what: str) -> None:
        pipe.send(("progress", done, total, what))

    try:
        pipe.send(("done", KINDS[kind](place, about, tell, lambda text: pipe.send(("note", text)))))
    except BrokenPipeError:  # the server has ended
        pass
    except (EmbedxError, OSError) as error:
        pipe.send(("failed", str(error)))
    except Exception:
        pipe.send(("failed", f"a fault of embedx: {traceback.format_exc(limit=1).strip().splitlines()[-1]}"))
        raise
