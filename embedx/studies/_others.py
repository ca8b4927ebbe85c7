"""Our runs on MNIST-1D beside the figures of others: the article's network, and random convolutions made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedx.report.text import signed
from embedx.statistics import Interval
from embedx.studies._signals import Reading, readings
from embedx.studies.outcome import Outcome, Section

REFERENCE = "reference"


@dataclass(frozen=True)
class Figure:
    """Somebody's accuracy and worst class in percent, on the clean test signals.

    whose    where it is from; a run with other kernels or other draws than ours
    backbone as ours is called, without the seed of its kernels; probability of a spike in training; head
    """

    whose: str
    backbone: str
    probability: float
    head: str
    average: float
    worst_class: float


ARTICLE, ELSEWHERE = "Quinn 2025, one network of three layers", "1,000 kernels in another implementation, one run"
FIGURES = (
    Figure(ARTICLE, "cnn1d:p0", 0.0, "plain", 96.0, 90.0),
    Figure(ARTICLE, "cnn1d:p0.9", 0.9, "plain", 65.0, 44.0),
    Figure(ELSEWHERE, "rocket:1000", 0.0, "plain", 96.7, 93.1),
    Figure(ELSEWHERE, "rocket:1000", 0.9, "plain", 89.1, 78.7),
    Figure(ELSEWHERE, "rocket:1000", 0.9, "reweighted", 90.7, 83.3),
    Figure(ELSEWHERE, "rocket:1000", 0.9, "dfr", 94.6, 85.8),
)


def beside_others(outcome: Outcome) -> Section:
    """Each figure beside ours, its difference, and whether it lies in our interval."""
    import pandas as pd

    found, rows, inside = readings(outcome.cells, REFERENCE), [], []
    for figure in FIGURES:
        same = [r for r in found if _is_of(r, figure)]
        if not same:
            continue
        row: dict[str, object] = {
            "figures of": figure.whose, "backbone": figure.backbone, "spikes in %": 100 * figure.probability,
            "head": figure.head, "draws": len(same),
        }  # fmt: skip
        for name, theirs, ours in (
            ("average", figure.average, _pooled([r.average for r in same])),
            ("worst class", figure.worst_class, _pooled([r.worst_class for r in same])),
        ):
            inside.append(100 * ours.low <= theirs <= 100 * ours.high)
            row |= {
                f"{name}, theirs %": theirs,
                f"{name}, ours %": f"{100 * ours.value:.1f} ({100 * ours.low:.1f}–{100 * ours.high:.1f}, n = {ours.n})",
                f"{name}, ours minus theirs": signed(ours.value - theirs / 100),
                f"{name} within": "yes" if inside[-1] else "no",
            }
        rows.append(row)
    return Section(
        "Are these the figures that others found?",
        f"Of {len(inside)} figures of others {sum(inside)} lie in our intervals. Theirs are of one network or one draw "
        "of kernels each, and have no interval of their own.",
        "95 % interval of ours over the 1,000 clean test signals; of several draws of kernels, from the lowest to the "
        "highest limit", (),
        (("Beside the figures of others", pd.DataFrame(rows)),),
    )  # fmt: skip


def _is_of(reading: Reading, figure: Figure) -> bool:
    backbone = reading.backbone.partition("-seed")[0]
    return (backbone, reading.axes["probability"], reading.head) == (figure.backbone, figure.probability, figure.head)


def _pooled(intervals: Sequence[Interval]) -> Interval:
    """The mean, from the lowest to the highest limit of any."""
    value = float(np.mean([i.value for i in intervals]))
    lowest = min(intervals, key=lambda i: i.low)
    return Interval(value, lowest.low, max(i.high for i in intervals), lowest.n)
