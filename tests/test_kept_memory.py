"""Memory during a pass on a processor: kept from layer to layer, returned at its end."""

import json
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, torch
from embedx.extract.encoding import kept_memory

def touched(times=10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(16 << 20).fill_(0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

fresh = touched()
with kept_memory("cuda:0"):
    elsewhere = touched()
empty = resident()
with kept_memory("cpu"):
    warm, kept, full = touched(30), touched(), resident()
print(json.dumps([fresh, elsewhere, kept, full - empty, resident() - empty, touched()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left alone")
def test_a_pass_keeps_its_memory_and_then_returns_it():
    """64 MiB taken ten times: fresh pages outside and for another device, none within once the heap has settled."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    fresh, elsewhere, kept, held, left, afterwards = json.loads(done.stdout)
    assert min(fresh, elsewhere, afterwards) > 100
    assert kept < fresh / 10
    assert held > 60e6
    assert left < 4e6
