"""The Run: one head on one backbone, chosen on validation, reported on test. Tables and plots are views of it."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedx import __version__
from embedx.files import write_text
from embedx.metrics import GroupAccuracy, Interval, Metrics, dependence
from embedx.select import in_words

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
    timings         seconds, each run's share of what was computed for all seeds at once: fit, evaluate
    correct         which test rows were right, in the order of groups and within one of ids: `pack`, `unpack`
    needs           what the head needs beyond X and y: "groups", "held_out groups", ...; `fits_on` the split it is
                    fitted on, "train" or "val"
    protocol        how validation was divided where it does more than choose, in words
    validation_worst_group  worst group of the chosen head on the rows that chose it; None without groups
    attributes      {attribute: balanced accuracy of a plain head fitted to tell it}, where that was asked for
    shared_images   {"train/test": n, ...} images of one split that are in another one as well; `shared_subjects` those
                    that show a subject of another one. `dropped` {"train": n, "val": n} rows that were left out so that
                    there is neither, where that was asked for
    cluster         column that names the subjects, where there is one; `subjects` {"train": n, "val": n, "test": n}
    barely_seen     {class or group: rows that chose}, of those of which no row or hardly any chose
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
    correct: str = ""
    needs: tuple[str, ...] = ()
    fits_on: str = "train"
    protocol: str = ""
    validation_worst_group: float | None = None
    attributes: Mapping[str, Interval] = field(default_factory=dict)
    shared_images: Mapping[str, int] = field(default_factory=dict)
    shared_subjects: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    cluster: str = ""
    subjects: Mapping[str, int] = field(default_factory=dict)
    barely_seen: Mapping[str, int] = field(default_factory=dict)

    @property
    def dependence(self) -> str:
        """That test rows are no independent draws, in words, where subjects are repeated."""
        return dependence(self.cluster, self.rows["test"], self.subjects["test"]) if self.cluster else ""

    @property
    def uses_groups(self) -> bool:
        """Whether any group label went into it, to fit, to steer or to choose."""
        return "group labels" in self.supervision or any("groups" in need for need in self.needs)

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
        attributes = {name: Interval(**value) for name, value in values.get("attributes", {}).items()}
        changed = {"metrics": Metrics(**metrics), "attributes": attributes, "needs": tuple(values.get("needs", ()))}
        return cls(**{**values, **changed})


def cautions(runs: Sequence[Run]) -> list[str]:
    """What to know of all these figures, a sentence each: classes that no row chose for, repeated subjects."""
    found = [line for run in runs for line in in_words(run.selection, run.barely_seen)]
    return list(dict.fromkeys([*found, *(run.dependence for run in runs if run.dependence)]))


def pack(hits: np.ndarray) -> str:
    """(n,) right or wrong as text: eight rows a byte, the first in the highest bit, in base64."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode()


def unpack(correct: str, n: int) -> np.ndarray:
    """The inverse of `pack`: (n,) bool."""
    return np.unpackbits(np.frombuffer(base64.b64decode(correct), np.uint8), count=n).astype(bool)


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
        del values["correct"]
        groups = values["metrics"].pop("groups")
        flat = pd.json_normalize(values).iloc[0].to_dict()
        flat |= {
            f"groups.{g['name']}.{key}": g[key] for g in groups for key in ("n", "correct", "accuracy", "low", "high")
        }
        rows.append(flat)
    return pd.DataFrame(rows)


def versions() -> dict[str, str]:
    """Versions of what the numbers of a head depend on."""
    import scipy
    import sklearn
    import torch

    return {
        "embedx": __version__, "python": platform.python_version(), "numpy": np.__version__,
        "scipy": scipy.__version__, "scikit-learn": sklearn.__version__, "torch": str(torch.__version__),
    }  # fmt: skip
