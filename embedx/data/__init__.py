"""Datasets as tables of rows: the manifest, how it comes to be, where the bytes of a row lie, and what is wrong."""
