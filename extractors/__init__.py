"""Frozen backbones, one public file per family; each offers `load(model, weights=None)` and `models()`.

What the author of a family needs is here, listed in `__init__.pyi` and imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
