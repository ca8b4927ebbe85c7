"""MNIST-1D with a spurious spike: 5,000 signals of 40 numbers in ten classes, made here; training rows carry a cue.

The signals are those of the public generator at its defaults, bit for bit: 4,000 for training, 1,000 for test. A spike
is v added to the block of numbers that belongs to a class, v normal with deviation 1, truncated to v >= 0.

-O probability  0.9: so often has a training signal the spike of its own class
-O size         2: the mean of v, before it is truncated
-O block        4: numbers in a block; that of class c begins at block * c
-O retrain      0.25: clean signals for validation, as a share of 4,000, of each class alike; heads are fitted again
                and chosen on them. They come from the same generator with another seed, so that no head has seen them.
                minority: the training signals without a spike, which then are for validation and not for training
-O groups       spike: label x without, own or other, which in training is label x whether there is a spike;
                spike-class: label x the class whose spike there is; class: the classes alone
-O seed         0: of the spikes and of the signals for validation; the training and test signals stay

The test split has every test signal three times: clean (`spike` is without), aligned (own: with the spike of its own
class) and conflicting (other: with that of another class).
"""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from embedx.data.manifest import Manifest, build
from embedx.datasets._mnist1d import CLASSES, LENGTH, PUBLISHED, TRAIN, on_the_published_scale, signals
from embedx.errors import ManifestError
from embedx.files import landing
from embedx.plugins import nearest

RECIPE = "1"
"""Changes whenever a number of a row changes, so that features of older rows are never taken for these."""
MINORITY = "minority"
GROUPS = {"spike": ("spike",), "spike-class": ("spike_class",), "class": ("class",)}
DIGITS = tuple(map(str, range(CLASSES)))
WITHOUT, OWN, OTHER = "without", "own", "other"
CODE_OF = {"train": 0, "val": 1, "test": 2}
VERSIONS = ("clean", "aligned", "conflicting")


@dataclass(frozen=True)
class Recipe:
    """What decides the numbers of all rows; the options of `read`, as numbers. `retrain` None means the minority."""

    probability: float
    size: float
    block: int
    retrain: float | None
    seed: int

    @cached_property
    def archive(self) -> str:
        """The name of the file of all rows; other numbers have another name."""
        facts = (RECIPE, self.probability, self.size, self.block, self.retrain, self.seed)
        return f"signals-{hashlib.sha256(repr(facts).encode()).hexdigest()[:10]}.tar"


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows: names, signals x (n, 40), digits y (n,), and whose spike there is (n,), -1 where there is none."""

    names: list[str]
    x: np.ndarray
    y: np.ndarray
    spike: np.ndarray


def make(
    root: Path,
    probability: str = "0.9",
    size: str = "2",
    block: str = "4",
    retrain: str = "0.25",
    seed: str = "0",
) -> None:
    """Write all rows into one archive below `root`, unless it is there. Raises `ManifestError` for an option."""
    recipe = _recipe(probability, size, block, retrain, seed)
    if (root / recipe.archive).exists():
        return
    rows = _rows(recipe)
    root.mkdir(parents=True, exist_ok=True)
    with landing(root / recipe.archive) as temporary, temporary.open("wb") as file:
        for part in rows.values():
            for name, x in zip(part.names, part.x.astype("<f4"), strict=True):
                data = _npy(x)
                file.write(_member(name, len(data)).tobuf(tarfile.USTAR_FORMAT))
                file.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def read(
    root: Path,
    probability: str = "0.9",
    size: str = "2",
    block: str = "4",
    retrain: str = "0.25",
    groups: str = "spike",
    seed: str = "0",
) -> Manifest:
    """The manifest of all rows. Raises `ManifestError` for an option, or where the archive is gone."""
    if groups not in GROUPS:
        raise ManifestError(f"-O groups={groups}: {nearest(groups, GROUPS)}")
    recipe = _recipe(probability, size, block, retrain, seed)
    if not (root / recipe.archive).exists():
        raise ManifestError(f"{root} holds no {recipe.archive}; leave --root out, and the signals are made")
    columns: dict[str, list[str]] = {c: [] for c in ("id", "label", "split", "spike", "spike_class")}
    for split, part in _rows(recipe).items():
        columns["id"] += [f"{recipe.archive}/{name}" for name in part.names]
        columns["label"] += [DIGITS[c] for c in part.y]
        columns["split"] += [split] * len(part.y)
        whose = zip(part.spike, part.y, strict=True)
        columns["spike"] += [WITHOUT if spike < 0 else OWN if spike == own else OTHER for spike, own in whose]
        columns["spike_class"] += [WITHOUT if s < 0 else DIGITS[s] for s in part.spike]
    values = {"spike": (WITHOUT, OWN, OTHER), "spike_class": (WITHOUT, *DIGITS)}
    if groups == "class":
        columns["class"], values["class"] = columns["label"], DIGITS
    return build(
        "mnist1d", columns, classes=DIGITS, values=values, grouping=GROUPS[groups], version=RECIPE,
        root=str(root.resolve()), members=_index(columns["id"]), source="https://github.com/greydanus/mnist1d",
        licence="Apache-2.0",
    )  # fmt: skip


def training_rows(probability: float, size: float, block: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (4000, 40) float32 and y (4000,): the training split with these options, for networks that learn from it."""
    rows = _train(Recipe(probability, size, block, 0.25, seed))
    return rows.x.astype(np.float32), rows.y


def _recipe(probability: str, size: str, block: str, retrain: str, seed: str) -> Recipe:
    share = None if retrain == MINORITY else _number("retrain", retrain, 0.005, 1.0, " or minority")
    return Recipe(
        _number("probability", probability, 0.0, 1.0), _number("size", size, 0.0, 100.0),
        _whole("block", block, 1, LENGTH // CLASSES), share, _whole("seed", seed, 0, 2**31),
    )  # fmt: skip


def _number(option: str, word: str, least: float, most: float, more: str = "") -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise ManifestError(f"-O {option}={word}: expected a number from {least:g} to {most:g}{more}")
    return value


def _whole(option: str, word: str, least: int, most: int) -> int:
    if not (word.isascii() and word.isdecimal()) or not least <= int(word) <= most:
        raise ManifestError(f"-O {option}={word}: expected a whole number from {least} to {most:,}")
    return int(word)


def _rows(recipe: Recipe) -> dict[str, Rows]:
    train = _train(recipe)
    if recipe.retrain is not None:
        return {"train": train, "val": _fresh(recipe.retrain, recipe.seed), "test": _test(recipe)}
    clean = train.spike < 0
    for rows, why in ((clean, "no training signal is without"), (~clean, "no training signal is with")):
        if len(np.unique(train.y[rows])) < CLASSES or np.bincount(train.y[rows]).min() < 2:
            raise ManifestError(
                f"-O retrain=minority: with -O probability={recipe.probability:g} {why} a spike in some class, or only "
                "one; take a probability farther from 0 and 1, or a share as retrain"
            )
    return {"train": _taken(train, ~clean, "train"), "val": _taken(train, clean, "val"), "test": _test(recipe)}


def _taken(rows: Rows, which: np.ndarray, split: str) -> Rows:
    at = np.flatnonzero(which)
    names = [f"{split}/{rows.names[i].partition('/')[2]}" for i in at]
    return Rows(names, rows.x[at], rows.y[at], rows.spike[at])


def _train(recipe: Recipe) -> Rows:
    x, y = signals().x[:TRAIN], signals().y[:TRAIN]
    rng = np.random.default_rng((recipe.seed, CODE_OF["train"]))
    # One uniform number decides whether, another how large: with a higher probability the same signals have a spike
    # and some more, and with a larger size all spikes are larger.
    spike = np.where(rng.random(len(y)) < recipe.probability, y, -1)
    return _spiked("train", "", x, y, spike, recipe, rng.random(len(y)))


def _fresh(share: float, seed: int) -> Rows:
    """As many of each class, the first ones in the random order of the generator."""
    source = signals(PUBLISHED + 1 + seed)
    of_class = round(share * TRAIN / CLASSES)
    at = np.sort(np.concatenate([np.flatnonzero(source.y == c)[:of_class] for c in range(CLASSES)]))
    return Rows(_names("val", source.y[at]), on_the_published_scale(source)[at], source.y[at], np.full(len(at), -1))


def _test(recipe: Recipe) -> Rows:
    x, y = signals().x[TRAIN:], signals().y[TRAIN:]
    rng = np.random.default_rng((recipe.seed, CODE_OF["test"]))
    height, other = rng.random(len(y)), (y + rng.integers(1, CLASSES, len(y))) % CLASSES
    parts = [
        _spiked("test", f"-{version}", x, y, spike, recipe, height)
        for version, spike in zip(VERSIONS, (np.full(len(y), -1), y, other), strict=True)
    ]
    names = [name for part in parts for name in part.names]
    return Rows(names, *(np.concatenate([getattr(p, field) for p in parts]) for field in ("x", "y", "spike")))


def _spiked(
    split: str, version: str, x: np.ndarray, y: np.ndarray, spike: np.ndarray, recipe: Recipe, u: np.ndarray
) -> Rows:
    """v at the block of `spike`, by u (n,) uniform in 0..1: the quantile of a normal that is truncated to v >= 0."""
    v = recipe.size - ndtri((1 - u) * ndtr(recipe.size))
    x = x.copy()
    for i in np.flatnonzero(spike >= 0):
        start = recipe.block * int(spike[i])
        x[i, start : start + recipe.block] += v[i]
    return Rows(_names(split, y, version), x, y, spike)


def _names(split: str, y: np.ndarray, version: str = "") -> list[str]:
    return [f"{split}/{i:04d}-{c}{version}.npy" for i, c in enumerate(y)]


def _npy(x: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, x, allow_pickle=False)
    return stream.getvalue()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _index(ids: list[str]) -> np.ndarray:
    """Where each row lies in the archive: all are as large, one behind the other, each behind a block of its name."""
    size, keys = len(_npy(np.zeros(LENGTH, "<f4"))), [i.encode() for i in ids]
    step = tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
    table = np.empty(len(ids), dtype=[("id", f"S{max(map(len, keys))}"), ("offset", "<i8"), ("size", "<i8")])
    table["id"], table["size"] = keys, size
    table["offset"] = np.arange(len(ids)) * step + tarfile.BLOCKSIZE
    return table[np.argsort(table["id"], kind="stable")]
