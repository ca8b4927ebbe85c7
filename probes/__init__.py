"""Linear heads on frozen features, one public file each: `probes/group_balanced.py` holds the head `group-balanced`.

What the author of a head needs is here, listed in `__init__.pyi` and imported when it is first used.
"""

import os

import lazy_loader

# Asks torch, which looks at it once, to take large tensors in large pages: the first touch of each small page took a
# quarter of a sweep's time where this was written.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
