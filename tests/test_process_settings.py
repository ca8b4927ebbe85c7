"""Settings of the process that threads share: silence about convergence, products on one core, large pages."""

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from embedx.probes._process_settings import Shared, one_core, quiet


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


def test_threads_share_a_setting_from_the_first_to_the_last_of_them() -> None:
    said: list[str] = []

    @contextmanager
    def setting() -> Iterator[None]:
        said.append("set")
        yield
        said.append("restored")

    shared = Shared(setting)
    with shared:
        with shared:
            assert said == ["set"]
        assert said == ["set"]
    assert said == ["set", "restored"]
    with shared:
        pass
    assert said == ["set", "restored"] * 2


def test_products_of_numpy_keep_to_one_core_inside_and_have_theirs_back_after() -> None:
    def cores() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = cores()
    with one_core:
        assert set(cores()) == {1}
    assert cores() == before


@pytest.mark.parametrize(("own", "expected"), [(None, "1"), ("0", "0")])
def test_large_pages_are_asked_for_unless_somebody_decided(own: str | None, expected: str) -> None:
    rest = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    code = "import os, embedx.probes; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    environment = rest | ({"THP_MEM_ALLOC_ENABLE": own} if own else {})
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [expected]
