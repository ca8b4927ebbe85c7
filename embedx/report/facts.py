"""Everything else that is known of a result: parameters, further figures, seconds, and what all runs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from embedx.evaluation.runs import Run
from embedx.report.results import HeadResult
from embedx.report.text import mean_interval_n, tally

Facts = dict[str, dict[str, str]]
"""{title: {name: value}}"""


def details(result: HeadResult, shared: Mapping[str, Mapping[str, str]]) -> Facts:
    """Everything else of a result by heading, its seeds joined; facts that all runs of the page share are left out."""
    runs = result.runs

    def mean(of: Callable[[Run], float | None]) -> str:
        values = [x for run in runs if (x := of(run)) is not None]
        return f"{fmean(values):.4f}" if values else "–"

    gap = result.mean_of(lambda run: run.metrics.gap)
    balanced = result.mean_of(lambda run: run.metrics.balanced_accuracy)
    further = {
        f"validation score ({result.selection})": mean(lambda run: run.validation_score),
        "gap %": mean_interval_n(gap), "balanced accuracy %": mean_interval_n(balanced),
        "worst class": tally([run.metrics.worst_class_name for run in runs]),
        "log loss": mean(lambda run: run.metrics.log_loss), "calibration error": mean(lambda run: run.metrics.ece),
        "AUROC": mean(lambda run: run.metrics.auroc), "features": tally([run.dim for run in runs]),
        "seeds": ", ".join(str(run.seed) for run in runs), "head is fitted on": tally([run.fits_on for run in runs]),
    }  # fmt: skip
    if any(run.protocol for run in runs):
        further["validation"] = tally([run.protocol for run in runs])
    keys = dict.fromkeys(key for run in runs for key in run.parameters if key != "random_state")
    seconds = dict.fromkeys(key for run in runs for key in run.timings)
    facts = {
        "Parameters": {key: tally([run.parameters.get(key) for run in runs]) for key in keys},
        "Choice and further figures on test": further,
        "Seconds, all seeds": {key: f"{sum(run.timings.get(key, 0) for run in runs):.2f}" for key in seconds},
    }
    for title, values in common(runs).items():
        if own := {key: value for key, value in values.items() if shared.get(title, {}).get(key) != value}:
            facts[title] = own
    return facts


def common(runs: Sequence[Run]) -> Facts:
    """Rows, inputs and versions of the runs, where they are the same in all of them."""
    kinds: dict[str, Callable[[Run], Mapping[str, Any]]] = {
        "Rows": lambda run: run.rows, "Rows left out": lambda run: run.left_out,
        "Inputs": lambda run: run.inputs, "Versions": lambda run: run.versions,
    }  # fmt: skip
    facts = {}
    for title, of in kinds.items():
        values = {key: {str(of(run).get(key)) for run in runs} for key in of(runs[0])}
        facts[title] = {key: next(iter(v)) for key, v in values.items() if len(v) == 1}
    return facts
