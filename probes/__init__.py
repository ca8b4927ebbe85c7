"""Linear heads on frozen features, one public file each: `probes/group_balanced.py` holds the head `group-balanced`."""

import os

# Asks torch, which looks at it once, to take large tensors in large pages: the first touch of each small page took a
# quarter of a sweep's time where this was written.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
