"""Equal values are made once; equality goes by content, whoever built the arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Memory = dict[Hashable, Any]
"""What was made on some rows, by what decides it; a key begins with the name of what it is of."""


def once(keys: Sequence[Hashable], make: Callable[[int], T]) -> tuple[list[T], list[int]]:
    """(values, at): make(i) for every distinct key, i the first place that has it; values[at[i]] is that of keys[i]."""
    places: dict[Hashable, int] = {}
    values: list[T] = []
    at: list[int] = []
    for i, key in enumerate(keys):
        if key not in places:
            places[key] = len(values)
            values.append(make(i))
        at.append(places[key])
    return values, at


def recalled(memory: Memory, keys: Sequence[Hashable], make: Callable[[list[int]], Sequence[T]]) -> list[T]:
    """The values of distinct keys: those in the memory, and those of make(places), which then are kept there.

    make  the values of the keys at some places, all made together
    """
    lacking = [i for i, key in enumerate(keys) if key not in memory]
    if lacking:
        memory |= zip((keys[i] for i in lacking), make(lacking), strict=True)
    return [memory[key] for key in keys]


def distinct(arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """(arrays, at): those of equal content once, in the order in which they first occur."""
    return once([content(a) for a in arrays], lambda i: arrays[i])


def content(*arrays: np.ndarray | None) -> bytes:
    """A digest of types, shapes and numbers: equal for equal arrays, in whatever memory they lie."""
    digest = hashlib.blake2b(digest_size=32)
    for a in arrays:
        digest.update(b"none" if a is None else f"{a.dtype.str} {a.shape} ".encode())
        if a is not None:
            digest.update(np.ascontiguousarray(a).data)
    return digest.digest()
