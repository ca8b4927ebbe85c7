"""Two threads that ask for silence at once both have it, and leave the filters as they were."""

import threading
import warnings

import pytest
from sklearn.exceptions import ConvergenceWarning

from probes._process_wide import quiet


def test_threads_that_overlap_are_all_quiet_and_leave_nothing_behind() -> None:
    before, first_out = list(warnings.filters), threading.Event()
    second_in, heard = threading.Event(), []

    def second() -> None:
        with quiet:
            second_in.set()
            first_out.wait()
            try:
                warnings.warn("late", ConvergenceWarning, stacklevel=1)
            except ConvergenceWarning as warning:  # warnings are errors here
                heard.append(warning)

    with quiet:
        thread = threading.Thread(target=second)
        thread.start()
        second_in.wait()
    first_out.set()
    thread.join()
    assert not heard and list(warnings.filters) == before
    with pytest.warns(ConvergenceWarning):
        warnings.warn("loud", ConvergenceWarning, stacklevel=1)
    with quiet, pytest.raises(UserWarning):
        warnings.warn("of something else", UserWarning, stacklevel=1)
