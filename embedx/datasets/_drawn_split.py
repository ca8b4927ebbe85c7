"""Splits drawn here, where none is published: by subject and by content, never file by file.

Files of one subject, and files with the same bytes, are one unit and fall into one split: a head that has seen one of
them has seen the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from embedx.data.units import coded, units

AT_ONCE, STRETCH = 16, 256  # threads, as a shared disk takes its time to answer, and files that each takes in a row


def drawn(
    ids: Sequence[str],
    strata: Sequence[str],
    shares: Mapping[str, float],
    seed: str,
    same: Sequence[Sequence[Hashable | None]] = (),
) -> list[str]:
    """The split of every row (n,), the same for rows in any order.

    strata  (n,) within each the shares are kept, as nearly as whole units allow
    shares  {split: upper end}, in order: {"train": 0.7, "val": 0.8, "test": 1.0}
    seed    whole number; each stratum has its own stream, which the others do not disturb
    same    columns (n,) of keys: rows that share one, or are linked through rows that do, are a unit; None is shared
            by nobody

    A unit belongs to the stratum of most of its rows, the first of equals. The units of a stratum are put one after
    the other at random, and each goes to the split where its middle lies; a stratum of as many units as splits has one
    in each.
    """
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    members: dict[int, list[int]] = defaultdict(list)
    for i, unit in zip(order, units([coded([column[i] for i in order]) for column in same], len(ids)), strict=True):
        members[int(unit)].append(i)
    homes: dict[str, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        counts = Counter(strata[i] for i in rows)
        homes[min(counts, key=lambda s: (-counts[s], s))].append(rows)
    splits = [""] * len(ids)
    for stratum, groups in homes.items():
        ordered = [groups[turn] for turn in _stream(f"{int(seed)} {stratum}").permutation(len(groups))]
        for rows, split in zip(ordered, _cut([len(rows) for rows in ordered], shares), strict=True):
            for i in rows:
                splits[i] = split
    return splits


def contents(files: Sequence[Path]) -> list[str | None]:
    """A digest of each file's bytes, None where no other file is as long: what equals nothing need not be read.

    Files that are empty, gone or closed to us equal nothing either; other trouble is an `OSError`.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sizes = list(chain(*pool.map(_sizes, _stretches(files))))
        often = Counter(sizes)
        twins = [i for i, size in enumerate(sizes) if size and often[size] > 1]
        digests = chain(*pool.map(_digests, _stretches([files[i] for i in twins])))
        digest_of: dict[int, str | None] = dict(zip(twins, digests, strict=True))
    return [digest_of.get(i) for i in range(len(files))]


def _cut(sizes: Sequence[int], shares: Mapping[str, float]) -> list[str]:
    """The split of each unit of these sizes, in order."""
    ends, splits = np.cumsum(sizes), list(shares)
    middles = ends - np.array(sizes) / 2
    cuts = [int(np.count_nonzero(middles < round(end * int(ends[-1])))) for end in shares.values()]
    cuts[-1] = len(sizes)
    if len(sizes) >= len(splits):
        for k in range(len(cuts) - 1):
            least = cuts[k - 1] + 1 if k else 1
            cuts[k] = min(max(cuts[k], least), len(sizes) - (len(cuts) - 1 - k))
    return list(chain(*(repeat(s, b - a) for s, a, b in zip(splits, [0, *cuts], cuts, strict=False))))


def _stream(word: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little"))


def _stretches(files: Sequence[Path]) -> list[Sequence[Path]]:
    return [files[i : i + STRETCH] for i in range(0, len(files), STRETCH)]


def _sizes(files: Sequence[Path]) -> list[int]:
    sizes = []
    for file in files:
        try:
            sizes.append(file.stat().st_size)
        except (FileNotFoundError, PermissionError):
            sizes.append(0)
    return sizes


def _digests(files: Sequence[Path]) -> list[str | None]:
    digests: list[str | None] = []
    for file in files:
        try:
            with file.open("rb") as opened:
                digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
        except (FileNotFoundError, PermissionError):
            digests.append(None)
    return digests
