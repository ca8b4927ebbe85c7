"""embedx: is a good embedding enough? Frozen backbones, feature caches, linear heads, worst groups."""

__version__ = "0.1.0"
