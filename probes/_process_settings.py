"""Settings of the whole process, for any number of threads at once: warnings' filters and the threads of products.

If two threads each set and restored such a setting, one would lose it too early and the other would leave its own
behind. So the first thread that enters sets it, and the last that leaves restores it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any

from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController


class Shared:
    """A context that threads may be in together: entered with the first of them, left with the last."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self.make, self.held, self.lock, self.inside = make, ExitStack(), threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.held.enter_context(self.make())
            self.inside += 1

    def __exit__(self, *failure: Any) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.held.close()


@contextmanager
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all libraries of the process, which takes milliseconds


quiet = Shared(_unwarned)
"""`with quiet:` no `ConvergenceWarning` of scikit-learn's is shown; its users check convergence themselves."""
one_core = Shared(lambda: _controller().limit(limits=1, user_api="blas"))
"""`with one_core:` a product of numpy's or scipy's is not shared among threads."""
