"""Several devices on one machine: one process each. The parent hands out shards to whoever asks for more."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from embedx.errors import EmbedxError, ExtractionError
from embedx.extract.job import Piece
from embedx.extract.plan import Plan
from embedx.extract.throughput import Throughput
from embedx.plugins.outside import PLUGINS, Plugins, closed_folder


def compute_in_processes(plan: Plan, wanted: Sequence[Piece], finished: Callable[[int], None]) -> Throughput:
    """Compute the wanted shards on all of the settings' devices at once.

    Raises `ExtractionError` when a process failed or died; what the others computed until then is kept.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    devices = plan.settings.devices
    connections: list[Any] = []
    processes = []
    for number, device in enumerate(devices):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(PLUGINS, theirs, plan, device, number, len(devices)))
        with closed_folder():
            process.start()
        theirs.close()  # so that the pipe ends when the process does
        connections.append(ours)
        processes.append(process)
    try:
        return _serve(dict(zip(connections, devices, strict=True)), list(wanted), finished)
    finally:
        for connection in connections:
            connection.close()  # a process that still works ends when it asks for more
        for process in processes:
            process.join(None if sys.exc_info()[0] is None else 10)
            process.kill()


def _serve(devices: dict[Connection, str], waiting: list[Piece], finished: Callable[[int], None]) -> Throughput:
    used, faults = Throughput(), []
    waiting.reverse()
    active = dict(devices)
    while active:
        for connection in wait(list(active)):
            assert isinstance(connection, Connection)  # nothing else is waited for
            try:
                kind, value = connection.recv()
                if kind == "next":
                    connection.send(waiting.pop() if waiting and not faults else None)
            except (EOFError, ConnectionError):
                faults.append(f"the process on {active.pop(connection)} died")
                continue
            if kind == "rows":
                finished(value)
            elif kind == "done":
                used.add(value)
                del active[connection]
            elif kind == "fault":
                faults.append(value)
                del active[connection]
    if faults:
        kept = "" if "kept" in faults[0] or "stays" in faults[0] else "; what was computed is kept: run it again"
        raise ExtractionError(faults[0] + kept)
    return used


def _work(plugins: Plugins, connection: Connection, plan: Plan, device: str, number: int, of: int) -> None:
    """The life of one process; the plug-ins arrive first, as the others may need them."""
    import torch

    from embedx.extract.shards import compute, load, same_conditions

    def pieces() -> Iterator[Piece]:
        while (piece := _asked(connection)) is not None:
            yield piece

    try:
        torch.set_num_threads(plan.jobs[0].conditions.get("threads") or max(1, (os.cpu_count() or 1) // of))
        backbones = load(plan, device)
        same_conditions(plan, device, backbones)
        workers = plan.settings.workers // of + (number < plan.settings.workers % of)
        used = compute(plan, backbones, pieces(), device, workers, lambda rows: connection.send(("rows", rows)))
        connection.send(("done", used))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return  # the parent is gone, and nobody waits for the rest
    except EmbedxError as error:
        connection.send(("fault", f"{device}: {error}"))
    except OSError as error:
        connection.send(("fault", f"{device}: {error.filename or 'a file'}: {error.strerror or error}"))
    except Exception as error:  # noqa: BLE001  a defect of ours: its traceback has to reach somebody
        traceback.print_exc()
        connection.send(("fault", f"{device}: {type(error).__name__}: {error}"))


def _asked(connection: Connection) -> Any:
    connection.send(("next", None))
    return connection.recv()
