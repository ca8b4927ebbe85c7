"""The runs of all cells of a study as one table of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from embedx.evaluation.frame import runs_frame
from embedx.evaluation.runs import Run
from embedx.studies.outcome import CellRuns
from embedx.studies.study import Study

if TYPE_CHECKING:
    import pandas as pd

FIGURES = ("average", "adjusted_average", "worst_group", "worst_class", "balanced_accuracy", "gap")
"""The figures of test that have an interval."""
MEASURES = ("log_loss", "ece", "auroc")
"""Those that have none."""
NAMES = ("worst_group_name", "worst_class_name")
SEED = "seed"
"""The axis whose values are repetitions: of the data, as a run's own is of its head."""
PARTS = ("low", "high", "n")
TAKEN = frozenset(
    {f.name for f in fields(Run)}
    | {"table", *FIGURES, *MEASURES, *NAMES, *(f"{name}_{part}" for name in FIGURES for part in PARTS)}
)


def column_of(axis: str) -> str:
    """The column of an axis: its name, or `data.NAME` where a run has a column of that name."""
    return f"data.{axis}" if axis in TAKEN else axis


def frame_of(study: Study, cells: Sequence[CellRuns]) -> pd.DataFrame:
    """One row a run, as `Outcome.frame` says."""
    import pandas as pd

    parts = []
    for cell in cells:
        runs = runs_frame(cell.runs)
        axes = {column_of(axis): value for axis, value in cell.axes.items()}
        told = pd.DataFrame({"table": cell.table, **axes}, index=runs.index)
        for axis in study.axes:
            if (column := column_of(axis)) not in told:
                asked = runs["head"].str.contains(f" {axis}=", regex=False)
                told[column] = runs[f"parameters.{axis}"].where(asked) if asked.any() else None
        for name in FIGURES:
            told[name] = runs[f"metrics.{name}.value"]
            for part in PARTS:
                told[f"{name}_{part}"] = runs[f"metrics.{name}.{part}"]
        for name in (*MEASURES, *NAMES):
            told[name] = runs[f"metrics.{name}"]
        parts.append(pd.concat([told, runs], axis=1))
    return pd.concat(parts, ignore_index=True)
