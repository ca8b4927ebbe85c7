"""Datasets, one public file each: `read(root, ...)` returns a Manifest.

A dataset that generates its files offers `make(root)` as well; it then needs no --root.
"""
