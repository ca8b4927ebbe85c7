"""embedx: is a good embedding enough? Frozen backbones, feature caches, linear heads, worst groups.

What a script needs is here, listed in `__init__.pyi` and imported when it is first used.
"""

import os

import lazy_loader

__version__ = "0.1.0"

for _name in ("extractors", "probes"):
    _place = os.path.join(os.path.dirname(__file__), _name)  # noqa: PTH118, PTH120 - pathlib takes longer than the rest
    if not os.path.isdir(_place):  # noqa: PTH112
        raise ImportError(
            f"{_place} is no folder, expected a link to ../{_name}: this copy was made without links. Install it with "
            f"`pip install .`, which needs none, or make the link: `ln -sfn ../{_name} {_place}`"
        )

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
