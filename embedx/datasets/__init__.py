"""Datasets, one public file each: `read(root, ...)` returns a Manifest; `make(root)`, where there is one, generates the files."""
