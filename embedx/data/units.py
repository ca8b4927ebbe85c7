"""Rows that belong together: they share a subject or a content, directly or through other rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def units(columns: Sequence[np.ndarray], n: int) -> np.ndarray:
    """(n,) the unit of every row, numbered from 0 by its first row.

    columns  integer codes (n,) each; rows of one code, not negative, are of one unit, and so is what they link
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [np.empty((2, 0), dtype=np.int64)]
    for codes in columns:
        order = np.argsort(codes, kind="stable")
        neighbours = np.flatnonzero((codes[order[1:]] == codes[order[:-1]]) & (codes[order[1:]] >= 0))
        links.append(np.array([order[neighbours], order[neighbours + 1]]))
    a, b = np.concatenate(links, axis=1)
    component = connected_components(coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(n, n)), directed=False)[1]
    _, first, unit = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[unit]


def coded(keys: Sequence[Hashable | None]) -> np.ndarray:
    """(n,) one code for every key, -1 for None, which nothing shares."""
    code_of: dict[Hashable, int] = {}
    return np.array([-1 if key is None else code_of.setdefault(key, len(code_of)) for key in keys], dtype=np.int64)
