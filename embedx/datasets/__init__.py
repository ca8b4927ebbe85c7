"""Datasets, one public file each: `read(root, ...)` returns a Manifest.

A dataset that generates its files offers `make(root, ...)` as well, with the options that decide what is in them; it
then needs no --root.
"""
