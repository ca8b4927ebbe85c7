"""Frozen backbones, one public file per family; each offers `load(model, weights=None)` and `models()`."""
