"""What the study of MNIST-1D reads off its runs: which of the 1,000 test signals were right, clean and with a spike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.data.manifest import SPLITS
from embedx.evaluation.runs import unpack
from embedx.statistics import Interval, Pairs, effective_proportion, minimum
from embedx.statistics.intervals import normal_limit
from embedx.studies.outcome import CellRuns

if TYPE_CHECKING:
    import pandas as pd

SEED = "seed"
"""The option whose values are repetitions."""
CLEAN = "without"
"""The value of the attribute `spike` of clean signals."""


@dataclass(frozen=True)
class Gain:
    """What one reading has more than another, on the same clean signals, in fractions.

    interval  worst class minus worst class, p of "it is no gain"
    average   accuracy minus accuracy
    """

    interval: Interval
    p: float
    average: Interval


@dataclass(frozen=True, eq=False)
class Reading:
    """One head on one backbone, of one or several seeds.

    axes     {option: value} without the seed
    right    {value of `spike`: (n,) how often each test signal was right}, in the order of classes, within one of ids
    sizes    (k,) signals of each class
    seeds    how many there are
    """

    table: str
    axes: Mapping[str, Any]
    backbone: str
    head: str
    right: Mapping[str, np.ndarray]
    sizes: np.ndarray
    seeds: int = 1

    @property
    def average(self) -> Interval:
        """Accuracy on clean signals."""
        right = self.right[CLEAN]
        return effective_proportion(float(right.mean()), len(right), len(right))

    @property
    def worst_class(self) -> Interval:
        """Of the clean signals."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return minimum(np.add.reduceat(self.right[CLEAN], starts), self.sizes)

    def over(self, before: Reading) -> Gain:
        """What this has more than another reading.

        The worst class by `embedx.statistics.Pairs`, which pairs the signals and takes no order of the classes for
        granted; the average by the normal interval of the differences of the 1,000 signals.
        """
        pairs = Pairs.of(before.right[CLEAN], self.right[CLEAN], self.sizes)
        d = self.right[CLEAN] - before.right[CLEAN]
        half = normal_limit() * float(d.std(ddof=1)) / len(d) ** 0.5
        average = Interval(float(d.mean()), float(d.mean()) - half, float(d.mean()) + half, len(d))
        return Gain(pairs.difference(), float(pairs.p_values(0.0)[1]), average)


def readings(cells: Iterable[CellRuns], table: str) -> list[Reading]:
    """Every run of a table, those that differ only in their seed as one: of the mean over them."""
    found: dict[tuple[Any, ...], list[Reading]] = {}
    for cell in cells:
        if cell.table == table:
            for reading in _of_cell(cell):
                found.setdefault((*reading.axes.items(), reading.backbone, reading.head), []).append(reading)
    return [_mean(same) for same in found.values()]


def _of_cell(cell: CellRuns) -> list[Reading]:
    manifest = cell.manifest
    test = np.flatnonzero(manifest.splits == SPLITS.index("test"))
    groups = manifest.labels if manifest.groups is None else manifest.groups
    order = test[
        np.lexsort((test, groups[test]))
    ]  # of `Run.correct`: by group and then by id, which rows are sorted by
    spikes, labels = manifest.codes["spike"][order], manifest.labels[order]
    axes = {name: value for name, value in cell.axes.items() if name != SEED}
    made = []
    for run in cell.runs:
        correct, right = unpack(run.correct, len(order)).astype(float), {}
        for code, word in enumerate(manifest.values["spike"]):
            rows = np.flatnonzero(spikes == code)
            right[word] = correct[rows[np.lexsort((order[rows], labels[rows]))]]
        sizes = np.bincount(labels[spikes == 0])
        made.append(Reading(cell.table, axes, run.backbone, run.head, right, sizes))
    return made


def _mean(same: Sequence[Reading]) -> Reading:
    first = same[0]
    right = {word: np.mean([r.right[word] for r in same], axis=0) for word in first.right}
    return Reading(first.table, first.axes, first.backbone, first.head, right, first.sizes, len(same))


def frame_of(found: Sequence[Reading]) -> pd.DataFrame:
    """One row a reading: its axes, backbone and head, `average` and `worst_class` on clean signals with intervals."""
    import pandas as pd

    rows = []
    for reading in found:
        row: dict[str, Any] = {**reading.axes, "backbone": reading.backbone, "head": reading.head}
        for name in ("average", "worst_class"):
            figure: Interval = getattr(reading, name)
            row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high, f"{name}_n": figure.n}
        rows.append(row)
    return pd.DataFrame(rows)
