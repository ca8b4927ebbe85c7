"""Runs as a table of data: a pandas DataFrame, one row a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from embedx.evaluation.runs import Run


def runs_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """The runs as a pandas DataFrame, one row each: what `runs.csv` holds.

    Nested values become dotted columns, `metrics.worst_group.value` and `groups.waterbird/land.accuracy`; accuracies
    are fractions. Which test rows were right (`Run.correct`, `Run.by_rule`) is left out.
    """
    import pandas as pd

    from embedx.probes import supervision_in_words

    rows = []
    for run in runs:
        values = asdict(run)
        del values["correct"], values["by_rule"]
        for key in [key for key, value in (values["inferred"] or {}).items() if value is None]:
            del values["inferred"][key]  # which would be a column beside those of its figures
        if not values["inferred"]:
            del values["inferred"]
        values["supervision"] = supervision_in_words(run.supervision)
        groups = values["metrics"].pop("groups")
        row = pd.json_normalize(values).iloc[0].to_dict()
        row |= {
            f"groups.{group['name']}.{key}": group[key]
            for group in groups
            for key in ("n", "correct", "accuracy", "low", "high")
        }
        rows.append(row)
    return pd.DataFrame(rows)
