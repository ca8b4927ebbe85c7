"""The fits of a comparison: one after the other, or several at a time, each in a process of its own.

A task is one head on one backbone. Processes, not threads: a fit is full of steps so short that threads would mostly
hand Python's lock to each other. A process keeps the features of the backbone that its last task was about.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from embedx.errors import HeadError
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.head_spec import HeadSpec
from embedx.evaluation.runs import Run
from embedx.evaluation.split import Outline, Split
from embedx.plugins.outside import PLUGINS, Plugins, closed_folder

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 4
"""Tasks at a time, unless told."""
WORTH = 1 << 30
"""Numbers in the features of all tasks, once a seed, from which on processes, which take seconds to start, pay."""
COPIES, OWN = 4, 1 << 30
"""Memory of a process: as often the bytes of its features, measured, and what it takes besides."""


@dataclass(frozen=True, eq=False)
class Task:
    """One head on one backbone.

    comparison  a name of the comparison: within it, a backbone's rows and features are the same
    outline     the rows, joined to their labels; the process that does the task reads the features
    attributes  also tell how well the embedding predicts the attributes
    extra       further fields of the records
    """

    comparison: str
    outline: Outline
    head: HeadSpec
    seeds: Sequence[int]
    attributes: bool
    extra: Mapping[str, Any]

    @property
    def backbone(self) -> str:
        """Whose features the head is fitted on."""
        return self.outline.split.backbone

    @property
    def name(self) -> str:
        """For a progress bar."""
        return f"{self.backbone}  {self.head.name}"

    def runs(self) -> list[Run] | HeadError:
        """One record per seed, or why there is none."""
        evaluator = _evaluator(self)
        extra = {**self.extra, "attributes": evaluator.decodability} if self.attributes else self.extra
        try:
            return evaluator.runs(self.head, self.seeds, extra)
        except HeadError as error:
            return HeadError(*error.args)  # without its traceback, which would keep the features


def outcomes(tasks: Sequence[Task], jobs: int | None = None) -> Iterator[tuple[int, list[Run] | HeadError]]:
    """(index, its records or why there are none) of every task, as soon as it is finished.

    With one job they come in the order of the tasks.

    jobs  tasks at a time, each with its share of the cores; None: one if the work is small, else `at_once`

    Raises `HeadError` when a process is killed from outside.
    """
    cores = cpu_count()  # that this process may use
    if jobs is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        numbers = [h.rows * h.dim for h in (task.outline.cache.header for task in tasks)]
        small = sum(n * len(t.seeds) for n, t in zip(numbers, tasks, strict=True)) < WORTH
        jobs = 1 if small else at_once(max(numbers), cores, memory)
    try:
        yield from in_processes(Task.runs, tasks, jobs, cores)
    except BrokenProcessPool as error:
        killed = isinstance(error, TerminatedWorkerError)
        why = "was killed, most likely for want of memory" if killed else f"failed: {str(error).splitlines()[0]}"
        raise HeadError(
            f"a process that fitted heads {why}; what was finished is kept: run it again with --jobs 1"
        ) from error
    finally:
        vars(_held).clear()  # where no processes were started


def in_processes(
    work: Callable[[T], R], items: Sequence[T], jobs: int, cores: int | None = None
) -> Iterator[tuple[int, R]]:
    """(index, result) of `work` on every item, as soon as it is finished; with one job in order, and here.

    work   a function of a module, so that it can be sent to another process
    jobs   items at a time, each in a process with its share of the cores
    cores  to share out; by default those that this process may use

    Raises `BrokenProcessPool` when a process is killed from outside; what `work` raises comes as it is.
    """
    jobs = min(jobs, len(items))
    if jobs < 2:
        for i, item in enumerate(items):
            yield i, work(item)
        return
    with parallel_config("loky", inner_max_num_threads=max(1, (cores or cpu_count()) // jobs)):
        pool = cast("Any", Parallel)(jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs)
    stream = pool(delayed(_numbered)(PLUGINS, i, work, item, os.getpid()) for i, item in enumerate(items))
    try:
        with closed_folder():
            for outcome in stream:  # noqa: UP028 - else it would be closed, with a warning, by whoever stops early
                yield outcome
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            stream.close()
        get_reusable_executor().shutdown(wait=False, kill_workers=True)  # or they would keep the features for minutes


def at_once(numbers: int, cores: int, memory: int) -> int:
    """How many tasks at a time, by the numbers in the features of the largest: one a core, at most `AT_ONCE`.

    And no more than three quarters of the machine's memory (bytes) have room for; a job's own limit is not looked up.
    """
    return max(1, min(cores, AT_ONCE, 3 * memory // 4 // (COPIES * 4 * numbers + OWN)))


def _numbered(plugins: Plugins, i: int, work: Callable[[T], R], item: T, parent: int) -> tuple[int, R]:
    """An item in a process; the plug-ins arrive before it, as it may be about one of them."""
    _end_with(parent)
    return i, work(item)


@cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent, which may be killed; it would wait for tasks for minutes."""

    if os.getpid() == parent:  # where joblib starts no processes, as within one of its own
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


_held = threading.local()
"""The backbone of this thread's last task: `backbone`, of which comparison and which one, and its `evaluator`."""


def _evaluator(task: Task) -> Evaluator:
    backbone = task.comparison, task.backbone
    if getattr(_held, "backbone", None) != backbone:
        vars(_held).clear()  # before the next is read
        _held.backbone, _held.evaluator = backbone, Evaluator(task.outline.read())
    return _held.evaluator


def split_at_hand(task: Task) -> Split | None:
    """The split that a task was fitted on, if this thread has just done it and so holds the features; else None."""
    held = getattr(_held, "backbone", None) == (task.comparison, task.backbone)
    return _held.evaluator.split if held else None
