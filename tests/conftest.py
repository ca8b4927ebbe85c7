"""Every test has the same surroundings, whoever starts it and where, and hypothesis draws the same examples.

Of the caller's environment stays what the machine needs. Settings of make, Python, pip, matplotlib, Ray, Hugging Face
and the like, proxies, the width and the colours of a terminal do not reach a test, and its home is an empty folder.
"""

import atexit
import os
import re
import shutil
import sys
import tempfile
import time

from hypothesis import HealthCheck, settings

KEPT = re.compile(
    r"PATH|USER|LOGNAME|TMPDIR|TE?MP|CC|CXX|CI|SYSTEMROOT|EMBEDX_KILLS|EMBEDX_SCREENSHOTS|"
    r"(LD|DYLD|CUDA|NVIDIA|OMP|MKL|OPENBLAS|PYTEST|COVERAGE|CONDA)_\w+"
)


def same_everywhere() -> None:
    foreign = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder for folder in sys.path if folder not in foreign]
    worker = "PYTEST_XDIST_WORKER" in os.environ  # has its surroundings from the process that started it
    workspace = os.environ["HOME"] if worker else tempfile.mkdtemp(prefix="home-")
    if not worker:
        atexit.register(shutil.rmtree, workspace, ignore_errors=True)
    for name in [name for name in os.environ if not KEPT.fullmatch(name)]:
        del os.environ[name]
    os.environ |= {"HOME": workspace, "LC_ALL": "C.UTF-8", "TZ": "UTC", "COLUMNS": "80"}
    if hasattr(time, "tzset"):
        time.tzset()


same_everywhere()
# No example is too slow: a busy machine is no fault.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")
