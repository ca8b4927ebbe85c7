"""Silence about convergence where it is looked after otherwise, for any number of threads at once.

The filters of `warnings` belong to the whole process: of two threads that set and restore them in turn, one would hear
what it asked not to and the other would leave its filter behind. So the first that comes sets them and the last that
goes restores them.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

from sklearn.exceptions import ConvergenceWarning


class _Quiet:
    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = warnings.catch_warnings()
                self.before.__enter__()
                warnings.simplefilter("ignore", ConvergenceWarning)
            self.inside += 1

    def __exit__(self, *failure: Any) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.before.__exit__(None, None, None)


quiet = _Quiet()
"""`with quiet:` no `ConvergenceWarning` of scikit-learn's is shown."""
