"""The Run: one head on one backbone, chosen on validation, reported on test. Tables and plots are views of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedx import __version__
from embedx.files import write_text
from embedx.metrics import GroupAccuracy, Interval, Metrics

FORMAT = "embedx-runs"
VERSION = 1


@dataclass(frozen=True)
class Run:
    """The result record.

    parameters      of the chosen head
    selection       rule that chose it on validation, `validation_score` its value there
    supervision     what was used beyond class labels, in words: "none", "group labels on train, to fit", ...
    configurations  how many heads were fitted and compared to choose this one
    converged       whether every solution reached its tolerance
    rows            {"train": n, "val": n, "test": n}; `left_out` the rows that could not be extracted
    inputs          {"manifest": digest, "weights": SHA-256}
    timings         seconds: fit, evaluate
    """

    dataset: str
    backbone: str
    dim: int
    head: str
    parameters: Mapping[str, Any]
    selection: str
    validation_score: float
    supervision: str
    configurations: int
    converged: bool
    seed: int
    rows: Mapping[str, int]
    left_out: Mapping[str, int]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    timings: Mapping[str, float]
    metrics: Metrics

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """The inverse of `to_dict`, also after JSON."""
        metrics = dict(values["metrics"])
        for key, value in metrics.items():
            if isinstance(value, Mapping):
                metrics[key] = Interval(**value)
        metrics["groups"] = tuple(GroupAccuracy(**g) for g in metrics["groups"])
        return cls(**{**values, "metrics": Metrics(**metrics)})


def save(runs: Sequence[Run], folder: Path) -> None:
    """Write `runs.json` (the records) and `runs.csv` (one line per run, flat), each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"format": FORMAT, "version": VERSION, "runs": [run.to_dict() for run in runs]}
    write_text(folder / "runs.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_text(folder / "runs.csv", table(runs).to_csv(index=False, lineterminator="\n"))


def load(file: Path) -> list[Run]:
    """Read `runs.json`. Raises `ValueError` for another format or version."""
    document = json.loads(file.read_text(encoding="utf-8"))
    if (document.get("format"), document.get("version")) != (FORMAT, VERSION):
        raise ValueError(
            f"{file}: expected {FORMAT} version {VERSION}, found {document.get('format')!r} {document.get('version')!r}"
        )
    return [Run.from_dict(r) for r in document["runs"]]


def table(runs: Sequence[Run]) -> Any:
    """The runs as a pandas DataFrame, one row each; nested values become dotted columns."""
    import pandas as pd

    rows = []
    for run in runs:
        values = run.to_dict()
        groups = values["metrics"].pop("groups")
        flat = pd.json_normalize(values).iloc[0].to_dict()
        flat |= {
            f"groups.{g['name']}.{key}": g[key] for g in groups for key in ("n", "correct", "accuracy", "low", "high")
        }
        rows.append(flat)
    return pd.DataFrame(rows)


def versions() -> dict[str, str]:
    """Versions of what the numbers of a head depend on."""
    import numpy
    import scipy
    import sklearn

    return {
        "embedx": __version__, "python": platform.python_version(), "numpy": numpy.__version__,
        "scipy": scipy.__version__, "scikit-learn": sklearn.__version__,
    }  # fmt: skip
